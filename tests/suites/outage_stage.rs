//! What the suites of outages have in common: nodes with listeners and publishers, and a client that retries nothing.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use streamgate_client::PublishAck;
use streamgate_e2e::{
    audience::{Acked, Audience, Publishing},
    cluster,
    crowd::Crowd,
    events,
    history::Recorder,
    process::GatewayProcess,
    raw::{RawClient, Via},
    redis_server::RedisServer,
    scrape::{self, Scrape},
    watchers::Watchers,
};
use streamgate_proto::v1::{PublishOptions, outbound_message::Envelope as Out};

/// Longest that a publish may take to fail: `command_timeout` and then some, as the machine may be busy.
pub const FAILS_WITHIN: Duration = Duration::from_secs(8);

const TARGETS: [&str; 2] = ["room.a", "room.*"];
/// Longer than the timeouts of calls to Redis; shorter than most outages, and so short that a false leave comes within the test.
const LEASE: Duration = Duration::from_secs(4);
const MEMBERS: usize = 12;

/// A client that retries nothing, and what it was told.
pub struct Probe {
    client: RawClient,
    /// What may have been stored or not.
    pub unanswered: Vec<String>,
    /// The longest that an answer took.
    pub slowest: Duration,
}

impl Probe {
    /// Of this node.
    pub async fn new(node: &GatewayProcess) -> Self {
        let client = RawClient::connect(node.addrs(), Via::WsJson).await;
        Self { client, unanswered: Vec::new(), slowest: Duration::ZERO }
    }

    /// Publishes; the ack, or the code of the error.
    pub async fn publish(&mut self, payload: &str, key: &str) -> Result<PublishAck, String> {
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
    pub async fn refused(&mut self, until: Instant) {
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
    pub async fn retried(&mut self, payload: &str, key: &str) -> Acked {
        let began = Instant::now();
        let ack = loop {
            match self.publish(payload, key).await {
                Ok(ack) => break ack,
                Err(code) => assert_eq!(code, "NOT_AVAILABLE"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let again = self.publish(payload, key).await.expect("Redis is there");
        assert!(again.duplicate && again.position == ack.position, "{ack:?}, then {again:?}");
        Acked { channel: "room.a".to_owned(), payload: payload.to_owned(), ack, took: began.elapsed() }
    }
}

/// What `/health/ready?verbose` and the metrics say while Redis is away.
/// What the node says of Redis.
pub async fn says_that_it_is_away(node: &GatewayProcess) {
    let admin = node.addrs().admin;
    scrape::metrics_until(admin, "Redis is away", |scrape| scrape.value("streamgate_redis_away") == 1.0)
        .await;
    let ready = scrape::get(admin, "/health/ready?verbose").await;
    assert_eq!(ready.status, 200, "no reason to move its clients: {}", ready.body);
    assert!(ready.body.contains("\"broker\":\"away: "), "{}", ready.body);
}

/// Waits until the node says that Redis is back.
pub async fn says_that_it_is_back(node: &GatewayProcess) {
    let admin = node.addrs().admin;
    scrape::metrics_until(admin, "Redis is back", |scrape| scrape.value("streamgate_redis_away") == 0.0)
        .await;
    let ready = scrape::get(admin, "/health/ready?verbose").await;
    assert_eq!(ready.status, 200);
    assert!(ready.body.contains("\"broker\":\"ready\""), "{}", ready.body);
}

/// Two nodes with listeners over every transport, publishers on both, and members of channels and those who watch them.
pub struct Stage {
    // Dropped in this order: the clients before the nodes, the nodes before the server.
    pub audience: Audience,
    pub crowd: Crowd,
    pub watchers: Watchers,
    pub publishers: Vec<Publishing>,
    pub nodes: [GatewayProcess; 2],
    pub redis: RedisServer,
}

impl Stage {
    /// With nodes that reach the server directly.
    pub async fn set(redis: RedisServer) -> Self {
        let addr = redis.addr();
        Self::set_at(redis, addr).await
    }

    /// With nodes that reach the server at this address.
    pub async fn set_at(redis: RedisServer, addr: SocketAddr) -> Self {
        let yaml = format!(
            "broker: {{type: redis, redis: {{addr: '{addr}'}}}}\npresence: {{lease: {}s}}\n",
            LEASE.as_secs()
        );
        let nodes = [GatewayProcess::start(&yaml).await, GatewayProcess::start(&yaml).await];
        for node in &nodes {
            node.addrs().ready().await;
        }
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
        let recorder = Recorder::default();
        let channels = ["lobby.0", "lobby.1"].map(str::to_owned);
        let watchers = Watchers::start(&recorder, &addrs, &["lobby.*", "lobby.0"], &channels).await;
        let mut crowd = Crowd::none(&recorder);
        crowd.grow(MEMBERS, &addrs, &channels).await;
        watchers.agree().await;
        Self { audience, crowd, watchers, publishers, nodes, redis }
    }

    /// Waits until a member that was taken for gone would have left, and asserts that only those who did leave were told
    /// to have left, once, and nobody to have come again.
    pub async fn nobody_left_but(&self, gone: &[String]) {
        // For what must not happen there is no event.
        tokio::time::sleep(2 * LEASE).await;
        self.watchers.assert_sound(false).await;
        for view in self.watchers.views() {
            let everywhere = view.target.contains('*');
            let joins = if everywhere { MEMBERS } else { MEMBERS / 2 };
            assert_eq!(view.joins, joins, "{}", view.name);
            assert!(!everywhere || view.left.len() == gone.len(), "{}: {:?}", view.name, view.left);
            assert!(view.left.iter().all(|session| gone.contains(session)), "{}: {:?}", view.name, view.left);
        }
        self.watchers.assert_stayed();
        self.crowd.assert_stayed();
    }

    /// Goes on for a while, stops, and asserts that nothing is missing and nothing was told.
    pub async fn close(self, mut acked: Vec<Acked>, unanswered: &[String]) {
        self.watchers.assert_sound(false).await;
        self.watchers.assert_stayed();
        self.crowd.assert_stayed();
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
