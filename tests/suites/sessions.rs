//! What a client may say and what it gets back, on every transport.

use streamgate_e2e::{
    events::{self, extended, frame, live, publish, publish_with, text, v1},
    gateway::TestNode,
    raw::{Event, RawClient, Received, Via, WsOptions},
};
use streamgate_proto::v1::{
    Ack, Connect, Extend, InboundMessage, Nack, PublishOptions, Queue, SubRefresh, Subscribe, Subscription,
    inbound_message::Envelope as In, outbound_message::Envelope as Out,
};

/// The next JSON frame of a WebSocket.
async fn json(client: &mut RawClient) -> serde_json::Value {
    match client.ws().next().await {
        Received::Payload(payload) => serde_json::from_slice(&payload).unwrap(),
        other => panic!("{other:?} instead of a frame"),
    }
}

#[tokio::test]
async fn the_example_of_the_protocol_works_word_by_word() {
    let node = TestNode::start("").await;
    for subprotocol in [Some("messageloop+json"), Some("messageloop"), None] {
        let options = subprotocol.map_or(WsOptions::default(), |name| WsOptions::default().subprotocol(name));
        let mut client = RawClient::open_ws(node.addrs(), options).await;
        let connect = r#"{"id":"1","connect":{"client_id":"phone-7","client_type":"sdk","version":"1.0.0","subscriptions":[{"channel":"room.blue"}]}}"#;
        client.send_raw(connect).await;
        let connected = json(&mut client).await;
        assert_eq!(connected["id"], "1");
        assert!(connected["time"].as_str().unwrap().parse::<u64>().unwrap() > 1_700_000_000_000);
        assert!(!connected["connected"]["session_id"].as_str().unwrap().is_empty());
        assert_eq!(connected["connected"]["subscriptions"], serde_json::json!([{"channel": "room.blue"}]));
        let event = r#"{"id":"e1","source":"/phone/7","spec_version":"1.0","type":"note.added","attributes":{"datacontenttype":{"ce_string":"application/json"}},"text_data":"{\"n\":1}"}"#;
        client.send_raw(format!(r#"{{"id":"2","channel":"room.blue","publish":{event}}}"#)).await;
        let (first, second) = (json(&mut client).await, json(&mut client).await);
        // The ack and the client's own message: either may come first.
        let (ack, delivered) =
            if first["publish_ack"].is_object() { (first, second) } else { (second, first) };
        assert_eq!(ack["id"], "2");
        let message = &delivered["publication"]["messages"][0];
        assert_eq!(message["channel"], "room.blue");
        assert_eq!(message["offset"], ack["publish_ack"]["offset"]);
        assert_eq!(message["payload"], serde_json::from_str::<serde_json::Value>(event).unwrap());
        client.close().await;
    }
}

#[tokio::test]
async fn an_answer_carries_the_id_and_metadata_of_its_request() {
    let node = TestNode::start("").await;
    for via in Via::ALL {
        let mut client = RawClient::connect_v1(node.addrs(), via).await;
        let metadata = [("trace".to_owned(), "t-1".to_owned())].into_iter().collect();
        let bad = Subscribe { subscriptions: vec![live("no channel")] };
        for envelope in [
            In::Ping(Default::default()),
            In::Subscribe(Subscribe { subscriptions: vec![live("a")] }),
            In::Subscribe(bad),
            In::SubRefresh(SubRefresh { channels: vec!["a".into()] }),
            In::RpcRequest(text("e", "")),
        ] {
            let request = InboundMessage { metadata: Clone::clone(&metadata), ..frame(envelope) };
            let answer = client.request(request).await;
            assert_eq!(answer.metadata, metadata, "{via:?} {answer:?}");
        }
    }
}

#[tokio::test]
async fn anything_before_connect_closes_with_3502() {
    let node = TestNode::start("").await;
    for via in Via::ALL {
        let mut client = RawClient::open(node.addrs(), via).await;
        client.send(frame(In::Ping(Default::default()))).await;
        assert_eq!(client.close_code().await, 3502, "{via:?}");
        let mut client = RawClient::open(node.addrs(), via).await;
        client.send_raw("garbage").await;
        assert_eq!(client.close_code().await, 3502, "{via:?}");
    }
}

#[tokio::test]
async fn no_connect_in_time_closes_with_3502() {
    let node = TestNode::start("limits: {connect_deadline: 150ms}").await;
    for via in Via::ALL {
        let mut client = RawClient::open(node.addrs(), via).await;
        assert_eq!(client.close_code().await, 3502, "{via:?}");
    }
}

#[tokio::test]
async fn a_second_connect_closes_with_3501() {
    let node = TestNode::start("").await;
    for via in Via::ALL {
        let mut client = RawClient::connect_v1(node.addrs(), via).await;
        client.send(frame(In::Connect(Connect::default()))).await;
        assert_eq!(client.close_code().await, 3501, "{via:?}");
    }
}

#[tokio::test]
async fn a_connect_that_fails_may_be_repeated() {
    let node = TestNode::start("").await;
    let mut client = RawClient::open(node.addrs(), Via::WsJson).await;
    let error = client.refused(frame(In::Connect(v1([live("a..b")])))).await;
    assert_eq!(error.code, "BAD_REQUEST");
    client.say_connect(v1([live("a.b")])).await;
    assert_eq!(client.connected.subscriptions.len(), 1);
}

#[tokio::test]
async fn frames_sent_before_connected_arrives_are_answered_in_order() {
    let node = TestNode::start("").await;
    for via in Via::ALL {
        let mut client = RawClient::open(node.addrs(), via).await;
        client.send(InboundMessage { id: "c".into(), ..frame(In::Connect(extended([live("early")]))) }).await;
        for id in ["1", "2", "3"] {
            client.send(InboundMessage { id: id.into(), ..publish("early", text(id, id)) }).await;
        }
        assert_eq!(client.frame().await.id, "c", "{via:?}");
        for id in ["1", "2", "3"] {
            assert!(matches!(client.answer_to(id).await.envelope, Some(Out::PublishAck(_))));
        }
        assert_eq!(client.texts(3).await, ["1", "2", "3"]);
    }
}

#[tokio::test]
async fn a_subscribe_batch_succeeds_or_fails_as_a_whole() {
    let node = TestNode::start("").await;
    for via in Via::ALL {
        let mut client = RawClient::connect(node.addrs(), via).await;
        let batch = Subscribe { subscriptions: vec![live("all.one"), live("bad channel")] };
        assert_eq!(client.refused(frame(In::Subscribe(batch))).await.code, "BAD_REQUEST");
        client.subscribe_to("marker").await;
        client.publish("all.one", text("1", "must not arrive")).await;
        client.publish("marker", text("2", "marker")).await;
        assert_eq!(client.texts(1).await, ["marker"], "{via:?}");
        let ack = client.subscribe([live("all.one"), live("all.two")]).await;
        let names: Vec<_> = ack.subscriptions.iter().map(|one| one.channel.as_str()).collect();
        assert_eq!(names, ["all.one", "all.two"]);
    }
}

#[tokio::test]
async fn subscribing_again_changes_nothing_and_unsubscribing_stops() {
    let node = TestNode::start("").await;
    for via in Via::ALL {
        let mut client = RawClient::connect_v1(node.addrs(), via).await;
        for _ in 0..3 {
            let ack = client.subscribe([live("again"), live("again")]).await;
            assert_eq!(ack.subscriptions.len(), 1);
        }
        client.subscribe_to("marker").await;
        client.publish("again", text("1", "once")).await;
        client.publish("marker", text("2", "marker")).await;
        assert_eq!(client.texts(2).await, ["once", "marker"], "{via:?}");
        client.unsubscribe("again").await;
        client.unsubscribe("never.subscribed").await;
        client.publish("again", text("3", "unheard")).await;
        client.publish("marker", text("4", "marker")).await;
        assert_eq!(client.texts(1).await, ["marker"], "{via:?}");
    }
}

#[tokio::test]
async fn a_publisher_gets_its_own_message_unless_it_asks_not_to() {
    let node = TestNode::start("").await;
    for via in Via::ALL {
        let mut publisher = RawClient::connect(node.addrs(), via).await;
        let mut other = RawClient::connect(node.addrs(), Via::WsJson).await;
        publisher.subscribe_to("echo").await;
        other.subscribe_to("echo").await;
        let options = PublishOptions { exclude_self: true, ..PublishOptions::default() };
        publisher.publish_frame(publish_with("echo", text("1", "others"), options)).await;
        publisher.publish("echo", text("2", "all")).await;
        assert_eq!(publisher.texts(1).await, ["all"], "{via:?}");
        assert_eq!(other.texts(2).await, ["others", "all"], "{via:?}");
    }
}

#[tokio::test]
async fn a_publish_without_channel_goes_to_the_events_source() {
    let node = TestNode::start("").await;
    for via in Via::ALL {
        let mut client = RawClient::connect_v1(node.addrs(), via).await;
        client.subscribe_to("from.source").await;
        let event =
            streamgate_proto::cloudevents::CloudEvent { source: "from.source".into(), ..text("1", "x") };
        let ack = client.publish("", event).await;
        let message = client.message().await;
        assert_eq!((message.channel.as_str(), message.offset), ("from.source", ack.offset), "{via:?}");
    }
}

#[tokio::test]
async fn an_extended_client_is_pinged_and_lives_as_long_as_it_answers() {
    let node = TestNode::start("limits: {ping_interval: 200ms}").await;
    for via in Via::ALL {
        let mut client = RawClient::connect(node.addrs(), via).await;
        assert_eq!(client.connected.ping_interval_ms, 200);
        for _ in 0..5 {
            let ping = client.frame().await;
            assert!(matches!(ping.envelope, Some(Out::Ping(_))), "{ping:?}");
            client.send(InboundMessage { id: ping.id, ..frame(In::Pong(Default::default())) }).await;
        }
        // Three pings without an answer are enough.
        let (code, _) = client.closed().await;
        assert_eq!(code, 3511, "{via:?}");
    }
}

#[tokio::test]
async fn a_v1_client_is_pinged_by_websocket_and_lives_as_long_as_that_answers() {
    let node =
        TestNode::start("{server: {heartbeat: {idle_timeout: 1s}}, limits: {ping_interval: 150ms}}").await;
    for via in [Via::WsJson, Via::WsProto] {
        let mut client = RawClient::connect_v1(node.addrs(), via).await;
        for _ in 0..9 {
            assert!(matches!(client.next().await, Event::Ping), "{via:?}");
        }
        client.quiet().await;
    }
}

#[tokio::test]
async fn a_silent_client_is_closed_with_3511() {
    let node = TestNode::start("{server: {heartbeat: {idle_timeout: 1s}}}").await;
    let mut client = RawClient::connect_v1(node.addrs(), Via::Grpc).await;
    assert_eq!(client.close_code().await, 3511);
}

#[tokio::test]
async fn a_client_that_asks_is_answered() {
    let node = TestNode::start("").await;
    for via in Via::ALL {
        let mut client = RawClient::connect_v1(node.addrs(), via).await;
        let pong = client.request(frame(In::Ping(Default::default()))).await;
        assert!(matches!(pong.envelope, Some(Out::Pong(_))), "{via:?}");
        let refreshed = client.request(frame(In::SubRefresh(Default::default()))).await;
        assert!(matches!(refreshed.envelope, Some(Out::SubRefreshAck(_))), "{via:?}");
    }
}

#[tokio::test]
async fn what_is_not_built_yet_answers_not_supported_and_the_connection_goes_on() {
    let node = TestNode::start("").await;
    let queue = Subscription { queue: Some(Queue { group: "g".into(), credit: 1 }), ..live("q") };
    let envelopes = [
        In::Ack(Ack::default()),
        In::Nack(Nack::default()),
        In::Extend(Extend::default()),
        In::Subscribe(Subscribe { subscriptions: vec![queue] }),
    ];
    let options = [
        PublishOptions { delay_ms: 1, ..PublishOptions::default() },
        PublishOptions { ordering_key: "k".into(), ..PublishOptions::default() },
    ];
    for via in Via::ALL {
        let mut client = RawClient::connect(node.addrs(), via).await;
        for envelope in &envelopes {
            let error = client.refused(frame(envelope.clone())).await;
            assert_eq!(error.code, "NOT_SUPPORTED", "{via:?} {envelope:?}");
        }
        for options in &options {
            let error = client.refused(publish_with("a", text("1", ""), options.clone())).await;
            assert_eq!(error.code, "NOT_SUPPORTED", "{via:?} {options:?}");
        }
        client.quiet().await;
    }
}

#[tokio::test]
async fn an_envelope_that_the_server_does_not_know_answers_not_supported() {
    let node = TestNode::start("").await;
    for via in Via::ALL {
        let mut client = RawClient::connect_v1(node.addrs(), via).await;
        if via == Via::WsJson {
            client.send_raw(r#"{"id":"u","teleport":{"to":"mars"}}"#).await;
        } else {
            // id "u", then an empty message in field 39.
            client.send_raw(vec![0x0a, 1, b'u', 0xba, 0x02, 0]).await;
        }
        let answer = client.answer_to("u").await;
        let Some(Out::Error(error)) = answer.envelope else { panic!("{answer:?}") };
        assert_eq!(error.code, "NOT_SUPPORTED", "{via:?}");
        client.quiet().await;
    }
}

#[tokio::test]
async fn a_v1_client_is_offered_nothing_of_the_extension() {
    let node = TestNode::start("").await;
    for via in Via::ALL {
        let mut client = RawClient::connect_v1(node.addrs(), via).await;
        let error = client.refused(frame(In::History(events::history("a", -1)))).await;
        assert_eq!(error.code, "NOT_SUPPORTED", "{via:?}");
        // Options and cursors are not in its schema: they are ignored, and every frame is checked against v1.
        let options = PublishOptions { transient: true, ..PublishOptions::default() };
        assert!(client.publish_frame(publish_with("a.v1", text("1", "x"), options)).await.offset > 0);
        let start = events::from("a.v1", streamgate_proto::v1::start_from::Point::Start(true));
        client.subscribe([start]).await;
        client.publish("a.v1", text("2", "y")).await;
        assert_eq!(client.texts(1).await, ["y"], "{via:?}");
    }
}
