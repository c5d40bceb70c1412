//! Recovery and starting in the past: what is replayed, in which order, and how it ends.

use streamgate_e2e::{
    events::{extended, frame, from, live, recover, recover_pattern, text},
    gateway::TestNode,
    raw::{RawClient, Via},
};
use streamgate_proto::v1::{
    InboundMessage, Position, Subscribe, inbound_message::Envelope as In, outbound_message::Envelope as Out,
    start_from::Point,
};

/// Publishes texts "1" to "count", and answers their positions.
async fn publish(client: &mut RawClient, channel: &str, count: usize) -> Vec<Position> {
    let mut positions = Vec::new();
    for n in 1..=count {
        let ack = client.publish(channel, text(&format!("e{n}"), &n.to_string())).await;
        positions.push(ack.position.expect("a position"));
    }
    positions
}

/// The texts of messages.
fn texts(messages: &[streamgate_proto::v1::Message]) -> Vec<&str> {
    messages.iter().map(|one| streamgate_e2e::events::text_of(one.payload.as_ref().unwrap())).collect()
}

#[tokio::test]
async fn a_recovery_is_ack_then_replays_then_one_complete_then_live() {
    let node = TestNode::start("").await;
    for via in Via::ALL {
        let channel = format!("order.{via:?}");
        let mut publisher = RawClient::connect(node.addrs(), Via::WsProto).await;
        let positions = publish(&mut publisher, &channel, 4).await;
        let mut client = RawClient::connect(node.addrs(), via).await;
        let subscribe = Subscribe { subscriptions: vec![recover(&channel, positions[1].clone())] };
        client.send(InboundMessage { id: "s".into(), ..frame(In::Subscribe(subscribe)) }).await;
        let ack = client.frame().await;
        assert_eq!(ack.id, "s", "the ack comes first: {ack:?}");
        let (replays, complete) = client.recovered().await;
        assert_eq!(texts(&replays), ["3", "4"], "{via:?}");
        assert_eq!(
            (complete.channel.as_str(), complete.gap, complete.truncated),
            (channel.as_str(), false, false)
        );
        assert_eq!(complete.position, Some(positions[3].clone()));
        assert!(complete.error.is_none() && complete.gap_reason.is_empty());
        publisher.publish(&channel, text("e5", "5")).await;
        let live = client.message().await;
        assert!(!live.replay && live.offset == 5, "{via:?} {live:?}");
    }
}

#[tokio::test]
async fn a_subscription_inside_connect_recovers_after_connected() {
    let node = TestNode::start("").await;
    for via in Via::ALL {
        let channel = format!("inside.{via:?}");
        let mut publisher = RawClient::connect(node.addrs(), Via::WsJson).await;
        let positions = publish(&mut publisher, &channel, 3).await;
        let mut client = RawClient::open(node.addrs(), via).await;
        let connect = extended([recover(&channel, positions[0].clone()), live("other")]);
        client.send(InboundMessage { id: "c".into(), ..frame(In::Connect(connect)) }).await;
        let connected = client.frame().await;
        let Some(Out::Connected(connected)) = connected.envelope else { panic!("{connected:?}") };
        assert_eq!(connected.subscriptions.len(), 2, "{via:?}");
        assert!(connected.publications.is_empty());
        let (replays, complete) = client.recovered().await;
        assert_eq!((texts(&replays), complete.gap), (vec!["2", "3"], false), "{via:?}");
        client.quiet().await;
    }
}

#[tokio::test]
async fn a_recovery_that_missed_nothing_still_completes() {
    let node = TestNode::start("").await;
    let mut client = RawClient::connect(node.addrs(), Via::WsJson).await;
    let positions = publish(&mut client, "whole", 2).await;
    client.subscribe([recover("whole", positions[1].clone())]).await;
    let (replays, complete) = client.recovered().await;
    assert!(replays.is_empty() && !complete.gap);
    assert_eq!(complete.position, Some(positions[1].clone()));
}

#[tokio::test]
async fn a_live_ack_says_where_a_later_recovery_starts() {
    let node = TestNode::start("").await;
    let mut publisher = RawClient::connect(node.addrs(), Via::WsJson).await;
    for (channel, published) in [("fresh", 0), ("used", 2)] {
        publish(&mut publisher, channel, published).await;
        let mut client = RawClient::connect(node.addrs(), Via::WsProto).await;
        let ack = client.subscribe_to(channel).await;
        let cursor = ack.subscriptions[0].cursor.clone().expect("a cursor");
        client.close().await;
        publisher.publish(channel, text("x", "missed")).await;
        let mut client = RawClient::connect(node.addrs(), Via::WsProto).await;
        client.subscribe([recover(channel, cursor)]).await;
        let (replays, complete) = client.recovered().await;
        assert_eq!((texts(&replays), complete.gap), (vec!["missed"], false), "{channel}");
    }
}

#[tokio::test]
async fn a_pattern_recovers_its_channels_and_those_born_meanwhile() {
    let node = TestNode::start("").await;
    let mut publisher = RawClient::connect(node.addrs(), Via::WsJson).await;
    let mut client = RawClient::connect(node.addrs(), Via::WsJson).await;
    publisher.publish("born.old", text("1", "old 1")).await;
    let ack = client.subscribe_to("born.*").await;
    let cursors = ack.subscriptions[0].cursors.clone();
    client.close().await;
    publisher.publish("born.old", text("2", "old 2")).await;
    publisher.publish("born.new", text("3", "new 1")).await;
    publisher.publish("born.too.deep", text("4", "no")).await;
    let mut client = RawClient::connect(node.addrs(), Via::WsProto).await;
    client.subscribe([recover_pattern("born.*", cursors)]).await;
    let (replays, complete) = client.recovered().await;
    let mut seen = texts(&replays);
    seen.sort_unstable();
    assert_eq!((seen, complete.gap), (vec!["new 1", "old 2"], false));
    publisher.publish("born.new", text("5", "live")).await;
    assert_eq!(client.texts(1).await, ["live"]);
}

#[tokio::test]
async fn a_fresh_subscription_may_start_in_the_past() {
    let node = TestNode::start("").await;
    for via in Via::ALL {
        let channel = format!("past.{via:?}");
        let mut client = RawClient::connect(node.addrs(), via).await;
        publish(&mut client, &channel, 3).await;
        let boundary = next_millisecond().await;
        client.publish(&channel, text("e4", "4")).await;
        let points: [(Point, &[&str]); 5] = [
            (Point::Start(true), &["1", "2", "3", "4"]),
            (Point::Last(2), &["3", "4"]),
            (Point::Last(100), &["1", "2", "3", "4"]),
            (Point::TimeMs(boundary), &["4"]),
            (Point::TimeMs(boundary + 3_600_000), &[]),
        ];
        for (point, expected) in points {
            let mut reader = RawClient::connect(node.addrs(), via).await;
            reader.subscribe([from(&channel, point)]).await;
            let (replays, complete) = reader.recovered().await;
            assert_eq!(texts(&replays), expected, "{via:?} {point:?}");
            assert!(!complete.gap && complete.position.is_some(), "{via:?} {point:?}");
        }
    }
}

/// A time that is after everything published so far and not after anything published later.
async fn next_millisecond() -> u64 {
    let now = || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        u64::try_from(now.as_millis()).unwrap()
    };
    // Two, as the broker's clock may round differently.
    let boundary = now() + 2;
    while now() <= boundary {
        tokio::task::yield_now().await;
    }
    boundary
}

#[tokio::test]
async fn without_recovery_in_the_policy_the_answer_says_so_and_live_goes_on() {
    let node = TestNode::start("channels: [{pattern: 'none.**', recovery: false}]").await;
    for via in Via::ALL {
        let channel = format!("none.{via:?}");
        let mut client = RawClient::connect(node.addrs(), via).await;
        let positions = publish(&mut client, &channel, 2).await;
        client.subscribe([recover(&channel, positions[0].clone())]).await;
        let (replays, complete) = client.recovered().await;
        assert!(replays.is_empty(), "{via:?}");
        assert_eq!(complete.error.expect("why").code, "ACL_ERROR", "{via:?}");
        client.publish(&channel, text("e3", "live")).await;
        assert_eq!(client.texts(1).await, ["live"], "{via:?}");
    }
}

#[tokio::test]
async fn subscribing_again_with_a_cursor_replays_and_goes_on() {
    let node = TestNode::start("").await;
    let mut client = RawClient::connect(node.addrs(), Via::WsJson).await;
    client.subscribe_to("redo").await;
    let positions = publish(&mut client, "redo", 3).await;
    assert_eq!(client.texts(3).await, ["1", "2", "3"]);
    client.subscribe([recover("redo", positions[0].clone())]).await;
    let (replays, _) = client.recovered().await;
    assert_eq!(texts(&replays), ["2", "3"]);
    client.publish("redo", text("e4", "4")).await;
    assert_eq!(client.texts(1).await, ["4"], "live once, not twice");
    client.quiet().await;
}

#[tokio::test]
async fn a_pattern_recovers_nothing_of_channels_whose_policy_allows_no_recovery() {
    let node = TestNode::start("channels: [{pattern: 'mix.closed', recovery: false}]").await;
    let mut publisher = RawClient::connect(node.addrs(), Via::WsJson).await;
    for channel in ["mix.closed", "mix.open"] {
        publisher.publish(channel, text("1", channel)).await;
    }
    let mut client = RawClient::connect(node.addrs(), Via::WsProto).await;
    client.subscribe([from("mix.*", Point::Start(true))]).await;
    let (replays, _) = client.recovered().await;
    assert_eq!(texts(&replays), ["mix.open"]);
    publisher.publish("mix.closed", text("2", "live")).await;
    assert_eq!(client.texts(1).await, ["live"]);
}

#[tokio::test]
async fn overlapping_recoveries_replay_once_for_each_subscription_and_live_once() {
    let node = TestNode::start("").await;
    let mut publisher = RawClient::connect(node.addrs(), Via::WsJson).await;
    publish(&mut publisher, "twice.a", 3).await;
    let mut client = RawClient::connect(node.addrs(), Via::WsProto).await;
    client.subscribe([from("twice.a", Point::Start(true)), from("twice.*", Point::Start(true))]).await;
    let (first, _) = client.recovered().await;
    let (second, _) = client.recovered().await;
    assert_eq!((texts(&first), texts(&second)), (vec!["1", "2", "3"], vec!["1", "2", "3"]));
    publisher.publish("twice.a", text("live", "live")).await;
    assert_eq!(client.texts(1).await, ["live"]);
    client.quiet().await;
}
