//! Masters of a Redis Cluster are replaced while clients publish and listen through two nodes.

use std::sync::{Arc, Mutex};

use streamgate::broker::redis::keys::{Keys, slot_of};
use streamgate_client::{Client, GapReason, PublishOptions};
use streamgate_e2e::{
    cluster::connect,
    events,
    gateway::TestNode,
    ledger::payload_of,
    raw::Via,
    redis_cluster::{RedisCluster, blocking},
    traffic::{Listener, Publishing, assert_all_heard, slowest},
    within,
};

const HISTORY: &str = "channels: [{pattern: \"**\", history_size: 100000}]";
/// The first master has the slots up to this one.
const LAST_OF_FIRST: u16 = 5_460;

/// Three masters with replicas, and two nodes.
struct Setup {
    redis: Arc<Mutex<RedisCluster>>,
    nodes: Vec<TestNode>,
}

impl Setup {
    async fn new() -> Self {
        let redis = blocking(|| RedisCluster::start(3)).await;
        let yaml = format!("{}{HISTORY}\n", redis.yaml());
        let mut nodes = Vec::new();
        for _ in 0..2 {
            let node = TestNode::start(&yaml).await;
            node.addrs().ready().await;
            nodes.push(node);
        }
        Self { redis: Arc::new(Mutex::new(redis)), nodes }
    }

    /// Does something to the servers, beside everything else.
    async fn redis<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut RedisCluster) -> T + Send + 'static,
    ) -> T {
        let redis = self.redis.clone();
        blocking(move || work(&mut redis.lock().unwrap())).await
    }

    async fn client(&self, node: usize, via: Via) -> Client {
        connect(&[self.nodes[node].addrs()], via).await
    }

    /// A listener of these channels on each node.
    async fn listeners(&self, channels: &[String]) -> Vec<Listener> {
        let targets: Vec<&str> = channels.iter().map(String::as_str).collect();
        let mut listeners = Vec::new();
        for node in 0..2 {
            let client = self.client(node, Via::WsProto).await;
            listeners.push(Listener::start(format!("on {node}"), client, &targets).await);
        }
        listeners
    }
}

/// So many channels with a slot of the first master, or of the others.
fn channels(count: usize, of_first: bool) -> Vec<String> {
    let keys = Keys::new("streamgate", 16).unwrap();
    let slot = |channel: &str| slot_of(&keys.base(keys.partition_of(channel)));
    let names = (0..).map(|n| format!("room.{n}"));
    names.filter(|channel| (slot(channel) <= LAST_OF_FIRST) == of_first).take(count).collect()
}

async fn publish(client: &Client, channel: &str, payload: &str) -> u64 {
    let ack = client.publish(channel, events::text(payload, payload), PublishOptions::default());
    ack.await.unwrap_or_else(|error| panic!("{payload}: {error}")).offset
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_hands_over_and_lives_on_as_a_replica_is_left_and_nothing_is_lost() {
    let setup = Setup::new().await;
    let mut targets = channels(4, true);
    targets.extend(channels(4, false));
    let listeners = setup.listeners(&targets).await;
    let publishers = vec![setup.client(0, Via::WsJson).await, setup.client(1, Via::Grpc).await];
    let publishing = Publishing::start(publishers, targets, 500);
    listeners[0].heard(500).await;
    for _ in 0..2 {
        // There and back again: connections to both were held.
        for replica in [3, 0] {
            setup.redis(move |redis| redis.fail_over(replica, "")).await;
            let seen = listeners[0].messages().len();
            listeners[0].heard(seen + 500).await;
        }
    }
    let acked = publishing.stop().await;
    assert_all_heard(&acked, &listeners).await;
    let (longest, _) = slowest(&acked, std::time::Duration::MAX);
    println!("four failovers on request under {} publishes: the longest took {longest:?}", acked.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_master_costs_its_partitions_latency_and_the_others_nothing() {
    let setup = Setup::new().await;
    let (concerned, others) = (channels(4, true), channels(4, false));
    let listeners = setup.listeners(&concerned).await;
    let other_listeners = setup.listeners(&others).await;
    let publisher = setup.client(0, Via::WsJson).await;
    for (number, channel) in concerned.iter().enumerate() {
        assert_eq!(publish(&publisher, channel, &number.to_string()).await, 1);
    }
    let publishing = Publishing::start(vec![publisher.clone()], others.clone(), 200);
    other_listeners[0].heard(200).await;

    // It has passed everything on: all that was acked is older than this answer.
    setup.redis(|redis| redis.server(0).cli(&["WAIT", "1", "10000"])).await;
    setup.redis(|redis| redis.kill9(0)).await;
    // By itself: the replica is elected.
    let first = within("a publish after the election", publish(&publisher, &concerned[0], "after")).await;
    assert_eq!(first, 2);
    for listener in &listeners {
        listener.heard(concerned.len() + 1).await;
    }
    let seen = other_listeners[0].messages().len();
    other_listeners[0].heard(seen + 200).await;

    // The one that was killed comes back, as a replica of its replica.
    setup
        .redis(|redis| {
            redis.restart(0);
            redis.agreed();
            assert_ne!(redis.owner(0), 0);
        })
        .await;
    assert_eq!(publish(&publisher, &concerned[1], "again").await, 2);
    for listener in &listeners {
        listener.heard(concerned.len() + 2).await;
        assert_eq!(listener.gaps(), [], "{}", listener.name);
        listener.assert_undisturbed();
    }
    let acked = publishing.stop().await;
    assert_all_heard(&acked, &other_listeners).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acked_writes_that_a_promoted_replica_misses_are_announced_to_those_concerned_only() {
    let setup = Setup::new().await;
    // Of one partition's master: one channel that loses something and one that does not; and one of another master.
    let mut names = channels(2, true);
    names.extend(channels(1, false));
    let [losing, intact, elsewhere] = <[String; 3]>::try_from(names).unwrap();
    let mut listeners = Vec::new();
    for channel in [&losing, &intact, &elsewhere] {
        listeners.push(setup.listeners(std::slice::from_ref(channel)).await);
    }
    let clients = [setup.client(0, Via::WsJson).await, setup.client(1, Via::WsProto).await];
    for channel in [&losing, &intact, &elsewhere] {
        assert_eq!(publish(&clients[0], channel, "kept").await, 1);
    }
    setup.redis(|redis| redis.server(0).cli(&["WAIT", "1", "10000"])).await;

    setup.redis(|redis| redis.sever_replicas(0)).await;
    for offset in 2..=4 {
        assert_eq!(publish(&clients[1], &losing, "lost").await, offset);
    }
    for listener in &listeners[0] {
        listener.heard(4).await;
    }
    setup
        .redis(|redis| {
            redis.kill9(0);
            redis.fail_over(redis.replica_of(0), "TAKEOVER");
        })
        .await;

    // Both nodes come to one history, whoever is first.
    let mut offsets = Vec::new();
    for (turn, client) in clients.iter().cycle().take(4).enumerate() {
        offsets.push(within("a publish", publish(client, &losing, &format!("new {turn}"))).await);
    }
    assert_eq!(offsets, [2, 3, 4, 5], "they follow what was kept");
    for channel in [&intact, &elsewhere] {
        assert_eq!(within("a publish", publish(&clients[0], channel, "new")).await, 2);
    }
    for (at, channel) in [&losing, &intact, &elsewhere].into_iter().enumerate() {
        for listener in &listeners[at] {
            let lost = at == 0;
            listener.heard(if lost { 8 } else { 2 }).await;
            let gaps = listener.gaps();
            if lost {
                assert!(gaps.len() == 1 && gaps[0].reason == GapReason::EpochReset, "{channel}: {gaps:?}");
                let texts: Vec<String> =
                    listener.messages().iter().map(|message| payload_of(&message.event)).collect();
                assert_eq!(texts, ["kept", "lost", "lost", "lost", "new 0", "new 1", "new 2", "new 3"]);
                let positions: Vec<_> =
                    listener.messages().iter().map(|message| message.position.clone().unwrap()).collect();
                assert!(positions[4..].iter().all(|new| new.epoch != positions[1].epoch), "{positions:?}");
            } else {
                assert_eq!(gaps, [], "{channel}");
            }
            listener.assert_undisturbed();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_master_that_wakes_up_as_a_replica_is_not_held_on_to() {
    let setup = Setup::new().await;
    let mut targets = channels(3, true);
    targets.extend(channels(3, false));
    let listeners = setup.listeners(&targets).await;
    let publishers = vec![setup.client(0, Via::WsProto).await, setup.client(1, Via::WsProto).await];
    let quiet = setup.client(1, Via::Grpc).await;
    let publishing = Publishing::start(publishers, targets.clone(), 100);
    listeners[0].heard(200).await;

    // Its connections stay open; its replica is elected meanwhile.
    setup.redis(|redis| redis.server(0).pause()).await;
    within("a publish to a partition of the stopped master", publish(&quiet, &channels(4, true)[3], "x"))
        .await;
    let seen = listeners[0].messages().len();
    listeners[0].heard(seen + 300).await;
    setup
        .redis(|redis| {
            redis.server(0).resume();
            redis.agreed();
            assert_ne!(redis.owner(0), 0);
        })
        .await;
    let seen = listeners[0].messages().len();
    listeners[0].heard(seen + 300).await;
    let acked = publishing.stop().await;
    assert_all_heard(&acked, &listeners).await;
    let (longest, _) = slowest(&acked, std::time::Duration::MAX);
    println!("a stopped master under {} publishes: the longest took {longest:?}", acked.len());
}
