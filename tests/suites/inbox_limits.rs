//! A node that does not run while others publish: Redis keeps no more for it than configured, and when it runs again its
//! clients get all that history holds, in order, or are told what it does not.

use std::{collections::BTreeSet, time::Duration};

use streamgate_client::PublishOptions;
use streamgate_client::{Event, GapReason};
use streamgate_e2e::{
    audience::{Acked, Audience, Listener, publish},
    cluster, events,
    process::GatewayProcess,
    raw::Via,
    redis_server::RedisServer,
    scrape,
};

/// Entries of an inbox, as configured; the smallest that the configuration takes.
const INBOX: u64 = 1_000;
/// How far Redis may be beyond: trimming leaves the last node of the stream whole.
const SLACK: u64 = 150;
/// Publications to one channel while the node is stopped: more than fit into its inbox.
const MISSED: usize = 4_000;
/// History of the channels under `short`.
const SHORT: u64 = 50;

/// `STREAMGATE_LONG=1`: stopped for a minute, and for longer than its inboxes live.
fn long() -> bool {
    std::env::var("STREAMGATE_LONG").is_ok_and(|value| value == "1")
}

async fn node(redis: &RedisServer) -> GatewayProcess {
    let channels = format!(
        "channels:\n  - {{pattern: \"short.**\", history_size: {SHORT}}}\n  - {{pattern: \"**\", history_size: 20000}}\n\
         limits: {{publishes_per_second: 1000000}}\n"
    );
    let broker = format!(
        "broker: {{type: redis, redis: {{addr: '{}', inbox_max_length: {INBOX}}}}}\n{channels}",
        redis.addr()
    );
    let node = GatewayProcess::start(&broker).await;
    node.addrs().ready().await;
    node
}

fn inboxes(redis: &RedisServer) -> BTreeSet<String> {
    redis.cli(&["--scan", "--pattern", "*:in:*"]).lines().map(str::to_owned).collect()
}

/// Entries in the longest of these inboxes.
fn longest(redis: &RedisServer, inboxes: &BTreeSet<String>) -> u64 {
    inboxes.iter().map(|key| redis.cli(&["XLEN", key]).parse::<u64>().expect("a length")).max().unwrap_or(0)
}

fn used_memory(redis: &RedisServer) -> u64 {
    redis.info("memory")["used_memory"].parse().expect("a number of bytes")
}

/// A node that is about to be stopped, and one that is not.
struct Stage {
    audience: Audience,
    publisher: streamgate_client::Client,
    stopped: GatewayProcess,
    other: GatewayProcess,
    /// Those of the node that is stopped.
    inboxes: BTreeSet<String>,
    redis: RedisServer,
}

impl Stage {
    async fn set() -> Self {
        let redis = cluster::redis();
        let other = node(&redis).await;
        let others = inboxes(&redis);
        let stopped = node(&redis).await;
        let inboxes = inboxes(&redis).difference(&others).cloned().collect::<BTreeSet<_>>();
        assert_eq!(inboxes.len(), 16);
        let targets = ["long.a", "long.*", "short.a"];
        let audience = Audience::assemble(&[stopped.addrs()], &targets).await;
        let publisher = cluster::connect(&[other.addrs()], Via::WsProto).await;
        Self { audience, publisher, stopped, other, inboxes, redis }
    }

    /// Publishes many at a time.
    async fn publish_many(&self, channel: &str, tag: &str, count: usize) -> Vec<Acked> {
        let mut acked = Vec::with_capacity(count);
        for start in (0..count).step_by(200) {
            let group = (start..count.min(start + 200)).map(|number| {
                let payload = format!("{channel} {tag} {number}");
                let publisher = self.publisher.clone();
                let channel = channel.to_owned();
                async move { publish(&publisher, &channel, &payload).await }
            });
            acked.extend(futures_util::future::join_all(group).await);
        }
        acked
    }

    /// Publishes so many that no history holds.
    async fn pass(&self, count: usize) {
        let text = "x".repeat(1_000);
        let options = || PublishOptions { transient: true, ..PublishOptions::default() };
        for _ in 0..count / 200 {
            let group =
                (0..200).map(|_| self.publisher.publish("long.passing", events::text("p", &text), options()));
            for outcome in futures_util::future::join_all(group).await {
                outcome.expect("a transient publish");
            }
        }
    }

    /// Takes note of what is published while the node is stopped, and of what Redis keeps for it.
    async fn miss(&self) -> Vec<Acked> {
        let mut acked = self.publish_many("long.a", "missed", MISSED).await;
        acked.extend(self.publish_many("short.a", "missed", MISSED).await);
        acked.extend(self.publish_many("long.born", "missed", 100).await);
        // Its birth does not stay in the inbox.
        self.pass(3_000).await;
        let before = used_memory(&self.redis);
        self.pass(6_000).await;
        let after = used_memory(&self.redis);
        let length = longest(&self.redis, &self.inboxes);
        println!("longest inbox {length}, memory {before}, then {after}");
        assert!(length <= INBOX + SLACK, "{length} entries in an inbox");
        assert!(after < before + before / 10 + 1_000_000, "{before} bytes, then {after}");
        acked
    }

    /// Asserts that the listeners got all of `acked`, as far as history holds it.
    async fn assert_caught_up(&self, acked: Vec<Acked>) {
        let (short, long): (Vec<Acked>, Vec<Acked>) =
            acked.into_iter().partition(|acked| acked.channel == "short.a");
        self.audience.heard_all(&long).await;
        self.audience.assert_sound(&long, &[]);
        let kept = &short[short.len() - usize::try_from(SHORT).expect("small")..];
        self.audience.heard_all(kept).await;
        for listener in &self.audience.0 {
            let heard = listener.heard();
            let mut reasons: Vec<GapReason> = heard.iter().filter_map(reason).collect();
            // A client that gave its connection up meanwhile recovers: it is told in the place of the loss, and at the end.
            reasons.dedup();
            let expected =
                if listener.targets == ["short.a"] { vec![GapReason::HeadTrimmed] } else { vec![] };
            let others =
                || heard.iter().filter(|event| !matches!(event, Event::Message(_))).collect::<Vec<_>>();
            assert_eq!(reasons, expected, "{}: {:#?}", listener.name, others());
            if listener.targets == ["short.a"] {
                assert_hole_before(listener, kept);
            }
        }
    }
}

/// Why something is missing, if the event says so.
fn reason(event: &Event) -> Option<GapReason> {
    match event {
        Event::Gap(gap) => Some(gap.reason.clone()),
        Event::Recovered(end) => end.gap.clone(),
        _ => None,
    }
}

/// What is left of a short history comes in order, and what came before it was contiguous, too.
fn assert_hole_before(listener: &Listener, kept: &[Acked]) {
    let seen: Vec<u64> = listener.messages("short.a").iter().map(|message| message.offset).collect();
    let holes = seen.windows(2).filter(|two| two[0] + 1 != two[1]).count();
    assert!(holes <= 1 && seen.is_sorted(), "{}: {seen:?}", listener.name);
    let first = kept[0].ack.offset;
    let expected: Vec<u64> = (first..first + SHORT).collect();
    assert!(seen.ends_with(&expected), "{}: {seen:?}", listener.name);
}

/// What an operator is told.
async fn assert_told(node: &GatewayProcess, cause: &str) {
    let line = node.logged("the re-sync", |line| line.contains("re-syncing") && line.contains(cause)).await;
    assert!(line.contains("INFO") || line.contains("WARN"), "{line}");
    let label = format!("reason=\"{cause}\"");
    scrape::metrics_until(node.addrs().admin, "a re-sync", |scrape| {
        scrape.labelled("streamgate_resyncs_total", &label) >= 1.0
    })
    .await;
    scrape::metrics_until(node.addrs().admin, "nothing left to read", |scrape| {
        scrape.has("streamgate_inbox_lag_entries") && scrape.value("streamgate_inbox_lag_entries") == 0.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_stopped_under_load_fills_no_redis_and_catches_up() {
    let stage = Stage::set().await;
    let mut acked = stage.publish_many("long.a", "before", 20).await;
    stage.audience.heard_all(&acked).await;
    stage.stopped.pause();
    acked.extend(stage.miss().await);
    if long() {
        for second in 0..60 {
            acked.extend(stage.publish_many("long.a", &format!("of second {second}"), 50).await);
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(longest(&stage.redis, &stage.inboxes) <= INBOX + SLACK);
        }
    }
    stage.stopped.resume();
    stage.assert_caught_up(acked).await;
    if !long() {
        assert_told(&stage.stopped, "entries are missing from the inbox").await;
        stage.audience.assert_stayed();
    }
    // From now on by the inbox again.
    let after = stage.publish_many("long.b", "after", 20).await;
    stage.audience.heard_all(&after).await;
    stage.audience.assert_sound(&after, &[]);
    drop(stage.other);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_stopped_for_longer_than_its_inboxes_live_catches_up() {
    let stage = Stage::set().await;
    let mut acked = stage.publish_many("long.a", "before", 20).await;
    stage.audience.heard_all(&acked).await;
    stage.stopped.pause();
    if long() {
        tokio::time::sleep(Duration::from_secs(75)).await;
    } else {
        stage.inboxes.iter().for_each(|key| assert_eq!(stage.redis.cli(&["PEXPIRE", key, "1"]), "1"));
    }
    acked.extend(stage.publish_many("long.a", "missed", 200).await);
    acked.extend(stage.publish_many("long.born", "missed", 20).await);
    assert!(inboxes(&stage.redis).is_disjoint(&stage.inboxes), "nothing is kept for it");
    for (kind, name) in [("i", "long.a"), ("w", "long")] {
        let keys = stage.redis.cli(&["--scan", "--pattern", &format!("*:{kind}")]);
        let nodes = keys.lines().map(|key| stage.redis.cli(&["HGET", key, name]).split_whitespace().count());
        let nodes: usize = nodes.sum();
        // Of the 16 partitions, those with a publication have noticed.
        assert!(nodes < 16, "{kind}:{name}: {nodes}");
    }
    stage.stopped.resume();
    stage.audience.heard_all(&acked).await;
    stage.audience.assert_sound(&acked, &[]);
    for listener in &stage.audience.0 {
        assert_eq!(listener.heard().iter().find_map(reason), None, "{}", listener.name);
    }
    if !long() {
        assert_told(&stage.stopped, "the inbox was gone").await;
        stage.audience.assert_stayed();
    }
    let after = stage.publish_many("long.b", "after", 20).await;
    stage.audience.heard_all(&after).await;
    stage.audience.assert_sound(&after, &[]);
    drop(stage.other);
}
