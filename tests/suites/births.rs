//! Channels that are born while the inbox does not tell of them, and patterns that match them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use streamgate::{
    broker::{
        Broker as _, Delivery, PatternCursors, Publish, SinkId, Start, Stored, Subscribe, SubscribeTo,
        Subscribed,
        conformance::Recorder,
        redis::{RedisBroker, RedisOptions},
    },
    channel::{Channel, Pattern, Target},
    policy::Policies,
};
use streamgate_e2e::{
    DEADLINE, cluster,
    redis_server::RedisServer,
    swallowing_proxy::{Flow, Flows, SwallowingProxy},
    within,
};

async fn node(addr: std::net::SocketAddr) -> RedisBroker {
    let options: RedisOptions = addr.to_string().parse().unwrap();
    let node = RedisBroker::start(options, Policies::default()).unwrap();
    within("the node is ready", node.booted()).await.unwrap();
    node
}

async fn publish(node: &RedisBroker, channel: &str, text: &str) {
    let publish = Publish {
        channel: Channel::parse(channel).unwrap(),
        stored: Stored { event: text.to_owned().into(), ..Stored::default() },
        user_id: String::new(),
        idempotency_key: None,
        transient: false,
        job: Default::default(),
    };
    within("a publish", node.publish(publish)).await.unwrap();
}

fn listener(node: &RedisBroker) -> (SinkId, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    (node.attach(recorder.clone()), recorder)
}

fn subscribe(node: &RedisBroker, sink: SinkId, pattern: &str) -> impl Future<Output = Subscribed> + use<> {
    let pattern = Pattern::parse(pattern).unwrap();
    let to = SubscribeTo::Pattern { pattern, start: Start::<PatternCursors>::Live };
    let answer = node.subscribe(sink, Subscribe { to });
    async move { within("a subscription", answer).await.unwrap() }
}

/// The text of the next delivery; anything else panics.
async fn next(recorder: &Recorder) -> String {
    match recorder.next(DEADLINE).await {
        Some(Delivery::Publication(publication)) => {
            String::from_utf8(publication.stored.event.to_vec()).unwrap()
        }
        other => panic!("{other:?} instead of a publication"),
    }
}

/// Makes Redis forget that nodes listen under `room`, for as long as `meanwhile` takes.
async fn unheard(redis: &RedisServer, keys: &[String], meanwhile: impl Future<Output = ()>) {
    let nodes: BTreeMap<&String, String> =
        keys.iter().map(|key| (key, redis.cli(&["HGET", key, "room"]))).collect();
    for key in keys {
        redis.cli(&["HDEL", key, "room"]);
    }
    meanwhile.await;
    for (key, nodes) in nodes {
        redis.cli(&["HSET", key, "room", &nodes]);
    }
}

fn interest_under_room(redis: &RedisServer) -> Vec<String> {
    redis.cli(&["--scan", "--pattern", "*:w"]).lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_whose_birth_the_inbox_lost_is_delivered_from_its_first_publication() {
    let redis = cluster::redis();
    let (publisher, reader) = (node(redis.addr()).await, node(redis.addr()).await);
    let (sink, recorder) = listener(&reader);
    subscribe(&reader, sink, "room.*").await;
    unheard(&redis, &interest_under_room(&redis), async {
        publish(&publisher, "room.new", "1").await;
        publish(&publisher, "room.new", "2").await;
    })
    .await;
    publish(&publisher, "room.new", "3").await;
    for expected in ["1", "2", "3"] {
        assert_eq!(next(&recorder).await, expected);
    }
    publish(&publisher, "room.new", "4").await;
    assert_eq!(next(&recorder).await, "4");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_birth_that_a_later_pattern_finds_listed_is_still_news_for_the_earlier_one() {
    let redis = cluster::redis();
    let (publisher, reader) = (node(redis.addr()).await, node(redis.addr()).await);
    let ((early, heard_early), (late, heard_late)) = (listener(&reader), listener(&reader));
    subscribe(&reader, early, "room.*").await;
    unheard(&redis, &interest_under_room(&redis), async {
        publish(&publisher, "room.new", "1").await;
        publish(&publisher, "room.new", "2").await;
    })
    .await;
    let answer = subscribe(&reader, late, "room.**").await;
    assert_eq!(answer.positions.iter().map(|(_, position)| position.offset).collect::<Vec<_>>(), [2]);
    for expected in ["1", "2"] {
        assert_eq!(next(&heard_early).await, expected);
    }
    publish(&publisher, "room.new", "3").await;
    assert_eq!(next(&heard_early).await, "3");
    assert_eq!(next(&heard_late).await, "3", "the later one has what was before its answer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_was_followed_for_a_cancelled_pattern_is_followed_no_longer() {
    let redis = cluster::redis();
    let proxy = SwallowingProxy::start(redis.addr()).await;
    let (publisher, reader) = (node(redis.addr()).await, node(proxy.addr()).await);
    let (sink, recorder) = listener(&reader);
    // Entries are on time, answers to commands are not: all but the blocked reader are slow.
    let reading = within("a blocked read", async {
        loop {
            if let Some(port) = blocked(&redis, &proxy) {
                return port;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    for port in proxy.connections().into_iter().filter(|port| *port != reading) {
        let slow = Flow::Delay(Duration::from_millis(1_500));
        proxy.set(port, Flows { to_client: slow, ..Flows::default() });
    }
    let answer = tokio::spawn(subscribe(&reader, sink, "room.*"));
    within("interest", async {
        while interest_under_room(&redis).len() < 16 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    publish(&publisher, "room.new", "while it is looked up").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    reader.unsubscribe(sink, Target::Pattern(Pattern::parse("room.*").unwrap()));
    answer.await.unwrap();
    proxy.set_all(Flows::default());
    within("the end of interest", async {
        while !interest_under_room(&redis).is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // Channels that are followed are compared with their histories every 5 s, once they are quiet.
    let looks = || redis.info("commandstats").get("cmdstat_xrevrange").cloned();
    let calls =
        |line: Option<String>| line.and_then(|line| line.split([',', '=']).nth(1)?.parse::<u64>().ok());
    let before = calls(looks());
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(calls(looks()), before, "nobody looks at it any more");
    assert!(recorder.drain().is_empty());
}

/// The proxy's connection that is blocked in a read.
fn blocked(redis: &RedisServer, proxy: &SwallowingProxy) -> Option<u16> {
    let ours = proxy.connections();
    redis.cli(&["CLIENT", "LIST"]).lines().find_map(|line| {
        let field = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name)).unwrap_or("");
        let port = field("addr=").rsplit(':').next()?.parse().ok()?;
        (ours.contains(&port) && field("flags=").contains('b')).then_some(port)
    })
}
