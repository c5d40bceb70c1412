//! The WebSocket subprotocol `cloudevents.json`: every frame is an event, the address is the connect.

use serde_json::{Value, json};
use streamgate_e2e::{
    cluster::Cluster,
    events::{frame, text, text_of},
    gateway::TestNode,
    process::GatewayProcess,
    raw::{RawClient, RawWs, Received, Via, WsOptions},
    responder::OPEN,
    rights::{permissions, token},
    scrape::metrics_until,
    web::{EventSocket, event},
    within,
};
use streamgate_proto::v1::{InboundMessage, SurveyRequest, inbound_message::Envelope as In};

/// The event with this attribute.
fn with(mut event: Value, name: &str, value: &str) -> Value {
    event[name] = json!(value);
    event
}

#[tokio::test]
async fn events_go_both_ways_and_are_acknowledged_with_their_place() {
    let node = TestNode::start("").await;
    let (mut socket, connected) = EventSocket::connected(node.addrs(), "channel=room.blue").await;
    assert_eq!(connected["subscriptions"][0]["channel"], "room.blue");
    let mut other = RawClient::connect(node.addrs(), Via::WsProto).await;
    other.subscribe_to("room.blue").await;

    socket.send(&event("e1", json!({"z": 1, "a": 2}))).await;
    let mut said = [socket.next().await, socket.next().await];
    // The own event and its ack come in any order.
    said.sort_by_key(|event| event["type"].to_string());
    let ack = &said[0]["data"];
    assert_eq!(
        (&said[0]["type"], &ack["id"], &ack["source"]),
        (&json!("io.streamgate.ack"), &json!("e1"), &json!("/test"))
    );
    assert_eq!((&ack["offset"], &ack["duplicate"]), (&json!("1"), &json!(false)));
    let own = &said[1];
    assert_eq!(
        (&own["id"], &own["data"], &own["sgchannel"]),
        (&json!("e1"), &json!({"z": 1, "a": 2}), &json!("room.blue"))
    );
    assert_eq!((&own["sgoffset"], &own["sgepoch"]), (&json!("1"), &ack["epoch"]));
    assert_eq!(text_of(&other.message().await.payload.unwrap()), r#"{"a":2,"z":1}"#);

    other.publish("room.blue", text("e2", "plain")).await;
    let message = socket.message().await;
    assert_eq!(
        (&message["id"], &message["data"], &message["sgoffset"]),
        (&json!("e2"), &json!("plain"), &json!("2"))
    );
}

#[tokio::test]
async fn with_several_channels_an_event_says_where_it_goes() {
    let node = TestNode::start("").await;
    let (mut socket, connected) =
        EventSocket::connected(node.addrs(), "channel=a&channel=b.*&client_id=me").await;
    assert_eq!(connected["subscriptions"].as_array().unwrap().len(), 2);
    socket.send(&event("1", json!(1))).await;
    let error = socket.notice("error").await;
    assert_eq!(error["code"], "BAD_REQUEST");
    assert!(error["message"].as_str().unwrap().contains("sgchannel"), "{error}");
    socket.send(&with(event("2", json!(2)), "sgchannel", "b.x")).await;
    let said = [socket.next().await, socket.next().await];
    let own = said.iter().find(|event| event["sgchannel"].is_string()).unwrap();
    assert_eq!((&own["id"], &own["sgchannel"]), (&json!("2"), &json!("b.x")));
    // Sent again as it was received: its place is the gateway's to say.
    socket.send(&with(own.clone(), "sgchannel", "a")).await;
    let said = [socket.next().await, socket.next().await];
    let again = said.iter().find(|event| event["sgchannel"].is_string()).unwrap();
    assert_eq!((&again["sgchannel"], &again["sgoffset"]), (&json!("a"), &json!("1")));
    let keyed = with(with(event("3", json!(3)), "sgchannel", "elsewhere"), "sgidempotencykey", "k");
    for duplicate in [false, true] {
        socket.send(&keyed).await;
        let ack = socket.notice("ack").await;
        assert_eq!((&ack["offset"], &ack["duplicate"]), (&json!("1"), &json!(duplicate)));
    }
}

#[tokio::test]
async fn bad_frames_are_told_and_the_connection_stays() {
    let node = TestNode::start("limits: {errors_in_a_row: 8}").await;
    let (mut socket, _) = EventSocket::connected(node.addrs(), "channel=a").await;
    let deep = format!("{}1{}", "[".repeat(90), "]".repeat(90));
    for bad in ["nope", "{}", "[]", r#"{"specversion":"1.0","id":"","source":"/s","type":"t"}"#, &deep] {
        socket.raw().send_text(bad.to_owned()).await;
        assert_eq!(socket.notice("error").await["code"], "BAD_REQUEST", "{bad}");
    }
    // What is an event but may not go there names the event.
    socket.send(&with(event("e7", json!(1)), "sgchannel", "a.*")).await;
    let error = socket.notice("error").await;
    assert_eq!((&error["id"], &error["source"]), (&json!("e7"), &json!("/test")), "{error}");
    socket.send(&with(event("ok", json!(1)), "sgchannel", "other")).await;
    assert_eq!(socket.notice("ack").await["id"], "ok");
    for _ in 0..8 {
        socket.raw().send_text("nope").await;
    }
    assert_eq!(socket.closed().await.0, 3509);
    let (mut socket, _) = EventSocket::connected(node.addrs(), "channel=a").await;
    socket.raw().send_binary(vec![1, 2, 3]).await;
    assert_eq!(socket.closed().await.0, 1003);
}

#[tokio::test]
async fn addresses_that_say_nothing_sound_are_refused() {
    let node = TestNode::start("").await;
    for bad in ["channel=a..b", "channel=", "channel=a&since=x", "channel=a&channel=b&since=1:2"] {
        assert_eq!(EventSocket::refused(node.addrs(), bad).await, 400, "{bad}");
    }
    // Nothing to listen to: it may still publish.
    let (mut socket, _) = EventSocket::connected(node.addrs(), "").await;
    socket.send(&with(event("1", json!(1)), "sgchannel", "a")).await;
    assert_eq!(socket.notice("ack").await["offset"], "1");
    // An offer of several: the client's order decides.
    let options =
        WsOptions::default().subprotocol("messageloop+json, cloudevents.json").query("channel=a..b");
    RawWs::open(node.addrs(), options).await.close().await;
}

#[tokio::test]
async fn rights_are_those_of_every_client() {
    let rules = "{channels: [open], actions: [subscribe, publish], who: any}, \
                 {channels: [anns], actions: [subscribe, publish], who: {users: [ann]}}";
    let node = TestNode::start(&permissions(rules)).await;
    let mut socket = EventSocket::open(node.addrs(), "channel=anns").await;
    assert_eq!(socket.notice("error").await["code"], "ACL_ERROR");
    assert_eq!(socket.closed().await.0, 3507);
    let (mut socket, connected) =
        EventSocket::connected(node.addrs(), &format!("channel=anns&access_token={}", token("ann"))).await;
    assert_eq!(connected["user_id"], "ann");
    socket.send(&with(event("1", json!(1)), "sgchannel", "other")).await;
    assert_eq!(socket.notice("error").await["code"], "ACL_ERROR");
    let mut socket = EventSocket::open(node.addrs(), "channel=open&access_token=nonsense").await;
    assert_eq!(socket.notice("error").await["code"], "AUTH_ERROR");
    assert_eq!(socket.closed().await.0, 3500);
}

#[tokio::test]
async fn what_was_missed_is_recovered_on_another_node_by_the_places_of_the_events() {
    let cluster = Cluster::start(2).await;
    let mut publisher = RawClient::connect(cluster.addrs(0), Via::WsProto).await;
    let query = "channel=a&channel=b.*";
    let (mut socket, connected) = EventSocket::connected(cluster.addrs(0), query).await;
    // The places of the acks, one for each; then those of what was seen.
    let since = |at: usize| connected["subscriptions"][at]["since"].as_str().unwrap().to_owned();
    publisher.publish("a", text("a1", "1")).await;
    let seen = socket.message().await;
    drop(socket);
    for (channel, id) in [("a", "a2"), ("b.x", "b1"), ("b.y", "b2"), ("a", "a3")] {
        publisher.publish(channel, text(id, id)).await;
    }
    let place = format!("a={}:{}", seen["sgepoch"].as_str().unwrap(), seen["sgoffset"].as_str().unwrap());
    let encoded = |text: &str| text.replace('%', "%25").replace('=', "%3D").replace(',', "%2C");
    let query = format!("{query}&since={}&since={}", encoded(&place), encoded(&since(1)));
    let (mut socket, _) = EventSocket::connected(cluster.addrs(1), &query).await;
    let (mut ids, mut ends) = (Vec::new(), 0);
    while ids.len() < 4 || ends < 2 {
        let said = socket.next().await;
        match said["type"].as_str().unwrap() {
            "io.streamgate.recovered" => {
                assert_eq!(
                    (&said["data"]["gap"], &said["data"]["truncated"]),
                    (&json!(false), &json!(false))
                );
                ends += 1;
            }
            _ => ids.push(said["id"].as_str().unwrap().to_owned()),
        }
    }
    ids.sort_unstable();
    assert_eq!(ids, ["a2", "a3", "b1", "b2"]);
    publisher.publish("b.z", text("live", "live")).await;
    assert_eq!(socket.message().await["id"], "live");
}

#[tokio::test]
async fn a_loss_is_told() {
    let node = TestNode::start("channels: [{pattern: '**', history_size: 2}]").await;
    let mut publisher = RawClient::connect(node.addrs(), Via::WsJson).await;
    let mut epoch = String::new();
    for n in 0..50 {
        epoch = publisher.publish("a", text(&n.to_string(), "x")).await.position.unwrap().epoch;
    }
    let (mut socket, _) = EventSocket::connected(node.addrs(), &format!("channel=a&since={epoch}:1")).await;
    loop {
        let said = socket.next().await;
        if said["type"] == "io.streamgate.recovered" {
            assert_eq!(
                (&said["data"]["gap"], &said["data"]["reason"]),
                (&json!(true), &json!("HEAD_TRIMMED"))
            );
            break;
        }
    }
    let (mut socket, _) = EventSocket::connected(node.addrs(), "channel=a&since=1:1").await;
    while socket.next().await["type"] != "io.streamgate.recovered" {}
}

#[tokio::test]
async fn it_is_pinged_by_its_transport_and_asked_nothing() {
    let node = TestNode::start(&format!("limits: {{ping_interval: 1s}}\n{OPEN}")).await;
    let (mut socket, _) = EventSocket::connected(node.addrs(), "channel=a").await;
    for _ in 0..4 {
        let received = within("a ping", socket.raw().next()).await;
        assert!(matches!(received, Received::Ping), "{received:?}");
    }
    // Who surveys the channel does not wait for clients that cannot answer.
    let mut asker = RawClient::connect(node.addrs(), Via::WsProto).await;
    let question = SurveyRequest { request_id: "s".into(), payload: Some(text("q", "?")) };
    let survey =
        InboundMessage { channel: "a".into(), timeout_ms: 60_000, ..frame(In::SurveyRequest(question)) };
    assert_eq!(asker.refused(survey).await.code, "NOT_FOUND");
    assert_eq!(asker.publish("a", text("1", "x")).await.offset, 1);
    assert_eq!(socket.message().await["id"], "1");
}

#[tokio::test]
async fn a_drain_tells_it_to_come_back_and_metrics_know_it() {
    let node = GatewayProcess::start("drain: {duration: 1s}").await;
    let (mut socket, _) = EventSocket::connected(node.addrs(), "channel=a").await;
    metrics_until(node.addrs().admin, "a connection", |scrape| {
        scrape.labelled("streamgate_connections", "transport=\"ws_cloudevents\"") == 1.0
    })
    .await;
    node.sigterm();
    assert!(socket.notice("reconnect").await["after_ms"].is_number());
    assert_eq!(socket.closed().await.0, 1012);
}
