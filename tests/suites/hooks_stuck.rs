//! An event that a backend cannot take holds up what follows of its own session, and nothing else.

use serde_json::json;
use streamgate_e2e::{
    backend::{HttpBackend, Notes, Question, Reply},
    events::{extended, live},
    gateway::{TestNode, on_redis},
    raw::{RawClient, Via},
    redis_server::RedisServer,
    within,
};

/// Fails at one subscription.
fn picky(question: &Question) -> Reply {
    let status = if question.body["channel"] == "poison" { 500 } else { 200 };
    Reply::Json(status, json!({}))
}

fn ok(_: &Question) -> Reply {
    Reply::Json(200, json!({}))
}

/// The hooks of a session that the backend was asked, in order, from the question number `from` on.
fn hooks(notes: &Notes, from: usize, session: &str) -> Vec<String> {
    let asked = notes.asked();
    let of_session = asked[from..].iter().filter(|question| question.body["session_id"] == session);
    of_session.map(|question| question.hook.clone()).collect()
}

/// Waits until the backend was told of a session's end.
async fn ended(notes: &Notes, session: &str) {
    let told = async {
        let mut count = 1;
        loop {
            let ends = notes.until("OnDisconnected", count).await;
            if ends.iter().any(|end| end.body["session_id"] == session) {
                return;
            }
            count = ends.len() + 1;
        }
    };
    within("the end of the session is told", told).await;
}

async fn others_are_told(yaml: &str, backend: &HttpBackend) {
    let node = TestNode::start(yaml).await;
    node.addrs().ready().await;
    let stuck = RawClient::connect_as(node.addrs(), Via::WsJson, extended([live("poison")])).await;
    let session = stuck.connected.session_id.clone();
    backend.notes.until("OnSubscribed", 1).await;
    stuck.close().await;
    for _ in 0..3 {
        let other = RawClient::connect_as(node.addrs(), Via::WsJson, extended([live("fine")])).await;
        let id = other.connected.session_id.clone();
        other.close().await;
        ended(&backend.notes, &id).await;
        assert_eq!(hooks(&backend.notes, 0, &id), ["OnConnected", "OnSubscribed", "OnDisconnected"]);
    }
    assert!(
        !hooks(&backend.notes, 0, &session).contains(&"OnDisconnected".to_owned()),
        "not before its turn"
    );
    backend.notes.answer(ok);
    ended(&backend.notes, &session).await;
    let mut hooks = hooks(&backend.notes, 0, &session);
    hooks.dedup();
    assert_eq!(hooks, ["OnConnected", "OnSubscribed", "OnDisconnected"]);
}

#[tokio::test]
async fn others_are_told_while_one_event_cannot_be_taken() {
    let backend = HttpBackend::start(picky).await;
    let yaml = format!("proxy: [{{name: b, endpoint: '{}', lifecycle: true}}]", backend.url());
    others_are_told(&yaml, &backend).await;
}

#[tokio::test]
async fn others_are_told_while_one_event_of_the_same_partition_cannot_be_taken() {
    let redis = RedisServer::start_default();
    let backend = HttpBackend::start(picky).await;
    let yaml =
        on_redis(&redis, &format!("proxy: [{{name: b, endpoint: '{}', lifecycle: true}}]", backend.url()));
    let yaml = yaml.replace("redis: {addr", "redis: {partitions: 1, addr");
    others_are_told(&yaml, &backend).await;
}

#[tokio::test]
async fn what_a_backend_says_to_an_event_need_not_be_json() {
    let backend = HttpBackend::start(|_: &Question| Reply::NoMessage).await;
    let node = TestNode::start(&format!("proxy: [{{endpoint: '{}', lifecycle: true}}]", backend.url())).await;
    let client = RawClient::connect(node.addrs(), Via::WsJson).await;
    let session = client.connected.session_id.clone();
    client.close().await;
    ended(&backend.notes, &session).await;
    assert_eq!(hooks(&backend.notes, 0, &session), ["OnConnected", "OnDisconnected"]);
}
