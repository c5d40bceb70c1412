//! The server API over HTTP/JSON: what backends reach through it, and what it refuses.

use serde_json::{Value, json};
use streamgate_e2e::{
    api::{ApiAnswer, post, raw},
    events::{extended, live, text_of},
    gateway::TestNode,
    process::GatewayProcess,
    raw::{RawClient, Via},
};

const TOKENS: &str = "api: {max_request_bytes: 64KiB, tokens: [\
    {name: writer, token: token-of-the-writer, scopes: [publish]}, \
    {name: reader, token: token-of-the-reader, scopes: [read, call]}]}";
const WRITER: &[(&str, &str)] = &[("Authorization", "Bearer token-of-the-writer")];
const READER: &[(&str, &str)] = &[("Authorization", "Bearer token-of-the-reader")];

fn event(id: &str) -> Value {
    json!({"id": id, "source": "/shop", "spec_version": "1.0", "type": "order.paid", "text_data": format!("text {id}")})
}

fn publication(channel: &str, id: &str) -> Value {
    json!({"publications": [{"id": id, "destination": {"channels": [channel]}, "payload": event(id)}]})
}

async fn call(node: &TestNode, operation: &str, request: &Value) -> ApiAnswer {
    post(node.addrs().admin, operation, &[], &request.to_string()).await
}

async fn done(node: &TestNode, operation: &str, request: &Value) -> Value {
    let answer = call(node, operation, request).await;
    assert_eq!(answer.status, 200, "{operation}: {}", answer.body);
    answer.json()
}

#[tokio::test]
async fn what_a_backend_publishes_reaches_subscribers_and_history() {
    let node = TestNode::start("").await;
    let mut client = RawClient::connect_as(node.addrs(), Via::WsJson, extended([live("room.*")])).await;
    let answer = done(&node, "publish", &publication("room.blue", "e1")).await;
    assert_eq!(answer["results"][0]["position"]["offset"], "1", "{answer}");
    let message = client.message().await;
    assert_eq!((message.channel.as_str(), text_of(&message.payload.unwrap())), ("room.blue", "text e1"));
    let request = json!({"channels": ["room.red", "room.blue"], "payload": event("e2")});
    let answer = done(&node, "broadcast", &request).await;
    assert_eq!(answer["results"].as_array().unwrap().len(), 2);
    assert_eq!(client.message().await.channel, "room.red");
    assert_eq!(client.message().await.channel, "room.blue");
    let page = done(&node, "history", &json!({"channel": "room.blue", "limit": 1, "reverse": true})).await;
    assert_eq!((&page["messages"][0]["payload"]["id"], &page["truncated"]), (&json!("e2"), &json!(true)));
    let list = done(&node, "channels", &json!({"pattern": "room.**"})).await;
    assert_eq!(list["channels"], json!([{"channel": "room.blue"}, {"channel": "room.red"}]));
    done(&node, "remove_history", &json!({"channel": "room.blue"})).await;
    assert_eq!(done(&node, "history", &json!({"channel": "room.blue"})).await, json!({}));
}

#[tokio::test]
async fn a_retried_batch_is_stored_once() {
    let node = TestNode::start("").await;
    let mut request = publication("a", "e1");
    request["publications"][0]["options"] = json!({"idempotency_key": "order-17"});
    let first = done(&node, "publish", &request).await;
    let again = done(&node, "publish", &request).await;
    assert_eq!(again["results"][0]["duplicate"], json!(true));
    assert_eq!(again["results"][0]["position"], first["results"][0]["position"]);
    assert_eq!(
        done(&node, "history", &json!({"channel": "a"})).await["messages"].as_array().unwrap().len(),
        1
    );
}

#[tokio::test]
async fn presence_tells_who_is_on_a_channel() {
    let node = TestNode::start("").await;
    let client = RawClient::connect_as(node.addrs(), Via::WsProto, extended([live("room")])).await;
    let page = done(&node, "presence", &json!({"channel": "room"})).await;
    assert_eq!(page["count"], "1");
    assert_eq!(page["members"][0]["session_id"], json!(client.connected.session_id));
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said_with_its_status() {
    let node = TestNode::start("api: {max_request_bytes: 2KiB}").await;
    let (admin, good) = (node.addrs().admin, publication("a", "e1").to_string());
    let deep = format!("{{\"metadata\":{}1{}}}", "[".repeat(100), "]".repeat(100));
    let large = json!({"request_id": "x".repeat(4_000)}).to_string();
    for (operation, headers, body, status, said) in [
        (
            "publish",
            &[][..],
            r#"{"publication": []}"#,
            400,
            "publication is not a field of messageloop.server.v1",
        ),
        ("publish", &[], "{", 400, "EOF"),
        ("publish", &[], "", 400, "EOF"),
        ("publish", &[], "[]", 400, "expected struct"),
        ("publish", &[], deep.as_str(), 400, "deeper than 64"),
        ("publish", &[], "{}", 400, "publications is empty"),
        ("history", &[], r#"{"channel": "a..b"}"#, 400, "empty segment"),
        ("publish", &[], large.as_str(), 413, "at most 2048"),
        ("publish", &[("Content-Type", "text/plain")], good.as_str(), 415, "application/json"),
        ("publish", &[("Content-Type", "application/json; charset=latin1")], good.as_str(), 415, "UTF-8"),
        ("publish", &[("Content-Encoding", "gzip")], good.as_str(), 415, "Content-Encoding"),
        ("publish", &[("Host", "evil.example")], good.as_str(), 403, "Host"),
        ("publsh", &[], "{}", 404, "openapi.json"),
    ] {
        let answer = post(admin, operation, headers, body).await;
        assert_eq!(answer.status, status, "{operation} {said}: {}", answer.body);
        let error = answer.json();
        assert!(error["message"].as_str().is_some_and(|text| text.contains(said)), "{said}: {error}");
        assert!(error["code"].is_string() && error["type"].is_string(), "{error}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    let answer = raw(admin, "GET", "/api/v1/publish", &[], "").await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    let listed = done(&node, "channels", &json!({})).await;
    assert_eq!(listed, json!({}), "nothing of it was done");
}

#[tokio::test]
async fn a_body_without_a_length_is_bounded_too() {
    let node = TestNode::start("api: {max_request_bytes: 1KiB}").await;
    let chunk = format!("{:x}\r\n{}\r\n", 2_000, "x".repeat(2_000));
    let headers =
        [("Transfer-Encoding", "chunked"), ("Content-Type", "application/json"), ("Host", "localhost")];
    let answer =
        raw(node.addrs().admin, "POST", "/api/v1/publish", &headers, &format!("{chunk}0\r\n\r\n")).await;
    assert_eq!(answer.status, 413, "{}", answer.body);
}

#[tokio::test]
async fn tokens_open_what_their_scopes_say() {
    let node = TestNode::start(TOKENS).await;
    let (admin, publish, list) = (node.addrs().admin, publication("a", "e1").to_string(), "{}");
    for (operation, headers, body, status) in [
        ("publish", WRITER, publish.as_str(), 200),
        ("channels", READER, list, 200),
        ("channels", WRITER, list, 403),
        ("publish", READER, publish.as_str(), 403),
        ("disconnect", READER, list, 403),
        ("publish", &[], publish.as_str(), 401),
        ("publish", &[("Authorization", "Bearer token-of-the-write")], publish.as_str(), 401),
        ("publish", &[("Authorization", "Basic token-of-the-writer")], publish.as_str(), 401),
    ] {
        let answer = post(admin, operation, headers, body).await;
        assert_eq!(answer.status, status, "{operation} {headers:?}: {}", answer.body);
        let challenge = answer.header("www-authenticate");
        assert_eq!(challenge.is_some_and(|text| text.starts_with("Bearer ")), status == 401, "{challenge:?}");
        assert!(!answer.body.contains("token-of-"), "{}", answer.body);
    }
    // With a token it does not matter by which name the node is reached.
    let elsewhere = [WRITER, &[("Host", "gateway.internal:8080")]].concat();
    assert_eq!(post(admin, "publish", &elsewhere, &publish).await.status, 200);
    for open in ["/metrics", "/health/live", "/api/v1/openapi.json"] {
        assert_eq!(raw(admin, "GET", open, &[("Host", "x")], "").await.status, 200, "{open}");
    }
}

#[tokio::test]
async fn tokens_change_without_a_restart_and_no_log_shows_one() {
    let gateway = GatewayProcess::start(&format!("{{log: {{level: trace}}, {TOKENS}}}")).await;
    let (admin, request) = (gateway.addrs().admin, publication("a", "e1").to_string());
    assert_eq!(post(admin, "publish", WRITER, &request).await.status, 200);
    let other = TOKENS.replace("token-of-the-writer", "another-one-of-the-writer");
    gateway.rewrite_config(&format!("{{log: {{level: trace}}, {other}}}"));
    gateway.sighup();
    let line = gateway.logged("the reload", |line| line.contains("configuration reloaded")).await;
    assert!(line.contains("\"api\""), "{line}");
    assert_eq!(post(admin, "publish", WRITER, &request).await.status, 401);
    let other = [("Authorization", "Bearer another-one-of-the-writer")];
    assert_eq!(post(admin, "publish", &other, &request).await.status, 200);
    let log = gateway.log_text();
    for secret in ["token-of-the-writer", "token-of-the-reader", "another-one-of-the-writer"] {
        assert!(!log.contains(secret), "{secret}");
    }
    let metrics = raw(admin, "GET", "/metrics", &[("Host", "x")], "").await.body;
    assert!(
        metrics.contains(r#"streamgate_api_requests_total{door="json",operation="publish",code="OK"} 2"#),
        "{metrics}"
    );
}
