//! Cursors whose history is not what it was: the right reason, and everything that is left.

use std::{collections::HashSet, time::Duration};

use streamgate::{
    broker::{
        Broker as _,
        redis::{RedisBroker, RedisOptions},
    },
    channel::Channel,
};
use streamgate_client::{Client, Event, Position, PublishAck, PublishOptions, StartAt, SubscribeOptions};
use streamgate_e2e::{
    cluster::Cluster,
    events,
    gateway::{TestNode, on_redis},
    history::Recorder,
    listening::{Recovery, event, message, recovery},
    raw::Via,
    redis_server::RedisServer,
    within,
};

async fn publish(client: &Client, channel: &str, text: &str) -> PublishAck {
    client.publish(channel, events::text(text, text), PublishOptions::default()).await.unwrap()
}

/// Publishes so many; their positions.
async fn fill(client: &Client, channel: &str, count: usize) -> Vec<Position> {
    let mut positions = Vec::new();
    for number in 0..count {
        positions.push(publish(client, channel, &number.to_string()).await.position.unwrap());
    }
    positions
}

/// Redis' clock in milliseconds.
fn redis_clock(redis: &RedisServer) -> u64 {
    let time: Vec<u64> = redis.cli(&["TIME"]).lines().map(|part| part.trim().parse().unwrap()).collect();
    time[0] * 1_000 + time[1] / 1_000
}

/// How many nodes have inboxes.
fn inboxes(redis: &RedisServer) -> usize {
    let keys = redis.cli(&["--scan", "--pattern", "*}:in:*"]);
    keys.lines().filter_map(|key| key.rsplit(':').next()).collect::<HashSet<_>>().len()
}

/// What recovering from `cursor` brings over each transport and on each node, which must be the same.
async fn recovered(cluster: &Cluster, channel: &str, cursor: &Position) -> Recovery {
    let mut found: Option<Recovery> = None;
    for node in 0..cluster.nodes.len() {
        for via in Via::ALL {
            let client = cluster.client(node, via).await;
            let options = SubscribeOptions::new(channel).cursor(cursor.clone());
            let mut subscription = client.subscribe(options).await.unwrap();
            let this = recovery(&mut subscription).await;
            assert!(
                this.end.error.is_none() && this.messages.iter().all(|message| message.replay),
                "{this:?}"
            );
            if let Some(found) = &found {
                assert_eq!(
                    (found.offsets(), found.reason()),
                    (this.offsets(), this.reason()),
                    "{node} {via:?}"
                );
                assert_eq!(found.end, this.end);
            }
            found = Some(this);
        }
    }
    found.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trimmed_by_size_it_is_head_trimmed_and_what_is_kept_comes() {
    let cluster = Cluster::start_with(2, "channels: [{pattern: small, history_size: 10}]").await;
    let publisher = cluster.client(0, Via::WsProto).await;
    let positions = fill(&publisher, "small", 200).await;
    let past = recovered(&cluster, "small", &positions[4]).await;
    assert_eq!((past.offsets(), past.reason()), ((191..=200).collect(), "HEAD_TRIMMED"));
    assert_eq!(past.end.position.as_ref(), positions.last());
    // Trimmed right up to the cursor: nothing is missing.
    let edge = recovered(&cluster, "small", &positions[189]).await;
    assert_eq!((edge.offsets(), edge.reason()), ((191..=200).collect(), ""));
    let whole = recovered(&cluster, "small", &positions[196]).await;
    assert_eq!((whole.offsets(), whole.reason()), (vec![198, 199, 200], ""));
    let end = recovered(&cluster, "small", &positions[199]).await;
    assert_eq!((end.offsets(), end.reason()), (vec![], ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trimmed_by_hand_it_is_head_trimmed() {
    let cluster = Cluster::start(2).await;
    let publisher = cluster.client(0, Via::WsProto).await;
    let positions = fill(&publisher, "room", 20).await;
    cluster.redis.cli(&["XTRIM", &cluster.history_key("room"), "MAXLEN", "5"]);
    let past = recovered(&cluster, "room", &positions[2]).await;
    assert_eq!((past.offsets(), past.reason()), (vec![16, 17, 18, 19, 20], "HEAD_TRIMMED"));
    let whole = recovered(&cluster, "room", &positions[16]).await;
    assert_eq!((whole.offsets(), whole.reason()), (vec![18, 19, 20], ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_inside_it_is_a_hole_in_the_middle() {
    let cluster = Cluster::start(2).await;
    let publisher = cluster.client(0, Via::WsProto).await;
    let positions = fill(&publisher, "room", 6).await;
    let id = format!("{}-4", positions[3].epoch);
    cluster.redis.cli(&["XDEL", &cluster.history_key("room"), &id]);
    let past = recovered(&cluster, "room", &positions[0]).await;
    assert_eq!((past.offsets(), past.reason()), (vec![2, 3, 5, 6], "MIDDLE"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_it_says_so_and_later_that_the_epoch_is_another() {
    let cluster = Cluster::start_with(2, "channels: [{pattern: short, history_ttl: 1s}]").await;
    let publisher = cluster.client(0, Via::WsProto).await;
    let positions = fill(&publisher, "short", 5).await;
    let key = cluster.history_key("short");
    within("the expiry", async {
        while cluster.redis.cli(&["EXISTS", &key]) != "0" {
            // Redis tells nobody.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let gone = recovered(&cluster, "short", &positions[2]).await;
    assert_eq!((gone.offsets(), gone.reason()), (vec![], "EXPIRED"));

    let reborn = publish(&publisher, "short", "again").await.position.unwrap();
    assert!(reborn.epoch != positions[0].epoch && reborn.offset == 1, "{reborn}");
    let client = cluster.client(1, Via::WsJson).await;
    let options = SubscribeOptions::new("short").cursor(positions[2].clone());
    let again = recovery(&mut client.subscribe(options).await.unwrap()).await;
    assert_eq!(again.reason(), "EPOCH_RESET");
    assert_eq!(again.end.position, Some(reborn));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removed_it_is_expired_and_reborn_it_is_an_epoch_reset() {
    let cluster = Cluster::start(2).await;
    let publisher = cluster.client(0, Via::WsProto).await;
    let options: RedisOptions = cluster.redis.addr().to_string().parse().unwrap();
    let broker = RedisBroker::start(options, Default::default()).unwrap();
    within("a third node", broker.booted()).await.unwrap();
    for channel in ["by.delete", "by.broker"] {
        let positions = fill(&publisher, channel, 5).await;
        if channel == "by.delete" {
            cluster.redis.cli(&["DEL", &cluster.history_key(channel)]);
        } else {
            broker.remove_history(Channel::parse(channel).unwrap()).await.unwrap();
        }
        let gone = recovered(&cluster, channel, &positions[2]).await;
        assert_eq!((gone.offsets(), gone.reason()), (vec![], "EXPIRED"), "{channel}");
        let reborn = fill(&publisher, channel, 2).await;
        assert!(reborn[0].epoch != positions[0].epoch, "epochs never repeat");
        let again = recovered(&cluster, channel, &positions[2]).await;
        assert_eq!((again.offsets(), again.reason()), (vec![1, 2], "EPOCH_RESET"), "{channel}");
        assert_eq!(again.end.position.as_ref(), reborn.last());
    }
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_epoch_that_never_was_is_a_reset_and_not_an_error() {
    let cluster = Cluster::start(2).await;
    let publisher = cluster.client(0, Via::WsProto).await;
    let positions = fill(&publisher, "room", 3).await;
    for offset in [2, 3, 9] {
        let foreign = Position { epoch: "12345".into(), offset };
        let past = recovered(&cluster, "room", &foreign).await;
        assert_eq!((past.offsets(), past.reason()), (vec![1, 2, 3], "EPOCH_RESET"), "{foreign}");
    }
    let future = Position { epoch: "99999999999999".into(), offset: 0 };
    assert_eq!(recovered(&cluster, "room", &future).await.reason(), "EPOCH_RESET");
    // Offset 0 says that there was no history then: this one is younger, and whole.
    let before = Position { epoch: "12345".into(), offset: 0 };
    let all = recovered(&cluster, "room", &before).await;
    assert_eq!((all.offsets(), all.reason()), (vec![1, 2, 3], ""));
    // Past the end of its own epoch: what was acked there is lost.
    let ahead = Position { offset: 7, ..positions[0].clone() };
    assert_eq!(recovered(&cluster, "room", &ahead).await.reason(), "EPOCH_RESET");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushed_under_running_nodes_it_is_an_epoch_reset_for_who_was_away_and_who_was_not() {
    let cluster = Cluster::start(2).await;
    let publisher = cluster.client(0, Via::WsProto).await;
    let positions = fill(&publisher, "room", 5).await;
    let listener = cluster.client(1, Via::WsJson).await;
    let mut live = listener.subscribe("room").await.unwrap();
    let mut pattern = listener.subscribe("other.*").await.unwrap();
    let before = publish(&publisher, "room", "before").await;
    assert_eq!(message(&mut live).await.position, before.position);

    cluster.redis.cli(&["FLUSHALL"]);
    let nothing = recovered(&cluster, "room", &positions[2]).await;
    assert_eq!((nothing.offsets(), nothing.reason()), (vec![], "EPOCH_RESET"));
    // The first publish may come before the nodes know: it is acked, and must be seen or announced.
    let after = publish(&publisher, "room", "after").await.position.unwrap();
    assert!(after.epoch != positions[0].epoch, "epochs never repeat: {after}");
    let away = recovered(&cluster, "room", &positions[2]).await;
    assert_eq!((away.offsets(), away.reason()), (vec![after.offset], "EPOCH_RESET"));

    // Who stayed is told, and then sees everything of the new epoch.
    let (mut told, mut seen) = (Vec::new(), Vec::new());
    while seen.last() != Some(&after) {
        match event(&mut live).await {
            Event::Gap(gap) => told.push(gap.reason.as_str().to_owned()),
            Event::Message(message) => seen.extend(message.position),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((told, seen), (vec!["EPOCH_RESET".to_owned()], vec![after]));
    let next = publish(&publisher, "room", "next").await;
    assert_eq!(message(&mut live).await.position, next.position);
    let born = publish(&publisher, "other.born", "1").await;
    assert_eq!(message(&mut pattern).await.position, born.position);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_starts_after_a_flush_takes_no_living_nodes_place() {
    let mut cluster = Cluster::start(2).await;
    let mut listeners = Vec::new();
    for node in 0..2 {
        listeners.push((node, cluster.client(node, Via::WsProto).await.subscribe("room").await.unwrap()));
    }
    cluster.redis.cli(&["FLUSHALL"]);
    let later = TestNode::start(&on_redis(&cluster.redis, "")).await;
    later.addrs().ready().await;
    cluster.nodes.push(later);
    listeners.push((2, cluster.client(2, Via::WsProto).await.subscribe("room").await.unwrap()));
    // The older ones make theirs anew within the next round of their readers.
    within("three nodes' inboxes", async {
        while inboxes(&cluster.redis) < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;

    let recorder = Recorder::default();
    listeners.iter().for_each(|(node, _)| recorder.listens(&format!("on node {node}"), "room"));
    for number in 0..30 {
        let text = number.to_string();
        let publisher = cluster.client(number % 3, Via::WsJson).await;
        recorder.stored("room", &publish(&publisher, "room", &text).await, &text);
    }
    for (node, subscription) in &mut listeners {
        for _ in 0..30 {
            recorder.saw(&format!("on node {node}"), &message(subscription).await);
        }
    }
    recorder.assert_sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_the_start_a_time_or_the_last_few() {
    let cluster = Cluster::start(2).await;
    let publisher = cluster.client(0, Via::WsProto).await;
    fill(&publisher, "room", 600).await;
    // Redis stamps with its own clock; what follows must be of a later millisecond.
    let now = redis_clock(&cluster.redis) + 1;
    while redis_clock(&cluster.redis) < now {}
    fill(&publisher, "room", 5).await;
    for (start, first) in [
        (StartAt::Start, 1),
        (StartAt::Last(7), 599),
        (StartAt::Last(100_000), 1),
        (StartAt::TimeMs(now), 601),
        (StartAt::TimeMs(1), 1),
        (StartAt::TimeMs(now + 3_600_000), 606),
    ] {
        for (node, via) in [(0, Via::WsJson), (1, Via::Grpc)] {
            let client = cluster.client(node, via).await;
            let mut room = client.subscribe(SubscribeOptions::new("room").start_at(start)).await.unwrap();
            let replay = recovery(&mut room).await;
            assert_eq!((replay.offsets(), replay.reason()), ((first..606).collect(), ""), "{start:?}");
        }
    }
    let empty = SubscribeOptions::new("nothing").start_at(StartAt::Start);
    let mut empty = cluster.client(1, Via::WsJson).await.subscribe(empty).await.unwrap();
    assert!(recovery(&mut empty).await.messages.is_empty());
    publish(&publisher, "nothing", "first").await;
    assert_eq!(message(&mut empty).await.offset, 1);
}
