//! Redis stops, loses its clients, or is killed and comes back with all that was acked: nobody is disconnected, nothing
//! is lost, nothing is told.

use std::time::{Duration, Instant};

use streamgate_client::PublishAck;
use streamgate_e2e::{
    audience::{Acked, Audience, Publishing},
    cluster, events,
    process::GatewayProcess,
    raw::{RawClient, Via},
    redis_server::{RedisServer, RedisServerOptions},
    scrape::{self, Scrape},
};
use streamgate_proto::v1::{PublishOptions, outbound_message::Envelope as Out};

/// Longest that a publish may take to fail: `command_timeout` and then some, as the machine may be busy.
const FAILS_WITHIN: Duration = Duration::from_secs(8);

const TARGETS: [&str; 2] = ["room.a", "room.*"];

/// A client that retries nothing, and what it was told.
struct Probe {
    client: RawClient,
    unanswered: Vec<String>,
    slowest: Duration,
}

impl Probe {
    async fn new(node: &GatewayProcess) -> Self {
        let client = RawClient::connect(node.addrs(), Via::WsJson).await;
        Self { client, unanswered: Vec::new(), slowest: Duration::ZERO }
    }

    /// Publishes; the ack, or the code of the error.
    async fn publish(&mut self, payload: &str, key: &str) -> Result<PublishAck, String> {
        let options = PublishOptions { idempotency_key: key.to_owned(), ..PublishOptions::default() };
        let frame = events::publish_with("room.a", events::text(payload, payload), options);
        let start = Instant::now();
        let answer = self.client.request(frame).await.envelope;
        self.slowest = self.slowest.max(start.elapsed());
        match answer {
            Some(Out::PublishAck(ack)) => Ok(PublishAck {
                position: ack.position.map(Into::into),
                offset: ack.offset,
                duplicate: ack.duplicate,
            }),
            Some(Out::Error(error)) => Err(error.code),
            other => panic!("{other:?}"),
        }
    }

    /// Publishes without a key until that is refused, and then until `until` has passed.
    async fn refused(&mut self, until: Instant) {
        let mut refusals = 0;
        for number in 0.. {
            let payload = format!("probe {number} of {until:?}");
            if let Err(code) = self.publish(&payload, "").await {
                assert_eq!(code, "NOT_AVAILABLE");
                refusals += 1;
            }
            self.unanswered.push(payload);
            if refusals > 0 && Instant::now() >= until {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(self.slowest < FAILS_WITHIN, "a publish took {:?}", self.slowest);
    }

    /// Publishes under one key until that is acked, and then once more.
    async fn retried(&mut self, payload: &str, key: &str) -> Acked {
        let ack = loop {
            match self.publish(payload, key).await {
                Ok(ack) => break ack,
                Err(code) => assert_eq!(code, "NOT_AVAILABLE"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let again = self.publish(payload, key).await.expect("Redis is there");
        assert!(again.duplicate && again.position == ack.position, "{ack:?}, then {again:?}");
        Acked { channel: "room.a".to_owned(), payload: payload.to_owned(), ack }
    }
}

/// What `/health/ready?verbose` and the metrics say while Redis is away.
async fn says_that_it_is_away(node: &GatewayProcess) {
    let admin = node.addrs().admin;
    scrape::metrics_until(admin, "Redis is away", |scrape| scrape.value("streamgate_redis_away") == 1.0)
        .await;
    let ready = scrape::get(admin, "/health/ready?verbose").await;
    assert_eq!(ready.status, 200, "no reason to move its clients: {}", ready.body);
    assert!(ready.body.contains("\"broker\":\"away: "), "{}", ready.body);
}

async fn says_that_it_is_back(node: &GatewayProcess) {
    let admin = node.addrs().admin;
    scrape::metrics_until(admin, "Redis is back", |scrape| scrape.value("streamgate_redis_away") == 0.0)
        .await;
    let ready = scrape::get(admin, "/health/ready?verbose").await;
    assert_eq!(ready.status, 200);
    assert!(ready.body.contains("\"broker\":\"ready\""), "{}", ready.body);
}

/// Two nodes with listeners over every transport, and publishers on both.
struct Stage {
    // Dropped in this order: the clients before the nodes, the nodes before the server.
    audience: Audience,
    publishers: Vec<Publishing>,
    nodes: [GatewayProcess; 2],
    redis: RedisServer,
}

impl Stage {
    async fn set(redis: RedisServer) -> Self {
        let nodes = [cluster::process(&redis, "").await, cluster::process(&redis, "").await];
        let addrs = nodes.each_ref().map(GatewayProcess::addrs);
        let audience = Audience::assemble(&addrs, &TARGETS).await;
        let mut publishers = Vec::new();
        for (number, via) in Via::ALL.into_iter().enumerate() {
            let client = cluster::connect(&[addrs[number % 2]], via).await;
            let born = format!("room.of{number}");
            let channels = ["room.a", "room.b", &born];
            let tag = format!("{via:?}");
            publishers.push(Publishing::start(client, &tag, &channels, Duration::from_millis(10)));
        }
        for publisher in &publishers {
            publisher.acked(20).await;
        }
        Self { audience, publishers, nodes, redis }
    }

    /// Goes on for a while, stops, and asserts that nothing is missing and nothing was told.
    async fn close(self, mut acked: Vec<Acked>, unanswered: &[String]) {
        for publisher in self.publishers {
            publisher.acked(publisher.count() + 20).await;
            acked.extend(publisher.stop().await);
        }
        self.audience.heard_all(&acked).await;
        self.audience.assert_only_messages();
        self.audience.assert_sound(&acked, unanswered);
        self.audience.assert_stayed();
        for node in &self.nodes {
            let metrics = Scrape::of(node.addrs().admin).await;
            assert_eq!(metrics.value("streamgate_gaps_total"), 0.0);
        }
        println!("  {} publications acked", acked.len());
    }
}

/// Takes Redis away for `away_for` and brings it back.
async fn outage(
    redis: RedisServer,
    away_for: Duration,
    away: impl Fn(&mut RedisServer),
    back: impl Fn(&mut RedisServer),
) {
    let mut stage = Stage::set(redis).await;
    let mut probe = Probe::new(&stage.nodes[0]).await;
    away(&mut stage.redis);
    let start = Instant::now();
    // Sent once into the outage, and then again under the same key when it is over.
    let lost = probe.publish("retried", "key of the retried").await;
    assert_eq!(lost, Err("NOT_AVAILABLE".to_owned()));
    probe.refused(start + away_for).await;
    for node in &stage.nodes {
        says_that_it_is_away(node).await;
    }
    back(&mut stage.redis);
    let back_at = Instant::now();
    let retried = probe.retried("retried", "key of the retried").await;
    println!(
        "Redis away for {:?}: slowest refusal {:?}, publishing again after {:?}",
        back_at - start,
        probe.slowest,
        back_at.elapsed()
    );
    for node in &stage.nodes {
        says_that_it_is_back(node).await;
    }
    stage.close(vec![retried], &probe.unanswered).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_that_is_stopped_for_ten_seconds_costs_time_and_no_message() {
    let ten = Duration::from_secs(10);
    outage(cluster::redis(), ten, |redis| redis.pause(), |redis| redis.resume()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_that_is_killed_and_has_synced_every_write_costs_time_and_no_message() {
    let args = ["--stream-node-max-bytes", "512", "--appendonly", "yes", "--appendfsync", "always"];
    let redis = RedisServer::start(RedisServerOptions::default().args(&args));
    outage(redis, Duration::from_secs(2), RedisServer::kill9, RedisServer::restart).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_that_cuts_all_its_clients_again_and_again_costs_time_and_no_message() {
    let stage = Stage::set(cluster::redis()).await;
    let mut probe = Probe::new(&stage.nodes[1]).await;
    let (mut kills, mut killed, mut acked) = (0, 0, Vec::new());
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5) {
        let count = stage.redis.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        killed += count.trim().parse::<usize>().expect("a number of connections");
        kills += 1;
        let payload = format!("between {kills}");
        acked.push(probe.retried(&payload, &payload).await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("all connections killed {kills} times, {killed} in all");
    assert!(killed >= kills, "the nodes had connections to lose: {killed}");
    stage.close(acked, &probe.unanswered).await;
}
