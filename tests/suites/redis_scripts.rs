//! The scripts by themselves: what they write and answer, epoch by epoch.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use streamgate::broker::queue::JobOptions;
use streamgate::broker::redis::{
    Believed, CallError, Command, CommandName, Connection, PublishArgs, RedisOptions, Reply, Script, Setting,
    scripts,
};
use streamgate_e2e::redis_server::RedisServer;

const DEADLINE: Duration = Duration::from_secs(5);
const BASE: &str = "t:{x}:";

struct Bench {
    server: RedisServer,
    connection: Connection,
    replid: String,
    inbox_max: &'static str,
    catalogue_max: &'static str,
    /// Whether publishes touch their keys first.
    touch: &'static str,
}

/// One publish's arguments with their usual values.
struct One {
    channel: &'static str,
    blob: String,
    believed: Believed,
    size: u64,
    record: &'static str,
}

fn one(channel: &'static str) -> One {
    One { channel, blob: "blob".to_owned(), believed: Believed::Unknown, size: 1_000, record: "" }
}

impl Bench {
    async fn new() -> Self {
        let server = RedisServer::start_default();
        let options: RedisOptions = server.addr().to_string().parse().unwrap();
        let connection = Connection::open(&options, &options.server(), 1).await.unwrap();
        let replid = connection.hello().replid.clone();
        Self { server, connection, replid, inbox_max: "1000", catalogue_max: "1000", touch: "0" }
    }

    async fn call(&self, script: &'static Script, args: Vec<String>) -> Reply {
        let keys = vec![Bytes::from(format!("{BASE}meta"))];
        let args = args.into_iter().map(Bytes::from).collect();
        self.connection.call_script(script, keys, args, DEADLINE).await.unwrap()
    }

    fn head(&self) -> Vec<String> {
        vec![BASE.to_owned(), self.replid.clone()]
    }

    async fn try_publish(&self, publishes: &[One]) -> Result<Reply, CallError> {
        let head = [BASE, &self.replid, self.inbox_max, self.catalogue_max, self.touch];
        let mut args: Vec<Bytes> = head.map(|arg| Bytes::from(arg.to_owned())).to_vec();
        let mut columns = PublishArgs::default();
        for One { channel, blob, believed, size, record } in publishes {
            let (keep, window) = (Duration::from_secs(60), Duration::from_secs(60));
            let setting = Setting {
                history_size: *size,
                keep,
                refresh: false,
                idempotency_window: window,
                channel_is_queue: false,
                max_jobs: 1,
            };
            columns.push(
                channel,
                blob.clone().into(),
                *believed,
                setting,
                (*record).into(),
                &JobOptions::default(),
            );
        }
        columns.append_to(&mut args);
        let keys = vec![Bytes::from(format!("{BASE}meta"))];
        self.connection.call_script(&scripts::PUBLISH, keys, args, DEADLINE).await
    }

    async fn publish(&self, publishes: &[One]) -> Vec<String> {
        let reply = self.try_publish(publishes).await.unwrap().into_array().unwrap();
        assert_eq!(reply[0].as_u64().unwrap(), publishes.len() as u64);
        reply[1..].iter().map(|item| item.as_str().unwrap().to_owned()).collect()
    }

    async fn position(&self, publish: One) -> (u64, u64) {
        numbers(&self.publish(&[publish]).await[0])
    }

    /// One channel's part of a read: lost epoch, raw, first, last, end of the cursor's epoch, entries' IDs.
    async fn read(
        &self,
        channel: &str,
        size: u64,
        ttl_ms: u64,
        mode: &str,
        at: &str,
    ) -> (Vec<String>, Vec<String>) {
        let mut args = self.head();
        args.push("500".to_owned());
        args.extend([channel, &size.to_string(), &ttl_ms.to_string(), mode, at].map(str::to_owned));
        let reply = self.call(&scripts::READ, args).await.into_array().unwrap();
        let answer = reply[2].as_array().unwrap();
        let texts = answer[..5].iter().map(|item| item.as_str().unwrap().to_owned()).collect();
        let ids = answer[5].as_array().unwrap().iter();
        let ids = ids.map(|entry| entry.as_array().unwrap()[0].as_str().unwrap().to_owned()).collect();
        (texts, ids)
    }

    fn meta(&self) -> HashMap<String, String> {
        let text = self.cli(&["HGETALL", "meta"]);
        let lines: Vec<&str> = text.lines().collect();
        lines.chunks(2).map(|pair| (pair[0].to_owned(), pair[1].to_owned())).collect()
    }

    /// `redis-cli` with the second word made a key.
    fn cli(&self, words: &[&str]) -> String {
        let key = format!("{BASE}{}", words[1]);
        let mut words = words.to_vec();
        words[1] = &key;
        self.server.cli(&words)
    }
}

fn numbers(id: &str) -> (u64, u64) {
    let (epoch, offset) = id.split_once('-').unwrap_or_else(|| panic!("{id}"));
    (epoch.parse().unwrap(), offset.parse().unwrap())
}

#[tokio::test]
async fn offsets_are_contiguous_in_one_epoch_by_either_path() {
    let bench = Bench::new().await;
    let (epoch, first) = bench.position(one("a")).await;
    assert_eq!(first, 1);
    for (offset, believed) in [
        (2, Believed::Unknown),
        (3, Believed::Epoch(epoch)),
        (4, Believed::Epoch(epoch + 7)),
        (5, Believed::Epoch(1)),
    ] {
        assert_eq!(bench.position(One { believed, ..one("a") }).await, (epoch, offset));
    }
    let batch = bench.publish(&[one("a"), one("b"), one("a")]).await;
    assert_eq!((numbers(&batch[0]), numbers(&batch[2])), ((epoch, 6), (epoch, 7)));
    let (other, first) = numbers(&batch[1]);
    assert!(other > epoch && first == 1, "each channel that is born has an epoch of its own");
}

#[tokio::test]
async fn another_replid_raises_the_floor_and_offsets_go_on_in_a_new_epoch() {
    let bench = Bench::new().await;
    let (old, _) = bench.position(one("a")).await;
    bench.position(one("quiet")).await;
    bench.cli(&["HSET", "meta", "replid", "former"]);
    // Who comes first raises; a believed epoch of before is not continued.
    let (new, offset) = bench.position(One { believed: Believed::Epoch(old), ..one("a") }).await;
    assert!(new > old && offset == 2);
    let meta = bench.meta();
    assert_eq!((&meta["replid"], &meta["floor"]), (&bench.replid, &new.to_string()));
    // A channel that is written later under the same replid gets an epoch above the floor, and goes on counting.
    let (quiet, offset) = bench.position(one("quiet")).await;
    assert!(quiet > new && offset == 2);
    assert_eq!(bench.meta()["floor"], new.to_string());
    assert_eq!(bench.position(One { believed: Believed::Epoch(new), ..one("a") }).await, (new, 3));
}

#[tokio::test]
async fn a_caller_that_knows_a_former_replid_is_refused_before_anything_is_written() {
    let bench = Bench::new().await;
    bench.position(one("a")).await;
    let before = bench.meta();
    let bench = Bench { replid: "former".to_owned(), ..bench };
    let outcome = bench.try_publish(&[one("a")]).await;
    let error = outcome.unwrap_err();
    assert!(matches!(&error, CallError::Server(error) if error.code == "STALEID"), "{error:?}");
    assert!(bench.connection.is_closed(), "what was read on this connection does not hold");
    assert_eq!(bench.meta(), before);
    assert_eq!(bench.cli(&["XLEN", "h:a"]), "1");
}

#[tokio::test]
async fn epochs_never_repeat_after_removal_or_expiry() {
    let bench = Bench::new().await;
    let mut epochs = vec![bench.position(one("a")).await.0];
    for _ in 0..3 {
        bench.call(&scripts::REMOVE_HISTORY, vec![BASE.into(), "a".into()]).await;
        let (epoch, offset) = bench.position(One { believed: Believed::Epoch(epochs[0]), ..one("a") }).await;
        assert_eq!(offset, 1);
        epochs.push(epoch);
    }
    assert!(epochs.windows(2).all(|two| two[0] < two[1]), "{epochs:?}");
}

#[tokio::test]
async fn a_history_that_was_emptied_by_a_trim_counts_on() {
    let bench = Bench::new().await;
    let (epoch, _) = bench.position(one("a")).await;
    assert_eq!(bench.position(one("a")).await, (epoch, 2));
    bench.cli(&["XTRIM", "h:a", "MAXLEN", "0"]);
    assert_eq!(bench.position(one("a")).await, (epoch, 3));
    bench.cli(&["XTRIM", "h:a", "MAXLEN", "0"]);
    assert_eq!(bench.position(One { believed: Believed::Epoch(epoch), ..one("a") }).await, (epoch, 4));
}

#[tokio::test]
async fn a_believed_epoch_newer_than_the_streams_starts_nothing_at_offset_zero() {
    let bench = Bench::new().await;
    let (epoch, _) = bench.position(one("a")).await;
    // Others have moved the partition's top past the channel's epoch.
    let (top, _) = bench.position(one("b")).await;
    assert!(top > epoch);
    let (got, offset) = bench.position(One { believed: Believed::Epoch(top), ..one("a") }).await;
    assert_eq!((got, offset), (epoch, 2));
    let (_, ids) = bench.read("a", 1_000, 60_000, "start", "").await;
    assert_eq!(ids, [format!("{epoch}-1"), format!("{epoch}-2")]);
}

#[tokio::test]
async fn a_repeated_key_answers_the_first_position_and_writes_nothing() {
    let bench = Bench::new().await;
    let keyed = || One { record: "1:u1:akey", ..one("a") };
    let batch = bench.publish(&[keyed(), one("a"), keyed()]).await;
    assert_eq!(batch[2], format!("={}", batch[0]));
    assert_eq!(bench.publish(&[keyed()]).await[0], format!("={}", batch[0]));
    assert_eq!(bench.cli(&["XLEN", "h:a"]), "2");
    let transient = || One { believed: Believed::NoHistory, record: "t", ..one("a") };
    assert_eq!(bench.publish(&[transient(), transient()]).await, ["", "="]);
}

#[tokio::test]
async fn numbers_beyond_1e14_stay_exact() {
    let bench = Bench::new().await;
    let (epoch, offset) = (123_456_789_012_345_u64, 987_654_321_098_765_u64);
    bench.position(one("other")).await;
    bench.cli(&["HSET", "meta", "top", &epoch.to_string(), "floor", "100000000000001"]);
    bench.cli(&["XADD", "h:a", &format!("{epoch}-{offset}"), "t", "99999999999999", "b", "x"]);
    assert_eq!(
        bench.position(One { believed: Believed::Epoch(epoch), ..one("a") }).await,
        (epoch, offset + 1)
    );
    assert_eq!(bench.position(one("a")).await, (epoch, offset + 2));
    assert_eq!(bench.position(one("born")).await, (epoch + 1, 1));
    bench.cli(&["HSET", "meta", "floor", &(epoch + 1).to_string()]);
    assert_eq!(bench.position(one("a")).await, (epoch + 2, offset + 3));
    assert_eq!(bench.meta()["top"], (epoch + 2).to_string());
    // The newest three: a seek across epochs.
    let (ends, ids) = bench.read("a", 3, 60_000, "start", "").await;
    assert_eq!(ends[2], format!("{epoch}-{}", offset + 1));
    assert_eq!(
        ids,
        [
            format!("{epoch}-{}", offset + 1),
            format!("{epoch}-{}", offset + 2),
            format!("{}-{}", epoch + 2, offset + 3)
        ]
    );
}

#[tokio::test]
async fn reads_show_no_more_than_the_policy_however_loosely_redis_trims() {
    let bench = Bench::new().await;
    let small = || One { size: 10, ..one("a") };
    for _ in 0..50 {
        bench.position(small()).await;
    }
    assert!(bench.cli(&["XLEN", "h:a"]).parse::<u64>().unwrap() > 10, "Redis trims loosely");
    let (ends, ids) = bench.read("a", 10, 60_000, "start", "").await;
    assert_eq!((numbers(&ends[2]).1, numbers(&ends[3]).1, ids.len()), (41, 50, 10));
    for (mode, at, first, count) in
        [("last", "3", 48, 3), ("last", "99", 41, 10), ("before", "", 50, 10), ("time", "1", 41, 10)]
    {
        let (_, ids) = bench.read("a", 10, 60_000, mode, at).await;
        assert_eq!((numbers(&ids[0]).1, ids.len()), (first, count), "{mode} {at}");
    }
    let (epoch, _) = numbers(&ends[3]);
    let (answer, ids) = bench.read("a", 10, 60_000, "after", &format!("{epoch}-5")).await;
    assert_eq!((numbers(&answer[4]).1, numbers(&ids[0]).1), (50, 41));
    let (_, ids) = bench.read("a", 10, 60_000, "after", &format!("{epoch}-45")).await;
    assert_eq!((numbers(&ids[0]).1, ids.len()), (46, 5));
}

#[tokio::test]
async fn a_history_that_is_kept_no_more_is_read_without_an_error() {
    let bench = Bench::new().await;
    for _ in 0..3 {
        bench.position(one("a")).await;
    }
    for mode in ["start", "none"] {
        let (texts, ids) = bench.read("a", 0, 60_000, mode, "").await;
        assert!(texts[3].ends_with("-3") && ids.len() <= 1, "{mode}: {texts:?} {ids:?}");
    }
}

#[tokio::test]
async fn a_channel_in_a_full_catalogue_stays_listed_when_it_is_born_again() {
    let bench = Bench::new().await;
    bench.position(one("a")).await;
    bench.cli(&["DEL", "h:a"]);
    // A read notices that the history is gone.
    bench.read("a", 10, 60_000, "start", "").await;
    assert_ne!(bench.cli(&["HGET", "gone", "a"]).trim(), "");
    let bench = Bench { catalogue_max: "1", ..bench };
    bench.publish(&[One { size: 10, ..one("a") }]).await;
    assert!(bench.cli(&["HGET", "gone", "a"]).starts_with('+'), "the loss before this history is known");
    assert!(!bench.meta().contains_key("forgot"));
}

#[tokio::test]
async fn entries_older_than_the_policy_are_not_shown_and_an_old_history_is_gone() {
    let bench = Bench::new().await;
    bench.position(one("other")).await;
    let now: u64 = bench.server.cli(&["TIME"]).lines().next().unwrap().parse::<u64>().unwrap() * 1_000;
    let top: u64 = bench.meta()["top"].parse().unwrap();
    for n in 1..=20_u64 {
        let time = now - (20 - n) * 10_000;
        bench.cli(&["XADD", "h:a", &format!("{top}-{n}"), "t", &time.to_string(), "b", "x"]);
    }
    let (ends, ids) = bench.read("a", 1_000, 55_000, "start", "").await;
    assert_eq!((numbers(&ends[1]).1, numbers(&ends[2]).1, ids.len()), (1, 15, 6));
    bench.cli(&["ZADD", "chans", "0", "a"]);
    bench.cli(&["XADD", "h:old", &format!("{top}-1"), "t", &(now - 60_000).to_string(), "b", "x"]);
    bench.cli(&["ZADD", "chans", "0", "old"]);
    let (answer, ids) = bench.read("old", 1_000, 55_000, "start", "").await;
    assert_eq!((answer[0].clone(), answer[3].as_str(), ids.len()), (top.to_string(), "", 0));
    assert_eq!(bench.cli(&["EXISTS", "h:old"]), "0");
    // A channel that never had a history lost none.
    assert_eq!(bench.read("never", 1_000, 55_000, "start", "").await.0[0], "");
}

#[tokio::test]
async fn a_node_without_inbox_is_dropped_from_the_interest() {
    let bench = Bench::new().await;
    bench.cli(&["HSET", "i", "a.b", "7 8"]);
    bench.cli(&["HSET", "w", "a", "7"]);
    bench.cli(&["XADD", "in:8", "8-1", "x", "y"]);
    bench.publish(&[one("a.b"), one("a.b")]).await;
    assert_eq!(bench.cli(&["HGET", "i", "a.b"]), "8");
    assert_eq!(bench.cli(&["EXISTS", "w"]), "0");
    assert_eq!(bench.cli(&["XLEN", "in:8"]), "2", "one entry for all publications of a call");
    assert_eq!(bench.cli(&["EXISTS", "in:7"]), "0");
}

/// Makes the inbox of a node.
fn register(bench: &Bench, node: &str) {
    bench.cli(&["XADD", &format!("in:{node}"), &format!("{node}-0"), "x", "y"]);
    bench.cli(&["XTRIM", &format!("in:{node}"), "MAXLEN", "0"]);
}

/// Entries of an inbox: sequence and number of publications.
async fn inbox_entries(bench: &Bench, node: &str) -> Vec<(u64, usize)> {
    let range = Command::new(CommandName::XRange).arg(format!("{BASE}in:{node}")).arg("-").arg("+");
    let entries = bench.connection.call(range, DEADLINE).await.unwrap().into_array().unwrap();
    let entry = |entry: &Reply| {
        let [id, fields] = entry.as_array().unwrap() else { panic!("{entry:?}") };
        (numbers(id.as_str().unwrap()).1, fields.as_array().unwrap().len() / 2)
    };
    entries.iter().map(entry).collect()
}

#[tokio::test]
async fn an_inbox_gets_one_entry_for_a_call_and_its_sequence_counts_publications() {
    let bench = Bench::new().await;
    bench.cli(&["HSET", "i", "a", "7"]);
    bench.cli(&["HSET", "i", "b", "7"]);
    register(&bench, "7");
    for batch in [1, 3, 1, 2] {
        let all: Vec<One> = ["a", "b", "nobody", "a"].into_iter().take(batch).map(one).collect();
        bench.publish(&all).await;
    }
    // The third publication of the second call concerns nobody.
    assert_eq!(inbox_entries(&bench, "7").await, [(1, 1), (2, 2), (4, 1), (5, 2)]);
    assert_eq!(bench.position(one("a")).await.1, 5);
    assert_eq!(inbox_entries(&bench, "7").await.last(), Some(&(7, 1)));
}

#[tokio::test]
async fn long_publications_do_not_share_an_inbox_entry_without_bound() {
    let bench = Bench::new().await;
    bench.cli(&["HSET", "i", "a", "7"]);
    register(&bench, "7");
    let long: Vec<One> = (0..5).map(|_| One { blob: "x".repeat(30_000), ..one("a") }).collect();
    bench.publish(&long).await;
    assert_eq!(inbox_entries(&bench, "7").await, [(1, 2), (3, 2), (5, 1)]);
}

#[tokio::test]
async fn an_inbox_that_nobody_reads_holds_about_as_many_publications_as_configured() {
    let bench = Bench { inbox_max: "80", ..Bench::new().await };
    bench.cli(&["HSET", "i", "a", "7"]);
    register(&bench, "7");
    for _ in 0..100 {
        bench.publish(&std::iter::repeat_with(|| one("a")).take(10).collect::<Vec<_>>()).await;
    }
    let held: usize = inbox_entries(&bench, "7").await.iter().map(|(_, publications)| publications).sum();
    // Redis drops whole nodes of the stream only, which the approximate limit allows for.
    assert!((80..=80 + 1_000).contains(&held) && held < 1_000, "{held}");
    assert_eq!(inbox_entries(&bench, "7").await.last(), Some(&(991, 10)));
}

#[tokio::test]
async fn pattern_interest_is_found_by_its_prefix_and_forgotten_with_its_last_node() {
    for touch in ["0", "1"] {
        let bench = Bench { touch, ..Bench::new().await };
        let subscribe = async |node: &str, pattern: &str, prefix: &str| {
            let mut args = bench.head();
            args.extend([node, pattern, prefix, "10", "100"].map(str::to_owned));
            bench.call(&scripts::SUBSCRIBE_PATTERN, args).await;
        };
        for node in ["7", "8"] {
            register(&bench, node);
            subscribe(node, "a.b.*", "a.b").await;
        }
        subscribe("8", "**", "").await;
        bench.publish(&[one("a.b.c"), one("a.b"), one("a"), one("a.bc")]).await;
        assert_eq!(inbox_entries(&bench, "7").await, [(1, 2)]);
        assert_eq!(inbox_entries(&bench, "8").await, [(1, 4)]);
        // Renewing interest brings it back.
        bench.cli(&["HDEL", "w", "a.b"]);
        let mut args = bench.head();
        args.extend(["7", "1", "w:a.b"].map(str::to_owned));
        bench.call(&scripts::CHECK, args).await;
        assert_eq!(bench.cli(&["HGET", "w", "a.b"]), "7");
        let withdraw = async |node: &str, interest: &str| {
            let args = [BASE, node, interest].map(str::to_owned).to_vec();
            bench.call(&scripts::UNSUBSCRIBE, args).await;
        };
        withdraw("7", "w:a.b").await;
        bench.publish(&[one("a.b.c")]).await;
        assert_eq!(inbox_entries(&bench, "7").await.len(), 1);
        assert_eq!(inbox_entries(&bench, "8").await.last(), Some(&(5, 1)));
        bench.call(&scripts::LEAVE, [BASE, "8", "1000", "100"].map(str::to_owned).to_vec()).await;
        assert_eq!(bench.cli(&["EXISTS", "w"]), "0", "nobody listens to patterns");
    }
}

#[tokio::test]
async fn interests_of_every_kind_are_renewed_in_one_call_and_withdrawn_in_another() {
    let bench = Bench::new().await;
    let interests = ["i:a", "pi:a", "w:", "pw:", "pw:a", "i:b", "w:a"];
    for node in ["7", "77", "17", "7"] {
        let mut args = bench.head();
        args.extend([node, "7"].into_iter().chain(interests).map(str::to_owned));
        bench.call(&scripts::CHECK, args).await;
    }
    let sorted = |text: String, gap: &str| {
        let mut nodes: Vec<String> = text.split(gap).map(str::to_owned).collect();
        nodes.sort_unstable();
        nodes.join(" ")
    };
    let held = |interest: &str| match interest.split_once(':').unwrap() {
        (kind @ ("i" | "w"), name) => sorted(bench.cli(&["HGET", kind, name]), " "),
        _ => sorted(bench.cli(&["SMEMBERS", interest]), "\n"),
    };
    for interest in interests {
        assert_eq!(held(interest), "17 7 77", "{interest}");
    }
    for (node, rest) in [("7", "17 77"), ("77", "17"), ("17", "")] {
        let args = [BASE, node].into_iter().chain(interests).chain(["i:a"]).map(str::to_owned).collect();
        bench.call(&scripts::UNSUBSCRIBE, args).await;
        for interest in interests {
            assert_eq!(held(interest), rest, "{interest} without {node}");
        }
    }
    for key in ["i", "w", "pi:a", "pw:", "pw:a"] {
        assert_eq!(bench.cli(&["EXISTS", key]), "0", "{key}");
    }
}

#[tokio::test]
async fn a_small_hash_of_interest_is_not_packed_and_who_is_in_it_stays_though_its_filler_is_gone() {
    let bench = Bench::new().await;
    let mut args = bench.head();
    args.extend(["7", "2", "i:a", "i:b"].map(str::to_owned));
    bench.call(&scripts::CHECK, args).await;
    assert_eq!(bench.server.cli(&["OBJECT", "ENCODING", &format!("{BASE}i")]), "hashtable");
    bench.cli(&["HDEL", "i", " "]);
    bench.call(&scripts::UNSUBSCRIBE, [BASE, "7", "i:a"].map(str::to_owned).to_vec()).await;
    assert_eq!(bench.cli(&["HGETALL", "i"]), "b\n7");
}

#[tokio::test]
async fn a_fresh_group_starts_at_the_cursor_with_an_exact_lag_and_ends_the_former_one() {
    let bench = Bench::new().await;
    let key = Bytes::from(format!("{BASE}in:5"));
    let register = async |generation: &str, cursor: &str| {
        let args =
            ["5", generation, cursor, "60000", BASE, "10000"].map(|arg| Bytes::from(arg.to_owned())).to_vec();
        let call = bench.connection.call_script(&scripts::REGISTER_NODE, vec![key.clone()], args, DEADLINE);
        call.await.unwrap().into_array().unwrap()[0].as_int().unwrap()
    };
    assert_eq!(register("1", "0").await, 1, "made anew");
    bench.cli(&["HSET", "i", "a", "5"]);
    for _ in 0..10 {
        bench.position(one("a")).await;
    }
    assert_eq!(register("2", "4").await, 0);
    let groups = bench.server.cli(&["XINFO", "GROUPS", &format!("{BASE}in:5")]);
    let groups: Vec<&str> = groups.lines().collect();
    let field = |name: &str| groups[groups.iter().position(|line| *line == name).unwrap() + 1];
    assert_eq!((field("name"), field("last-delivered-id"), field("lag")), ("g2", "5-4", "6"));
    assert_eq!(groups.iter().filter(|line| **line == "name").count(), 1);
    // Rolled back behind the cursor: sequences that were read are not given out again.
    assert_eq!(register("3", "25").await, 1);
    bench.position(one("a")).await;
    let read = Command::new(CommandName::XReadGroup)
        .arg("GROUP")
        .arg("g3")
        .arg("n")
        .arg("STREAMS")
        .arg(key.clone())
        .arg(">");
    let streams = bench.connection.call(read, DEADLINE).await.unwrap().into_array().unwrap();
    let entries = streams[0].as_array().unwrap()[1].as_array().unwrap();
    assert_eq!(entries[0].as_array().unwrap()[0].as_str().unwrap(), "5-26");
}

#[tokio::test]
async fn a_pattern_lists_what_it_matches_and_nothing_else() {
    let bench = Bench::new().await;
    let names = ["a", "a.b", "a.b.c", "a.x", "a.x-y.c", "a-b", "ab.c", "b.a", "a.b%.c", "a.+"];
    for name in names {
        bench.position(one(name)).await;
    }
    for (pattern, prefix, expected) in [
        ("a.*", "a", vec!["a.b", "a.x", "a.+"]),
        ("a.**", "a", vec!["a", "a.b", "a.b.c", "a.x", "a.x-y.c", "a.b%.c", "a.+"]),
        ("**", "", names.to_vec()),
        ("*.*.c", "", vec!["a.b.c", "a.x-y.c", "a.b%.c"]),
        ("*", "", vec!["a", "a-b"]),
        ("a.*.**", "a", vec!["a.b", "a.b.c", "a.x", "a.x-y.c", "a.b%.c", "a.+"]),
    ] {
        let mut args = bench.head();
        args.extend(["9", pattern, prefix, "1000", "20000"].map(str::to_owned));
        let reply = bench.call(&scripts::SUBSCRIBE_PATTERN, args).await.into_array().unwrap();
        let mut listed: Vec<&str> = reply[3..].chunks(3).map(|item| item[0].as_str().unwrap()).collect();
        let mut expected = expected;
        listed.sort_unstable();
        expected.sort_unstable();
        assert_eq!(listed, expected, "{pattern}");
        assert_eq!(bench.cli(&["HGET", "w", prefix]), "9");
    }
}
