//! The client library gets what a token, or a backend, gives its session.

use std::time::Duration;

use serde_json::json;
use streamgate_client::{
    Client, Unasked, UnaskedEvent,
    server::{ApiClient, Publication, Who},
};
use streamgate_e2e::{
    events::{text, text_of},
    gateway::TestNode,
    raw::{RawClient, Via},
    rights::{OPEN, signed},
    within,
};

async fn next(unasked: &mut Unasked) -> (String, String) {
    match within("a message", unasked.next()).await {
        Some(UnaskedEvent::Message(message)) => (message.channel, text_of(&message.event).to_owned()),
        other => panic!("{other:?} instead of a message"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_server_gives_a_client_reaches_it_also_after_a_reconnect() {
    let node = TestNode::start(OPEN).await;
    let addrs = node.addrs();
    let client = Client::builder(addrs.websocket.to_string())
        .token(signed(&json!({"sub": "ann", "channels": ["news"]})))
        .backoff(Duration::from_millis(1), Duration::from_millis(10))
        .build()
        .unwrap();
    let mut unasked = client.unasked().unwrap();
    within("connected", client.connected()).await.unwrap();
    let session = client.session_id().unwrap();
    let api = ApiClient::builder(format!("http://{}", addrs.admin)).build().unwrap();
    let mut publisher = RawClient::connect(addrs, Via::WsProto).await;

    publisher.publish("news", text("1", "by its token")).await;
    assert_eq!(next(&mut unasked).await, ("news".into(), "by its token".into()));

    let outcomes = api.subscribe(Who::session(&session), ["room.blue"]).await.unwrap();
    assert!(outcomes.iter().all(|result| result.outcome.is_ok()), "{outcomes:?}");
    publisher.publish("room.blue", text("2", "by a backend")).await;
    assert_eq!(next(&mut unasked).await, ("room.blue".into(), "by a backend".into()));

    for publication in [
        Publication::new(text("3", "to its session")).session(&session).shown_as("private"),
        Publication::new(text("3", "to its user")).user("ann").shown_as("private"),
    ] {
        let results = api.publish([publication]).await.unwrap();
        assert_eq!(results[0].outcome.as_ref().unwrap().sessions, 1);
    }
    assert_eq!(next(&mut unasked).await, ("private".into(), "to its session".into()));
    assert_eq!(next(&mut unasked).await, ("private".into(), "to its user".into()));

    // It was closed, and comes back with what it had.
    let close = streamgate_client::server::Close { code: 3000, reason: "again".into() };
    api.disconnect([Who::session(&session)], close).await.unwrap();
    assert_eq!(within("the end", unasked.next()).await, Some(UnaskedEvent::Interrupted));
    within("connected again", client.connected()).await.unwrap();
    // The answer comes behind whatever the client has said at its connect.
    within("an answer", client.ping()).await.unwrap();
    publisher.publish("room.blue", text("4", "still")).await;
    assert_eq!(next(&mut unasked).await, ("room.blue".into(), "still".into()));
    publisher.publish("news", text("5", "still")).await;
    assert_eq!(next(&mut unasked).await, ("news".into(), "still".into()));
}
