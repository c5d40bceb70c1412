//! The Redis transport against a real server: order, loss, deadlines, and that nothing is sent twice.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use streamgate::broker::redis::{
    BootReport, CallError, Command, CommandName, ConnectError, Connection, Fixed, Link, LinkStatus,
    RedisOptions, Reply, Script,
};
use streamgate_e2e::{
    redis_server::{RedisServer, RedisServerOptions},
    swallowing_proxy::{Flow, Flows, SwallowingProxy},
};

const DEADLINE: Duration = Duration::from_secs(5);

fn options(server: &RedisServer) -> RedisOptions {
    server.addr().to_string().parse().unwrap()
}

async fn open_with(options: &RedisOptions) -> Result<Connection, ConnectError> {
    Connection::open(options, &options.server(), 1).await
}

fn start_link(options: RedisOptions, scripts: Vec<&'static Script>) -> Link {
    let server = Arc::new(Fixed(options.server()));
    Link::start("test", server, Arc::new(options), scripts)
}

async fn open(server: &RedisServer) -> Connection {
    open_with(&options(server)).await.unwrap()
}

async fn link(server: &RedisServer) -> Link {
    let link = start_link(options(server), vec![]);
    link.connected().await.unwrap();
    link
}

fn incr(key: &'static str) -> Command {
    Command::new(CommandName::Incr).arg(key)
}

fn get(key: &'static str) -> Command {
    Command::new(CommandName::Get).arg(key)
}

/// A command that keeps the server's answer back.
fn blocking_read() -> Command {
    Command::new(CommandName::XRead).blocking().arg("BLOCK").arg("0").arg("STREAMS").arg("none").arg("$")
}

async fn down(link: &Link) {
    link.connections().wait_for(Option::is_none).await.unwrap();
}

#[tokio::test]
async fn pipelined_calls_run_in_the_order_of_the_calls_not_of_the_polls() {
    let server = RedisServer::start_default();
    let connection = open(&server).await;
    let calls: Vec<_> = (0..1000).map(|_| connection.call(incr("n"), DEADLINE)).collect();
    let mut replies = Vec::new();
    for call in calls.into_iter().rev() {
        replies.push(call.await.unwrap().as_int().unwrap());
    }
    assert!(replies.into_iter().rev().eq(1..=1000));
}

#[tokio::test]
async fn a_call_that_is_never_polled_is_sent_all_the_same() {
    let server = RedisServer::start_default();
    let connection = open(&server).await;
    drop(connection.call(incr("n"), DEADLINE));
    assert_eq!(connection.call(get("n"), DEADLINE).await.unwrap().as_u64(), Ok(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_connection_fails_calls_within_milliseconds_and_the_link_comes_back() {
    let server = RedisServer::start_default();
    let link = link(&server).await;
    let waiting = tokio::spawn(link.call(blocking_read(), Duration::from_secs(60)));
    while server.info("clients")["blocked_clients"] != "1" {
        tokio::task::yield_now().await;
    }
    let killed = Instant::now();
    server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    let error = waiting.await.unwrap().unwrap_err();
    let failed = killed.elapsed();
    assert!(matches!(error, CallError::MaybeExecuted(_)), "{error:?}");
    assert!(failed < Duration::from_secs(1), "{failed:?}");
    let mut connections = link.connections();
    let generation =
        connections.wait_for(|c| c.as_ref().is_some_and(|c| c.generation() == 2)).await.map(|_| 2).unwrap();
    println!("error {failed:?} after the kill, connected again after {:?}", killed.elapsed());
    assert_eq!(
        *link.status().wait_for(|s| *s == LinkStatus::Up(generation)).await.unwrap(),
        LinkStatus::Up(2)
    );
    assert_eq!(link.call(incr("n"), DEADLINE).await.unwrap(), Reply::Int(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_server_is_away_calls_fail_at_once_as_never_sent() {
    let mut server = RedisServer::start_default();
    let link = link(&server).await;
    let old = link.current().unwrap();
    server.kill9();
    down(&link).await;
    for error in [
        link.call(incr("n"), Duration::from_secs(60)).await.unwrap_err(),
        old.call(incr("n"), Duration::from_secs(60)).await.unwrap_err(),
    ] {
        assert!(matches!(error, CallError::NeverSent(_)), "{error:?}");
    }
    let status = link.status().wait_for(|s| matches!(s, LinkStatus::Away(_))).await.unwrap().clone();
    assert!(format!("{status:?}").contains(&server.addr().to_string()), "{status:?}");
    server.restart();
    let since = Instant::now();
    let connection = link.connected().await.unwrap();
    println!("connected {:?} after the server answered again", since.elapsed());
    assert_ne!(connection.hello().replid, old.hello().replid);
    assert_eq!(link.call(incr("n"), DEADLINE).await.unwrap(), Reply::Int(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missed_deadline_ends_the_connection_and_everything_on_it() {
    let server = RedisServer::start_default();
    let link = link(&server).await;
    let connection = link.current().unwrap();
    server.pause();
    let patient = tokio::spawn(connection.call(incr("n"), Duration::from_secs(60)));
    let since = Instant::now();
    let error = connection.call(incr("n"), Duration::from_millis(100)).await.unwrap_err();
    assert!(since.elapsed() >= Duration::from_millis(100) && since.elapsed() < Duration::from_secs(2));
    assert_eq!(error, CallError::MaybeExecuted("no answer to INCR within 100 ms".to_owned()));
    assert!(matches!(patient.await.unwrap(), Err(CallError::MaybeExecuted(_))));
    assert!(connection.is_closed());
    down(&link).await;
    server.resume();
    let again = link.connected().await.unwrap();
    assert_eq!(again.generation(), 2);
}

#[tokio::test]
async fn a_dropped_connection_closes_its_socket() {
    let server = RedisServer::start_default();
    let connection = open(&server).await;
    let other = open(&server).await;
    let pending = connection.call(blocking_read(), Duration::from_secs(60));
    drop(connection);
    assert!(matches!(pending.await, Err(CallError::MaybeExecuted(_))));
    let connected = || server.info("clients")["connected_clients"].clone();
    let deadline = Instant::now() + DEADLINE;
    // `other` and redis-cli itself.
    while connected() != "2" {
        assert!(Instant::now() < deadline, "{} clients", connected());
        tokio::task::yield_now().await;
    }
    assert!(!other.is_closed());
}

#[tokio::test]
async fn a_dropped_link_closes_its_connection_and_says_that_it_stopped() {
    let server = RedisServer::start_default();
    let link = link(&server).await;
    let (connection, mut status) = (link.current().unwrap(), link.status());
    drop(link);
    status.wait_for(|s| *s == LinkStatus::Stopped).await.unwrap();
    assert_eq!(connection.closed().await, "the link was stopped");
}

static COUNT: Script = Script::new("count", "return {redis.call('INCR', KEYS[1]), ARGV[1]}");

#[tokio::test]
async fn a_forgotten_script_is_loaded_again_and_runs_once() {
    let server = RedisServer::start_default();
    let link = start_link(options(&server), vec![&COUNT]);
    link.connected().await.unwrap();
    let call = || link.call_script(&COUNT, vec![Bytes::from("n")], vec![Bytes::from("x")], DEADLINE);
    let expected = |n| Reply::Array(vec![Reply::Int(n), Reply::Bulk("x".into())]);
    assert_eq!(call().await.unwrap(), expected(1));
    server.cli(&["SCRIPT", "FLUSH"]);
    assert_eq!(call().await.unwrap(), expected(2));
    assert_eq!(server.cli(&["GET", "n"]), "2");
    assert_eq!(server.info("errorstats").len(), 1, "one NOSCRIPT and nothing else");
}

#[tokio::test]
async fn a_script_error_comes_as_the_servers_answer() {
    static BROKEN: Script = Script::new("broken", "return redis.error_reply('OOM no room')");
    let server = RedisServer::start_default();
    let connection = open(&server).await;
    let error = connection.call_script(&BROKEN, vec![], vec![], DEADLINE).await.unwrap_err();
    assert!(matches!(&error, CallError::Server(e) if e.code == "OOM" && e.message == "no room"), "{error:?}");
    assert!(!connection.is_closed());
}

#[tokio::test]
async fn data_that_looks_like_a_redirection_or_a_message_stays_data() {
    static NESTED: Script = Script::new(
        "nested",
        "return {1, {'message', 'a', 'b'}, {'pmessage', 'p', 'a', 'b'}, {'subscribe', 'a', 1}, redis.error_reply('E x')}",
    );
    let server = RedisServer::start_default();
    let connection = open(&server).await;
    for value in ["MOVED 1 127.0.0.1:1", "ASK 1 127.0.0.1:1", "message", "-ERR no", "CLUSTERDOWN x"] {
        let set = Command::new(CommandName::Set).arg("k").arg(value);
        connection.call(set, DEADLINE).await.unwrap();
        assert_eq!(connection.call(get("k"), DEADLINE).await.unwrap(), Reply::Bulk(value.into()));
    }
    let bulks = |words: &[&'static str]| {
        Reply::Array(words.iter().map(|word| Reply::Bulk(Bytes::from_static(word.as_bytes()))).collect())
    };
    let reply = connection.call_script(&NESTED, vec![], vec![], DEADLINE).await.unwrap();
    let [one, message, pmessage, subscribe, error] = reply.into_exactly::<5>().unwrap();
    assert_eq!(one, Reply::Int(1));
    assert_eq!(message, bulks(&["message", "a", "b"]));
    assert_eq!(pmessage, bulks(&["pmessage", "p", "a", "b"]));
    assert_eq!(subscribe.as_array().unwrap().len(), 3);
    assert!(matches!(error, Reply::Error(e) if e.code == "E"));

    // Fields of an entry, as users name them.
    let add = ["s", "*", "message", "a", "message", "b"];
    let add = add.into_iter().fold(Command::new(CommandName::XAdd), Command::arg);
    connection.call(add, DEADLINE).await.unwrap();
    let range = Command::new(CommandName::XRange).arg("s").arg("-").arg("+");
    let entries = connection.call(range, DEADLINE).await.unwrap().into_array().unwrap();
    let [_, fields] = entries[0].clone().into_exactly::<2>().unwrap();
    assert_eq!(fields, bulks(&["message", "a", "message", "b"]));
    assert_eq!(connection.call(incr("n"), DEADLINE).await.unwrap(), Reply::Int(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_goes_astray_ends_the_connection_before_any_other_is_mixed_up() {
    static ASTRAY: Script = Script::new("astray", "return {'message', 'a', 'b'}");
    let server = RedisServer::start_default();
    let connection = open(&server).await;
    connection.load_scripts(&[&ASTRAY], DEADLINE).await.unwrap();
    let astray = connection.call_script(&ASTRAY, vec![], vec![], DEADLINE);
    let later: Vec<_> = (0..100).map(|_| tokio::spawn(connection.call(incr("n"), DEADLINE))).collect();
    assert!(matches!(astray.await, Err(CallError::MaybeExecuted(_))));
    for call in later {
        let outcome = call.await.unwrap();
        // Never sent, if it was called after the end.
        assert!(matches!(outcome, Err(CallError::MaybeExecuted(_) | CallError::NeverSent(_))), "{outcome:?}");
    }
    assert!(connection.closed().await.contains("mistaken"));
}

#[tokio::test]
async fn password_database_and_acl_user_are_used_and_never_shown() {
    let server = RedisServer::start(RedisServerOptions::default().password("s3cret/+"));
    let at = server.addr();
    let with = |text: String| text.parse::<RedisOptions>().unwrap();

    let good = with(format!("redis://:s3cret%2F%2B@{at}/3"));
    let connection = open_with(&good).await.unwrap();
    connection.call(incr("n"), DEADLINE).await.unwrap();
    assert_eq!(server.cli(&["-n", "3", "GET", "n"]), "1");

    let wrong = open_with(&with(format!("redis://:hunter2@{at}"))).await.unwrap_err();
    assert!(matches!(wrong, ConnectError::Denied { .. }), "{wrong:?}");
    assert!(!format!("{wrong} {wrong:?}").contains("hunter2"));
    let none = open_with(&with(at.to_string())).await.unwrap_err();
    assert!(matches!(none, ConnectError::Denied { .. }), "{none:?}");

    server
        .cli(&["ACL", "SETUSER", "gate", "on", ">pw", "~*", "+@all", "-role", "-config", "-time", "-client"]);
    let limited = open_with(&with(format!("redis://gate:pw@{at}"))).await.unwrap();
    assert_eq!((limited.hello().role.as_str(), limited.hello().clock_ahead_ms), ("master", 0));
    let report = BootReport::of(&limited, DEADLINE).await.unwrap();
    assert_eq!((report.fatal, report.warnings.len()), (None, 2));
    assert!(report.warnings.iter().all(|warning| warning.contains("NOPERM")), "{:?}", report.warnings);

    server.cli(&["ACL", "SETUSER", "blind", "on", ">pw", "~*", "+@all", "-info"]);
    let blind = open_with(&with(format!("redis://blind:pw@{at}"))).await.unwrap_err();
    assert!(matches!(blind, ConnectError::Denied { .. }), "{blind:?}");
}

#[tokio::test]
async fn the_greeting_and_the_boot_report_say_what_the_server_is() {
    let args = ["--maxmemory-policy", "allkeys-lru"];
    let server = RedisServer::start(RedisServerOptions::default().args(&args));
    let connection = open(&server).await;
    let hello = connection.hello();
    assert_eq!(hello.replid, server.info("replication")["master_replid"]);
    assert_eq!(hello.run_id, server.info("server")["run_id"]);
    assert!(hello.version.unwrap().is_supported() && hello.clock_ahead_ms.abs() < 5_000);
    let report = BootReport::of(&connection, DEADLINE).await.unwrap();
    assert_eq!(report.fatal, None);
    assert!(report.warnings[0].contains("allkeys-lru") && report.warnings[1].contains("4096"));

    server.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction", "stream-node-max-bytes", "512"]);
    assert_eq!(BootReport::of(&connection, DEADLINE).await.unwrap(), BootReport::default());
}

#[tokio::test]
async fn a_replica_is_refused_and_a_master_that_becomes_one_is_left() {
    let master = RedisServer::start_default();
    let port = master.addr().port().to_string();
    let replica =
        RedisServer::start(RedisServerOptions::default().args(&["--replicaof", "127.0.0.1", &port]));
    let refused = open_with(&options(&replica)).await.unwrap_err();
    assert!(matches!(&refused, ConnectError::NotMaster { role, .. } if role == "slave"), "{refused:?}");

    let other = RedisServer::start_default();
    let link = link(&other).await;
    other.cli(&["REPLICAOF", "127.0.0.1", &port]);
    let error = link.call(incr("n"), DEADLINE).await.unwrap_err();
    assert!(matches!(&error, CallError::Server(e) if e.code == "READONLY"), "{error:?}");
    let not_master =
        |s: &LinkStatus| matches!(s, LinkStatus::Away(reason) if reason.contains("not a master"));
    link.status().wait_for(not_master).await.unwrap();
}

#[tokio::test]
async fn a_link_without_a_server_says_why_and_connects_once_there_is_one() {
    let mut server = RedisServer::start_default();
    server.kill9();
    let link = start_link(options(&server), vec![]);
    let refused = |s: &LinkStatus| matches!(s, LinkStatus::Starting(reason) if reason.contains("refused"));
    link.status().wait_for(refused).await.unwrap();
    assert!(matches!(link.call(incr("n"), DEADLINE).await, Err(CallError::NeverSent(_))));
    server.restart();
    assert_eq!(link.connected().await.unwrap().generation(), 1);
}

/// What became of writes.
#[derive(Default)]
struct Tally {
    acked: AtomicU64,
    unknown: AtomicU64,
    unsent: AtomicU64,
}

impl Tally {
    /// Writes keys of `worker`'s own, each once, until `writes` of them were sent.
    async fn write(&self, link: &Link, worker: u64, writes: u64) {
        let mut sent = 0;
        for number in 0.. {
            let write = Command::new(CommandName::Incr).arg(format!("w:{worker}:{number}"));
            match link.call(write, DEADLINE).await {
                Ok(reply) => {
                    assert_eq!(reply, Reply::Int(1), "ran before");
                    self.acked.fetch_add(1, Ordering::Relaxed);
                }
                Err(CallError::MaybeExecuted(_)) => {
                    self.unknown.fetch_add(1, Ordering::Relaxed);
                }
                Err(CallError::NeverSent(_)) => {
                    self.unsent.fetch_add(1, Ordering::Relaxed);
                    link.connected().await.unwrap();
                    continue;
                }
                Err(error) => panic!("{error}"),
            }
            sent += 1;
            if sent == writes {
                return;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_write_is_sent_twice_while_connections_are_killed() {
    const WRITES: u64 = 1_000;
    let server = RedisServer::start_default();
    let options = RedisOptions { backoff_max: Duration::from_millis(40), ..options(&server) };
    let link = Arc::new(start_link(options, vec![]));
    link.connected().await.unwrap();
    let tally = Arc::new(Tally::default());
    let workers: Vec<_> = (0..8)
        .map(|worker| {
            let (link, tally) = (Arc::clone(&link), Arc::clone(&tally));
            tokio::spawn(async move { tally.write(&link, worker, WRITES).await })
        })
        .collect();
    let done = AtomicBool::new(false);
    let kills = std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let mut kills = 0;
            while !done.load(Ordering::Relaxed) {
                server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
                kills += 1;
            }
            kills
        });
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                for worker in workers {
                    worker.await.unwrap();
                }
            });
        });
        done.store(true, Ordering::Relaxed);
        killer.join().unwrap()
    });
    let twice = "local n = 0 for _, k in ipairs(redis.call('KEYS', 'w:*')) do \
                 if redis.call('GET', k) ~= '1' then n = n + 1 end end return n";
    let (twice, written) =
        (server.cli(&["EVAL", twice, "0"]), server.cli(&["DBSIZE"]).parse::<u64>().unwrap());
    let [acked, unknown, unsent] =
        [&tally.acked, &tally.unknown, &tally.unsent].map(|count| count.load(Ordering::Relaxed));
    println!("{kills} kills: {acked} acked, {unknown} unknown, {unsent} never sent, {written} written");
    assert!(kills > 1 && unknown > 0, "nothing was killed under way");
    assert_eq!(twice, "0", "writes that ran twice");
    assert!(written >= acked && written <= acked + unknown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_ended_connection_sent_is_not_executed_after_its_successor() {
    let server = RedisServer::start_default();
    let proxy = SwallowingProxy::start(server.addr()).await;
    let link = start_link(proxy.addr().to_string().parse().unwrap(), vec![]);
    let first = link.connected().await.unwrap();
    let held = proxy.connections();
    // The network holds bytes back, and lets them go when all has been forgotten.
    let delay = Duration::from_secs(3);
    proxy.set_open(Flows { to_server: Flow::Delay(delay), ..Flows::default() });
    let sent = Instant::now();
    first.call(incr("n"), Duration::from_millis(300)).await.unwrap_err();
    assert!(first.is_closed());
    link.connections()
        .wait_for(|current| current.as_ref().is_some_and(|current| current.generation() == 2))
        .await
        .unwrap();
    assert_eq!(link.call(incr("m"), DEADLINE).await.unwrap().as_u64(), Ok(1));
    let clients = server.cli(&["CLIENT", "LIST"]);
    assert!(!held.iter().any(|port| clients.contains(&format!("addr=127.0.0.1:{port} "))), "{clients}");
    // That nothing comes has no event to wait for.
    tokio::time::sleep((delay + Duration::from_millis(500)).saturating_sub(sent.elapsed())).await;
    assert_eq!(link.call(get("n"), DEADLINE).await.unwrap(), Reply::Nil, "executed late");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_let_connections_be_ended_is_connected_to_all_the_same() {
    let server = RedisServer::start_default();
    server.cli(&["ACL", "SETUSER", "u", "on", ">p", "~*", "+@all", "-client|kill"]);
    let options = RedisOptions { username: Some("u".into()), password: Some("p".into()), ..options(&server) };
    let link = start_link(options, vec![]);
    link.connected().await.unwrap().end("a reason");
    down(&link).await;
    let again = link.connected().await.unwrap();
    assert_eq!(again.generation(), 2);
    assert_eq!(again.call(incr("n"), DEADLINE).await.unwrap().as_u64(), Ok(1));
}
