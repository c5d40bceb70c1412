//! The Redis broker against a real server that misbehaves: what only this broker can get wrong.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use streamgate::{
    broker::{
        Broker, BrokerError, BrokerStatus, Delivery, GapReason, PatternCursors, Publish, Published, SinkId,
        Start, Stored, Subscribe, SubscribeTo, Subscribed,
        conformance::Recorder,
        redis::{BootError, RedisBroker, RedisOptions},
    },
    channel::{Channel, Pattern, Target},
    policy::{ChannelPolicy, Policies},
    position::Position,
};
use streamgate_e2e::redis_server::{RedisServer, RedisServerOptions};

const PATIENCE: Duration = Duration::from_secs(20);

fn options(server: &RedisServer) -> RedisOptions {
    server.addr().to_string().parse().unwrap()
}

async fn node(server: &RedisServer) -> RedisBroker {
    let node = RedisBroker::start(options(server), Policies::default()).unwrap();
    node.booted().await.unwrap();
    node
}

fn channel(name: &str) -> Channel {
    Channel::parse(name).unwrap()
}

fn publish(name: &str, text: &str) -> Publish {
    Publish {
        channel: channel(name),
        stored: Stored { event: text.to_owned().into(), ..Stored::default() },
        user_id: String::new(),
        idempotency_key: None,
        transient: false,
        job: Default::default(),
    }
}

async fn published(node: &RedisBroker, name: &str, text: &str) -> Position {
    node.publish(publish(name, text)).await.unwrap().position.unwrap()
}

fn listener(node: &RedisBroker) -> (SinkId, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    (node.attach(recorder.clone()), recorder)
}

async fn subscribe(node: &RedisBroker, sink: SinkId, name: &str, start: Start<Position>) -> Subscribed {
    let to = SubscribeTo::Channel { channel: channel(name), start };
    node.subscribe(sink, Subscribe { to }).await.unwrap()
}

async fn subscribe_pattern(
    node: &RedisBroker,
    sink: SinkId,
    pattern: &str,
    start: Start<PatternCursors>,
) -> Subscribed {
    let to = SubscribeTo::Pattern { pattern: Pattern::parse(pattern).unwrap(), start };
    node.subscribe(sink, Subscribe { to }).await.unwrap()
}

/// The next publication's channel and position.
async fn next(recorder: &Recorder) -> (String, Position) {
    match recorder.next(PATIENCE).await {
        Some(Delivery::Publication(publication)) => {
            (publication.channel.to_string(), publication.position.unwrap())
        }
        other => panic!("{other:?} instead of a publication"),
    }
}

async fn status(node: &RedisBroker, wanted: impl FnMut(&BrokerStatus) -> bool) {
    tokio::time::timeout(PATIENCE, node.status().wait_for(wanted)).await.unwrap().unwrap();
}

/// The ids of this node's connections that read inboxes.
fn reader_ids(server: &RedisServer) -> Vec<String> {
    let list = server.cli(&["CLIENT", "LIST"]);
    let readers = list.lines().filter(|line| line.contains("cmd=xreadgroup"));
    readers.filter_map(|line| Some(line.strip_prefix("id=")?.split(' ').next()?.to_owned())).collect()
}

fn calls(server: &RedisServer, command: &str) -> u64 {
    let stats = server.info("commandstats");
    let Some(text) = stats.get(&format!("cmdstat_{command}")) else { return 0 };
    text.strip_prefix("calls=").unwrap().split(',').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_recoveries_of_one_channel_cost_at_most_fifty_range_reads() {
    let server = RedisServer::start_default();
    let (publisher, node) = (node(&server).await, node(&server).await);
    let positions = join_all((0..900).map(|n| {
        let publish = publisher.publish(publish("hot", &n.to_string()));
        async { publish.await.unwrap().position.unwrap() }
    }))
    .await;
    let sinks: Vec<_> = (0..2).map(|_| listener(&node)).collect();
    let (before, begun) = (calls(&server, "xrange"), Instant::now());
    let live = async {
        // Publications go on meanwhile.
        for n in 0..50 {
            published(&publisher, "hot", &format!("live {n}")).await;
        }
    };
    let recover = |n: usize| {
        let cursor = positions[(n * 7) % positions.len()];
        let answer = subscribe(&node, sinks[n % 2].0, "hot", Start::After(cursor));
        async move {
            let subscribed = answer.await;
            let catchup = subscribed.catchup.unwrap();
            let end = subscribed.positions[0].1;
            let replayed: Vec<u64> = catchup
                .channels
                .iter()
                .inspect(|item| assert_eq!(item.gap, None))
                .flat_map(|item| &item.publications)
                .map(|publication| publication.position.unwrap().offset)
                .collect();
            assert_eq!(replayed, (cursor.offset + 1..=end.offset).collect::<Vec<_>>());
        }
    };
    // Half of them all at once, the others one after the other.
    let waves = async {
        join_all((0..5_000).map(recover)).await;
        for n in 5_000..10_000 {
            recover(n).await;
        }
    };
    tokio::join!(live, waves);
    let reads = calls(&server, "xrange") - before;
    println!("10,000 recoveries: {reads} XRANGE in {:?}", begun.elapsed());
    assert!(reads <= 50, "{reads} range reads");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_the_readers_connection_under_publishes_loses_and_repeats_nothing() {
    let server = RedisServer::start_default();
    let (publisher, reader) = (Arc::new(node(&server).await), node(&server).await);
    let (sink, recorder) = listener(&reader);
    const CHANNELS: usize = 8;
    const EACH: u64 = 400;
    for n in 0..CHANNELS {
        subscribe(&reader, sink, &format!("c.{n}"), Start::Live).await;
    }
    let source = publisher.clone();
    let publishing = tokio::spawn(async move {
        for n in 0..EACH {
            let all = (0..CHANNELS).map(|c| source.publish(publish(&format!("c.{c}"), &n.to_string())));
            for outcome in join_all(all).await {
                outcome.unwrap();
            }
        }
    });
    let (mut last, mut kills) = (HashMap::new(), 0);
    for received in 0..EACH * CHANNELS as u64 {
        if received % 500 == 250 {
            for id in reader_ids(&server) {
                // It may have ended already.
                server.cli(&["CLIENT", "KILL", "ID", &id]);
                kills += 1;
            }
        }
        let (name, position) = next(&recorder).await;
        let before = last.insert(name, position.offset).unwrap_or(0);
        assert_eq!(position.offset, before + 1);
    }
    publishing.await.unwrap();
    assert!(kills > 0 && recorder.drain().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_every_connection_under_keyed_retries_gives_each_publication_once_and_in_order() {
    let server = RedisServer::start_default();
    let (publisher, reader) = (Arc::new(node(&server).await), node(&server).await);
    let (sink, recorder) = listener(&reader);
    subscribe(&reader, sink, "a", Start::Live).await;
    subscribe_pattern(&reader, sink, "b.**", Start::Live).await;
    const EACH: u64 = 300;
    let publishing = ["a", "b.c"].map(|name| {
        let source = publisher.clone();
        tokio::spawn(async move {
            for n in 0..EACH {
                let keyed = Publish { idempotency_key: Some(n.to_string()), ..publish(name, &n.to_string()) };
                while let Err(error) = source.publish(keyed.clone()).await {
                    assert!(error.retryable(), "{error}");
                    status(&source, |status| *status == BrokerStatus::Ready).await;
                }
            }
        })
    });
    let mut last = HashMap::new();
    for received in 0..2 * EACH {
        if received % 100 == 50 {
            server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
        }
        let (name, position) = next(&recorder).await;
        let before = last.insert(name, position.offset).unwrap_or(0);
        assert_eq!(position.offset, before + 1);
    }
    join_all(publishing).await.into_iter().for_each(Result::unwrap);
    assert!(recorder.drain().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_that_vanish_from_the_inbox_are_filled_from_history() {
    let server = RedisServer::start_default();
    let (publisher, reader) = (node(&server).await, node(&server).await);
    let (sink, recorder) = listener(&reader);
    subscribe(&reader, sink, "a.quiet", Start::Live).await;
    let keys = reader.keys();
    let incarnation = reader.incarnation().unwrap();
    let inbox = |name: &str| {
        let key = keys.key(keys.partition_of(name), &format!("in:{incarnation}"));
        String::from_utf8(key.to_vec()).unwrap()
    };
    // The entry is written and dropped from the inbox in one step: nobody can read it in between.
    let steal = |name: &str, offset: &str| {
        let base = String::from_utf8(keys.base(keys.partition_of(name)).to_vec()).unwrap();
        let script = "local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1] \
                      local id = string.match(last[1], '^%d+') .. '-' .. ARGV[1] \
                      redis.call('XADD', KEYS[1], id, unpack(last[2])) \
                      redis.call('XADD', KEYS[2], ARGV[2] .. '-*', 'x', 'y') \
                      return redis.call('XTRIM', KEYS[2], 'MAXLEN', 0)";
        let history = format!("{base}h:{name}");
        server.cli(&["EVAL", script, "2", &history, &inbox(name), offset, &incarnation.to_string()]);
    };
    assert_eq!(published(&publisher, "a.quiet", "1").await.offset, 1);
    assert_eq!(next(&recorder).await.1.offset, 1);
    // Lost without a successor: the quiet-channel check finds it.
    steal("a.quiet", "2");
    assert_eq!(next(&recorder).await.1.offset, 2);
    // Lost before a successor: the hole is found at once.
    steal("a.quiet", "3");
    assert_eq!(published(&publisher, "a.quiet", "4").await.offset, 4);
    assert_eq!(next(&recorder).await.1.offset, 3);
    assert_eq!(next(&recorder).await.1.offset, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_inbox_is_made_anew_and_what_was_missed_is_filled() {
    let server = RedisServer::start_default();
    let (publisher, reader) = (node(&server).await, node(&server).await);
    let (sink, recorder) = listener(&reader);
    subscribe(&reader, sink, "a", Start::Live).await;
    subscribe_pattern(&reader, sink, "p.*", Start::Live).await;
    published(&publisher, "a", "1").await;
    assert_eq!(next(&recorder).await.1.offset, 1);
    // As when the node was away for longer than its inboxes are kept: publishers then forget its interest, too.
    for key in server.cli(&["KEYS", &format!("*in:{}", reader.incarnation().unwrap())]).lines() {
        server.cli(&["DEL", key]);
    }
    published(&publisher, "a", "2").await;
    published(&publisher, "p.born", "1").await;
    let mut seen = [next(&recorder).await, next(&recorder).await];
    seen.sort();
    assert_eq!((seen[0].0.as_str(), seen[0].1.offset), ("a", 2));
    assert_eq!((seen[1].0.as_str(), seen[1].1.offset), ("p.born", 1));
    published(&publisher, "p.born", "2").await;
    assert_eq!(next(&recorder).await.1.offset, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_that_lost_acked_writes_is_announced_to_who_has_seen_them() {
    let mut server = RedisServer::start(RedisServerOptions::default().args(&["--dbfilename", "d.rdb"]));
    let node = node(&server).await;
    let (sink, recorder) = listener(&node);
    subscribe(&node, sink, "a", Start::Live).await;
    for n in 1..=3 {
        published(&node, "a", &n.to_string()).await;
    }
    server.cli(&["SAVE"]);
    let lost = published(&node, "a", "4").await;
    for offset in 1..=4 {
        assert_eq!(next(&recorder).await.1.offset, offset);
    }
    server.restart();
    status(&node, |status| matches!(status, BrokerStatus::Away(_))).await;
    status(&node, |status| *status == BrokerStatus::Ready).await;
    match recorder.next(PATIENCE).await {
        Some(Delivery::Gap { reason: GapReason::EpochReset, position: Some(position), .. }) => {
            assert_eq!(position, Position { offset: 3, ..lost });
        }
        other => panic!("{other:?}"),
    }
    let after = published(&node, "a", "4 again").await;
    assert_eq!(after.offset, 4);
    assert!(after.epoch > lost.epoch);
    assert_eq!(next(&recorder).await.1, after);
    let (other, _) = listener(&node);
    let catchup = subscribe(&node, other, "a", Start::After(lost)).await.catchup.unwrap();
    assert_eq!(catchup.channels[0].gap, Some(GapReason::EpochReset));
    assert_eq!(catchup.channels[0].publications.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_that_lost_nothing_goes_unnoticed() {
    let mut server = RedisServer::start(RedisServerOptions::default().args(&[
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
    ]));
    let node = node(&server).await;
    let (sink, recorder) = listener(&node);
    subscribe(&node, sink, "a", Start::Live).await;
    let first = published(&node, "a", "1").await;
    server.restart();
    status(&node, |status| matches!(status, BrokerStatus::Away(_))).await;
    status(&node, |status| *status == BrokerStatus::Ready).await;
    let second = published(&node, "a", "2").await;
    assert_eq!(second.offset, 2);
    assert_eq!(next(&recorder).await.1, first);
    assert_eq!(next(&recorder).await.1, second);
    let (other, _) = listener(&node);
    let catchup = subscribe(&node, other, "a", Start::After(first)).await.catchup.unwrap();
    assert_eq!((catchup.channels[0].gap, catchup.channels[0].publications.len()), (None, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn away_from_redis_publishes_are_refused_at_once_as_never_sent() {
    let mut server = RedisServer::start_default();
    let node = node(&server).await;
    published(&node, "a", "1").await;
    server.kill9();
    status(&node, |status| matches!(status, BrokerStatus::Away(_))).await;
    let begun = Instant::now();
    // The link for commands may learn of it a little later than the reader's.
    while let BrokerError::NotAvailable { sent: true, .. } =
        node.publish(publish("a", "2")).await.unwrap_err()
    {}
    let refused = node.publish(publish("a", "3")).await.unwrap_err();
    assert!(matches!(refused, BrokerError::NotAvailable { sent: false, .. }), "{refused:?}");
    assert!(begun.elapsed() < Duration::from_millis(500));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_that_was_sent_and_not_answered_has_an_unknown_outcome() {
    let server = RedisServer::start_default();
    let node = node(&server).await;
    published(&node, "a", "1").await;
    server.pause();
    let outcome = node.publish(publish("a", "2"));
    let refused = outcome.await.unwrap_err();
    server.resume();
    assert!(matches!(refused, BrokerError::NotAvailable { sent: true, .. }), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_another_number_of_partitions_refuses_to_start() {
    let server = RedisServer::start_default();
    drop(node(&server).await);
    let other = RedisOptions { partitions: 8, ..options(&server) };
    let node = RedisBroker::start(other, Policies::default()).unwrap();
    let refused = node.booted().await.unwrap_err();
    assert_eq!(refused, BootError::Partitions { recorded: "16".into(), configured: 8 });
    assert!(
        matches!(&*node.status().borrow(), BrokerStatus::Refused(reason) if reason.contains("16 partitions"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_started_before_redis_waits_and_says_why() {
    let mut server = RedisServer::start_default();
    server.kill9();
    let node = RedisBroker::start(options(&server), Policies::default()).unwrap();
    status(
        &node,
        |status| matches!(status, BrokerStatus::Starting(reason) if reason.contains("cannot reach")),
    )
    .await;
    server.restart();
    node.booted().await.unwrap();
    assert_eq!(published(&node, "a", "1").await.offset, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn incarnations_are_never_used_twice_and_shutdown_leaves_no_interest() {
    let server = RedisServer::start_default();
    let (first, second) = (node(&server).await, node(&server).await);
    assert!(first.incarnation() < second.incarnation());
    let (sink, _) = listener(&first);
    subscribe(&first, sink, "a", Start::Live).await;
    subscribe_pattern(&first, sink, "b.*", Start::Live).await;
    first.shutdown().await;
    second.shutdown().await;
    let left = server.cli(&["KEYS", "*"]);
    assert!(left.lines().all(|key| key.ends_with(":meta") || key.contains("{deployment}")), "{left}");
    let refused = first.publish(publish("a", "1")).await.unwrap_err();
    assert_eq!(refused, BrokerError::Stopped);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interest_that_ends_and_begins_again_while_redis_forgets_the_scripts_is_there() {
    let server = RedisServer::start_default();
    let (publisher, reader) = (node(&server).await, node(&server).await);
    let (sink, recorder) = listener(&reader);
    let names: Vec<String> = (0..20).map(|n| format!("c.{n}")).collect();
    join_all(names.iter().map(|name| subscribe(&reader, sink, name, Start::Live))).await;
    server.cli(&["SCRIPT", "FLUSH"]);
    // Each call is made once more behind others: the end of interest may come after its new beginning.
    let again = names.iter().map(|name| {
        reader.unsubscribe(sink, Target::parse(name).unwrap());
        subscribe(&reader, sink, name, Start::Live)
    });
    join_all(again).await;
    for name in &names {
        published(&publisher, name, "1").await;
    }
    let mut told: Vec<String> = Vec::new();
    for _ in &names {
        told.push(next(&recorder).await.0);
    }
    told.sort();
    let mut names = names;
    names.sort();
    assert_eq!(told, names);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interest_that_redis_was_not_told_the_end_of_is_withdrawn_when_entries_come_for_nobody() {
    let server = RedisServer::start_default();
    let (publisher, reader) = (node(&server).await, node(&server).await);
    let key = reader.keys().key(reader.keys().partition_of("a"), "i");
    let key = std::str::from_utf8(&key).unwrap();
    server.cli(&["HSET", key, "a", &reader.incarnation().unwrap().to_string()]);
    published(&publisher, "a", "1").await;
    let begun = Instant::now();
    while server.cli(&["HEXISTS", key, "a"]) != "0" {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_publish_that_redis_refuses_does_not_hurt_the_others_of_its_batch() {
    let server = RedisServer::start_default();
    let node = node(&server).await;
    let keys = node.keys();
    let foreign = keys.key(keys.partition_of("foreign"), "h:foreign");
    server.cli(&["SET", std::str::from_utf8(&foreign).unwrap(), "not a stream"]);
    let names: Vec<String> = (0..200)
        .map(|n| format!("n.{n}"))
        .filter(|name| keys.partition_of(name) == keys.partition_of("foreign"))
        .chain(["foreign".to_owned()])
        .collect();
    let outcomes: Vec<Result<Published, BrokerError>> =
        join_all(names.iter().map(|name| node.publish(publish(name, "x")))).await;
    for (name, outcome) in names.iter().zip(outcomes) {
        match outcome {
            Err(BrokerError::Refused(reason)) => assert!(name == "foreign" && reason.contains("WRONGTYPE")),
            outcome => assert!(outcome.is_ok() && name != "foreign"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flushed_server_is_announced_and_service_goes_on() {
    let server = RedisServer::start_default();
    let (node, recorder) = {
        let node = node(&server).await;
        let (sink, recorder) = listener(&node);
        subscribe(&node, sink, "a", Start::Live).await;
        (node, recorder)
    };
    let before = published(&node, "a", "1").await;
    assert_eq!(next(&recorder).await.1, before);
    server.cli(&["FLUSHALL"]);
    // The inbox is made anew within the reader's next round, and interest registered again.
    let after = loop {
        let position = published(&node, "a", "2").await;
        if let Some(Delivery::Publication(publication)) = recorder.next(Duration::from_secs(2)).await {
            assert!(publication.position.unwrap() <= position);
            break position;
        }
    };
    assert!(after.epoch > before.epoch);
    let (other, _) = listener(&node);
    let catchup = subscribe(&node, other, "a", Start::After(before)).await.catchup.unwrap();
    assert_eq!(catchup.channels[0].gap, Some(GapReason::EpochReset));
}

/// Long enough for Redis, short for a test.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_to_live_is_refreshed_so_that_history_outlives_the_last_publication() {
    let server = RedisServer::start_default();
    let policy = ChannelPolicy { history_ttl: Duration::from_millis(1_000), ..ChannelPolicy::default() };
    let node = RedisBroker::start(options(&server), Policies::new(Vec::new(), policy)).unwrap();
    node.booted().await.unwrap();
    let key = node.keys().key(node.keys().partition_of("a"), "h:a");
    let begun = Instant::now();
    let mut sent = 0;
    while begun.elapsed() < Duration::from_secs(3) {
        let at = Instant::now();
        published(&node, "a", "x").await;
        sent += 1;
        let left: u64 = server.cli(&["PTTL", std::str::from_utf8(&key).unwrap()]).parse().unwrap();
        // On a busy machine it takes a while to ask.
        let promised = Duration::from_millis(left) + at.elapsed();
        assert!(promised >= Duration::from_millis(990), "{left} ms left");
    }
    let refreshes = calls(&server, "pexpire");
    assert!(refreshes < 32 + sent / 2, "{refreshes} PEXPIRE for {sent} publishes");
}
