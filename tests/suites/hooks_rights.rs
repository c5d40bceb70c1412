//! Backends decide what clients may do, by a route alone or where a rule leaves it to them.

use serde_json::json;
use streamgate_e2e::{
    backend::{GrpcBackend, HttpBackend, Question, Reply},
    events::{frame, from, live, publish, text, text_of, v1},
    gateway::TestNode,
    raw::{RawClient, Via},
};
use streamgate_proto::v1::{
    HistoryRequest, InboundMessage, Subscribe, Subscription, inbound_message::Envelope as In,
    start_from::Point,
};

/// Lets nobody into what ends with `no`, and marks what is published.
fn warden(question: &Question) -> Reply {
    let body = &question.body;
    let refused = body["channel"].as_str().is_some_and(|channel| channel.ends_with("no"));
    match (refused, body.get("payload")) {
        (true, _) => Reply::Json(200, json!({"error": {"code": "BANNED", "message": "not you"}})),
        (false, None) => Reply::Json(200, json!({})),
        (false, Some(payload)) => {
            let mut payload = payload.clone();
            payload["text_data"] = json!(format!("marked {}", payload["text_data"].as_str().unwrap_or("")));
            Reply::Json(200, json!({"payload": payload}))
        }
    }
}

fn subscribe(channel: &str) -> InboundMessage {
    frame(In::Subscribe(Subscribe { subscriptions: vec![live(channel)] }))
}

#[tokio::test]
async fn a_route_alone_decides_and_what_it_rewrites_reaches_subscribers() {
    let (http, grpc) = (HttpBackend::start(warden).await, GrpcBackend::start(warden).await);
    for endpoint in [http.url(), grpc.endpoint()] {
        let node = TestNode::start(&format!(
            "proxy: [{{endpoint: '{endpoint}', routes: [{{channel: 'room.*', method: subscribe}}, {{channel: 'room.*', method: publish}}]}}]"
        ))
        .await;
        for via in Via::ALL {
            let mut client = RawClient::connect(node.addrs(), via).await;
            client.subscribe_to("room.blue").await;
            client.publish("room.blue", text("e", "word")).await;
            let message = client.message().await;
            assert_eq!(text_of(&message.payload.unwrap()), "marked word", "{via:?} {endpoint}");
            // What no route is about nobody is asked about.
            client.subscribe_to("hall").await;
            client.publish("hall", text("e", "word")).await;
            assert_eq!(text_of(&client.message().await.payload.unwrap()), "word");
            for refused in [subscribe("room.no"), publish("room.no", text("e", ""))] {
                let error = client.refused(refused).await;
                assert_eq!((error.code.as_str(), error.message.as_str()), ("ACL_ERROR", "not you"));
            }
            // A pattern that reaches into what the route is about is asked about, too.
            client.subscribe_to("**").await;
            client.unsubscribe("**").await;
            let mut old = RawClient::connect_as(node.addrs(), via, v1([])).await;
            assert_eq!(old.refused(subscribe("room.no")).await.code, "ACL_ERROR");
            assert_eq!(old.close_code().await, 3500, "as a v1 client expects");
        }
    }
    let asked = http.notes.asked();
    assert!(asked.iter().any(|question| question.body["channel"] == "**"));
    assert!(asked.iter().all(|question| question.body["channel"] != "hall"));
}

#[tokio::test]
async fn rules_leave_to_a_backend_what_they_name_and_nothing_else() {
    let backend = HttpBackend::start(warden).await;
    let node = TestNode::start(&format!(
        "proxy: [{{endpoint: '{}', routes: [{{channel: '**', method: subscribe}}, {{channel: '**', method: publish}}]}}]
permissions:
  - {{channels: ['open.**'], actions: [subscribe, publish, history], who: any}}
  - {{channels: ['asked.**'], actions: [subscribe, publish, history, serve, survey], who: hook}}
  - {{channels: ['asked.never.**'], actions: [subscribe, publish], who: any, effect: deny}}
",
        backend.url()
    ))
    .await;
    let mut client = RawClient::connect(node.addrs(), Via::WsJson).await;
    client.subscribe_to("open.a").await;
    assert!(backend.notes.asked().is_empty(), "a rule allows it");
    client.subscribe_to("asked.a").await;
    client.publish("asked.a", text("1", "x")).await;
    assert_eq!(text_of(&client.message().await.payload.unwrap()), "marked x");
    client.history(HistoryRequest { channel: "asked.a".into(), limit: -1, ..Default::default() }).await;
    let past: Subscription = from("asked.a", Point::Start(true));
    client.subscribe([past]).await;
    let before = backend.notes.asked().len();
    for refused in [subscribe("asked.never.a"), subscribe("asked.**"), subscribe("other")] {
        assert_eq!(client.refused(refused).await.code, "ACL_ERROR");
    }
    assert_eq!(
        backend.notes.asked().len(),
        before,
        "what is denied, or named by no rule, is not asked about"
    );
    assert_eq!(client.refused(subscribe("asked.no")).await.message, "not you");
    // Offering methods and asking subscribers are left to it as well.
    let offered = client.request(streamgate_e2e::responder::serve(&["asked.m", "asked.n"])).await;
    assert!(matches!(offered.envelope, Some(streamgate_proto::v1::outbound_message::Envelope::Ok(_))));
    let error = client.refused(streamgate_e2e::responder::serve(&["asked.m", "asked.no"])).await;
    assert_eq!(error.code, "ACL_ERROR");
}
