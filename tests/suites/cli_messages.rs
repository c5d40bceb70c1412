//! `pub`, `sub`, `tail` and `history`: what can be published and how it is shown, with exit codes that scripts can use.

use std::{
    collections::HashSet,
    fs,
    process::Output,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use streamgate_client::{
    CloudEventBuilder,
    server::{ApiClient, Publication},
};
use streamgate_e2e::{
    cluster::{self, Cluster},
    events::{self, text},
    gateway::TestNode,
    process::{run, run_with},
    raw::{RawClient, Via},
    within,
};
use streamgate_proto::wkt::Timestamp;

use crate::cli::{Running, succeeded};

async fn node() -> (TestNode, String) {
    let node = TestNode::start("").await;
    let server = cluster::url(node.addrs(), Via::WsJson);
    (node, server)
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn err(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// The time as RFC 3339 has it.
fn now() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let (seconds, nanos) =
        (i64::try_from(now.as_secs()).unwrap(), i32::try_from(now.subsec_nanos()).unwrap());
    serde_json::to_value(Timestamp { seconds, nanos }).unwrap().as_str().unwrap().to_owned()
}

/// What ended with this code.
fn ended(code: i32, args: &[&str]) -> Output {
    let output = run(args);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {}{}", out(&output), err(&output));
    output
}

/// The events of a channel, as `history -o json` has them.
fn history(server: &str, channel: &str) -> Vec<Value> {
    let printed = succeeded(&["history", channel, "-o", "json", "--server", server]);
    printed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["event"].take()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pub_repeats_a_template_at_a_rate() {
    let (_node, server) = node().await;
    let data = r#"{"n":{{count}},"at":"{{time}}","id":"{{uuid}}"}"#;
    let start = Instant::now();
    let output = ended(
        0,
        &[
            "pub",
            "load",
            data,
            "--count",
            "5",
            "--rate",
            "20",
            "-H",
            "subject=s{{count}}",
            "--server",
            &server,
        ],
    );
    assert!(start.elapsed().as_millis() >= 200, "{:?}", start.elapsed());
    assert_eq!(out(&output).lines().count(), 5);
    assert!(err(&output).contains("5 published in"), "{}", err(&output));
    let events = history(&server, "load");
    let numbers: Vec<_> = events.iter().map(|event| event["data"]["n"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    assert_eq!(events[2]["subject"], "s3");
    let ids: HashSet<_> = events.iter().map(|event| event["data"]["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 5);
    assert!(events.iter().all(|event| event["data"]["at"].as_str().unwrap().ends_with('Z')));

    // Without them DATA is as it is.
    let quiet = succeeded(&["pub", "plain", "{{count}}", "--quiet", "--server", &server]);
    assert_eq!((quiet.as_str(), &history(&server, "plain")[0]["data"]), ("", &json!("{{count}}")));
    let refused = ended(2, &["pub", "load", "{{number}}", "--count", "2", "--server", &server]);
    assert!(err(&refused).contains("{{uuid}}"), "{}", err(&refused));
    // A fixed id or key for many is not what anybody means.
    ended(2, &["pub", "load", "x", "--count", "2", "--id", "same", "--server", &server]);
    let keyed = ["pub", "keyed", "x", "--count", "3", "--key", "k{{count}}", "--quiet", "--server", &server];
    succeeded(&keyed);
    succeeded(&keyed);
    assert_eq!(history(&server, "keyed").len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pub_takes_a_line_of_standard_input_for_each_event_and_stops_at_what_is_refused() {
    let node = TestNode::start("channels: [{pattern: large, max_message_size: 1KiB}]").await;
    let server = cluster::url(node.addrs(), Via::WsJson);
    let lines = |args: &[&str], input: &str| {
        let args = [&["pub"], args, &["--server", &server]].concat();
        run_with(&args, input.as_bytes(), &[])
    };
    for data in [&["lines"][..], &["lines", "-"]] {
        assert!(lines(data, "one\n{\"two\":2}\r\n\nlast").status.success());
    }
    let events = history(&server, "lines");
    let data: Vec<_> = events.iter().map(|event| event["data"].clone()).collect();
    let once = [json!("one"), json!({"two": 2}), json!(""), json!("last")];
    assert_eq!(data, [&once[..], &once[..]].concat());
    assert!(lines(&["filled", "--template"], "a {{count}}\nb {{count}}\n").status.success());
    let data: Vec<_> = history(&server, "filled").iter().map(|event| event["data"].clone()).collect();
    assert_eq!(data, [json!("a 1"), json!("b 2")]);
    // Larger than a channel takes.
    let output = lines(&["large"], &format!("fits\n{}\nnever\n", "x".repeat(2_000)));
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    assert!(err(&output).contains("TOO_LARGE"), "{}", err(&output));
    assert_eq!(lines(&["large", "--count", "2"], "x\n").status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_pub_gives_a_time_to_live_is_gone_afterwards() {
    let (_node, server) = node().await;
    succeeded(&["pub", "a", "soon", "--ttl", "300ms", "--server", &server]);
    succeeded(&["pub", "a", "stays", "--ttl", "1h", "--server", &server]);
    within("one is over", async {
        while history(&server, "a").len() > 1 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(history(&server, "a")[0]["data"], "stays");
    for wrong in ["0", "0s", "soon"] {
        ended(2, &["pub", "a", "x", "--ttl", wrong, "--server", &server]);
    }
    let long = ended(1, &["pub", "a", "x", "--ttl", "9000h", "--server", &server]);
    assert!(err(&long).contains("ttl_ms"), "{}", err(&long));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sub_prints_a_field_or_the_data_alone() {
    let (_node, server) = node().await;
    for data in [r#"{"user":{"id":"ann"},"n":[1,{"x":null}]}"#, r#"{"user":{"id":7}}"#, "no json"] {
        succeeded(&["pub", "a", data, "-H", "subject=s", "--server", &server]);
    }
    let sub = |more: &[&str]| {
        succeeded(&[&["sub", "a", "--from", "start", "--count", "3", "--server", &server], more].concat())
    };
    assert_eq!(sub(&["--field", "data.user.id"]), "ann\n7\n\n");
    assert_eq!(sub(&["--field", "data.user.id", "-o", "json"]), "\"ann\"\n7\nnull\n");
    assert_eq!(sub(&["--field", "data.n.1"]), "{\"x\":null}\n\n\n");
    assert_eq!(sub(&["--field", "subject"]), "s\ns\ns\n");
    assert_eq!(sub(&["--field", "channel"]), "a\na\na\n");
    let raw = "{\"user\":{\"id\":\"ann\"},\"n\":[1,{\"x\":null}]}\n{\"user\":{\"id\":7}}\nno json\n";
    assert_eq!(sub(&["--raw"]), raw);
    for wrong in [
        &["--raw", "--field", "a"][..],
        &["--field", "a..b"],
        &["--raw", "-o", "json"],
        &["--raw", "--command", "cat"],
    ] {
        ended(2, &[&["sub", "a", "--server", &server], wrong].concat());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sub_and_tail_end_in_time_and_say_whether_enough_came() {
    let (_node, server) = node().await;
    succeeded(&["pub", "a", "one", "--server", &server]);
    for command in ["sub", "tail"] {
        let from = if command == "sub" { "--from=1" } else { "--last=1" };
        let args = [command, "a", from, "--count", "2", "--timeout", "2s", "--server", &server];
        let output = ended(4, &args);
        assert!(out(&output).contains("one"), "{output:?}");
        assert!(err(&output).contains("1 of 2 messages came in time"), "{}", err(&output));
        let output = ended(0, &[command, "a", from, "--timeout", "2s", "--server", &server]);
        assert_eq!(out(&output).lines().count(), 1);
    }
    ended(2, &["sub", "a", "--timeout", "0s", "--server", &server]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sub_runs_a_process_for_each_message_one_after_the_other() {
    let (_node, server) = node().await;
    let dir = std::env::temp_dir().join(format!("streamgate-cli-{}", uuid::Uuid::new_v4()));
    fs::create_dir_all(&dir).unwrap();
    let mark = dir.join("mark");
    // Nothing of a message is ever a command.
    let evil = format!("$(touch {0}); `touch {0}`", mark.display());
    for data in ["one", &evil, "fails", "last"] {
        succeeded(&["pub", "jobs", data, "--type", "job", "--id", "i", "--server", &server]);
    }
    let script = r#"data=$(cat); echo "$MESSAGE_CHANNEL $MESSAGE_TYPE $MESSAGE_ID $MESSAGE_CONTENT_TYPE $data";
        test -n "$MESSAGE_POSITION" || exit 9; test "$data" != fails || { echo why >&2; exit 3; }"#;
    let args = [
        "sub",
        "jobs",
        "--from",
        "start",
        "--count",
        "4",
        "--server",
        &server,
        "--command",
        "sh",
        "-c",
        script,
    ];
    let output = ended(1, &args);
    let expected = ["one", &evil, "fails", "last"].map(|data| format!("jobs job i text/plain {data}"));
    assert_eq!(out(&output).lines().collect::<Vec<_>>(), expected);
    assert!(
        err(&output).contains("exit code 3: why") && err(&output).contains("1 of 4 commands failed"),
        "{}",
        err(&output)
    );
    assert!(!mark.exists());
    let two = ["sub", "jobs", "--from", "start", "--count", "2", "--server", &server, "--command", "cat"];
    assert_eq!(out(&ended(0, &two)), format!("one{evil}"));
    let missing =
        ["sub", "jobs", "--from", "1", "--count", "1", "--server", &server, "--command", "/nowhere"];
    assert!(err(&ended(1, &missing)).contains("cannot be started"));
    let _ = fs::remove_dir_all(dir);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_lets_the_command_that_runs_finish() {
    let (node, server) = node().await;
    let sub = Running::start(&[
        "sub",
        "jobs",
        "--server",
        &server,
        "--command",
        "sh",
        "-c",
        "cat; echo; kill -TERM $PPID; sleep 0.3; echo done",
    ]);
    // It says nowhere when it is subscribed: publish until it runs.
    let mut lines = sub.lines();
    let mut publisher = RawClient::connect(node.addrs(), Via::WsJson).await;
    while lines.borrow().is_empty() {
        publisher.publish("jobs", text("e", "x")).await;
        let _ = tokio::time::timeout(std::time::Duration::from_millis(50), lines.changed()).await;
    }
    assert_eq!(sub.printed(2).await, ["x", "done"]);
    assert_eq!(sub.ended().await, Some(0));
    assert_eq!(sub.printed(2).await, ["x", "done"], "no other one was begun");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tail_shows_short_lines_from_the_last_few_on() {
    let (node, server) = node().await;
    for n in 1..=7 {
        let data = format!("{n} {}", "x".repeat(200));
        succeeded(&[
            "pub",
            "room.a",
            &data,
            "--type",
            "note",
            "-H",
            "time=2026-01-01T07:08:09Z",
            "--server",
            &server,
        ]);
    }
    let tail = |more: &[&str]| succeeded(&[&["tail", "room.*", "--server", &server], more].concat());
    let lines = tail(&["--count", "5"]);
    assert!(lines.starts_with("07:08:09 room.a note 3 xxx"), "{lines}");
    assert!(
        lines.lines().count() == 5
            && lines.lines().all(|line| line.chars().count() < 140 && line.ends_with('…'))
    );
    assert!(!lines.contains('\u{1b}'), "no colours in a pipe");
    assert!(tail(&["--count", "1", "-n", "1", "--color", "always", "--full"]).contains("\u{1b}["));
    let line: Value = serde_json::from_str(&tail(&["--count", "1", "-n", "1", "-o", "json"])).unwrap();
    assert_eq!((&line["channel"], &line["event"]["type"]), (&json!("room.a"), &json!("note")));

    let tail = Running::start(&["tail", "room.*", "-n", "1", "--server", &server]);
    tail.printed(1).await;
    let mut publisher = RawClient::connect(node.addrs(), Via::Grpc).await;
    publisher.publish("room.b", events::text("e", "live\u{1b}[2J")).await;
    let line = tail.printed(2).await.pop().unwrap();
    assert!(line.ends_with(" room.b test.text live\\u{1b}[2J") && !line.starts_with('-'), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_reads_since_a_time_a_time_ago_and_a_position() {
    let node = TestNode::start("channels: [{pattern: 'forgetful', recovery: false}]").await;
    let server = cluster::url(node.addrs(), Via::WsJson);
    let mut publisher = RawClient::connect(node.addrs(), Via::WsProto).await;
    let mut positions = Vec::new();
    for n in 0..3 {
        positions.push(publisher.publish("a", text("e", &format!("old {n}"))).await.position.unwrap());
    }
    // Only time tells them apart, by the millisecond.
    let pause = || tokio::time::sleep(std::time::Duration::from_millis(20));
    pause().await;
    let between = now();
    pause().await;
    for n in 0..2 {
        publisher.publish("a", text("e", &format!("new {n}"))).await;
    }
    let read = |more: &[&str]| {
        let printed = succeeded(&[&["history", "a", "--server", &server], more].concat());
        printed
            .lines()
            .map(|line| line.split_once(' ').unwrap().1.split_once(' ').unwrap().1.to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(read(&["--since", &between]), ["new 0", "new 1"]);
    assert_eq!(read(&["--since", &between, "--limit", "1"]), ["new 0"]);
    pause().await;
    assert!(read(&["--since", "1ms"]).is_empty());
    assert_eq!(read(&["--since", "5m"]).len(), 5);
    assert_eq!(read(&["--since", "2020-01-01T00:00:00Z"]).len(), 5);
    assert!(read(&["--since", "2099-01-01T00:00:00Z"]).is_empty());
    let position = format!("{}:{}", positions[1].epoch, positions[1].offset);
    assert_eq!(read(&["--since", &position]), ["old 2", "new 0", "new 1"]);
    assert_eq!(read(&["--since", &position, "--reverse"]), ["old 0"]);
    ended(2, &["history", "a", "--since", "1s", "--reverse", "--server", &server]);
    ended(2, &["history", "a", "--since", "yesterday", "--server", &server]);
    let refused = ended(1, &["history", "forgetful", "--since", "1s", "--server", &server]);
    assert!(err(&refused).contains("has no replay"), "{}", err(&refused));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_reaches_back_further_than_one_replay() {
    const ALL: usize = 10_500;
    let yaml = "channels: [{pattern: deep, history_size: 20000}]";
    let cluster = Cluster::start_with(1, yaml).await;
    let api = ApiClient::builder(format!("http://{}", cluster.addrs(0).admin)).build().unwrap();
    for batch in 0..ALL / 500 {
        let events = (0..500).map(|n| {
            let text = (batch * 500 + n).to_string();
            Publication::new(CloudEventBuilder::new("t").text(text).build()).channel("deep")
        });
        assert!(api.publish(events).await.unwrap().iter().all(|result| result.outcome.is_ok()));
    }
    let server = cluster::url(cluster.addrs(0), Via::WsProto);
    let printed = succeeded(&["history", "deep", "--since", "1h", "--server", &server]);
    let numbers: Vec<usize> =
        printed.lines().map(|line| line.split(' ').nth(2).unwrap().parse().unwrap()).collect();
    assert_eq!(numbers, (0..ALL).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exit_codes_tell_what_happened() {
    let node = TestNode::start(streamgate_e2e::rights::OPEN).await;
    let server = cluster::url(node.addrs(), Via::WsJson);
    // Nothing can listen on port 1 here but root's own daemons.
    for command in [
        &["pub", "a", "x"][..],
        &["sub", "a"],
        &["tail", "a"],
        &["history", "a"],
        &["presence", "a"],
        &["rtt"],
    ] {
        let output = ended(3, &[command, &["--server", "127.0.0.1:1"]].concat());
        assert!(err(&output).contains("is `streamgate serve` running?"), "{}", err(&output));
        let output = ended(1, &[command, &["--server", &server, "--token", "forged-1"]].concat());
        assert!(!err(&output).contains("forged-1"), "{}", err(&output));
        ended(2, &[command, &["--server", "http://127.0.0.1:1"]].concat());
        ended(2, &[command, &["--no-such-flag"]].concat());
    }
    ended(1, &["pub", "a.*", "x", "--server", &server]);
    ended(1, &["history", "a.*", "--server", &server]);
}
