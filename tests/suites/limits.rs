//! Limits: what one client may use, and what it is told above.

use std::time::Duration;

use streamgate_e2e::{
    events::{extended, frame, live, publish, publish_with, text, v1},
    gateway::TestNode,
    raw::{RawClient, Via},
};
use streamgate_proto::v1::{
    PublishOptions, Subscribe, inbound_message::Envelope as In, outbound_message::Envelope as Out,
};

#[tokio::test]
async fn one_subscription_too_many_closes_with_3505() {
    let node = TestNode::start("limits: {subscriptions_per_client: 3}").await;
    for via in Via::ALL {
        let mut client = RawClient::connect_v1(node.addrs(), via).await;
        client.subscribe([live("a"), live("b"), live("c")]).await;
        client.subscribe([live("a"), live("b")]).await;
        client.unsubscribe("a").await;
        client.subscribe_to("d").await;
        client.send(frame(In::Subscribe(Subscribe { subscriptions: vec![live("e")] }))).await;
        assert_eq!(client.close_code().await, 3505, "{via:?}");
        let mut client = RawClient::open(node.addrs(), via).await;
        let four = ["a", "b", "c", "d"].map(live);
        client.send(frame(In::Connect(v1(four)))).await;
        assert_eq!(client.close_code().await, 3505, "{via:?}: inside connect, too");
    }
}

#[tokio::test]
async fn publishes_above_the_rate_get_rate_limited_until_time_has_passed() {
    let node = TestNode::start("limits: {publishes_per_second: 20}").await;
    for via in Via::ALL {
        let mut client = RawClient::connect_v1(node.addrs(), via).await;
        let (mut acked, mut refused) = (0, 0);
        for n in 0..60 {
            let answer = client.request(publish("rate", text(&n.to_string(), ""))).await;
            match answer.envelope {
                Some(Out::PublishAck(_)) => acked += 1,
                Some(Out::Error(error)) if error.code == "RATE_LIMITED" => refused += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(acked >= 20 && refused > 0, "{via:?}: {acked} acked, {refused} refused");
        let again = async {
            while client
                .request(publish("rate", text("again", "")))
                .await
                .envelope
                .is_some_and(|e| !matches!(e, Out::PublishAck(_)))
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        streamgate_e2e::within("the next publish", again).await;
        // One client's rate is no other's.
        RawClient::connect_v1(node.addrs(), via).await.publish("rate", text("other", "")).await;
    }
}

#[tokio::test]
async fn new_channels_above_the_limit_get_rate_limited_and_known_ones_go_on() {
    let node = TestNode::start("limits: {new_channels_per_minute: 3}").await;
    for via in Via::ALL {
        let mut client = RawClient::connect_v1(node.addrs(), via).await;
        client.publish("new.1", text("1", "")).await;
        client.subscribe([live("new.2"), live("new.3")]).await;
        let error = client.refused(publish("new.4", text("2", ""))).await;
        assert_eq!((error.code.as_str(), error.r#type.as_str()), ("RATE_LIMITED", "limit_error"), "{via:?}");
        let batch = Subscribe { subscriptions: vec![live("new.1"), live("new.5")] };
        assert_eq!(client.refused(frame(In::Subscribe(batch))).await.code, "RATE_LIMITED", "{via:?}");
        for known in ["new.1", "new.2", "new.3"] {
            client.publish(known, text("3", "")).await;
        }
    }
}

#[tokio::test]
async fn a_full_memory_broker_refuses_with_memory_limit_and_everything_goes_on() {
    let yaml = "{broker: {memory: {max_bytes: 1MiB}}, limits: {frame_bytes: 4MiB, write_queue_bytes: 8MiB}, channels: [{pattern: '**', max_message_size: 4MiB}]}";
    let node = TestNode::start(yaml).await;
    for via in Via::ALL {
        let mut client = RawClient::connect(node.addrs(), via).await;
        client.subscribe_to("full").await;
        let huge = text("1", &"x".repeat(1_500_000));
        let error = client.refused(publish("full", huge.clone())).await;
        assert_eq!((error.code.as_str(), error.r#type.as_str()), ("MEMORY_LIMIT", "limit_error"), "{via:?}");
        client.publish("full", text("2", "small")).await;
        let options = PublishOptions { transient: true, ..PublishOptions::default() };
        client.publish_frame(publish_with("full", huge, options)).await;
        assert_eq!(client.texts(1).await, ["small"], "{via:?}");
        assert_eq!(client.texts(1).await[0].len(), 1_500_000, "{via:?}: what is not kept needs no memory");
    }
}

#[tokio::test]
async fn history_in_memory_gives_way_to_what_is_new() {
    let node = TestNode::start("broker: {memory: {max_bytes: 1MiB}}").await;
    let mut client = RawClient::connect(node.addrs(), Via::WsProto).await;
    let data = "x".repeat(32 * 1024);
    let first = client.publish("evicted", text("0", &data)).await.position.unwrap();
    for n in 1..100 {
        client.publish("evicted", text(&n.to_string(), &data)).await;
    }
    let page = client.history(streamgate_e2e::events::history("evicted", 0)).await;
    assert_eq!(page.position.unwrap().offset, 100);
    let mut client = RawClient::connect_as(
        node.addrs(),
        Via::WsProto,
        extended([streamgate_e2e::events::recover("evicted", first)]),
    )
    .await;
    let (replays, complete) = client.recovered().await;
    assert_eq!(complete.gap_reason, "HEAD_TRIMMED");
    let offsets: Vec<_> = replays.iter().map(|message| message.offset).collect();
    let kept = offsets.len() as u64;
    assert!((10..=32).contains(&kept), "{kept}");
    assert_eq!(offsets, (101 - kept..=100).collect::<Vec<_>>());
}

#[tokio::test]
async fn limits_and_policies_change_while_running() {
    let mut node = TestNode::start("").await;
    let mut client = RawClient::connect(node.addrs(), Via::WsJson).await;
    client.subscribe([live("a"), live("b")]).await;
    let large = text("1", &"x".repeat(2_000));
    client.publish("a", large.clone()).await;
    node.reload("{limits: {subscriptions_per_client: 2}, channels: [{pattern: a, max_message_size: 1KiB}]}");
    assert_eq!(client.refused(publish("a", large)).await.code, "TOO_LARGE");
    client.send(frame(In::Subscribe(Subscribe { subscriptions: vec![live("c")] }))).await;
    assert_eq!(client.close_code().await, 3505);
}
