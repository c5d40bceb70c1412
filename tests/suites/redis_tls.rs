//! TLS to Redis: who is trusted, who is not, and what a node says of it.

use std::time::Duration;

use streamgate::broker::BrokerStatus;
use streamgate_e2e::{
    certificates::{Authority, Identity},
    events::{frame, live, text},
    gateway::TestNode,
    raw::{RawClient, Via},
    redis_server::{RedisServer, RedisServerOptions},
    scrape, within,
};
use streamgate_proto::v1::{
    InboundMessage, Subscribe, inbound_message::Envelope as In, outbound_message::Envelope as Out,
};

fn server(authority: &Authority, names: &[&str], auth_clients: bool) -> RedisServer {
    let identity = authority.issue("server", names);
    let options = RedisServerOptions::default().args(&["--stream-node-max-bytes", "512"]);
    RedisServer::start(options.tls(authority, &identity, auth_clients))
}

/// A node of `addr`, with these keys of `tls`.
async fn node(addr: &str, tls: &str) -> TestNode {
    let yaml = format!("broker: {{type: redis, redis: {{addr: '{addr}', tls: {{{tls}}}}}}}");
    TestNode::start(&yaml).await
}

fn ca(authority: &Authority) -> String {
    format!("ca_file: '{}'", authority.ca_file().display())
}

fn with_identity(authority: &Authority, identity: &Identity) -> String {
    let (cert, key) = (identity.cert_file.display(), identity.key_file.display());
    format!("{}, cert_file: '{cert}', key_file: '{key}'", ca(authority))
}

/// Waits until the node says why it cannot start, in these words.
async fn says(node: &TestNode, words: &str) -> String {
    let mut status = node.node().broker_status();
    let told = status.wait_for(|status| matches!(status, BrokerStatus::Starting(why) if why.contains(words)));
    let told = tokio::time::timeout(Duration::from_secs(20), told).await;
    match told {
        Ok(status) => format!("{:?}", *status.expect("the node runs")),
        Err(_) => panic!("{words:?} is not in {:?}", *node.node().broker_status().borrow()),
    }
}

fn subscribe() -> InboundMessage {
    frame(In::Subscribe(Subscribe { subscriptions: vec![live("room.blue")] }))
}

/// A client publishes and is delivered.
async fn works(node: &TestNode) {
    node.addrs().ready().await;
    let mut client = RawClient::connect(node.addrs(), Via::WsProto).await;
    within("a subscription", async {
        // A node that has just lost all its connections may notice one of them after it was back.
        while let Some(Out::Error(error)) = client.request(subscribe()).await.envelope {
            assert_eq!(error.code, "NOT_AVAILABLE");
            node.addrs().ready().await;
        }
    })
    .await;
    let ack = client.publish("room.blue", text("e1", "hello")).await;
    assert_eq!(client.message().await.offset, ack.offset);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_the_authority_signed_is_trusted() {
    let authority = Authority::new();
    let redis = server(&authority, &["127.0.0.1"], false);
    works(&node(&format!("rediss://{}", redis.tls_addr()), &ca(&authority)).await).await;
    let by_key = format!("enabled: true, {}", ca(&authority));
    works(&node(&redis.tls_addr().to_string(), &by_key).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_an_unknown_authority_is_refused_and_the_node_says_so() {
    let (authority, other) = (Authority::new(), Authority::new());
    let redis = server(&authority, &["127.0.0.1"], false);
    let addr = format!("rediss://{}", redis.tls_addr());
    for tls in [ca(&other), String::new()] {
        let node = node(&addr, &tls).await;
        let told = says(&node, "no trusted connection to Redis").await;
        assert!(told.contains("UnknownIssuer"), "{told}");
        let answer = scrape::get(node.addrs().admin, "/health/ready?verbose").await;
        assert_eq!(answer.status, 503);
        assert!(answer.body.contains("UnknownIssuer"), "{}", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_must_be_for_the_name_that_is_asked_for() {
    let authority = Authority::new();
    let redis = server(&authority, &["redis.example"], false);
    let addr = format!("rediss://{}", redis.tls_addr());
    let wrong = node(&addr, &ca(&authority)).await;
    let told = says(&wrong, "no trusted connection to Redis").await;
    assert!(told.contains("NotValidForName"), "{told}");
    works(&node(&addr, &format!("{}, server_name: redis.example", ca(&authority))).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asks_for_certificates_gets_one() {
    let authority = Authority::new();
    let redis = server(&authority, &["127.0.0.1"], true);
    let addr = format!("rediss://{}", redis.tls_addr());
    works(&node(&addr, &with_identity(&authority, &authority.issue("node", &["node"]))).await).await;

    let without = node(&addr, &ca(&authority)).await;
    says(&without, "no trusted connection to Redis").await;
    let stranger = Authority::new().issue("stranger", &["node"]);
    let gone = node(&addr, &with_identity(&authority, &stranger)).await;
    let told = says(&gone, "no trusted connection to Redis").await;
    assert!(told.contains("stranger.cert.pem"), "the file is named: {told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_connection_uses_the_files_as_they_are_then() {
    let authority = Authority::new();
    let redis = server(&authority, &["127.0.0.1"], true);
    let identity = authority.issue("node", &["node"]);
    std::fs::write(&identity.cert_file, "not yet").expect("write");
    let node = node(&format!("rediss://{}", redis.tls_addr()), &with_identity(&authority, &identity)).await;
    let told = says(&node, "node.cert.pem: there is no usable certificate").await;
    assert!(!told.contains("not yet"), "{told}");
    assert_eq!(authority.issue("node", &["node"]), identity);
    works(&node).await;
    // Renewed while the node runs: it comes back with the new one.
    let _ = authority.issue("node", &["node"]);
    let mut status = node.node().broker_status();
    redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    // It may be back before anyone looks: that it was away is seen by the change.
    within("away", status.changed()).await.expect("runs");
    within("back", status.wait_for(|status| *status == BrokerStatus::Ready)).await.expect("runs");
    works(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_without_tls_is_not_spoken_to_in_plain_text() {
    let authority = Authority::new();
    let redis = server(&authority, &["127.0.0.1"], false);
    let node = node(&format!("rediss://{}", redis.addr()), &ca(&authority)).await;
    says(&node, "Redis at 127.0.0.1").await;
    assert!(
        redis.info("commandstats").is_empty() || !redis.info("commandstats").contains_key("cmdstat_role")
    );
}
