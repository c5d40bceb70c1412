//! The scripts by themselves: what they record of channels that are occupied and vacated.

use bytes::Bytes;
use std::time::Duration;
use streamgate::broker::{
    Occupancy,
    redis::{Address, CallError, Connection, RedisOptions, Reply, Script, keys::slot_of, scripts},
};
use streamgate_e2e::{
    redis_cluster::{RedisCluster, blocking},
    redis_server::RedisServer,
};

const DEADLINE: Duration = Duration::from_secs(5);
const BASE: &str = "t:{x}:";

/// Calls the scripts on one server.
struct Caller(Connection);

struct Bench {
    server: RedisServer,
    caller: Caller,
}

impl Caller {
    async fn call(&self, script: &'static Script, args: &[&str]) -> Result<Reply, CallError> {
        let args = args.iter().map(|arg| Bytes::copy_from_slice(arg.as_bytes())).collect();
        let keys = vec![Bytes::from(format!("{BASE}meta"))];
        self.0.call_script(script, keys, args, DEADLINE).await
    }

    /// One heartbeat of `node` with a lease of 10 s; of one that `wants` to know which channels are occupied.
    async fn beat(&self, node: &str, wants: &str) -> Vec<Reply> {
        let args = [BASE, node, "1000", "10000", "0", "60000", "100", "0", "0", wants];
        self.call(&scripts::HEARTBEAT, &args).await.unwrap().into_array().unwrap()
    }

    async fn subscribe(&self, node: &str, channel: &str) -> Result<Reply, CallError> {
        let replid = self.0.hello().replid.clone();
        let args = [BASE, &replid, node, "1", channel, "0", "0", "none", ""];
        self.call(&scripts::SUBSCRIBE, &args).await
    }

    async fn unsubscribe(&self, node: &str, channel: &str) -> Result<Reply, CallError> {
        self.call(&scripts::UNSUBSCRIBE, &[BASE, node, &format!("i:{channel}")]).await
    }
}

/// What is recorded on a server: `o` or `v`, and the channel.
fn recorded(server: &RedisServer) -> Vec<String> {
    let entries = server.cli(&["XRANGE", &format!("{BASE}q:occupancy"), "-", "+"]);
    let payloads = entries.lines().filter(|line| line.contains(' '));
    let told = payloads.map(|payload| Occupancy::parse(payload.as_bytes()).expect(payload));
    told.map(|told| format!("{} {}", if told.occupied { 'o' } else { 'v' }, told.channel)).collect()
}

impl Bench {
    async fn new() -> Self {
        let server = RedisServer::start_default();
        let options: RedisOptions = server.addr().to_string().parse().unwrap();
        let caller = Caller(Connection::open(&options, &options.server(), 1).await.unwrap());
        Self { server, caller }
    }

    async fn beat(&self, node: &str, wants: &str) -> Vec<Reply> {
        self.caller.beat(node, wants).await
    }

    async fn subscribe(&self, node: &str, channel: &str) {
        self.caller.subscribe(node, channel).await.unwrap();
    }

    async fn unsubscribe(&self, node: &str, channel: &str) -> Result<Reply, CallError> {
        self.caller.unsubscribe(node, channel).await
    }

    fn recorded(&self) -> Vec<String> {
        recorded(&self.server)
    }

    /// `redis-cli` with the second word made a key.
    fn cli(&self, words: &[&str]) -> String {
        let key = format!("{BASE}{}", words[1]);
        let mut words = words.to_vec();
        words[1] = &key;
        self.server.cli(&words)
    }
}

#[tokio::test]
async fn the_first_node_of_a_channel_and_the_end_of_the_last_one_are_recorded_while_somebody_wants_to_know() {
    let bench = Bench::new().await;
    bench.beat("7", "0").await;
    bench.subscribe("7", "before").await;
    assert_eq!(bench.cli(&["EXISTS", "q:occupancy"]), "0", "nobody wants to know");

    bench.beat("8", "1").await;
    bench.subscribe("7", "a").await;
    bench.subscribe("8", "a").await;
    bench.subscribe("8", "a").await;
    assert_eq!(bench.recorded(), ["o a"]);
    bench.unsubscribe("7", "a").await.unwrap();
    bench.unsubscribe("7", "a").await.unwrap();
    bench.unsubscribe("8", "never").await.unwrap();
    assert_eq!(bench.recorded(), ["o a"]);
    bench.unsubscribe("8", "a").await.unwrap();
    bench.unsubscribe("7", "before").await.unwrap();
    assert_eq!(bench.recorded(), ["o a", "v a", "v before"]);

    bench.cli(&["HSET", "meta", "occupancy", "1"]);
    bench.subscribe("7", "after").await;
    assert_eq!(bench.recorded().len(), 3, "the last node that wants to know was heard of too long ago");
}

#[tokio::test]
async fn who_cleans_up_after_a_dead_node_records_what_it_vacates() {
    let bench = Bench::new().await;
    bench.beat("7", "0").await;
    bench.beat("8", "1").await;
    bench.subscribe("7", "shared").await;
    bench.subscribe("8", "shared").await;
    bench.subscribe("7", "alone").await;
    bench.cli(&["ZADD", "leases", "1", "7"]);
    bench.beat("8", "1").await;
    assert_eq!(bench.recorded(), ["o shared", "o alone", "v alone"]);
    // A node that leaves cleans up after itself.
    bench.caller.call(&scripts::LEAVE, &[BASE, "8", "1000", "100"]).await.unwrap();
    assert_eq!(bench.recorded().last().unwrap(), "v shared");
}

#[tokio::test]
async fn a_full_queue_takes_no_more_and_the_next_heartbeat_tells_how_many_it_were() {
    let bench = Bench::new().await;
    assert_eq!(bench.beat("7", "1").await.len(), 5);
    let fill = "for n = 1, 99999 do redis.call('XADD', KEYS[1], '*', 'w', 'x') end";
    bench.server.cli(&["EVAL", fill, "1", &format!("{BASE}q:occupancy")]);
    for channel in ["a", "b", "c"] {
        bench.subscribe("7", channel).await;
    }
    assert_eq!(bench.cli(&["XLEN", "q:occupancy"]), "100000");
    let told = bench.beat("7", "1").await;
    assert_eq!((told[5].as_str().unwrap(), told[6].as_u64().unwrap()), ("", 2));
    assert_eq!(bench.beat("7", "1").await.len(), 5, "once");
}

#[tokio::test]
async fn without_memory_nothing_ends_unrecorded() {
    let bench = Bench::new().await;
    bench.beat("7", "1").await;
    bench.subscribe("7", "a").await;
    bench.server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let error = bench.unsubscribe("7", "a").await.unwrap_err().to_string();
    assert!(error.contains("OOM"), "{error}");
    assert_eq!(bench.cli(&["HGET", "i", "a"]), "7", "it is tried again");
    bench.server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    bench.unsubscribe("7", "a").await.unwrap();
    assert_eq!(bench.recorded(), ["o a", "v a"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_queue_is_on_its_way_to_another_master_interest_changes_with_its_record_or_not_at_all() {
    let redis = blocking(|| RedisCluster::start(3)).await;
    let slot = slot_of(format!("{BASE}meta").as_bytes());
    let (from, to) = (redis.owner(slot), (redis.owner(slot) + 1) % 3);
    let open = |server: usize| {
        let at = Address::new("127.0.0.1", redis.server(server).addr().port());
        async move { Caller(Connection::open(&RedisOptions::default(), &at, 1).await.unwrap()) }
    };
    let source = open(from).await;
    source.beat("7", "1").await;
    source.subscribe("7", "a").await.unwrap();
    source.subscribe("7", "b").await.unwrap();
    redis.begin_move(slot..=slot, from, to);
    source.unsubscribe("7", "b").await.unwrap();
    assert_eq!(recorded(redis.server(from)), ["o a", "o b", "v b"], "all is still here");

    let port = redis.server(to).addr().port().to_string();
    let migrate = ["MIGRATE", "127.0.0.1", &port, &format!("{BASE}q:occupancy"), "0", "10000"];
    assert_eq!(redis.server(from).cli(&migrate), "OK");
    for error in [source.unsubscribe("7", "a").await, source.subscribe("7", "c").await] {
        let error = error.unwrap_err();
        assert!(matches!(&error, CallError::Server(error) if error.nothing_executed()), "{error:?}");
    }
    let interest = redis.server(from).cli(&["HMGET", &format!("{BASE}i"), "a", "c"]);
    assert_eq!(interest.trim_end(), "7", "as it was");

    redis.move_keys(slot..=slot, from, to);
    redis.end_move(slot..=slot, from, to);
    let target = open(to).await;
    target.unsubscribe("7", "a").await.unwrap();
    assert_eq!(recorded(redis.server(to)), ["o a", "o b", "v b", "v a"]);
}
