//! The ways into a shared and protected Redis: ACL users, passwords, prefixes, databases; and what a node may take there.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use futures_util::{StreamExt as _, stream};
use streamgate::broker::BrokerStatus;
use streamgate_client::{PublishOptions, SubscribeOptions};
use streamgate_e2e::{
    DEADLINE, api,
    backend::{HttpBackend, Reply},
    cluster,
    events::{extended, history, live, recover, recover_pattern, text},
    gateway::TestNode,
    listening,
    process::GatewayProcess,
    raw::{RawClient, Via},
    redis_cluster::{RedisCluster, blocking},
    redis_server::{RedisServer, RedisServerOptions},
    scrape, within,
};
use streamgate_proto::v1::Connect;

use crate::presence;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The rule of `docs/operations.md`, as the words of `ACL SETUSER`.
fn documented_rule() -> Vec<String> {
    let docs = fs::read_to_string(repository().join("docs/operations.md")).expect("the documentation");
    let start = docs.find("ACL SETUSER streamgate").expect("the rule");
    let rule = docs[start..].split("```").next().expect("a block");
    let rule = rule.replace("\\\n", " ").replace("PASSWORD", "pw");
    rule.split_whitespace().map(str::to_owned).collect()
}

fn server_with_documented_user() -> RedisServer {
    let redis = RedisServer::start(RedisServerOptions::default().args(&[
        "--stream-node-max-bytes",
        "512",
        "--acllog-max-len",
        "1000",
    ]));
    let_in(&redis, &[]);
    redis
}

/// Makes the documented user, with these further rights.
fn let_in(redis: &RedisServer, more: &[&str]) {
    let rule = documented_rule();
    let words: Vec<&str> = rule.iter().map(String::as_str).chain(more.iter().copied()).collect();
    assert_eq!(redis.cli(&words), "OK");
}

/// The rights that the documentation names beside the rule, after these words.
fn documented_rights(words: &str) -> Vec<String> {
    let docs = fs::read_to_string(repository().join("docs/operations.md")).expect("the documentation");
    let docs = docs.split_whitespace().collect::<Vec<_>>().join(" ");
    let start = docs.find(words).expect("the words") + words.len();
    let rights = docs[start..].trim_start().trim_start_matches('`').split('`').next().expect("rights");
    rights.split_whitespace().map(str::to_owned).collect()
}

async fn node(redis: &RedisServer, keys: &str) -> TestNode {
    TestNode::start(&yaml(redis, keys)).await
}

fn yaml(redis: &RedisServer, keys: &str) -> String {
    format!("broker: {{type: redis, redis: {{addr: '{}', {keys}}}}}", redis.addr())
}

/// Everything that clients can do, on two nodes.
async fn use_everything(one: &TestNode, other: &TestNode) {
    let mut alice = RawClient::connect(one.addrs(), Via::WsProto).await;
    let mut bob = RawClient::connect(other.addrs(), Via::WsJson).await;
    bob.subscribe([live("room.blue"), live("hall.*")]).await;
    let first = alice.publish("room.blue", text("1", "one")).await;
    alice.publish("hall.a", text("2", "two")).await;
    assert_eq!(bob.texts(2).await, ["one", "two"]);

    let mut late = RawClient::connect(other.addrs(), Via::WsProto).await;
    alice.publish("room.blue", text("3", "three")).await;
    let cursor = first.position.clone().expect("a position");
    late.subscribe([recover("room.blue", cursor.clone())]).await;
    assert_eq!(late.recovered().await.0.len(), 1);
    late.subscribe([recover_pattern("room.*", [("room.blue", cursor)])]).await;
    late.recovered().await;
    assert!(alice.history(history("room.blue", 10)).await.messages.len() >= 2);
    bob.unsubscribe("hall.*").await;

    let client = cluster::connect(&[one.addrs()], Via::Grpc).await;
    let publish =
        |payload| client.publish("room.blue", text(payload, payload), PublishOptions::with_key("k"));
    let (once, again) = (publish("four").await.expect("acked"), publish("five").await.expect("acked"));
    assert!(again.duplicate && once.position == again.position, "{again:?}");

    let token = alice.connected.resume_token.clone();
    alice.subscribe_to("room.red").await;
    alice.close().await;
    for (operation, request) in
        [("channels", r#"{"pattern": "room.*"}"#), ("history", r#"{"channel": "room.blue"}"#)]
    {
        let answer = api::post(one.addrs().admin, operation, &[], request).await;
        assert!(answer.status == 200 && answer.body.contains("room.blue"), "{answer:?}");
    }
    let connect = Connect { resume_token: token, ..extended([]) };
    let alice = RawClient::connect_as(other.addrs(), Via::WsProto, connect).await;
    assert!(alice.connected.resumed);
}

/// A member joins at a node that dies, is found by a query, and is told to have left.
async fn outlive_a_member(yaml: &str, node: &TestNode) {
    let mut dying = GatewayProcess::start(yaml).await;
    dying.addrs().ready().await;
    let mut watcher = presence::watcher(node.addrs(), Via::WsProto, "club.*").await;
    let mut member = RawClient::connect(dying.addrs(), Via::WsProto).await;
    member.subscribe_to("club.one").await;
    let session = presence::session(&member);
    presence::expect(&mut watcher, "join club.one", &session).await;
    let client = cluster::connect(&[node.addrs()], Via::WsProto).await;
    let here = client.presence("club.one").await.expect("an answer");
    assert_eq!((here.count, here.members[0].session_id.as_str()), (1, session.as_str()));
    dying.kill9();
    presence::expect(&mut watcher, "leave club.one", &session).await;
    assert_eq!(client.presence("club.one").await.expect("an answer").count, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_user_may_do_all_that_a_node_does() {
    let redis = server_with_documented_user();
    let backend = HttpBackend::start(|_| Reply::Json(200, serde_json::json!({}))).await;
    let yaml = format!(
        "{}\npresence: {{lease: 3s}}\nclient_events: {{channel: $events}}\n\
         proxy: [{{endpoint: '{}', lifecycle: true, occupancy: true}}]\n",
        yaml(&redis, "username: streamgate, password: pw"),
        backend.url()
    );
    let (one, other) = (TestNode::start(&yaml).await, TestNode::start(&yaml).await);
    one.addrs().ready().await;
    other.addrs().ready().await;
    use_everything(&one, &other).await;
    outlive_a_member(&yaml, &other).await;
    // Renewals, checks of quiet channels and all else that happens by itself, and coming back.
    let statuses = [&one, &other].map(|node| {
        let mut status = node.node().broker_status();
        status.mark_unchanged();
        status
    });
    redis.cli(&["CLIENT", "KILL", "USER", "streamgate"]);
    for mut status in statuses {
        // It may be back before anyone looks: that it was away is seen by the change.
        within("away", status.changed()).await.expect("runs");
        within("back", status.wait_for(|status| *status == BrokerStatus::Ready)).await.expect("runs");
    }
    use_everything(&one, &other).await;
    one.shutdown().await;
    backend.notes.until("OnDisconnected", 3).await;
    other.shutdown().await;
    assert_eq!(redis.cli(&["ACL", "LOG"]), "", "nothing was denied");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_user_may_do_all_that_a_node_does_in_another_database() {
    let redis = server_with_documented_user();
    let rights = documented_rights("A database other than 0 also needs");
    let_in(&redis, &rights.iter().map(String::as_str).collect::<Vec<_>>());
    let node = node(&redis, "username: streamgate, password: pw, db: 3").await;
    node.addrs().ready().await;
    use_everything(&node, &node).await;
    node.shutdown().await;
    assert_eq!(redis.cli(&["ACL", "LOG"]), "", "nothing was denied");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_user_may_do_all_that_a_node_does_in_a_cluster() {
    let redis = blocking(|| {
        let redis = RedisCluster::start(3);
        let rights = documented_rights("`+select`, a Cluster");
        let rights: Vec<&str> = rights.iter().map(String::as_str).collect();
        redis.servers().iter().for_each(|server| let_in(server, &rights));
        redis
    })
    .await;
    let yaml = redis.yaml().replace("mode: cluster", "mode: cluster, username: streamgate, password: pw");
    let (one, other) = (TestNode::start(&yaml).await, TestNode::start(&yaml).await);
    one.addrs().ready().await;
    other.addrs().ready().await;
    use_everything(&one, &other).await;
    one.shutdown().await;
    other.shutdown().await;
    for server in redis.servers() {
        assert_eq!(server.cli(&["ACL", "LOG"]), "", "nothing was denied");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_user_of_the_sentinels_may_do_all_that_a_node_asks_them() {
    let master = RedisServer::start_default();
    let line = format!("sentinel monitor main 127.0.0.1 {} 1", master.addr().port());
    let sentinel = RedisServer::start(RedisServerOptions::default().sentinel([line]));
    let rights = documented_rights("Sentinels need to allow");
    let rights: Vec<&str> = rights.iter().map(String::as_str).collect();
    let rule = [&["ACL", "SETUSER", "gate", "on", ">pw", "-@all"], &rights[..]].concat();
    assert_eq!(sentinel.cli(&rule), "OK");
    let yaml = format!(
        "broker: {{type: redis, redis: {{mode: sentinel, addrs: ['{}'], \
         sentinel: {{master_name: main, username: gate, password: pw}}}}}}",
        sentinel.addr()
    );
    let node = TestNode::start(&yaml).await;
    node.addrs().ready().await;
    assert_eq!(sentinel.cli(&["ACL", "LOG"]), "", "nothing was denied");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_user_may_do_nothing_else() {
    let redis = server_with_documented_user();
    redis.cli(&["SET", "other:key", "v"]);
    let as_user = |args: &[&str]| {
        redis.cli(&[&["--user", "streamgate", "--pass", "pw", "--no-auth-warning"], args].concat())
    };
    for args in [
        &["GET", "other:key"][..],
        &["KEYS", "*"],
        &["FLUSHALL"],
        &["CONFIG", "SET", "maxmemory", "1"],
        &["ACL", "WHOAMI"],
        &["SUBSCRIBE", "streamgate:x"],
        &["PUBLISH", "streamgate:x", "m"],
        &["SCRIPT", "FLUSH"],
        &["SHUTDOWN"],
    ] {
        let answer = as_user(args);
        assert!(answer.contains("NOPERM"), "{args:?}: {answer}");
    }
}

/// Commands in the scripts and in what the broker sends, as ACL rules have them.
fn used_commands() -> BTreeSet<String> {
    let dir = repository().join("gateway/src/broker/redis");
    let (mut sources, mut scripts) = (String::new(), String::new());
    let mut dirs = vec![dir];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).expect("a folder") {
            let path = entry.expect("an entry").path();
            let read = || fs::read_to_string(&path).expect("a file");
            match path.extension().and_then(|end| end.to_str()) {
                Some("rs") => sources += read().split("#[cfg(test)]").next().unwrap_or_default(),
                Some("lua") => scripts += &read(),
                _ if path.is_dir() => dirs.push(path),
                _ => {}
            }
        }
    }
    let word = |text: &str| text.chars().take_while(char::is_ascii_alphanumeric).collect::<String>();
    let sent = sources.split("CommandName::").skip(1).map(word);
    let scripted = scripts.split("call('").skip(1);
    let subcommand = |text: &str| {
        let name = word(text);
        let rest = text[name.len()..].strip_prefix("', '");
        match (name.as_str(), rest) {
            ("XGROUP" | "XINFO", Some(rest)) => format!("{name}|{}", word(rest)),
            _ => name,
        }
    };
    let used: BTreeSet<String> =
        sent.chain(scripted.map(subcommand)).map(|name| name.to_lowercase()).collect();
    // The list itself, and what is for Sentinels and for a Cluster.
    let elsewhere = ["all", "sentinel", "cluster", "client"];
    let used = used.into_iter().filter(|name| !elsewhere.contains(&name.as_str()));
    // The Redis crate asks for its ID on every new connection, too.
    let used = used.chain(["client|id", "client|kill"].map(str::to_owned));
    used.map(|name| match name.as_str() {
        "script" => "script|load".to_owned(),
        "config" => "config|get".to_owned(),
        _ => name,
    })
    .collect()
}

#[test]
fn the_documented_rule_has_exactly_the_commands_that_are_used() {
    let rule = documented_rule();
    let documented: BTreeSet<String> =
        rule.iter().filter_map(|word| word.strip_prefix('+')).map(str::to_owned).collect();
    assert_eq!(documented, used_commands());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_said_without_repeating_it() {
    let redis = server_with_documented_user();
    for keys in ["username: streamgate, password: s3cret", "username: nobody, password: s3cret", ""] {
        redis.cli(&["ACL", "SETUSER", "default", "resetpass", ">other"]);
        let node = node(&redis, keys).await;
        let mut status = node.node().broker_status();
        let denied = |status: &BrokerStatus| match status {
            BrokerStatus::Starting(why) | BrokerStatus::Refused(why) => why.contains("denies access"),
            _ => false,
        };
        let told = tokio::time::timeout(DEADLINE, status.wait_for(denied)).await.is_ok();
        assert!(told, "{:?}", *node.node().broker_status().borrow());
        let answer = scrape::get(node.addrs().admin, "/health/ready?verbose").await;
        assert!(answer.status == 503 && answer.body.contains("denies access"), "{}", answer.body);
        assert!(!answer.body.contains("s3cret"), "{}", answer.body);
        redis.cli(&["-a", "other", "--no-auth-warning", "ACL", "SETUSER", "default", "nopass"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_changes_costs_no_client() {
    let redis = server_with_documented_user();
    let node = node(&redis, "username: streamgate, password: pw").await;
    node.addrs().ready().await;
    let mut alice = RawClient::connect(node.addrs(), Via::WsProto).await;
    alice.subscribe_to("room.blue").await;
    redis.cli(&["ACL", "SETUSER", "streamgate", "resetpass", ">changed"]);
    redis.cli(&["CLIENT", "KILL", "USER", "streamgate"]);
    let mut status = node.node().broker_status();
    let denied =
        |status: &BrokerStatus| matches!(status, BrokerStatus::Away(why) if why.contains("denies access"));
    within("the node is denied access", status.wait_for(denied)).await.expect("runs");
    assert_eq!(scrape::get(node.addrs().admin, "/health/ready").await.status, 200);
    alice.quiet().await;
    redis.cli(&["ACL", "SETUSER", "streamgate", "resetpass", ">pw"]);
    within("back", status.wait_for(|status| *status == BrokerStatus::Ready)).await.expect("runs");
    alice.publish("room.blue", text("1", "again")).await;
    assert_eq!(alice.texts(1).await, ["again"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deployments_on_one_server_do_not_see_each_other() {
    let redis = cluster::redis();
    // Of one database, of another one, and of one that is named by a URL.
    let mut nodes = Vec::new();
    for keys in ["key_prefix: one", "key_prefix: two, partitions: 8", "key_prefix: one, db: 3"] {
        nodes.push(node(&redis, keys).await);
    }
    let url = format!("broker: {{type: redis, redis: {{addr: 'redis://{}/5'}}}}", redis.addr());
    nodes.push(TestNode::start(&url).await);
    let mut clients = Vec::new();
    for node in &nodes {
        node.addrs().ready().await;
        let client = cluster::connect(&[node.addrs()], Via::WsProto).await;
        let subscription = client.subscribe("room.*").await.expect("subscribes");
        clients.push((client, subscription));
    }
    for (number, (client, subscription)) in clients.iter_mut().enumerate() {
        let payload = format!("of {number}");
        let ack = client.publish("room.blue", text("e", &payload), PublishOptions::with_key("same")).await;
        assert!(!ack.as_ref().expect("acked").duplicate && ack.expect("acked").offset == 1);
        let message = listening::message(subscription).await;
        assert_eq!(streamgate_e2e::history::payload_of(&message.event), payload);
    }
    for (client, subscription) in &mut clients {
        listening::assert_quiet(client, subscription).await;
        let recovered = client.subscribe(SubscribeOptions::new("room.blue")).await.expect("subscribes");
        assert_eq!(recovered.target(), "room.blue");
    }
    assert_eq!(redis.info("keyspace").len(), 3, "databases 0, 3 and 5");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inboxes_are_as_long_and_live_as_long_as_configured() {
    let redis = cluster::redis();
    let keys = "partitions: 1, inbox_max_length: 1000, inbox_ttl: 10m";
    // What is stuck must not be taken for dead meanwhile: then its inbox goes.
    let yaml = format!("{}\npresence: {{lease: 2m}}\n", yaml(&redis, keys));
    let stuck = GatewayProcess::start(&yaml).await;
    stuck.addrs().ready().await;
    let mut listener = RawClient::connect(stuck.addrs(), Via::WsProto).await;
    listener.subscribe_to("room.blue").await;
    let node = TestNode::start(&yaml).await;
    node.addrs().ready().await;
    let inboxes = redis.cli(&["--scan", "--pattern", "*:in:*"]);
    let inboxes: Vec<&str> = inboxes.lines().collect();
    assert_eq!(inboxes.len(), 2);
    for inbox in &inboxes {
        let ttl: u64 = redis.cli(&["TTL", inbox]).parse().expect("seconds");
        assert!((500..=600).contains(&ttl), "{ttl} s");
    }
    stuck.pause();
    let client = cluster::connect(&[node.addrs()], Via::WsProto).await;
    let publish =
        |n: usize| client.publish("room.blue", text(&n.to_string(), "x"), PublishOptions::default());
    // A few at a time: what is published at once is one entry.
    let publishing = stream::iter((0..3_000).map(publish)).buffer_unordered(16);
    for ack in within("all acks", publishing.collect::<Vec<_>>()).await {
        ack.expect("acked");
    }
    // Whole nodes of the stream are trimmed: of 512 bytes, a few entries each.
    let longest = inboxes.iter().map(|inbox| publications(&redis, inbox)).max().expect("an inbox");
    assert!((900..=1_150).contains(&longest), "{longest} publications");
}

/// How many publications an inbox holds: its sequences count them.
fn publications(redis: &RedisServer, inbox: &str) -> u64 {
    let sequence = |id: &str| -> u64 { id.split_once('-').expect("an ID").1.parse().expect("a sequence") };
    let first = redis.cli(&["XRANGE", inbox, "-", "+", "COUNT", "1"]);
    let Some(first) = first.lines().next().filter(|first| !first.is_empty()) else { return 0 };
    let info = redis.cli(&["XINFO", "STREAM", inbox]);
    let last = info.lines().skip_while(|line| *line != "last-generated-id").nth(1).expect("the last ID");
    sequence(last) - sequence(first) + 1
}
