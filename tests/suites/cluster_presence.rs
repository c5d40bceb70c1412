//! Presence on a Redis Cluster: leases are kept in each partition, and a slot that moves ends none.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::join_all;
use streamgate::{
    broker::{
        Broker, Delivery, Member, Owner, PresenceAction,
        conformance::Recorder,
        redis::{Address, CallError, Connection, RedisBroker, RedisOptions, Reply, keys::slot_of, scripts},
    },
    channel::{Channel, Target},
    policy::Policies,
};
use streamgate_e2e::{
    DEADLINE,
    clustered::{channels, slot},
    redis_cluster::{RedisCluster, blocking},
};

const LEASE: Duration = Duration::from_secs(3);
/// What the keys of a partition start with whose scripts are called without a node.
const BASE: &str = "t:{x}:";

async fn node(redis: &RedisCluster) -> RedisBroker {
    let seeds = redis.servers().iter().map(|server| Address::new("127.0.0.1", server.addr().port()));
    let options = RedisOptions { cluster: seeds.collect(), lease: LEASE, ..RedisOptions::default() };
    let node = RedisBroker::start(options, Policies::default()).unwrap();
    node.booted().await.unwrap();
    node
}

fn member(session: usize) -> Member {
    Member { session_id: session.to_string(), user_id: "u".to_owned(), ..Member::default() }
}

async fn join(node: &RedisBroker, channel: impl Fn(usize) -> String, members: std::ops::Range<usize>) {
    let joins = members.map(|n| node.join(Channel::parse(&channel(n)).unwrap(), member(n), Owner(1)));
    join_all(joins).await.into_iter().for_each(Result::unwrap);
}

async fn watch(node: &RedisBroker, target: &str) -> Arc<Recorder> {
    let recorder = Arc::new(Recorder::default());
    let sink = node.attach(recorder.clone());
    node.watch(sink, Target::parse(target).unwrap()).await.unwrap();
    recorder
}

/// Takes so many events of this kind, each of another session.
async fn takes(watcher: &Recorder, action: PresenceAction, count: usize) {
    let mut sessions = HashSet::new();
    for _ in 0..count {
        let Some(Delivery::Presence(event)) = watcher.next(DEADLINE).await else {
            panic!("{} of {count}", sessions.len())
        };
        assert!(event.action == action && sessions.insert(event.member.session_id.clone()), "{event:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_members_of_a_killed_node_leave_exactly_once() {
    let redis = blocking(|| RedisCluster::start(3)).await;
    let (dying, second, third, fourth) = tokio::join!(node(&redis), node(&redis), node(&redis), node(&redis));
    let watchers = [watch(&second, "room.**").await, watch(&third, "room.**").await];
    join(&dying, |n| format!("room.{}", n % 40), 0..500).await;
    for watcher in &watchers {
        takes(watcher, PresenceAction::Join, 500).await;
    }
    // Without a word, as a crash does.
    drop(dying);
    let died = Instant::now();
    for watcher in &watchers {
        takes(watcher, PresenceAction::Leave, 500).await;
    }
    let took = died.elapsed();
    println!("500 leaves in 16 partitions {took:?} after the node died, with a lease of {LEASE:?}");
    assert!(took <= 2 * LEASE, "{took:?}");
    for watcher in &watchers {
        assert!(watcher.next(LEASE).await.is_none(), "none is told twice");
    }
    drop(fourth);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_leaves_while_a_slot_takes_longer_than_a_lease_to_move() {
    let redis = blocking(|| RedisCluster::start(3)).await;
    let (other, holders) = (node(&redis).await, [node(&redis).await, node(&redis).await, node(&redis).await]);
    let name = channels(1, |slot| slot < 5_461).remove(0);
    let slot = slot(&name);
    let watcher = watch(&other, &name).await;
    let mut held = Vec::new();
    for (at, holder) in holders.iter().enumerate() {
        join(holder, |_| name.clone(), at * 10..at * 10 + 10).await;
        let keys = holder.keys();
        let key = keys.key(keys.partition_of(&name), &format!("n:{}", holder.incarnation().unwrap()));
        held.push(String::from_utf8(key.to_vec()).unwrap());
    }
    takes(&watcher, PresenceAction::Join, 30).await;

    // What three nodes hold goes ahead of everything else: they cannot renew their leases there, the other one could.
    let redis = blocking(move || {
        redis.begin_move(slot..=slot, 0, 1);
        let port = redis.server(1).addr().port().to_string();
        for key in &held {
            let migrate = ["MIGRATE", "127.0.0.1", &port, key, "0", "10000"];
            assert_eq!(redis.server(0).cli(&migrate), "OK");
        }
        redis
    })
    .await;
    tokio::time::sleep(3 * LEASE).await;
    let redis = blocking(move || {
        redis.move_keys(slot..=slot, 0, 1);
        redis.end_move(slot..=slot, 0, 1);
        redis.agreed();
        redis
    })
    .await;
    if let Some(told) = watcher.next(2 * LEASE).await {
        panic!("{told:?}");
    }
    let page = other.presence(Channel::parse(&name).unwrap(), 100).await.unwrap();
    assert_eq!((page.count, page.members.len()), (30, 30));
    drop(redis);
}

/// A heartbeat of `node` in the partition whose keys start with `base`, with a lease of 10 s.
async fn beat(connection: &Connection, base: &'static str, node: &'static str) -> Result<Reply, CallError> {
    let args = [base, node, "1000", "10000", "0", "3000", "10", "0", "1"].map(Bytes::from).to_vec();
    connection.call_script(&scripts::HEARTBEAT, vec![format!("{base}meta").into()], args, DEADLINE).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_at_work_reaping_while_one_node_cannot_renew_its_lease() {
    let redis = blocking(|| RedisCluster::start(3)).await;
    let slot = slot_of(b"t:{x}:meta");
    let (from, to) = (redis.owner(slot), (redis.owner(slot) + 1) % 3);
    let connection = connection(&redis, from).await;
    for node in ["1", "2"] {
        beat(&connection, BASE, node).await.unwrap();
    }
    redis.begin_move(slot..=slot, from, to);
    let port = redis.server(to).addr().port().to_string();
    let migrate = ["MIGRATE", "127.0.0.1", &port, "t:{x}:n:1", "0", "10000"];
    assert_eq!(redis.server(from).cli(&migrate), "OK");

    let reaped = || redis.server(from).cli(&["HGET", "t:{x}:meta", "reaped"]);
    let before = reaped();
    let error = beat(&connection, BASE, "1").await.unwrap_err();
    assert!(matches!(&error, CallError::Server(error) if error.nothing_executed()), "{error:?}");
    // The other one renews its own, and is told that its mark was missing.
    redis.server(from).cli(&["SADD", "t:{x}:n:2", "i:a"]);
    redis.server(from).cli(&["SREM", "t:{x}:n:2", "lease"]);
    let told = beat(&connection, BASE, "2").await.unwrap().into_array().unwrap();
    assert_eq!(told[0].as_int(), Ok(1));
    assert_eq!(reaped(), before, "the second node did not go on alone");
    assert!(!connection.is_closed());
}

/// Two members of node 1 come to node 2, which has a new one, too: all in one call.
async fn change(connection: &Connection, base: &str) -> Result<Reply, CallError> {
    let mut args = vec![base, "2", "1000"];
    for session in ["new", "one", "two"] {
        args.extend(["join", "room", session, "member", "1"]);
    }
    let args = args.into_iter().map(|arg| Bytes::copy_from_slice(arg.as_bytes())).collect();
    connection.call_script(&scripts::CHANGE_MEMBERS, vec![format!("{base}meta").into()], args, DEADLINE).await
}

async fn connection(redis: &RedisCluster, server: usize) -> Connection {
    let at = Address::new("127.0.0.1", redis.server(server).addr().port());
    Connection::open(&RedisOptions::default(), &at, 1).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_change_nodes_all_or_none_while_keys_of_the_former_node_are_on_the_way() {
    let redis = blocking(|| RedisCluster::start(3)).await;
    for (base, ahead) in [("t:{x}:", "n:1"), ("t:{y}:", "in:1")] {
        let key = |name: &str| format!("{base}{name}");
        let slot = slot_of(key("meta").as_bytes());
        let (from, to) = (redis.owner(slot), (redis.owner(slot) + 1) % 3);
        let source = connection(&redis, from).await;
        let cli = |command: &str, name: &str, words: &[&str]| {
            redis.server(from).cli(&[&[command, &key(name)], words].concat())
        };
        // Nothing else that the script looks at is missing: only what goes ahead can stop it.
        for node in ["0", "1", "2"] {
            beat(&source, base, node).await.unwrap();
            cli("XADD", &format!("in:{node}"), &[&format!("{node}-1"), "k", "v"]);
        }
        cli("SADD", "pi:room", &["2"]);
        cli("SADD", "pw:", &["0"]);
        cli("SADD", "pw:room", &["0"]);
        cli("HSET", "m:room", &["one", "1/1 member", "two", "1/1 member"]);
        cli("SADD", "n:1", &["mone room", "mtwo room"]);
        cli("ZADD", "mc", &["0", "room"]);

        redis.begin_move(slot..=slot, from, to);
        let port = redis.server(to).addr().port().to_string();
        let migrate = ["MIGRATE", "127.0.0.1", &port, &key(ahead), "0", "10000"];
        assert_eq!(redis.server(from).cli(&migrate), "OK");
        let error = change(&source, base).await.unwrap_err();
        assert!(matches!(&error, CallError::Server(error) if error.nothing_executed()), "{ahead}: {error:?}");
        assert_eq!(cli("HKEYS", "m:room", &[]), "one\ntwo", "{ahead}");
        assert_eq!(cli("SMEMBERS", "n:2", &[]), "lease", "{ahead}");
        assert_eq!(cli("XLEN", "in:2", &[]), "1", "{ahead}: nobody is told");

        redis.move_keys(slot..=slot, from, to);
        redis.end_move(slot..=slot, from, to);
        let outcomes = change(&connection(&redis, to).await, base).await.unwrap().into_array().unwrap();
        let outcomes: Vec<_> = outcomes.iter().map(|outcome| outcome.as_int().unwrap()).collect();
        assert_eq!(outcomes, [3, 1, 0, 0]);
        let told = redis.server(to).cli(&["XLEN", &key("in:1")]);
        assert_eq!(told, "3", "the former node is told of both");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_of_its_kind_may_go_while_the_slot_moves() {
    let redis = blocking(|| RedisCluster::start(3)).await;
    let slot = slot_of(b"t:{x}:meta");
    let (from, to) = (redis.owner(slot), (redis.owner(slot) + 1) % 3);
    let server = redis.server(from);
    let at = Address::new("127.0.0.1", server.addr().port());
    let connection = Connection::open(&RedisOptions::default(), &at, 1).await.unwrap();
    let call = |script, args: &[&'static str]| {
        let args = args.iter().map(|arg| Bytes::from(*arg)).collect();
        connection.call_script(script, vec!["t:{x}:meta".into()], args, DEADLINE)
    };
    // Whatever a script touches is there.
    server.cli(&["HSET", "t:{x}:meta", "top", "1"]);
    for key in ["pi:a", "pw:", "pw:a", "pi:b", "pw:b", "pi:c", "pw:c"] {
        server.cli(&["SADD", &format!("t:{{x}}:{key}"), "9"]);
    }
    // As interest.lua makes it.
    server.cli(&["HSET", "t:{x}:w", " ", &"-".repeat(65), "p", "1"]);
    for (inbox, id) in [("t:{x}:in:1", "1-1"), ("t:{x}:in:9", "9-1")] {
        server.cli(&["XADD", inbox, id, "x", "y"]);
    }
    let join = |channel| ["t:{x}:", "1", "1000", "join", channel, "s", "m", "1"];
    for channel in ["a", "b", "c"] {
        call(&scripts::CHANGE_MEMBERS, &join(channel)).await.unwrap();
    }
    beat(&connection, BASE, "1").await.unwrap();
    redis.begin_move(slot..=slot, from, to);

    let leave = ["t:{x}:", "1", "1000", "leave", "a", "s", "", "1"];
    let left = call(&scripts::CHANGE_MEMBERS, &leave).await.unwrap().into_array().unwrap();
    assert_eq!((left[1].as_int(), server.cli(&["ZSCORE", "t:{x}:mc", "a"]).as_str()), (Ok(1), ""));
    call(&scripts::UNSUBSCRIBE, &["t:{x}:", "1", "w:p", "w:q"]).await.unwrap();
    let left = call(&scripts::LEAVE, &["t:{x}:", "1", "1000", "100"]).await.unwrap();
    assert_eq!(left.as_u64(), Ok(0));
    for key in ["m:a", "m:b", "m:c", "mc", "n:1", "in:1", "w"] {
        let there = server.cli(&["EXISTS", &format!("t:{{x}}:{key}")]);
        assert!(there.contains("ASK"), "{key}: {there}");
    }
}
