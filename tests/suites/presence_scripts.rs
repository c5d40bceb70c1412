//! The scripts of presence by themselves: who holds what, and what the reaper takes away.

use bytes::Bytes;
use std::time::Duration;
use streamgate::broker::redis::{Connection, RedisOptions, Reply, Script, scripts};
use streamgate_e2e::redis_server::RedisServer;

const DEADLINE: Duration = Duration::from_secs(5);
const BASE: &str = "t:{x}:";

struct Bench {
    server: RedisServer,
    connection: Connection,
}

impl Bench {
    async fn new() -> Self {
        let server = RedisServer::start_default();
        let options: RedisOptions = server.addr().to_string().parse().unwrap();
        let connection = Connection::open(&options, &options.server(), 1).await.unwrap();
        Self { server, connection }
    }

    async fn call(&self, script: &'static Script, args: &[&str]) -> Vec<Reply> {
        let args = args.iter().map(|arg| Bytes::copy_from_slice(arg.as_bytes())).collect();
        let keys = vec![Bytes::from(format!("{BASE}meta"))];
        self.connection.call_script(script, keys, args, DEADLINE).await.unwrap().into_array().unwrap()
    }

    /// Changes of `node`: action, channel, session.
    async fn change(&self, node: &str, changes: &[[&str; 3]]) -> Vec<i64> {
        let mut args = vec![BASE, node, "1000"];
        for [action, channel, session] in changes {
            args.extend([action, channel, session, "member bytes", "1"]);
        }
        let reply = self.call(&scripts::CHANGE_MEMBERS, &args).await;
        reply[1..].iter().map(|item| item.as_int().unwrap()).collect()
    }

    /// One heartbeat of `node`, with a lease of 10 s.
    async fn beat(&self, node: &str, most: &str, go_on: bool) -> Vec<i64> {
        let flag = if go_on { "1" } else { "0" };
        let args = [BASE, node, "1000", "10000", "900", "3000", most, flag, "0"];
        let reply = self.call(&scripts::HEARTBEAT, &args).await;
        reply.iter().take(5).map(|item| item.as_int().unwrap()).collect()
    }

    /// Lets the lease of `node` have run out.
    fn expire(&self, node: &str) {
        self.cli(&["ZADD", "leases", "1", node]);
    }

    /// Lets the last run of the reaper be so long ago.
    fn reaped_ago(&self, ms: u64) {
        self.cli(&["HSET", "meta", "reaped", &(self.now() - ms).to_string()]);
    }

    /// The server's clock in ms.
    fn now(&self) -> u64 {
        let time = self.server.cli(&["TIME"]);
        let mut time = time.lines().map(|part| part.parse::<u64>().unwrap());
        time.next().unwrap() * 1_000 + time.next().unwrap() / 1_000
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
async fn a_member_is_taken_over_kept_and_left_only_by_who_holds_it() {
    let bench = Bench::new().await;
    assert_eq!(
        bench.change("7", &[["join", "a", "s"], ["join", "a", "s"], ["keep", "a", "s"]]).await,
        [1, 0, 0]
    );
    assert_eq!(bench.change("8", &[["leave", "a", "s"], ["keep", "a", "s"]]).await, [0, 2]);
    bench.cli(&["XADD", "in:7", "7-1", "x", "y"]);
    assert_eq!(bench.change("8", &[["join", "a", "s"]]).await, [0]);
    assert_eq!(bench.cli(&["XLEN", "in:7"]), "2", "the former holder is told");
    assert_eq!(bench.cli(&["SISMEMBER", "n:7", "ms a"]), "0");
    assert_eq!(bench.cli(&["SISMEMBER", "n:8", "ms a"]), "1");
    assert_eq!(bench.change("7", &[["leave", "a", "s"], ["keep", "a", "s"]]).await, [0, 2]);
    assert_eq!(bench.change("8", &[["leave", "a", "s"]]).await, [1]);
    assert_eq!((bench.cli(&["EXISTS", "m:a"]), bench.cli(&["EXISTS", "mc"])), ("0".into(), "0".into()));
    assert_eq!(bench.change("7", &[["keep", "a", "s"]]).await, [1]);
}

#[tokio::test]
async fn the_reaper_goes_in_batches_and_ends_only_what_the_dead_node_holds() {
    let bench = Bench::new().await;
    bench.cli(&["XADD", "in:9", "9-1", "x", "y"]);
    bench.cli(&["SADD", "pi:a", "9"]);
    let sessions: Vec<String> = (0..25).map(|n| n.to_string()).collect();
    let joins: Vec<[&str; 3]> = sessions.iter().map(|session| ["join", "a", session.as_str()]).collect();
    bench.change("7", &joins).await;
    bench.change("8", &[["join", "a", "3"]]).await;
    bench.cli(&["HSET", "i", "a", "7 8"]);
    bench.cli(&["SADD", "n:7", "i:a"]);
    bench.cli(&["XADD", "in:7", "7-1", "x", "y"]);
    assert_eq!(
        bench.beat("8", "10", false).await,
        [1, 0, 0, 0, 1],
        "the first run ever gives everybody a new start"
    );
    bench.expire("7");
    assert_eq!(bench.beat("8", "10", false).await, [0, 0, 0, 0, 0], "somebody has just looked");
    bench.reaped_ago(1_000);
    let mut removed = 0;
    let mut answer = bench.beat("8", "10", false).await;
    let mut calls = 1;
    while answer[1] == 1 {
        (removed, calls) = (removed + answer[3], calls + 1);
        answer = bench.beat("8", "10", true).await;
    }
    assert_eq!((removed + answer[3], answer[2], calls), (24, 1, 3));
    assert_eq!((bench.cli(&["HLEN", "m:a"]), bench.cli(&["HGET", "i", "a"])), ("1".into(), "8".into()));
    for key in ["n:7", "in:7"] {
        assert_eq!(bench.cli(&["EXISTS", key]), "0", "{key}");
    }
    assert_eq!(bench.cli(&["ZSCORE", "leases", "7"]), "");
    // 25 joins and 24 leaves, after the entry that made the inbox.
    assert_eq!(bench.cli(&["XLEN", "in:9"]), "50");
}

#[tokio::test]
async fn nobody_is_reaped_when_nobody_could_renew() {
    let bench = Bench::new().await;
    bench.change("7", &[["join", "a", "s"]]).await;
    bench.beat("8", "10", false).await;
    bench.expire("7");
    bench.reaped_ago(3_500);
    assert_eq!(bench.beat("8", "10", false).await, [0, 0, 0, 0, 1]);
    bench.reaped_ago(1_000);
    assert_eq!(bench.beat("8", "10", false).await, [0, 0, 0, 0, 0], "it has its whole lease again");
    bench.expire("7");
    bench.reaped_ago(1_000);
    assert_eq!(bench.beat("8", "10", false).await, [0, 0, 1, 1, 0]);
}

#[tokio::test]
async fn whatever_is_taken_from_a_node_its_next_heartbeat_tells_and_nothing_is_held_without_a_lease() {
    let bench = Bench::new().await;
    bench.change("7", &[["join", "a", "1"], ["join", "a", "2"], ["join", "a", "3"]]).await;
    assert_ne!(bench.cli(&["ZSCORE", "leases", "7"]), "", "who holds something has a lease");
    assert_eq!(bench.beat("7", "10", false).await[0], 1);
    assert_eq!(bench.beat("7", "10", false).await[0], 0);
    bench.beat("8", "10", false).await;
    bench.expire("7");
    bench.reaped_ago(1_000);
    // Only a part is taken, then the node wakes up: it must know, and the rest stays.
    assert_eq!(bench.beat("8", "1", false).await[1], 1);
    assert_eq!(bench.beat("7", "10", false).await[0], 1);
    bench.reaped_ago(1_000);
    assert_eq!(bench.beat("8", "10", false).await[1..], [0, 0, 0, 0]);
    assert!(bench.cli(&["HLEN", "m:a"]).parse::<u64>().unwrap() >= 2);
}

#[tokio::test]
async fn what_a_killed_nodes_late_call_holds_is_reaped_later() {
    let bench = Bench::new().await;
    bench.beat("8", "10", false).await;
    bench.change("7", &[["join", "a", "s"]]).await;
    let args = [BASE, "7", "1", "a", "0", "10"];
    bench.call(&scripts::MEMBERS, &args).await;
    bench.expire("7");
    bench.reaped_ago(1_000);
    assert_eq!(bench.beat("8", "10", false).await[1..4], [0, 1, 1]);
    for key in ["m:a", "pi:a", "n:7", "mc"] {
        assert_eq!(bench.cli(&["EXISTS", key]), "0", "{key}");
    }
}

#[tokio::test]
async fn names_whose_history_is_long_gone_are_forgotten_a_day_after_that_was_noticed() {
    let bench = Bench::new().await;
    // Nothing new for days.
    bench.cli(&["HSET", "meta", "top", "1700000000000"]);
    bench.cli(&["ZADD", "chans", "0", "dead", "0", "living", "0", "noticed", "0", "read"]);
    bench.cli(&["XADD", "h:living", "1700000000000-1", "t", "1", "b", "x"]);
    let day_ago = |more: u64| bench.now() - 86_400_000 - more;
    bench.cli(&["HSET", "gone", "noticed", &format!("1600000000000@{}", day_ago(60_000))]);
    // A reader has noted this one, as has every node before times were noted.
    bench.cli(&["HSET", "gone", "read", "1500000000000"]);
    bench.beat("8", "10", false).await;
    for _ in 0..3 {
        bench.reaped_ago(1_000);
        bench.beat("8", "10", false).await;
        assert_eq!(
            bench.cli(&["ZRANGE", "chans", "0", "-1"]),
            "dead\nliving\nread",
            "not before a day is over"
        );
    }
    assert_eq!(bench.cli(&["HGET", "meta", "forgot"]), "1600000000000");
    let noted = |name: &str| {
        let note = bench.cli(&["HGET", "gone", name]);
        let (epoch, at) = note.split_once('@').unwrap();
        assert!(bench.now() - at.parse::<u64>().unwrap() < 60_000, "{note}");
        epoch.to_owned()
    };
    assert_eq!((noted("dead").as_str(), noted("read").as_str()), ("1700000000000", "1500000000000"));
    for (name, epoch) in [("dead", "1700000000000"), ("read", "1500000000000")] {
        bench.cli(&["HSET", "gone", name, &format!("{epoch}@{}", day_ago(1))]);
    }
    bench.reaped_ago(1_000);
    bench.beat("8", "10", false).await;
    assert_eq!(bench.cli(&["ZRANGE", "chans", "0", "-1"]), "living");
    assert_eq!(bench.cli(&["HGET", "meta", "forgot"]), "1700000000000");
    assert_eq!(bench.cli(&["EXISTS", "gone"]), "0");
}

#[tokio::test]
async fn a_node_is_told_what_was_taken_from_it_though_its_turn_as_reaper_fails() {
    let bench = Bench::new().await;
    bench.beat("8", "10", false).await;
    bench.change("7", &[["join", "a", "s"]]).await;
    bench.expire("7");
    // Whatever makes a script fail midway.
    bench.cli(&["SET", "m:a", "of another type"]);
    for lost in [1, 0] {
        if lost == 1 {
            bench.cli(&["SREM", "n:8", "lease"]);
        }
        bench.reaped_ago(1_000);
        assert_eq!(bench.beat("8", "10", false).await, [lost, 0, 0, 0, 0]);
    }
    bench.cli(&["DEL", "m:a"]);
    bench.reaped_ago(1_000);
    assert_eq!(bench.beat("8", "10", false).await, [0, 0, 1, 0, 0]);
}
