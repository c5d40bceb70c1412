//! Connections that look open and are not: what is still blocked, or still on its way, at the other end of them must not
//! swallow entries, undo what its successor did, or store twice.

use std::time::{Duration, Instant};

use streamgate_e2e::{
    audience::{Acked, Audience, Publishing, publish},
    cluster,
    process::GatewayProcess,
    raw::Via,
    redis_server::RedisServer,
    swallowing_proxy::{Flow, Flows, SwallowingProxy},
    within,
};

use super::outage_stage::{FAILS_WITHIN, Probe};

/// Listeners on a node behind the proxy, a publisher on one with a good line.
struct Stage {
    audience: Audience,
    publisher: Publishing,
    far: GatewayProcess,
    near: GatewayProcess,
    proxy: SwallowingProxy,
    redis: RedisServer,
}

impl Stage {
    async fn set() -> Self {
        let redis = cluster::redis();
        let proxy = SwallowingProxy::start(redis.addr()).await;
        let near = cluster::process(&redis, "").await;
        let yaml = format!("broker: {{type: redis, redis: {{addr: '{}'}}}}\n", proxy.addr());
        let far = GatewayProcess::start(&yaml).await;
        far.addrs().ready().await;
        let audience = Audience::assemble(&[far.addrs()], &["room.a", "room.*"]).await;
        let client = cluster::connect(&[near.addrs()], Via::WsProto).await;
        let channels = ["room.a", "room.b", "room.c"];
        let publisher = Publishing::start(client, "steady", &channels, Duration::from_millis(5));
        publisher.acked(20).await;
        Self { audience, publisher, far, near, proxy, redis }
    }

    /// The connection that is blocked in a read, and the others of the far node.
    async fn connections(&self) -> (u16, Vec<u16>) {
        within("a blocked read", async {
            loop {
                let (reading, others) = self.listed();
                if let [reader] = reading[..] {
                    return (reader, others);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }

    /// Ports of the far node's connections: those that are blocked, and the others.
    fn listed(&self) -> (Vec<u16>, Vec<u16>) {
        let ours = self.proxy.connections();
        let (mut reading, mut others) = (Vec::new(), Vec::new());
        for line in self.redis.cli(&["CLIENT", "LIST"]).lines() {
            let field = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name)).unwrap_or("");
            let port = field("addr=").rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(0);
            if ours.contains(&port) {
                if field("flags=").contains('b') { reading.push(port) } else { others.push(port) }
            }
        }
        (reading, others)
    }

    /// Waits until the far node has opened another connection since there were `before`.
    async fn reopened(&self, before: usize) {
        within("another connection", async {
            while self.proxy.accepted() <= before {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    /// Publishes a little more and asserts that everyone heard all of it, once, and nothing else.
    async fn close(self, mut acked: Vec<Acked>, unanswered: &[String]) {
        self.publisher.acked(self.publisher.count() + 30).await;
        acked.extend(self.publisher.stop().await);
        self.audience.heard_all(&acked).await;
        self.audience.assert_only_messages();
        self.audience.assert_sound(&acked, unanswered);
        self.audience.assert_stayed();
        drop((self.far, self.near, self.proxy));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ghost_that_is_still_blocked_on_the_server_swallows_nothing() {
    let stage = Stage::set().await;
    for flows in [
        // The answers of the server go nowhere.
        Flows { to_client: Flow::Swallow, ..Flows::default() },
        // Nothing passes at all, and neither side hears of the end.
        Flows::both(Flow::Swallow),
        // What the node sends comes when its successor has long been reading.
        Flows { to_server: Flow::Delay(Duration::from_secs(5)), to_client: Flow::Swallow },
    ] {
        let (before, (reader, _)) = (stage.proxy.accepted(), stage.connections().await);
        let count = stage.publisher.count();
        stage.proxy.set(reader, flows);
        stage.reopened(before).await;
        stage.publisher.acked(stage.publisher.count() + 50).await;
        println!("{flows:?}: {} published meanwhile", stage.publisher.count() - count);
    }
    // The last of the delayed ones has come.
    tokio::time::sleep(Duration::from_secs(3)).await;
    stage.close(Vec::new(), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registration_that_comes_after_its_successors_takes_nothing_away() {
    let stage = Stage::set().await;
    let (reader, _) = stage.connections().await;
    let before = stage.proxy.accepted();
    // Made to register again on a line on which that takes longer than it waits.
    stage.proxy.set(reader, Flows { to_server: Flow::Delay(Duration::from_secs(5)), ..Flows::default() });
    for key in stage.redis.cli(&["--scan", "--pattern", "*:in:*"]).lines() {
        let group = stage.redis.cli(&["XINFO", "GROUPS", key]).lines().nth(1).unwrap_or("").to_owned();
        stage.redis.cli(&["XGROUP", "DESTROY", key, &group]);
    }
    stage.reopened(before).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    stage.close(Vec::new(), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swallowed_connection_for_commands_costs_its_deadline_and_stores_nothing_twice() {
    let stage = Stage::set().await;
    let mut probe = Probe::new(&stage.far).await;
    let mut acked = Vec::new();
    for (number, flows) in
        [Flows { to_client: Flow::Swallow, ..Flows::default() }, Flows::both(Flow::Swallow)]
            .into_iter()
            .enumerate()
    {
        // First that connection alone, then both.
        let (reader, others) = stage.connections().await;
        for connection in others.into_iter().chain((number == 1).then_some(reader)) {
            stage.proxy.set(connection, flows);
        }
        let payload = format!("swallowed {number}");
        let start = Instant::now();
        assert_eq!(probe.publish(&payload, &payload).await.unwrap_err(), "NOT_AVAILABLE");
        assert!(start.elapsed() < FAILS_WITHIN, "{:?}", start.elapsed());
        acked.push(probe.retried(&payload, &payload).await);
    }
    let unanswered = probe.unanswered.clone();
    stage.close(acked, &unanswered).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interest_that_redis_has_forgotten_is_found_missing_and_told_again() {
    let stage = Stage::set().await;
    let audience = Audience::assemble(&[stage.far.addrs()], &["apart"]).await;
    // As a withdrawal would that is executed late; what an ended connection sent is not (`redis_link`).
    let keys = stage.redis.cli(&["--scan", "--pattern", "*:i"]);
    let key = keys.lines().find(|key| stage.redis.cli(&["HDEL", key, "apart"]) == "1").unwrap();
    let other = cluster::connect(&[stage.near.addrs()], Via::WsProto).await;
    let first = publish(&other, "apart", "nobody is told of this one").await;
    audience.heard_all(std::slice::from_ref(&first)).await;
    within("interest", async {
        while stage.redis.cli(&["HEXISTS", key, "apart"]) != "1" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let second = publish(&other, "apart", "of this one at once").await;
    let start = Instant::now();
    let acked = [first, second];
    audience.heard_all(&acked).await;
    println!("heard after {:?}", start.elapsed());
    audience.assert_only_messages();
    audience.assert_sound(&acked, &[]);
    stage.close(Vec::new(), &[]).await;
}
