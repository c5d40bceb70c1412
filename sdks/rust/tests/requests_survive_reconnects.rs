//! Requests are answered once, with what is known about their outcome.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should panic")]

mod fake;

use std::time::Duration;

use fake::{Server, extended, live_at, named, next};
use streamgate_client::{
    CallOptions, Client, CloudEvent, CloudEventBuilder, Error, PublishOptions, Status,
    proto::v1::{
        Connected, HistoryResponse, Pong, Reconnect, inbound_message::Envelope as In,
        outbound_message::Envelope as Out,
    },
};

fn event() -> CloudEvent {
    CloudEventBuilder::new("test").text("x").build()
}

fn key(frame: &streamgate_client::proto::v1::InboundMessage) -> String {
    frame.publish_options.clone().unwrap().idempotency_key
}

#[tokio::test]
async fn a_publish_is_retried_with_its_key_until_it_is_acknowledged() {
    let server = Server::start().await;
    let client = server.client();
    let (mut peer, _) = server.welcome().await;
    let one = client.publish("a", event(), PublishOptions::default());
    let two = client.publish("a", event(), PublishOptions::default());
    let (_, first) = peer.publish().await;
    let (_, second) = peer.publish().await;
    assert!(!key(&first).is_empty() && key(&first) != key(&second));
    drop(peer);
    let (mut peer, _) = server.welcome().await;
    let (one_id, again) = peer.publish().await;
    assert_eq!((key(&again), &again.envelope), (key(&first), &first.envelope));
    let (two_id, again) = peer.publish().await;
    assert_eq!(key(&again), key(&second));
    peer.ack(&two_id, "7:2").await;
    // The server cannot do it now: it is asked again, by and by.
    peer.refuse(&one_id, "NOT_AVAILABLE").await;
    let (id, again) = peer.publish().await;
    assert_eq!((id.as_str(), key(&again)), (one_id.as_str(), key(&first)));
    peer.ack(&one_id, "7:1").await;
    assert_eq!(one.await.unwrap().offset, 1);
    assert_eq!(two.await.unwrap().position.unwrap().to_string(), "7:2");
}

#[tokio::test]
async fn an_outcome_that_cannot_be_known_is_said() {
    let server = Server::start().await;
    let client = server.client();
    let (mut peer, _) = server.welcome().await;
    let options = PublishOptions { transient: true, ..PublishOptions::default() };
    let publish = client.publish("a", event(), options);
    let (_, frame) = peer.publish().await;
    assert!(key(&frame).is_empty());
    drop(peer);
    assert!(matches!(publish.await, Err(Error::OutcomeUnknown { what: "publish", .. })));
    let call = client.call("a", "m", event(), CallOptions { timeout: Some(Duration::from_millis(20)) });
    assert!(matches!(call.await, Err(Error::Timeout { what: "call" })));
}

#[tokio::test]
async fn refusals_are_typed_and_final() {
    let server = Server::start().await;
    let client = server.client();
    let (mut peer, _) = server.welcome().await;
    let publish = client.publish("a", event(), PublishOptions::default());
    let (id, _) = peer.publish().await;
    peer.refuse(&id, "TOO_LARGE").await;
    let expected = Error::Server { code: "TOO_LARGE".into(), kind: "test".into(), message: "no".into() };
    assert_eq!(publish.await, Err(expected));
    let (refused, ()) = tokio::join!(client.subscribe("a"), async {
        let (id, _) = peer.subscribe().await;
        peer.refuse(&id, "ACL_ERROR").await;
    });
    assert!(matches!(refused, Err(Error::Server { code, .. }) if code == "ACL_ERROR"));
    // The target is free again, and taken by one subscription only.
    let (held, _) = tokio::join!(client.subscribe("a"), peer.accept_subscribe(live_at("a", "7:0")));
    let held = held.unwrap();
    assert_eq!(client.subscribe("a").await.unwrap_err(), Error::AlreadySubscribed("a".into()));
    drop(held);
}

#[tokio::test]
async fn history_and_ping_are_answered() {
    let server = Server::start().await;
    let client = server.client();
    let (mut peer, _) = server.welcome().await;
    let (page, ()) = tokio::join!(client.history("a", Default::default()), async {
        let frame = peer.frame().await;
        let Some(In::History(request)) = frame.envelope else { panic!("history expected") };
        assert_eq!((request.channel.as_str(), request.limit), ("a", -1));
        let messages = vec![fake::message("a", "7:1", false)];
        peer.answer(&frame.id, Out::History(HistoryResponse { messages, ..Default::default() })).await;
    });
    assert_eq!(page.unwrap().messages[0].event.id, "7:1");
    let (ping, ()) = tokio::join!(client.ping(), async {
        let frame = peer.frame().await;
        peer.answer(&frame.id, Out::Pong(Pong {})).await;
    });
    ping.unwrap();
}

#[tokio::test]
async fn a_final_close_code_ends_everything_with_its_reason() {
    let server = Server::start().await;
    let client = server.client();
    let (mut peer, _) = server.welcome().await;
    let (subscription, _) = tokio::join!(client.subscribe("a"), peer.accept_subscribe(live_at("a", "7:0")));
    let mut subscription = subscription.unwrap();
    let publish = client.publish("a", event(), PublishOptions::default());
    peer.publish().await;
    peer.close(3503, "force disconnect").await;
    let expected = Error::Closed { code: 3503, reason: "force disconnect".into() };
    assert_eq!(publish.await, Err(expected.clone()));
    assert_eq!(next(&mut subscription).await, format!("closed {expected}"));
    assert_eq!(next(&mut subscription).await, "end");
    assert_eq!(client.ping().await.unwrap_err(), expected);
    assert_eq!(*client.status().borrow(), Status::Closed { error: expected });
}

#[tokio::test]
async fn what_answers_a_request_closes_nothing_whatever_it_looks_like() {
    let server = Server::start().await;
    let client = server.client();
    let (mut peer, _) = server.welcome().await;
    let (refused, ()) = tokio::join!(client.ping(), async {
        let frame = peer.frame().await;
        peer.refuse(&frame.id, "DISCONNECT_ERROR").await;
    });
    assert!(refused.is_err());
    let (ping, ()) = tokio::join!(client.ping(), async {
        let frame = peer.frame().await;
        peer.answer(&frame.id, Out::Pong(Pong {})).await;
    });
    ping.unwrap();
}

#[tokio::test]
async fn other_closes_lead_to_the_next_node() {
    let (one, two) = (Server::start().await, Server::start().await);
    let client = one.builder().node(two.url()).build().unwrap();
    let (peer, _) = one.welcome().await;
    peer.close(3512, "slow consumer").await;
    let (mut peer, _) = two.welcome().await;
    peer.say(Out::Reconnect(Reconnect { after_ms: 1 })).await;
    let (_peer, _) = one.welcome().await;
    client.connected().await.unwrap();
}

#[tokio::test]
async fn a_draining_node_is_left_once_its_answers_are_in_and_new_requests_go_elsewhere() {
    let (one, two) = (Server::start().await, Server::start().await);
    let client = one.builder().node(two.url()).build().unwrap();
    let (mut peer, _) = one.welcome().await;
    // May not be sent twice: only an answer tells what became of it.
    let transient = PublishOptions { transient: true, ..PublishOptions::default() };
    let here = client.publish("a", event(), transient);
    let (here_id, _) = peer.publish().await;
    peer.say(Out::Reconnect(Reconnect { after_ms: 0 })).await;
    // Its pong tells that the reconnect was read.
    peer.answer("ping", Out::Ping(Default::default())).await;
    assert!(matches!(peer.frame().await.envelope, Some(In::Pong(_))));
    let there = client.publish("b", event(), PublishOptions::default());
    // An ack of the extension needs no position.
    peer.answer(&here_id, Out::PublishAck(Default::default())).await;
    here.await.unwrap();
    let (mut next, connect) = two.welcome().await;
    assert_eq!(connect.resume_token, "secret");
    let (id, frame) = next.publish().await;
    assert_eq!(frame.channel, "b");
    next.ack(&id, "7:1").await;
    there.await.unwrap();
    peer.closed().await;
}

#[tokio::test]
async fn a_client_that_a_draining_node_closes_recovers_elsewhere_without_a_penalty() {
    let (one, two) = (Server::start().await, Server::start().await);
    let long = Duration::from_secs(3600);
    let client = one.builder().node(two.url()).backoff(long, long).build().unwrap();
    let (mut peer, _) = one.welcome().await;
    let (subscription, _) = tokio::join!(client.subscribe("a"), peer.accept_subscribe(live_at("a", "7:4")));
    let mut subscription = subscription.unwrap();
    peer.publication("a", "7:5", false).await;
    let publish = client.publish("a", event(), PublishOptions::default());
    let (_, sent) = peer.publish().await;
    peer.say(Out::Reconnect(Reconnect { after_ms: 20 })).await;
    peer.close(1012, "service restart").await;
    let (mut peer, connect) = two.welcome().await;
    assert_eq!(connect.resume_token, "secret");
    assert!(connect.subscriptions[0].recover);
    assert_eq!(connect.subscriptions[0].cursor, Some(fake::at("7:5")));
    let (id, again) = peer.publish().await;
    assert_eq!(key(&again), key(&sent));
    peer.ack(&id, "7:7").await;
    publish.await.unwrap();
    peer.publication("a", "7:6", true).await;
    peer.recovered("a", Some(fake::at("7:6"))).await;
    for expected in ["a 7:5", "a 7:6", "recovered a"] {
        assert_eq!(next(&mut subscription).await, expected);
    }
}

#[tokio::test]
async fn a_wrong_token_is_not_tried_again() {
    let server = Server::start().await;
    let (connected, ()) = tokio::join!(server.builder().token("wrong").connect(), async {
        let mut peer = server.accept().await;
        let (id, connect) = peer.connect().await;
        assert_eq!(connect.token, "wrong");
        peer.refuse(&id, "AUTH_ERROR").await;
    });
    assert!(matches!(connected, Err(Error::Server { code, .. }) if code == "AUTH_ERROR"));
}

#[tokio::test]
async fn one_refused_subscription_does_not_keep_the_others_away() {
    let server = Server::start().await;
    let client = server.client();
    let (mut peer, _) = server.welcome().await;
    let (a, _) = tokio::join!(client.subscribe("a"), peer.accept_subscribe(live_at("a", "7:0")));
    let (b, _) = tokio::join!(client.subscribe("b"), peer.accept_subscribe(live_at("b", "7:0")));
    let (mut a, mut b) = (a.unwrap(), b.unwrap());
    drop(peer);
    let mut peer = server.accept().await;
    let (id, connect) = peer.connect().await;
    assert_eq!(connect.subscriptions.len(), 2);
    peer.refuse(&id, "ACL_ERROR").await;
    let (mut peer, connect) = server.welcome().await;
    assert!(connect.subscriptions.is_empty());
    let (id, _) = peer.subscribe().await;
    peer.refuse(&id, "ACL_ERROR").await;
    peer.accept_subscribe(named("b")).await;
    peer.recovered("b", Some(fake::at("7:0"))).await;
    assert_eq!(next(&mut a).await, "closed ACL_ERROR: no");
    assert_eq!(next(&mut b).await, "recovered b");
}

#[tokio::test]
async fn a_plain_v1_client_uses_nothing_of_the_extension() {
    let server = Server::start().await;
    let client = server.builder().extended(false).build().unwrap();
    let v1 = || Connected { session_id: "s".into(), ..Connected::default() };
    let (mut peer, connect) = server.welcome_with(v1()).await;
    assert!(connect.caps.is_empty() && connect.resume_token.is_empty());
    let (subscription, wanted) = tokio::join!(client.subscribe("a"), peer.accept_subscribe(named("a")));
    assert_eq!(wanted, named("a"));
    let mut subscription = subscription.unwrap();
    let publish = client.publish("a", event(), PublishOptions::default());
    let (_, frame) = peer.publish().await;
    assert!(frame.publish_options.is_none());
    drop(peer);
    assert!(matches!(publish.await, Err(Error::OutcomeUnknown { what: "publish", .. })));
    let (_peer, connect) = server.welcome_with(v1()).await;
    assert_eq!(connect.subscriptions, [named("a")]);
    assert_eq!(next(&mut subscription).await, "gap a NOT_RECOVERED");
}

#[tokio::test]
async fn a_silent_server_is_left() {
    let server = Server::start().await;
    let _client = server.client();
    let (peer, _) = server.welcome_with(Connected { ping_interval_ms: 5, ..extended() }).await;
    // No ping in three intervals: the client comes back.
    let (_again, _) = server.welcome().await;
    peer.closed().await;
}

#[tokio::test]
async fn nothing_listening_is_named() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = Client::builder(free.to_string()).connect().await.unwrap_err();
    assert_eq!(error.to_string(), format!("no gateway at {free}: connection refused"));
    let error = Client::builder(format!("grpc://{free}")).connect().await.unwrap_err();
    assert_eq!(error.to_string(), format!("no gateway at {free}: connection refused"));
}

#[tokio::test]
async fn the_last_handle_closes_the_connection() {
    let server = Server::start().await;
    let client = server.client();
    let (peer, _) = server.welcome().await;
    drop(client);
    peer.closed().await;
    let client = server.client();
    let (peer, _) = server.welcome().await;
    tokio::join!(client.close(), peer.closed());
    assert_eq!(client.ping().await.unwrap_err(), Error::ClientClosed);
}
