//! Every scenario, small and short, against a gateway of its own: that it runs, writes its result, and that all is correct.
//! How fast it is, is not looked at.

#![allow(clippy::unwrap_used, reason = "in a test the panic is the report")]

use std::{
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::Value;
use streamgate_e2e::process::GatewayProcess;

/// Of a node that the load generator has not started.
const LIMITS: &str = "limits: {publishes_per_second: 1000000}";

/// A result file, gone when the test is.
struct Results(PathBuf);

impl Results {
    fn of(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("streamgate-loadtest-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for Results {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs a scenario for some seconds, and answers its result. The program itself fails if something arrived wrongly.
fn run(name: &str, args: &[&str]) -> Value {
    let results = Results::of(name);
    let (json, html) = (results.0.join("result.json"), results.0.join("result.html"));
    let scenario = args[0];
    let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(args)
        .args(["--warmup", "0.5", "--quiet", "--json"])
        .arg(&json)
        .arg("--html")
        .arg(&html)
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name}: {}\n{out}\n{err}", output.status);
    let result: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(result["scenario"], scenario);
    assert!(std::fs::read_to_string(&html).unwrap().contains("<svg"), "{name}: a page without plots");
    let correctness = &result["correctness"];
    for fault in
        ["refused", "unanswered", "lost", "duplicated", "reordered", "misrouted", "gaps", "disconnected"]
    {
        assert_eq!(correctness[fault], 0, "{name}: {fault} in {correctness}");
    }
    let gateway =
        result["processes"].as_array().unwrap().iter().find(|process| process["name"] == "gateway 1");
    // CPU time comes in steps of 10 ms, and nobody works while all are idle.
    let cpu = gateway.and_then(|gateway| gateway["cpu_seconds"].as_f64());
    assert!(cpu > Some(0.0) || (cpu.is_some() && correctness["delivered"] == 0), "{name}: {out}");
    result
}

/// That so many were delivered at least.
fn delivered(result: &Value, least: u64) {
    let correctness = &result["correctness"];
    assert!(correctness["delivered"].as_u64() >= Some(least), "{correctness}");
}

#[test]
fn idle_connections_are_all_connected() {
    let result = run("idle", &["idle", "--connections", "200", "--seconds", "2"]);
    let last = result["series"].as_array().unwrap().last().unwrap();
    assert_eq!(last["connected"], 200);
}

#[test]
fn fanout_reaches_everybody_in_either_encoding_beside_its_floor() {
    for (encoding, threads) in [("json", "1"), ("protobuf", "2")] {
        let args = ["fanout", "--subscribers", "50", "--seconds", "1", "--encoding", encoding];
        let result = run(&format!("fanout-{encoding}"), &[&args[..], &["--threads", threads]].concat());
        delivered(&result, 100);
        for run in [&result, &result["saturated"]] {
            let latencies = run["latencies"].as_array().unwrap();
            let last = latencies.iter().find(|latency| latency["name"] == "last delivery").unwrap();
            assert!(last["count"].as_u64() > Some(0), "{last}");
        }
        let floor = &result["beside"][0];
        assert_eq!(floor["scenario"], "floor-write");
        assert_eq!(floor["correctness"]["lost"], 0, "{}", floor["correctness"]);
        delivered(floor, 100);
    }
}

#[test]
fn pairs_go_through_redis_beside_the_script_and_over_grpc() {
    let args = ["pairs", "--broker", "redis", "--nodes", "2", "--pairs", "10", "--seconds", "2"];
    let result = run("pairs", &args);
    delivered(&result, 100);
    let figures = result["figures"].as_array().unwrap();
    assert!(figures.iter().any(|figure| figure["name"].as_str().unwrap().contains("of the script's")));
    let args =
        ["pairs", "--transport", "grpc", "--pairs", "5", "--rate", "100", "--seconds", "1", "--no-floor"];
    delivered(&run("pairs-grpc", &args), 50);
}

#[test]
fn rooms_hear_all_their_members_in_two_threads_of_clients() {
    let args = ["rooms", "--rooms", "5", "--members", "6", "--seconds", "2", "--threads", "2"];
    delivered(&run("rooms", &args), 100);
}

#[test]
fn a_server_that_does_wrong_is_found_out() {
    for (fault, count) in
        [("lose", "lost"), ("repeat", "duplicated"), ("misroute", "misrouted"), ("swallow", "unanswered")]
    {
        let results = Results::of(fault);
        let json = results.0.join("result.json");
        // It ends when its standard input closes, which is when this drops it.
        let mut writer = Command::new(env!("CARGO_BIN_EXE_loadtest"))
            .args(["floor-writer", "--listen", "127.0.0.1:0", "--fault", fault])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut address = String::new();
        BufReader::new(writer.stdout.take().unwrap()).read_line(&mut address).unwrap();
        let url = format!("ws://{}", address.trim());
        let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
            .args(["fanout", "--no-floor", "--subscribers", "3", "--rate", "100", "--seconds", "1"])
            .args(["--warmup", "0", "--quiet", "--url", &url, "--json"])
            .arg(&json)
            .output();
        drop(writer.stdin.take());
        writer.wait().unwrap();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(1), "{fault}: {}", String::from_utf8_lossy(&output.stderr));
        let result: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
        assert!(result["correctness"][count].as_u64() > Some(0), "{fault}: {}", result["correctness"]);
    }
}

/// What the program says of a wrong command line, before it starts anything.
fn refusal(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_loadtest")).args(args).output().unwrap();
    assert_eq!(output.status.code().map(|code| code > 0), Some(true), "{args:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_does_not_fit_together_is_refused_at_once() {
    let adapter = concat!(env!("CARGO_MANIFEST_DIR"), "/adapters/messageloop.yaml");
    let other = ["--url", "ws://127.0.0.1:1/ws", "--adapter", adapter];
    for (args, said) in [
        (vec!["rooms", "--json", "/nowhere/a.json"], "cannot write /nowhere/a.json"),
        (vec!["idle", "--transport", "grpc", "--source", "127.0.0.1"], "--source is for WebSocket"),
        ([&["idle", "--transport", "grpc"], &other[..]].concat(), "--adapter is for servers with WebSocket"),
        (vec!["recover-storm", "--history", "5"], "--history 5: 21 messages"),
        ([&["recover-storm"], &other[..]].concat(), "clients come back with cursors"),
        ([&["soak"], &other[..]].concat(), "clients come back with cursors"),
    ] {
        let text = refusal(&args);
        assert!(text.contains(said), "{args:?}: {text}");
    }
}

#[test]
fn clients_without_history_do_not_storm() {
    let args =
        ["recover-storm", "--history", "0", "--missed", "0", "--clients", "10", "--channels", "2", "-q"];
    let text = refusal(&args);
    assert!(text.contains("--history 0: 1 messages"), "{text}");
    let node = tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(GatewayProcess::start("channels: [{pattern: '**', history_size: 0}]"));
    let url = format!("ws://{}", node.addrs().websocket);
    let text = refusal(&["recover-storm", "--clients", "10", "--channels", "2", "-q", "--url", &url]);
    assert!(text.contains("was told no position in load."), "{text}");
}

#[test]
fn a_server_that_dies_ends_the_run_at_once_and_leaves_the_runs_before() {
    let results = Results::of("dies");
    let json = results.0.join("result.json");
    let node = tokio::runtime::Runtime::new().unwrap().block_on(GatewayProcess::start(LIMITS));
    let (url, pid) = (format!("ws://{}", node.addrs().websocket), node.pid().to_string());
    let begun = std::time::Instant::now();
    let loadtest = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["rooms", "--rooms", "2", "--members", "3", "--rate", "10", "--repeat", "2", "-q"])
        .args(["--seconds", "5", "--warmup", "0"])
        .args(["--url", &url, "--pid", &pid, "--json"])
        .arg(&json)
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // In the second of two runs of 5 s.
    std::thread::sleep(std::time::Duration::from_secs(7));
    drop(node);
    let output = loadtest.wait_with_output().unwrap();
    assert!(begun.elapsed().as_secs_f64() < 9.5, "{:?}", begun.elapsed());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("run 2 of 2 failed"), "{text}");
    assert!(text.contains(&format!("process {pid} has ended")), "{text}");
    let result: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert!(result["notes"].to_string().contains("run 2 of 2 failed"), "{}", result["notes"]);
}

#[test]
fn another_server_is_spoken_to_by_a_table() {
    let node = tokio::runtime::Runtime::new().unwrap().block_on(GatewayProcess::start(LIMITS));
    let (url, pid) = (format!("ws://{}", node.addrs().websocket), node.pid().to_string());
    let adapter = concat!(env!("CARGO_MANIFEST_DIR"), "/adapters/messageloop.yaml");
    let args = ["rooms", "--rooms", "4", "--members", "5", "--seconds", "1", "--url", &url, "--pid", &pid];
    let result = run("adapter", &[&args[..], &["--adapter", adapter]].concat());
    delivered(&result, 100);
    assert_eq!(result["target"]["server"], "messageloop");
}

#[test]
fn two_servers_are_measured_in_turn_in_the_same_run() {
    let node = tokio::runtime::Runtime::new().unwrap().block_on(GatewayProcess::start(LIMITS));
    let (url, pid) = (format!("ws://{}", node.addrs().websocket), node.pid().to_string());
    let adapter = concat!(env!("CARGO_MANIFEST_DIR"), "/adapters/messageloop.yaml");
    let beside = ["--beside-url", &url, "--beside-pid", &pid, "--beside-adapter", adapter];
    let args = ["rooms", "--rooms", "4", "--members", "5", "--seconds", "1", "--repeat", "2"];
    let result = run("beside", &[&args[..], &beside].concat());
    let other = &result["beside"][0];
    delivered(&result, 100);
    delivered(other, 100);
    assert_eq!((&other["target"]["server"], &other["scenario"]), (&"messageloop".into(), &"rooms".into()));
    assert!(other["processes"][0]["cpu_seconds"].as_f64() > Some(0.0), "{}", other["processes"]);
    let figures = result["figures"].as_array().unwrap();
    let ratio = figures.iter().find(|figure| figure["name"] == "deliveries, of messageloop's").unwrap();
    assert!(ratio["value"].as_f64() > Some(0.0) && ratio["range"].as_array().unwrap().len() == 2, "{ratio}");
}

#[test]
fn patterns_get_all_channels_that_match() {
    let args = ["patterns", "--groups", "3", "--channels", "4", "--subscribers", "4", "--seconds", "2"];
    delivered(&run("patterns", &args), 100);
}

#[test]
fn calls_are_answered_by_clients_of_another_node() {
    let args = ["rpc", "--broker", "redis", "--nodes", "2", "--callers", "4", "--seconds", "1"];
    let result = run("rpc", &[&args[..], &["--threads", "2"]].concat());
    delivered(&result, 100);
    let acked = result["correctness"]["acked"].as_u64();
    assert_eq!(acked, result["correctness"]["delivered"].as_u64(), "each call has one answerer");
}

#[test]
fn calls_are_answered_by_a_backend_beside_the_same_asked_directly() {
    let args = ["rpc", "--by", "hook", "--callers", "4", "--seconds", "1", "--transport", "grpc"];
    let result = run("rpc-hook", &args);
    assert!(result["correctness"]["acked"].as_u64() >= Some(100), "{}", result["correctness"]);
    let backend = &result["processes"].as_array().unwrap()[1];
    assert!(backend["name"] == "backend" && backend["cpu_seconds"].as_f64() > Some(0.0), "{backend}");
    let floor = &result["beside"][0];
    assert_eq!(floor["scenario"], "backend asked directly");
    delivered(floor, 100);
    assert_eq!(floor["correctness"]["lost"], 0, "{}", floor["correctness"]);
}

#[test]
fn clients_come_with_tokens_of_every_algorithm() {
    for algorithm in ["hs256", "rs256", "es256", "eddsa"] {
        let args = ["connect", "--algorithm", algorithm, "--tokens", "20", "--clients", "4"];
        let result = run(algorithm, &[&args[..], &["--seconds", "1"]].concat());
        for run in [&result, &result["beside"][0]] {
            let connects = run["figures"].as_array().unwrap().iter().find(|one| one["name"] == "connects");
            assert!(connects.unwrap()["value"].as_f64() > Some(10.0), "{algorithm}: {connects:?}");
        }
    }
}

#[test]
fn pages_of_history_are_whole() {
    let args = ["history", "--broker", "redis", "--clients", "10", "--channels", "5", "--messages", "60"];
    let result = run("history", &[&args[..], &["--rate", "100", "--seconds", "2"]].concat());
    delivered(&result, 100 * 50);
}

#[test]
fn a_storm_of_clients_misses_nothing() {
    let args = ["recover-storm", "--broker", "redis", "--nodes", "2", "--clients", "200", "--channels", "10"];
    let result =
        run("recover-storm", &[&args[..], &["--missed", "5", "--within", "1", "--seconds", "3"]].concat());
    // The first one, and those that were missed.
    delivered(&result, 200 * 6);
}

#[test]
fn joins_and_leaves_are_seen_once_by_each_watcher() {
    let args = ["presence-storm", "--members", "100", "--channels", "4", "--watchers", "3", "--within", "1"];
    let result = run("presence-storm", &[&args[..], &["--seconds", "3", "--threads", "2"]].concat());
    delivered(&result, 100 * 3 * 2);
}

#[test]
fn members_that_go_and_come_back_miss_nothing() {
    let args =
        ["soak", "--broker", "redis", "--rooms", "5", "--members", "5", "--rate", "100", "--churn", "10"];
    let result = run("soak", &[&args[..], &["--away", "0.5", "--seconds", "5"]].concat());
    delivered(&result, 500);
}
