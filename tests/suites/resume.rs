//! Resume tokens: what they bring back, and what a wrong one does not.

use std::time::Duration;

use streamgate_e2e::{
    events::{extended, live, text},
    gateway::TestNode,
    process::GatewayProcess,
    raw::{RawClient, Via},
};
use streamgate_proto::v1::{Connect, Subscription};

fn resuming(token: &str) -> Connect {
    Connect { resume_token: token.into(), ..extended([]) }
}

#[tokio::test]
async fn a_token_brings_the_subscriptions_back_under_the_same_session() {
    let node = TestNode::start("").await;
    for via in Via::ALL {
        let mut client = RawClient::connect(node.addrs(), via).await;
        assert!(!client.connected.resumed && !client.connected.resume_token.is_empty());
        let hidden = Subscription { ephemeral: true, ..live("back.hidden") };
        client.subscribe([live("back.a"), live("back.*"), live("back.left"), hidden]).await;
        client.unsubscribe("back.left").await;
        let before = client.connected.clone();
        client.close().await;

        let mut client = RawClient::connect_as(node.addrs(), via, resuming(&before.resume_token)).await;
        assert!(client.connected.resumed, "{via:?}");
        assert_eq!(client.connected.session_id, before.session_id, "{via:?}");
        let mut names: Vec<_> =
            client.connected.subscriptions.iter().map(|one| (one.channel.as_str(), one.ephemeral)).collect();
        names.sort_unstable();
        assert_eq!(names, [("back.*", false), ("back.a", false), ("back.hidden", true)], "{via:?}");
        client.publish("back.a", text("1", "again")).await;
        assert_eq!(client.texts(1).await, ["again"], "{via:?}");
        client.close().await;
    }
}

#[tokio::test]
async fn a_token_works_again_and_knows_what_was_subscribed_last() {
    let node = TestNode::start("").await;
    let mut client = RawClient::connect(node.addrs(), Via::WsProto).await;
    for channel in ["one", "two", "three"] {
        client.subscribe_to(channel).await;
        let token = client.connected.resume_token.clone();
        client.close().await;
        client = RawClient::connect_as(node.addrs(), Via::WsProto, resuming(&token)).await;
        assert!(client.connected.resumed);
    }
    assert_eq!(client.connected.subscriptions.len(), 3);
}

#[tokio::test]
async fn a_wrong_token_gives_a_new_session_and_nothing_of_the_old() {
    let node = TestNode::start("").await;
    let mut client = RawClient::connect(node.addrs(), Via::WsJson).await;
    client.subscribe_to("mine").await;
    let token = client.connected.resume_token.clone();
    let session = client.connected.session_id.clone();
    client.close().await;
    let (id, secret) = token.split_once('.').unwrap();
    let other = uuid::Uuid::new_v4();
    let wrong = [
        format!("{id}.{}", "A".repeat(secret.len())),
        format!("{id}.{}", &secret[1..]),
        format!("{id}."),
        id.to_owned(),
        format!("{other}.{secret}"),
        "garbled".into(),
        "..".into(),
        "\u{0}\u{1f600}.".repeat(1_000),
    ];
    for token in wrong {
        for via in Via::ALL {
            let mut client = RawClient::connect_as(node.addrs(), via, resuming(&token)).await;
            assert!(!client.connected.resumed, "{token:?}");
            assert_ne!(client.connected.session_id, session, "{token:?}");
            assert!(client.connected.subscriptions.is_empty(), "{token:?}");
            assert_ne!(client.connected.resume_token, token);
            client.quiet().await;
        }
    }
    let client = RawClient::connect_as(node.addrs(), Via::WsJson, resuming(&token)).await;
    assert!(client.connected.resumed, "the guesses took nothing from who has the token");
}

#[tokio::test]
async fn an_expired_token_gives_a_new_session() {
    let node = TestNode::start("limits: {resume_window: 1s}").await;
    let mut client = RawClient::connect(node.addrs(), Via::WsJson).await;
    client.subscribe_to("late").await;
    let token = client.connected.resume_token.clone();
    client.close().await;
    // Time itself is the event.
    tokio::time::sleep(Duration::from_millis(1_700)).await;
    let client = RawClient::connect_as(node.addrs(), Via::WsJson, resuming(&token)).await;
    assert!(!client.connected.resumed && client.connected.subscriptions.is_empty());
}

#[tokio::test]
async fn a_v1_client_gets_no_token_and_its_token_field_is_ignored() {
    let node = TestNode::start("").await;
    let mut client = RawClient::connect(node.addrs(), Via::WsJson).await;
    client.subscribe_to("v2").await;
    let token = client.connected.resume_token.clone();
    let connect = Connect { caps: Vec::new(), ..resuming(&token) };
    let client = RawClient::connect_as(node.addrs(), Via::WsProto, connect).await;
    assert!(client.connected.subscriptions.is_empty() && client.connected.resume_token.is_empty());
}

#[tokio::test]
async fn no_log_shows_a_token_or_a_payload_at_any_level() {
    let gateway = GatewayProcess::start("log: {level: trace}").await;
    let secret = "s3cret-of-the-user";
    let connect = Connect { token: secret.into(), ..extended([live("logged")]) };
    let mut client = RawClient::connect_as(gateway.addrs(), Via::WsJson, connect).await;
    let token = client.connected.resume_token.clone();
    client.publish("logged", text("1", "the-payload-itself")).await;
    client.message().await;
    client.close().await;
    let mut client = RawClient::connect_as(gateway.addrs(), Via::Grpc, resuming(&token)).await;
    assert!(client.connected.resumed);
    client.send_raw("not a frame, the-payload-itself").await;
    client.frame().await;
    gateway.sigterm();
    gateway.logged("the end", |line| line.contains("stopped")).await;
    let log = gateway.log_text();
    let (_, resume_secret) = token.split_once('.').unwrap();
    for hidden in [secret, resume_secret, "the-payload-itself"] {
        assert!(!log.contains(hidden), "{hidden} is in the log:\n{log}");
    }
}
