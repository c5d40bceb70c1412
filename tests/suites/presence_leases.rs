//! Presence on Redis when nodes die or sleep and Redis stops or forgets: each member leaves once, or not at all.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use streamgate::{
    broker::{
        Broker, BrokerStatus, Delivery, Member, Owner, PresenceAction, SinkId, Start, Subscribe, SubscribeTo,
        conformance::Recorder,
        redis::{RedisBroker, RedisOptions},
    },
    channel::{Channel, Target},
    policy::Policies,
};
use streamgate_e2e::redis_server::RedisServer;

const PATIENCE: Duration = Duration::from_secs(20);
const LEASE: Duration = Duration::from_secs(2);

pub(crate) async fn node_with(server: &RedisServer, lease: Duration) -> RedisBroker {
    let options = RedisOptions { lease, ..server.addr().to_string().parse().unwrap() };
    let node = RedisBroker::start(options, Policies::default()).unwrap();
    node.booted().await.unwrap();
    node
}

pub(crate) async fn node(server: &RedisServer) -> RedisBroker {
    node_with(server, LEASE).await
}

pub(crate) fn channel(name: &str) -> Channel {
    Channel::parse(name).unwrap()
}

pub(crate) fn member(session: &str) -> Member {
    Member { session_id: session.to_owned(), user_id: "u".to_owned(), ..Member::default() }
}

async fn join(node: &RedisBroker, name: &str, session: &str) {
    node.join(channel(name), member(session), Owner(1)).await.unwrap();
}

pub(crate) async fn count(node: &RedisBroker, name: &str) -> Option<u64> {
    node.presence(channel(name), 0).await.ok().map(|page| page.count)
}

/// Waits until `name` has so many members. For what only time brings.
pub(crate) async fn becomes(node: &RedisBroker, name: &str, wanted: u64) {
    let begun = Instant::now();
    while count(node, name).await != Some(wanted) {
        assert!(begun.elapsed() < PATIENCE, "{:?} members, not {wanted}", count(node, name).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn status(node: &RedisBroker, wanted: impl FnMut(&BrokerStatus) -> bool) {
    tokio::time::timeout(PATIENCE, node.status().wait_for(wanted)).await.unwrap().unwrap();
}

/// A sink that watches, and checks that joins and leaves of each session come in turn.
pub(crate) struct Watcher {
    id: SinkId,
    recorder: Arc<Recorder>,
    there: HashMap<(Channel, String), bool>,
}

impl Watcher {
    pub(crate) async fn new(node: &RedisBroker, name: &str) -> Self {
        let recorder = Arc::new(Recorder::default());
        let id = node.attach(recorder.clone());
        node.watch(id, Target::parse(name).unwrap()).await.unwrap();
        Self { id, recorder, there: HashMap::new() }
    }

    async fn within(&mut self, patience: Duration) -> Option<(PresenceAction, String)> {
        let Delivery::Presence(event) = self.recorder.next(patience).await? else { panic!() };
        let (key, joined) =
            ((event.channel.clone(), event.member.session_id.clone()), event.action == PresenceAction::Join);
        let before = self.there.insert(key, joined);
        assert_ne!(before, Some(joined), "{event:?} twice in a row");
        Some((event.action, event.member.session_id.clone()))
    }

    async fn next(&mut self) -> (PresenceAction, String) {
        self.within(PATIENCE).await.unwrap_or_else(|| panic!("no join or leave within {PATIENCE:?}"))
    }

    pub(crate) async fn expect(&mut self, action: PresenceAction, session: &str) {
        assert_eq!(self.next().await, (action, session.to_owned()));
    }

    /// Takes so many joins.
    async fn joins(&mut self, count: usize) {
        for _ in 0..count {
            assert_eq!(self.next().await.0, PresenceAction::Join);
        }
    }

    pub(crate) async fn is_told_nothing_for(&mut self, time: Duration) {
        let told = self.within(time).await;
        assert_eq!(told, None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_members_of_a_killed_node_leave_exactly_once_while_three_others_reap() {
    const LEASE: Duration = Duration::from_secs(3);
    let server = RedisServer::start_default();
    let (dying, second, third, fourth) = tokio::join!(
        node_with(&server, LEASE),
        node_with(&server, LEASE),
        node_with(&server, LEASE),
        node_with(&server, LEASE)
    );
    let mut watchers = [Watcher::new(&second, "room.**").await, Watcher::new(&third, "room.**").await];
    let name = |n: usize| format!("room.{}", if n < 300 { 0 } else { n % 20 });
    join_all((0..500).map(|n| dying.join(channel(&name(n)), member(&n.to_string()), Owner(1))))
        .await
        .into_iter()
        .for_each(Result::unwrap);
    // One of them has moved on, and stays.
    join(&fourth, "room.0", "0").await;
    for watcher in &mut watchers {
        watcher.joins(500).await;
    }
    drop(dying);
    let died = Instant::now();
    for watcher in &mut watchers {
        let mut left = HashSet::new();
        for _ in 0..499 {
            let (action, session) = watcher.next().await;
            assert!(action == PresenceAction::Leave && left.insert(session));
        }
    }
    let took = died.elapsed();
    println!("499 leaves {took:?} after the node died, with a lease of {LEASE:?}");
    assert!(took <= 2 * LEASE, "{took:?}");
    for watcher in &mut watchers {
        watcher.is_told_nothing_for(LEASE).await;
    }
    assert_eq!(count(&second, "room.0").await, Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_leaves_while_redis_is_stopped_for_three_leases() {
    let server = RedisServer::start_default();
    let (first, second) = (node(&server).await, node(&server).await);
    let mut watcher = Watcher::new(&second, "room").await;
    join_all((0..100).map(|n| first.join(channel("room"), member(&n.to_string()), Owner(1)))).await;
    watcher.joins(100).await;
    server.pause();
    tokio::time::sleep(3 * LEASE).await;
    server.resume();
    status(&first, |status| *status == BrokerStatus::Ready).await;
    status(&second, |status| *status == BrokerStatus::Ready).await;
    watcher.is_told_nothing_for(3 * LEASE).await;
    becomes(&second, "room", 100).await;
    first.leave(channel("room"), "7", Owner(1));
    watcher.expect(PresenceAction::Leave, "7").await;
}

#[test]
fn a_node_that_slept_past_its_lease_takes_it_again_and_its_members_return() {
    let server = Arc::new(RedisServer::start_default());
    // One thread for all of the sleeper's tasks: when it blocks, nothing of the node runs.
    let sleepers =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let others = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (sleeper, mut sleepers_watcher, recorder) = sleepers.block_on(async {
        let (server, recorder) = (server.clone(), Arc::new(Recorder::default()));
        let started = async move {
            let node = node(&server).await;
            let watcher = Watcher::new(&node, "room").await;
            let to = SubscribeTo::Channel { channel: channel("news"), start: Start::Live };
            let sink = node.attach(recorder.clone());
            node.subscribe(sink, Subscribe { to }).await.unwrap();
            join_all((0..50).map(|n| node.join(channel("room"), member(&n.to_string()), Owner(1)))).await;
            (node, watcher, recorder)
        };
        tokio::spawn(started).await.unwrap()
    });
    let awake = others.block_on(node(&server));
    let mut watcher = others.block_on(async {
        let watcher = Watcher::new(&awake, "room").await;
        assert_eq!(count(&awake, "room").await, Some(50));
        watcher
    });
    let (wake, sleep) = mpsc::channel::<()>();
    let slept = sleepers.spawn(async move { sleep.recv() });
    others.block_on(async {
        for _ in 0..50 {
            assert_eq!(watcher.next().await.0, PresenceAction::Leave);
        }
        assert_eq!(count(&awake, "room").await, Some(0));
        join(&awake, "room", "meanwhile").await;
        watcher.expect(PresenceAction::Join, "meanwhile").await;
    });
    wake.send(()).unwrap();
    others.block_on(async {
        slept.await.unwrap().unwrap();
        watcher.joins(50).await;
        becomes(&awake, "room", 51).await;
        // What it watches and listens to is there again, too.
        while !matches!(sleepers_watcher.next().await, (PresenceAction::Join, session) if session == "meanwhile") {}
        let publish = streamgate::broker::Publish {
            channel: channel("news"),
            stored: streamgate::broker::Stored::default(),
            user_id: String::new(),
            idempotency_key: None,
            transient: false,
            job: Default::default(),
        };
        awake.publish(publish).await.unwrap();
        assert!(matches!(recorder.next(PATIENCE).await, Some(Delivery::Publication(_))));
        watcher.is_told_nothing_for(LEASE).await;
    });
    // In this order: the runtimes end with their nodes' tasks.
    drop((sleeper, awake));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_back_after_redis_forgot_everything() {
    let server = RedisServer::start_default();
    let (first, second) = (node(&server).await, node(&server).await);
    let (mut exact, mut pattern) =
        (Watcher::new(&second, "room.a").await, Watcher::new(&second, "room.*").await);
    join_all((0..600).map(|n| first.join(channel("room.a"), member(&n.to_string()), Owner(1)))).await;
    join(&second, "room.a", "own").await;
    exact.joins(601).await;
    pattern.joins(601).await;
    server.cli(&["FLUSHALL"]);
    becomes(&second, "room.a", 601).await;
    // Nobody was really gone, and whoever watches need not know.
    exact.is_told_nothing_for(2 * LEASE).await;
    pattern.is_told_nothing_for(LEASE).await;
    join(&first, "room.a", "new").await;
    first.leave(channel("room.a"), "0", Owner(1));
    for watcher in [&mut exact, &mut pattern] {
        watcher.expect(PresenceAction::Join, "new").await;
        watcher.expect(PresenceAction::Leave, "0").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happened_while_the_inbox_was_lost_is_told_as_the_difference() {
    let server = RedisServer::start_default();
    let (first, second) = (node(&server).await, node(&server).await);
    join(&first, "room.a", "gone").await;
    join(&first, "room.a", "stays").await;
    let mut watchers = [Watcher::new(&second, "room.a").await, Watcher::new(&second, "room.**").await];
    // Whoever leaves and comes without inbox and interest of the watching node is not told to it.
    let keys = second.keys();
    let base = String::from_utf8(keys.base(keys.partition_of("room.a")).to_vec()).unwrap();
    let names = [&format!("in:{}", second.incarnation().unwrap()), "pi:room.a", "pw:room", "m:room.a"];
    let names = names.map(|name| format!("{base}{name}"));
    let script = "redis.call('DEL', KEYS[1], KEYS[2], KEYS[3]) \
                  return redis.call('HDEL', KEYS[4], 'gone')";
    server.cli(&["EVAL", script, "4", &names[0], &names[1], &names[2], &names[3]]);
    join(&first, "room.a", "new").await;
    let begun = Instant::now();
    for watcher in &mut watchers {
        watcher.expect(PresenceAction::Join, "new").await;
        watcher.expect(PresenceAction::Leave, "gone").await;
    }
    assert!(begun.elapsed() >= LEASE, "another node may only be late in telling Redis of it again");
    for watcher in &mut watchers {
        watcher.is_told_nothing_for(LEASE / 4).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joins_and_leaves_that_redis_did_not_answer_are_told_again() {
    let server = RedisServer::start_default();
    let (first, second) = (node(&server).await, node(&server).await);
    let mut watcher = Watcher::new(&second, "room").await;
    join(&first, "room", "stays").await;
    join(&first, "room", "leaves").await;
    watcher.joins(2).await;
    server.pause();
    first.leave(channel("room"), "leaves", Owner(1));
    let refused = first.join(channel("room"), member("comes"), Owner(2)).await.unwrap_err();
    assert!(refused.retryable(), "{refused}");
    server.resume();
    let mut told = [watcher.next().await, watcher.next().await];
    told.sort_by(|one, other| one.1.cmp(&other.1));
    assert_eq!(told[0], (PresenceAction::Join, "comes".to_owned()));
    assert_eq!(told[1], (PresenceAction::Leave, "leaves".to_owned()));
    becomes(&second, "room", 2).await;
    watcher.is_told_nothing_for(LEASE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_join_of_the_node_that_a_client_has_left_does_not_end_its_membership() {
    let server = RedisServer::start_default();
    let (left, reached) = (node(&server).await, node(&server).await);
    let mut watcher = Watcher::new(&left, "room").await;
    // The client has gone from one node to the other, but the first one's join comes after the second one's.
    join(&reached, "room", "s").await;
    join(&left, "room", "s").await;
    left.leave(channel("room"), "s", Owner(1));
    watcher.expect(PresenceAction::Join, "s").await;
    watcher.expect(PresenceAction::Leave, "s").await;
    watcher.expect(PresenceAction::Join, "s").await;
    reached.leave(channel("room"), "s", Owner(1));
    becomes(&reached, "room", 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_announces_its_leaves_and_leaves_nothing_behind() {
    let server = RedisServer::start_default();
    let (first, second) = (node(&server).await, node(&server).await);
    let mut watcher = Watcher::new(&second, "**").await;
    for n in 0..60 {
        join(&first, &format!("room.{}", n % 7), &n.to_string()).await;
    }
    watcher.joins(60).await;
    first.shutdown().await;
    let mut left = HashSet::new();
    for _ in 0..60 {
        let (action, session) = watcher.next().await;
        assert!(action == PresenceAction::Leave && left.insert(session));
    }
    second.unwatch(watcher.id, Target::parse("**").unwrap());
    second.shutdown().await;
    let keys = server.cli(&["KEYS", "*"]);
    assert!(keys.lines().all(|key| key.ends_with(":meta") || key.contains("{deployment}")), "{keys}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_failover_brought_back_is_found_and_withdrawn() {
    let server = RedisServer::start_default();
    let (first, second) = (node(&server).await, node(&server).await);
    let mut watcher = Watcher::new(&second, "room").await;
    join(&first, "room", "real").await;
    watcher.joins(1).await;
    // A leave and the end of interest that were acked and lost.
    let keys = first.keys();
    let base = String::from_utf8(keys.base(keys.partition_of("room")).to_vec()).unwrap();
    let (held, node) = (format!("{base}n:{}", first.incarnation().unwrap()), first.incarnation().unwrap());
    let script = "local value = redis.call('HGET', KEYS[1], 'real') \
                  redis.call('HSET', KEYS[1], 'ghost', value) \
                  redis.call('HSET', KEYS[3], 'room', ARGV[1]) \
                  return redis.call('SADD', KEYS[2], 'mghost room', 'i:room')";
    let (members, interest) = (format!("{base}m:room"), format!("{base}i"));
    server.cli(&["EVAL", script, "3", &members, &held, &interest, &node.to_string()]);
    server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    let begun = Instant::now();
    while server.cli(&["HEXISTS", &members, "ghost"]) != "0"
        || server.cli(&["HEXISTS", &interest, "room"]) != "0"
    {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    becomes(&second, "room", 1).await;
    assert_eq!(server.cli(&["SISMEMBER", &held, "mreal room"]), "1");
}
