//! Backends are told of sessions and subscriptions, in order, also if they or the node were away meanwhile.

use std::time::Duration;

use serde_json::{Value, json};
use streamgate_e2e::{
    backend::{GrpcBackend, HttpBackend, Notes, Question, Reply},
    events::{extended, frame, live, text, v1},
    gateway::{TestNode, on_redis},
    process::GatewayProcess,
    raw::{RawClient, Via},
    redis_server::RedisServer,
    within,
};
use streamgate_proto::v1::{Connect, inbound_message::Envelope as In};

fn ok(_: &Question) -> Reply {
    Reply::Json(200, json!({}))
}

fn down(_: &Question) -> Reply {
    Reply::Json(500, json!({}))
}

/// What a backend was told of a session, in order.
fn told(notes: &Notes, session: &str) -> Vec<(String, String)> {
    let of_session = notes.asked().into_iter().filter(|question| question.body["session_id"] == session);
    of_session
        .map(|question| (question.hook, question.body["channel"].as_str().unwrap_or_default().to_owned()))
        .collect()
}

fn events(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(hook, channel)| ((*hook).to_owned(), (*channel).to_owned())).collect()
}

fn number(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn every_event_of_a_session_is_told_in_order_over_http_and_grpc() {
    let (http, grpc) = (HttpBackend::start(ok).await, GrpcBackend::start(ok).await);
    let node = TestNode::start(&format!(
        "proxy:
  - {{name: a, endpoint: '{}/{{hook}}', lifecycle: true}}
  - {{name: b, endpoint: '{}', lifecycle: true}}
  - {{name: c, endpoint: 'http://127.0.0.1:1'}}
",
        http.url(),
        grpc.endpoint()
    ))
    .await;
    for (number_of, via) in Via::ALL.into_iter().enumerate() {
        let mut client = RawClient::connect_as(node.addrs(), via, v1([live("first")])).await;
        let session = client.connected.session_id.clone();
        client.subscribe([live("second"), live("a.*")]).await;
        client.subscribe([live("second")]).await;
        client.unsubscribe("a.*").await;
        client.unsubscribe("never").await;
        client.close().await;
        for notes in [&http.notes, &grpc.notes] {
            let ended = notes.until("OnDisconnected", number_of + 1).await.pop().unwrap().body;
            assert_eq!(
                (ended["session_id"].as_str(), number(&ended["code"])),
                (Some(&*session), 3000),
                "{ended}"
            );
            assert_eq!(ended["client_id"], "raw");
            assert!(number(&ended["time_ms"]) > 1_700_000_000_000, "{ended}");
            let expected = events(&[
                ("OnConnected", ""),
                ("OnSubscribed", "first"),
                ("OnSubscribed", "second"),
                ("OnSubscribed", "a.*"),
                ("OnUnsubscribed", "a.*"),
                ("OnDisconnected", ""),
            ]);
            assert_eq!(told(notes, &session), expected, "{via:?}");
        }
    }
    let mut ids: Vec<_> =
        http.notes.asked().iter().map(|question| question.body["event_id"].to_string()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), http.notes.asked().len());
    assert!(http.notes.asked().iter().all(|question| question.path == format!("/{}", question.hook)));
}

#[tokio::test]
async fn the_end_of_a_session_tells_why() {
    let backend = HttpBackend::start(ok).await;
    let node = TestNode::start(&format!("proxy: [{{endpoint: '{}', lifecycle: true}}]", backend.url())).await;
    let mut client = RawClient::connect(node.addrs(), Via::WsJson).await;
    client.send(frame(In::Connect(Connect::default()))).await;
    assert_eq!(client.close_code().await, 3501);
    // One that was never let in is no session.
    let mut early = RawClient::open(node.addrs(), Via::WsJson).await;
    early.send(streamgate_e2e::events::publish("a", text("1", ""))).await;
    assert_eq!(early.close_code().await, 3502);
    let last = RawClient::connect(node.addrs(), Via::WsJson).await;
    last.close().await;
    let ended = backend.notes.until("OnDisconnected", 2).await;
    assert_eq!(
        (number(&ended[0].body["code"]), ended[0].body["reason"].as_str()),
        (3501, Some("already connected"))
    );
    assert_eq!(backend.notes.until("OnConnected", 2).await.len(), 2);
}

#[tokio::test]
async fn a_backend_that_was_away_is_told_of_everything_when_it_is_back() {
    let backend = HttpBackend::start(down).await;
    let node = TestNode::start(&format!(
        "proxy: [{{endpoint: '{}', lifecycle: true, breaker: {{open_for: 100ms}}}}]",
        backend.url()
    ))
    .await;
    let mut sessions = Vec::new();
    for number in 0..30 {
        let mut client = RawClient::connect(node.addrs(), Via::WsJson).await;
        client.subscribe_to(&format!("room.{number}")).await;
        sessions.push(client.connected.session_id.clone());
        client.close().await;
    }
    backend.notes.until("OnConnected", 1).await;
    backend.notes.answer(ok);
    let before = backend.notes.asked().len();
    let all = async {
        loop {
            let asked = backend.notes.asked();
            let ended = asked[before..].iter().filter(|question| question.hook == "OnDisconnected");
            if ended.count() >= sessions.len() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("the end of all sessions", all).await;
    for (number, session) in sessions.iter().enumerate() {
        // What failed before may have been repeated; what counts is the end.
        let told = told(&backend.notes, session);
        let room = format!("room.{number}");
        let expected = events(&[("OnConnected", ""), ("OnSubscribed", &room), ("OnDisconnected", "")]);
        assert_eq!(told[told.len() - 3..], expected, "{told:?}");
    }
}

#[tokio::test]
async fn the_end_of_a_session_is_told_though_its_node_was_killed() {
    let redis = RedisServer::start_default();
    let backend = HttpBackend::start(down).await;
    let yaml = on_redis(
        &redis,
        &format!(
            "presence: {{lease: 1s}}\nproxy: [{{name: b, endpoint: '{}', lifecycle: true, breaker: {{open_for: 100ms}}}}]",
            backend.url()
        ),
    );
    let mut node = GatewayProcess::start(&yaml).await;
    node.addrs().ready().await;
    let client = RawClient::connect_as(node.addrs(), Via::WsProto, extended([live("room")])).await;
    let session = client.connected.session_id.clone();
    client.close().await;
    let stored = async {
        loop {
            let key = redis.cli(&["--scan", "--pattern", "*:q:hooks:b"]);
            if !key.is_empty() && redis.cli(&["XLEN", key.trim()]) == "3" {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("three stored events", stored).await;
    // It has taken them, and not told them.
    backend.notes.until("OnConnected", 1).await;
    node.kill9();
    backend.notes.answer(ok);
    let before = backend.notes.asked().len();
    let next = GatewayProcess::start(&yaml).await;
    next.addrs().ready().await;
    backend.notes.until("OnDisconnected", 1).await;
    let hooks: Vec<_> =
        backend.notes.asked()[before..].iter().map(|question| question.hook.clone()).collect();
    assert_eq!(hooks, ["OnConnected", "OnSubscribed", "OnDisconnected"]);
    assert!(backend.notes.asked().iter().all(|question| question.body["session_id"] == *session));
    // Done is done: nothing is left, neither of the items nor of the dead node's consumer.
    let clean = async {
        let key = redis.cli(&["--scan", "--pattern", "*:q:hooks:b"]);
        while redis.cli(&["XLEN", key.trim()]) != "0" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let pending = redis.cli(&["XPENDING", key.trim(), "w"]);
        assert!(pending.starts_with('0'), "{pending}");
        let consumers = redis.cli(&["XINFO", "CONSUMERS", key.trim(), "w"]);
        assert_eq!(consumers.matches("pending").count(), 1, "{consumers}");
    };
    within("an empty queue", clean).await;
}

#[tokio::test]
async fn a_node_that_stops_tells_of_the_sessions_that_it_sends_away() {
    let redis = RedisServer::start_default();
    let backend = HttpBackend::start(ok).await;
    let yaml = on_redis(
        &redis,
        &format!(
            "presence: {{lease: 1s}}\ndrain: {{duration: 0s}}\nproxy: [{{name: b, endpoint: '{}', lifecycle: true}}]",
            backend.url()
        ),
    );
    let (first, second) = (TestNode::start(&yaml).await, TestNode::start(&yaml).await);
    first.addrs().ready().await;
    second.addrs().ready().await;
    let client = RawClient::connect(first.addrs(), Via::WsJson).await;
    let session = client.connected.session_id.clone();
    tokio::join!(first.shutdown(), client.close());
    let ended = backend.notes.until("OnDisconnected", 1).await.remove(0).body;
    assert_eq!(ended["session_id"], *session);
}
