//! `rtt`, `doctor`, `completions`, and where servers and tokens come from.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Output,
};

use serde_json::Value;
use streamgate_e2e::{
    cluster,
    gateway::TestNode,
    process::{GatewayProcess, run, run_with},
    raw::Via,
    redis_cluster::{RedisCluster, blocking},
    redis_server::{RedisServer, RedisServerOptions},
    rights,
};

use crate::cli::succeeded;

/// A directory that is gone with this.
struct TempDir(PathBuf);

impl TempDir {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("streamgate-cli-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn err(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rtt_measures_every_server() {
    let node = TestNode::start("").await;
    let servers = [Via::WsJson, Via::Grpc].map(|via| cluster::url(node.addrs(), via));
    let args =
        ["rtt", "--count", "20", "--interval", "1ms", "--server", &servers[0], "--server", &servers[1]];
    let printed = succeeded(&args);
    let lines: Vec<_> = printed.lines().collect();
    assert!(lines.len() == 3 && lines[0].starts_with("SERVER ") && lines[0].contains("P99"), "{printed}");
    let printed = succeeded(&[&args[..], &["-o", "json"]].concat());
    for (line, server) in printed.lines().zip(&servers) {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!((line["server"].as_str(), line["count"].as_u64()), (Some(server.as_str()), Some(20)));
        let us = |name: &str| line[name].as_u64().unwrap();
        assert!(
            us("min_us") <= us("avg_us") && us("avg_us") <= us("max_us") && us("p99_us") <= us("max_us"),
            "{line}"
        );
        assert!(us("max_us") > 0);
    }
}

#[test]
fn completions_know_the_commands_and_their_options() {
    for (shell, mark) in
        [("bash", "complete -F"), ("zsh", "#compdef streamgate"), ("fish", "complete -c streamgate")]
    {
        let script = succeeded(&["completions", shell]);
        assert!(script.contains(mark), "{shell}");
        for word in ["serve-rpc", "doctor", "tail", "ttl", "api-token-file"] {
            assert!(script.contains(word), "{shell} {word}");
        }
    }
    assert_eq!(run(&["completions", "none"]).status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_and_tokens_come_from_flags_the_environment_and_contexts_in_this_order() {
    let node = TestNode::start(rights::OPEN).await;
    let (ws, admin) = (cluster::url(node.addrs(), Via::WsJson), format!("http://{}", node.addrs().admin));
    let dir = TempDir::new();
    let token = dir.file("token", &format!("{}\n", rights::token("ann")));
    let file = dir.file(
        "cli.yaml",
        &format!(
            "context: here\ncontexts:\n  here: {{server: '{ws}', token_file: '{token}', api: '{admin}'}}\n  \
             away: {{server: '127.0.0.1:1', token: bad-token-1, api: 'http://127.0.0.1:1'}}\n"
        ),
    );
    let with = |args: &[&str], variables: &[(&str, &str)]| {
        let file = [("STREAMGATE_CLI_CONFIG", file.as_str())];
        let output = run_with(args, b"", &[&file[..], variables].concat());
        (output.status.code().unwrap(), format!("{}{}", out(&output), err(&output)))
    };
    let publish = ["pub", "a", "x"];
    assert_eq!(with(&publish, &[]).0, 0);
    assert_eq!(with(&["channels"], &[]), (0, "a\n".to_owned()));
    assert_eq!(with(&["pub", "a", "x", "--context", "away"], &[]).0, 3);
    assert_eq!(with(&publish, &[("STREAMGATE_CONTEXT", "away")]).0, 3);
    assert_eq!(with(&["channels"], &[("STREAMGATE_CONTEXT", "away")]).0, 3);
    assert_eq!(with(&["pub", "a", "x", "--context", "here"], &[("STREAMGATE_CONTEXT", "away")]).0, 0);
    let url = [("STREAMGATE_CONTEXT", "away"), ("STREAMGATE_URL", ws.as_str())];
    let (code, said) = with(&publish, &url);
    assert!(code == 1 && said.contains("refuses the token") && !said.contains("bad-token-1"), "{said}");
    assert_eq!(with(&publish, &[&url[..], &[("STREAMGATE_TOKEN_FILE", token.as_str())]].concat()).0, 0);
    assert_eq!(with(&["pub", "a", "x", "--server", &ws, "--token-file", &token], &url).0, 0);
    let forged = [("STREAMGATE_URL", ws.as_str()), ("STREAMGATE_TOKEN", "forged")];
    assert_eq!(with(&publish, &forged).0, 1);

    let (code, said) = with(&["pub", "a", "x", "--context", "none"], &[]);
    assert!(code == 2 && said.contains("away, here"), "{said}");
    assert_eq!(with(&["pub", "a", "x", "--token-file", "/nowhere"], &[]).0, 2);
    let broken = dir.file("broken.yaml", "contexts: {a: {token: [secret-2]}}");
    let output = run_with(&publish, b"", &[("STREAMGATE_CLI_CONFIG", &broken)]);
    assert!(output.status.code() == Some(2) && !err(&output).contains("secret-2"), "{output:?}");
    // The usual place.
    let home = TempDir::new();
    fs::create_dir_all(home.0.join("streamgate")).unwrap();
    fs::copy(&file, home.0.join("streamgate/cli.yaml")).unwrap();
    let output = run_with(&publish, b"", &[("XDG_CONFIG_HOME", home.0.to_str().unwrap())]);
    assert!(output.status.success(), "{}", err(&output));
}

/// What `doctor` found: its exit code, and level and text by subject.
fn doctor(args: &[&str]) -> (i32, Vec<(String, String, String)>) {
    let ports = ["--ws-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"];
    let output = run(&[&["doctor", "-o", "json"], &ports[..], args].concat());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let findings = out(&output).lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["change"].is_string(), line["level"] != "ok", "{line}");
        (
            text(&line["subject"]),
            text(&line["level"]),
            format!("{} {}", text(&line["text"]), text(&line["change"])),
        )
    });
    (output.status.code().unwrap(), findings.collect())
}

/// Those that are not as they should be, but for the limit of open files, which is this machine's.
fn wrong(findings: &[(String, String, String)]) -> Vec<(&str, &str)> {
    let wrong = findings.iter().filter(|(subject, level, _)| level != "ok" && subject != "open files");
    wrong.map(|(subject, level, _)| (subject.as_str(), level.as_str())).collect()
}

#[test]
fn doctor_needs_no_redis_for_the_memory_broker() {
    let (code, findings) = doctor(&[]);
    assert_eq!((code, wrong(&findings)), (0, vec![]), "{findings:?}");
    for subject in ["configuration", "listener 127.0.0.1:0", "open files", "broker"] {
        assert!(findings.iter().any(|(found, ..)| found == subject), "{subject}");
    }
    let text = succeeded(&[
        "doctor",
        "--ws-addr",
        "127.0.0.1:0",
        "--grpc-addr",
        "127.0.0.1:0",
        "--admin-addr",
        "127.0.0.1:0",
    ]);
    assert!(text.contains("ok    broker"), "{text}");
}

#[test]
fn doctor_reads_the_configuration_as_serve_does() {
    let dir = TempDir::new();
    let file = dir.file("bad.yaml", "brokers: {}\n");
    let (code, findings) = doctor(&["--config", &file]);
    assert_eq!((code, wrong(&findings)), (1, vec![("configuration", "fail")]), "{findings:?}");
    let warned = dir.file("old.yaml", "broker: {type: memory, redis: {pool_size: 3}}\n");
    let (code, findings) = doctor(&["--config", &warned]);
    assert_eq!((code, wrong(&findings)), (0, vec![("configuration", "warn")]), "{findings:?}");
    assert_eq!(doctor(&["--config", &warned, "--strict"]).0, 1);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let output =
        run(&["doctor", "--ws-addr", &addr, "--grpc-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        out(&output).contains(&format!("fail  listener {addr}")) && out(&output).contains("change: "),
        "{}",
        out(&output)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_finds_the_listeners_of_a_gateway_that_runs() {
    let node = GatewayProcess::start("").await;
    let addrs = node.addrs();
    let [ws, grpc, admin] = [addrs.websocket, addrs.grpc, addrs.admin].map(|addr| addr.to_string());
    let printed = succeeded(&["doctor", "--ws-addr", &ws, "--grpc-addr", &grpc, "--admin-addr", &admin]);
    assert_eq!(printed.matches("a gateway runs here").count(), 3, "{printed}");
}

#[test]
fn doctor_tells_what_to_change_about_redis() {
    let redis = RedisServer::start(RedisServerOptions::default().args(&[
        "--maxmemory",
        "100mb",
        "--maxmemory-policy",
        "allkeys-lru",
        "--appendonly",
        "no",
        "--save",
        "",
    ]));
    let addr = redis.addr().to_string();
    let (code, findings) = doctor(&["--redis-addr", &addr]);
    let expected = [("redis persistence", "warn"), ("redis eviction", "fail"), ("redis streams", "warn")];
    assert_eq!((code, wrong(&findings)), (1, expected.to_vec()), "{findings:?}");
    let (_, _, text) = findings.iter().find(|(subject, ..)| subject == "redis eviction").unwrap();
    assert!(text.contains("CONFIG SET maxmemory-policy noeviction"), "{text}");
    for (name, value) in
        [("maxmemory-policy", "noeviction"), ("appendonly", "yes"), ("stream-node-max-bytes", "512")]
    {
        assert_eq!(redis.cli(&["CONFIG", "SET", name, value]), "OK");
    }
    let (code, findings) = doctor(&["--redis-addr", &addr, "--strict"]);
    let unlimited = findings.iter().any(|(subject, level, _)| subject == "open files" && level == "ok");
    assert_eq!((code == 0, wrong(&findings)), (unlimited, vec![]), "{findings:?}");
    assert_eq!(redis.cli(&["DBSIZE"]), "0", "it leaves nothing");
    drop(redis);
    let (code, findings) = doctor(&["--redis-addr", &addr, "--wait", "500ms"]);
    assert_eq!((code, wrong(&findings)), (1, vec![("redis", "fail")]), "{findings:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_tells_which_rights_are_missing_and_finds_none_missing_for_the_documented_user() {
    let redis = cluster::redis();
    let docs =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md")).unwrap();
    let rule = docs[docs.find("ACL SETUSER streamgate").unwrap()..].split("```").next().unwrap().to_owned();
    let rule = rule.replace("\\\n", " ").replace("PASSWORD", "pw-1");
    let words: Vec<_> = rule.split_whitespace().collect();
    assert_eq!(redis.cli(&words), "OK");
    let dir = TempDir::new();
    let yaml = format!(
        "broker: {{type: redis, redis: {{addr: '{}', username: streamgate, password: pw-1, partitions: 4}}}}\n",
        redis.addr()
    );
    let file = dir.file("streamgate.yaml", &yaml);
    let rights = || {
        let (code, findings) = doctor(&["--config", &file]);
        let found = findings.into_iter().find(|(subject, ..)| subject == "redis rights").unwrap();
        (code, found.1, found.2)
    };
    let (code, level, text) = rights();
    assert_eq!((code, level.as_str()), (0, "ok"), "{text}");
    assert_eq!(
        redis.cli(&["ACL", "SETUSER", "streamgate", "-xautoclaim", "-xgroup|create", "-client|kill"]),
        "OK"
    );
    let (code, level, text) = rights();
    assert_eq!((code, level.as_str()), (1, "fail"), "{text}");
    assert!(text.ends_with("ACL SETUSER streamgate +client|kill +xautoclaim +xgroup|create"), "{text}");
    assert!(!text.contains("pw-1"));
    assert_eq!(redis.cli(&["DBSIZE"]), "0");
    // A deployment of another layout.
    assert_eq!(redis.cli(&words), "OK");
    let node = TestNode::start(&yaml).await;
    node.addrs().ready().await;
    let other = dir.file("other.yaml", &yaml.replace("partitions: 4", "partitions: 8"));
    let (code, findings) = doctor(&["--config", &other]);
    assert_eq!((code, wrong(&findings).contains(&("deployment", "fail"))), (1, true), "{findings:?}");
    let (_, findings) = doctor(&["--config", &file]);
    assert!(
        findings.iter().any(|(subject, level, _)| subject == "deployment" && level == "ok"),
        "{findings:?}"
    );
    let denied = dir.file("denied.yaml", &yaml.replace("pw-1", "pw-2"));
    let (code, findings) = doctor(&["--config", &denied, "--wait", "1s"]);
    assert_eq!((code, wrong(&findings)), (1, vec![("redis", "fail")]));
    assert!(findings.iter().all(|(.., text)| !text.contains("pw-2")), "{findings:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_looks_at_every_master_of_a_cluster() {
    let cluster = blocking(|| RedisCluster::start(3)).await;
    let dir = TempDir::new();
    let file = dir.file("streamgate.yaml", &cluster.yaml());
    let (_, findings) = doctor(&["--config", &file]);
    let of = |subject: &str| findings.iter().filter(|(found, ..)| found == subject).count();
    assert_eq!((of("redis version"), of("redis rights"), of("redis clock")), (3, 3, 3), "{findings:?}");
    assert!(
        findings.iter().all(|(subject, level, _)| subject != "redis rights" || level == "ok"),
        "{findings:?}"
    );
}
