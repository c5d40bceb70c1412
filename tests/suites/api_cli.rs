//! The commands about a running gateway (`channels`, `sessions`, `disconnect`, ...) and `token`: what they print, and their exit
//! codes.

use std::{
    fs,
    path::PathBuf,
    process::Output,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use streamgate_client::PublishOptions;
use streamgate_e2e::{
    certificates::Authority,
    cluster::Cluster,
    events::{extended, live, text},
    gateway::{Addrs, TestNode},
    process::run,
    raw::{RawClient, Via},
    responder::Responder,
    rights::{OPEN, showing, token},
};
use streamgate_proto::v1::Connect;
use tokio::net::TcpListener;

use crate::cli::succeeded;

const NOBODY: &str = "2b1bb2c8-9f7e-4f0d-8f4f-2b4b8f2f1a11";

fn url(addrs: Addrs) -> String {
    format!("http://{}", addrs.admin)
}

async fn client(addrs: Addrs, user: &str, kind: &str) -> RawClient {
    let connect = Connect { client_id: "phone".into(), client_type: kind.into(), ..extended([]) };
    RawClient::connect_as(addrs, Via::WsJson, showing(connect, &token(user))).await
}

/// Objects, one a line.
fn objects(printed: &str) -> Vec<Value> {
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What it printed, and its complaint, if the exit code is this one.
fn ended(code: i32, args: &[&str]) -> (String, String) {
    let Output { status, stdout, stderr } = run(args);
    let (out, err) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert_eq!(status.code(), Some(code), "{args:?}: {out}{err}");
    (out, err)
}

/// A file that is gone with this.
struct TempFile(PathBuf);

impl TempFile {
    fn new(content: &str) -> Self {
        let path = std::env::temp_dir().join(format!("streamgate-cli-{}", uuid::Uuid::new_v4()));
        fs::write(&path, content).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_sessions_and_nodes_are_listed_as_tables_and_objects() {
    let cluster = Cluster::start_with(2, OPEN).await;
    let api = url(cluster.addrs(0));
    assert_eq!(succeeded(&["channels", "--api", &api]), "");
    assert_eq!(succeeded(&["sessions", "--api", &api]), "");
    let publisher = cluster.client(1, Via::Grpc).await;
    for channel in ["room.b", "room.a", "hall"] {
        publisher.publish(channel, text("e", "x"), PublishOptions::default()).await.unwrap();
    }
    assert_eq!(succeeded(&["channels", "--api", &api]), "hall\nroom.a\nroom.b\n");
    let listed = objects(&succeeded(&["channels", "room.*", "-o", "json", "--api", &api]));
    assert_eq!(listed, [json!({"channel": "room.a"}), json!({"channel": "room.b"})]);

    let nodes = objects(&succeeded(&["nodes", "-o", "json", "--api", &api]));
    assert_eq!((nodes.len(), nodes.iter().filter(|node| node["local"] == true).count()), (2, 1));
    let far = nodes.iter().find(|node| node["local"] == false).unwrap()["id"].as_str().unwrap();
    let table = succeeded(&["nodes", "--api", &api]);
    assert!(table.starts_with("NODE ") && table.lines().count() == 3 && table.contains(" * "), "{table}");

    publisher.close().await;
    let ann = client(cluster.addrs(1), "ann", "web").await;
    let _bob = client(cluster.addrs(0), "bob", "tv").await;
    let id = ann.connected.session_id.as_str();
    for query in [&["--user", "ann"], &["--type", "web"], &["--node", far]] {
        let listed = objects(&succeeded(&[&["sessions", "-o", "json", "--api", &api], &query[..]].concat()));
        assert_eq!(listed.len(), 1, "{query:?}");
        let session = &listed[0];
        assert!(session["connected_at"].as_str().is_some_and(|time| time.ends_with('Z')), "{session}");
        let told = ["session_id", "user_id", "client_id", "client_type", "node"].map(|name| &session[name]);
        assert_eq!(told, [id, "ann", "phone", "web", far]);
    }
    let table = succeeded(&["sessions", "--api", &api]);
    assert!(table.starts_with("SESSION ") && table.lines().count() == 3, "{table}");
    assert!(table.lines().any(|line| line.starts_with(id) && line.contains("  ann ")), "{table}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_disconnected_is_told_and_who_is_not_there_is_an_exit_code() {
    let cluster = Cluster::start_with(2, OPEN).await;
    let api = url(cluster.addrs(0));
    let mut ann = client(cluster.addrs(1), "ann", "web").await;
    let mut bob = client(cluster.addrs(1), "bob", "web").await;
    let id = ann.connected.session_id.clone();
    let args = ["disconnect", "--session", &id, NOBODY, "--code", "4321", "--reason", "moved", "--api", &api];
    let (printed, complaint) = ended(1, &args);
    assert_eq!(ann.closed().await, (4321, "moved".into()));
    assert!(printed.contains(&format!("session  {id}  1\n")) && printed.contains("NOT_FOUND"), "{printed}");
    assert_eq!(complaint, "error: 1 of 2 could not be closed\n");
    let printed = succeeded(&["disconnect", "--user", "bob", "-o", "json", "--api", &api]);
    assert_eq!(objects(&printed), [json!({"user_id": "bob", "closed": 1})]);
    assert_eq!(bob.close_code().await, 3503);
    let (printed, _) = ended(1, &["disconnect", "--user", "bob", "-o", "json", "--api", &api]);
    assert_eq!(objects(&printed)[0]["error"]["code"], "NOT_FOUND");
    ended(2, &["disconnect", "--api", &api]);
    ended(2, &["disconnect", "--user", "bob", "--code", "1000", "--api", &api]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_called_and_surveyed() {
    let cluster = Cluster::start_with(2, OPEN).await;
    let api = url(cluster.addrs(0));
    let connect = showing(extended([live("room")]), &token("ann"));
    let ann = RawClient::connect_as(cluster.addrs(1), Via::WsProto, connect).await;
    let ann = Responder::of(ann, &[]).await;
    let id = ann.session_id.as_str();
    assert_eq!(succeeded(&["call", id, "m.echo", "hello", "--api", &api]), "hello\n");
    let reply = succeeded(&["call", "--user", "ann", "m.who", "-o", "json", "--api", &api]);
    assert_eq!(objects(&reply)[0]["data"], id);
    let (_, complaint) = ended(1, &["call", id, "m.fail", "--api", &api]);
    assert_eq!(complaint, "error: OUT_OF_TEA: only coffee\n");
    ended(1, &["call", NOBODY, "m.echo", "--api", &api]);
    ended(4, &["call", id, "m.silent", "--timeout", "200ms", "--api", &api]);
    ended(2, &["call", "m.echo", "--api", &api]);

    let printed = succeeded(&["survey", "room", "who", "--api", &api]);
    assert_eq!(printed.lines().nth(1), Some(format!("{id}  {id}").as_str()), "{printed}");
    let printed = objects(&succeeded(&["survey", "room", "-o", "json", "--api", &api]));
    assert_eq!((&printed[0]["session_id"], &printed[0]["event"]["data"]), (&json!(id), &json!(id)));
    let started = Instant::now();
    let (printed, complaint) = ended(4, &["survey", "room", "silence", "--timeout", "300ms", "--api", &api]);
    assert_eq!((printed.as_str(), complaint.as_str()), ("", "error: none of 1 has answered in time\n"));
    assert!(started.elapsed() >= Duration::from_millis(300));
    ended(1, &["survey", "empty", "--api", &api]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minted_token_is_good_until_it_is_revoked() {
    let secret = TempFile::new("a secret of at least thirty-two bytes\n");
    let node = TestNode::start(&format!(
        "{OPEN}permissions: [{{channels: [staff], actions: [subscribe], who: {{claims: {{role: [admin]}}}}}}]"
    ))
    .await;
    let api = url(node.addrs());
    let mint = |more: &[&str]| {
        let args = [&["token", "--secret-file", secret.path(), "--user", "ann"], more].concat();
        succeeded(&args).trim_end().to_owned()
    };
    let connecting = mint(&["--id", "t-1", "--claim", "role=admin", "--subscribe", "mine.*", "--ttl", "1h"]);
    let mut ann = RawClient::connect_as(node.addrs(), Via::WsJson, showing(extended([]), &connecting)).await;
    ann.subscribe_to("staff").await;
    ann.subscribe_to("mine.a").await;
    let minted: Value = serde_json::from_str(&mint(&["--channel", "secret", "-o", "json"])).unwrap();
    assert!(minted["expires_at"].as_str().is_some_and(|time| time.ends_with('Z')), "{minted}");
    let mut secret_room = live("secret");
    secret_room.token = minted["token"].as_str().unwrap().to_owned();
    ann.subscribe([secret_room]).await;

    let printed = succeeded(&["revoke", "--token-id", "t-1", "--for", "2h", "--api", &api]);
    assert!(printed.starts_with("refused until "), "{printed}");
    assert_eq!(ann.close_code().await, 3500);
    let other = mint(&[]);
    let mut again = RawClient::connect_as(node.addrs(), Via::WsJson, showing(extended([]), &other)).await;
    let printed = objects(&succeeded(&["revoke", "--user", "ann", "-o", "json", "--api", &api]));
    assert_eq!((&printed[0]["user_id"], &printed[0]["token_id"]), (&json!("ann"), &Value::Null));
    assert_eq!(again.close_code().await, 3500);

    for wrong in [
        &["token", "--user", "ann"][..],
        &["token", "--secret", "short", "--user", "ann"],
        &["token", "--secret-file", secret.path()],
        &["token", "--secret-file", secret.path(), "--user", "ann", "--claim", "exp=1"],
        &["token", "--secret-file", secret.path(), "--user", "ann", "--channel", "a", "--publish", "b"],
        &["token", "--key-file", secret.path(), "--user", "ann"],
        &["token", "--key-file", secret.path(), "--algorithm", "ES256", "--user", "ann"],
        &["revoke", "--api", &api],
        &["revoke", "--user", "ann", "--token-id", "t", "--api", &api],
    ] {
        let (printed, complaint) = ended(2, wrong);
        assert!(printed.is_empty() && !complaint.contains("thirty-two"), "{wrong:?}: {complaint}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_tls_and_who_is_not_there_have_their_exit_codes() {
    let authority = Authority::new();
    let identity = authority.issue("admin", &["localhost"]);
    let node = TestNode::start(&format!(
        "server: {{http: {{tls: {{cert_file: {}, key_file: {}}}}}}}\n\
         api: {{tokens: [{{name: r, token: token-of-the-reader, scopes: [read]}}]}}",
        identity.cert_file.display(),
        identity.key_file.display()
    ))
    .await;
    let api = format!("https://localhost:{}", node.addrs().admin.port());
    let (ca, good) = (authority.ca_file(), TempFile::new("token-of-the-reader\n"));
    let ca = ca.to_str().unwrap();
    let to = ["--api", &api, "--ca-file", ca];
    let shown = ["--api-token-file", good.path()];
    let with = |command: &[&'static str], more: &[&str]| {
        [command, &to, more].concat().iter().map(|&arg| arg.to_owned()).collect::<Vec<_>>()
    };
    let ended_with =
        |code, args: Vec<String>| ended(code, &args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(ended_with(0, with(&["nodes"], &shown)).0.lines().count(), 2);
    assert_eq!(ended_with(0, with(&["nodes"], &["--api-token", "token-of-the-reader"])).0.lines().count(), 2);
    let (_, complaint) = ended_with(1, with(&["nodes"], &[]));
    assert!(
        complaint.starts_with("error: AUTH_ERROR: ") && complaint.contains("--api-token-file"),
        "{complaint}"
    );
    let (_, complaint) = ended_with(1, with(&["disconnect", "--user", "ann"], &shown));
    assert!(complaint.starts_with("error: ACL_ERROR: "), "{complaint}");
    ended_with(2, with(&["nodes"], &["--api-token-file", "/nowhere"]));
    // Its authority is none of the system's.
    ended(3, &["nodes", "--api", &api]);
    ended(2, &["nodes", "--api", "ws://localhost"]);
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let (_, complaint) = ended(3, &["channels", "--api", &address]);
    let expected = format!("error: no server API at {address}: is `streamgate serve` running? (see --api)\n");
    assert_eq!(complaint, expected);
}
