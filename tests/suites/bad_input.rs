//! Bad input: a clear error or the right close code, and the next valid frame or client works.

use streamgate_e2e::{
    events::{self, extended, frame, live, publish, recover, text, with_attribute},
    gateway::{Addrs, TestNode},
    raw::{RawClient, Via},
};
use streamgate_proto::{
    cloudevents::{Attr, CloudEvent, CloudEventAttributeValue},
    shared,
    v1::{
        InboundMessage, Position, Subscribe, Unsubscribe, inbound_message::Envelope as In,
        outbound_message::Envelope as Out,
    },
    wkt::Timestamp,
};

/// Another client, on every transport, can still do its work.
async fn others_work(addrs: Addrs) {
    for via in Via::ALL {
        let mut client = RawClient::connect_v1(addrs, via).await;
        client.subscribe_to("others").await;
        client.publish("others", text("1", "fine")).await;
        assert_eq!(client.texts(1).await, ["fine"]);
        client.close().await;
    }
}

/// The client's own next valid frames work.
async fn goes_on(client: &mut RawClient) {
    client.publish("goes.on", text("1", "fine")).await;
    client.quiet().await;
}

/// The error of a frame that has no id.
async fn error(client: &mut RawClient) -> shared::Error {
    match client.frame().await.envelope {
        Some(Out::Error(error)) => error,
        other => panic!("{other:?} instead of an error"),
    }
}

/// Bytes that are no envelope.
fn garbage(via: Via) -> Vec<Vec<u8>> {
    let text: &[&str] =
        &["", "{", "null", "[]", "7", "\"x\"", "{\"id\":7}", "{\"ping\":[]}", "{\"id\":\"1\"} trailing"];
    let binary: &[&[u8]] = &[
        b"\xff\xff\xff",
        // Field 1 with a length that lies: 2 GiB, then 10 bytes of which 1 is there, then no end of the varint.
        b"\x0a\xff\xff\xff\xff\x07abc",
        b"\x0a\x0aa",
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        // A connect with a lying length inside; a group that does not end; a text that is not UTF-8.
        b"\x5a\x7f\x0a\x01a",
        b"\x0b",
        b"\x0a\x02\xc3\x28",
    ];
    match via {
        Via::WsJson => text.iter().map(|text| text.as_bytes().to_vec()).collect(),
        Via::WsProto | Via::Grpc => binary.iter().map(|bytes| bytes.to_vec()).collect(),
    }
}

#[tokio::test]
async fn an_undecodable_frame_gets_bad_request_and_the_next_valid_one_works() {
    let node = TestNode::start("").await;
    for via in Via::ALL {
        let mut client = RawClient::connect_v1(node.addrs(), via).await;
        for bytes in garbage(via) {
            client.send_raw(bytes.clone()).await;
            let error = error(&mut client).await;
            assert_eq!(error.code, "BAD_REQUEST", "{via:?} {bytes:?}");
            assert!(!error.message.is_empty() && error.message.len() < 1_000, "{error:?}");
            goes_on(&mut client).await;
        }
    }
    others_work(node.addrs()).await;
}

#[tokio::test]
async fn twenty_undecodable_frames_in_a_row_close_with_3509() {
    let node = TestNode::start("").await;
    for via in Via::ALL {
        let mut client = RawClient::connect_v1(node.addrs(), via).await;
        let bad = garbage(via).remove(1);
        for round in 0..2 {
            for _ in 0..19 {
                client.send_raw(bad.clone()).await;
                assert_eq!(error(&mut client).await.code, "BAD_REQUEST");
            }
            if round == 0 {
                // A valid frame starts the count anew.
                goes_on(&mut client).await;
            }
        }
        client.send_raw(bad).await;
        assert_eq!(client.close_code().await, 3509, "{via:?}");
    }
    others_work(node.addrs()).await;
}

#[tokio::test]
async fn a_malformed_channel_is_refused_wherever_it_stands() {
    let node = TestNode::start("").await;
    let long = "x".repeat(256);
    let malformed = [
        "", ".", "a.", ".a", "a..b", "a b", "a\tb", "a\n", "a\u{0}", "a\u{a0}b", "a*b", "*a.b", "a.**.b",
        "***", &long,
    ];
    for via in Via::ALL {
        let mut client = RawClient::connect(node.addrs(), via).await;
        for channel in malformed {
            let subscribe = Subscribe { subscriptions: vec![live("fine"), live(channel)] };
            let unsubscribe = Unsubscribe { subscriptions: vec![live(channel)] };
            // A publish without channel would go to the event's source.
            let event = CloudEvent { source: "no channel".into(), ..text("1", "") };
            for request in [
                frame(In::Subscribe(subscribe)),
                frame(In::Unsubscribe(unsubscribe)),
                frame(In::History(events::history(channel, 1))),
                publish(channel, event),
            ] {
                let error = client.refused(request.clone()).await;
                assert_eq!(error.code, "BAD_REQUEST", "{via:?} {channel:?} {request:?}");
            }
        }
        client.publish(&"x".repeat(255), text("1", "the longest name")).await;
        goes_on(&mut client).await;
    }
    others_work(node.addrs()).await;
}

#[tokio::test]
async fn publishing_to_a_pattern_is_refused() {
    let node = TestNode::start("").await;
    for via in Via::ALL {
        let mut client = RawClient::connect_v1(node.addrs(), via).await;
        for pattern in ["a.*", "*", "**", "a.**", "*.b"] {
            let error = client.refused(publish(pattern, text("1", ""))).await;
            assert_eq!(error.code, "BAD_REQUEST", "{via:?} {pattern}");
            assert!(error.message.contains("pattern"), "{error:?}");
        }
        goes_on(&mut client).await;
    }
    others_work(node.addrs()).await;
}

#[tokio::test]
async fn an_event_that_is_no_cloudevent_is_refused_and_the_error_names_what_is_wrong() {
    let node = TestNode::start("").await;
    let fine = || text("1", "");
    let named = |name: &str| with_attribute(fine(), name, Attr::CeString("x".into()));
    let late = Timestamp { seconds: 253_402_300_800, nanos: 0 };
    let mut valueless = fine();
    valueless.attributes.insert("nothing".into(), CloudEventAttributeValue { attr: None });
    let cases = [
        (CloudEvent { id: String::new(), ..fine() }, "`id`"),
        (CloudEvent { source: String::new(), ..fine() }, "`source`"),
        (CloudEvent { r#type: String::new(), ..fine() }, "`type`"),
        (CloudEvent { spec_version: String::new(), ..fine() }, "`spec_version`"),
        (CloudEvent { spec_version: "0.3".into(), ..fine() }, "0.3"),
        (CloudEvent::default(), "`id`"),
        (named("Upper"), "Upper"),
        (named("with-dash"), "with-dash"),
        (named("with_underscore"), "with_underscore"),
        (named("\u{e4}"), "\u{e4}"),
        (named(""), "attribute name"),
        (named("data"), "reserved"),
        (named("id"), "reserved"),
        (named("specversion"), "reserved"),
        (with_attribute(fine(), "link", Attr::CeUri(String::new())), "link"),
        (valueless, "nothing"),
    ];
    for via in Via::ALL {
        let mut client = RawClient::connect_v1(node.addrs(), via).await;
        client.subscribe_to("events").await;
        for (event, named) in &cases {
            // What JSON has no form for cannot be sent as JSON.
            let sendable = via != Via::WsJson || event.attributes.values().all(|value| value.attr.is_some());
            if sendable {
                let error = client.refused(publish("events", event.clone())).await;
                assert_eq!(error.code, "BAD_REQUEST", "{via:?} {event:?}");
                assert!(error.message.contains(named), "{via:?}: {} does not name {named}", error.message);
            }
        }
        if via != Via::WsJson {
            let event = with_attribute(fine(), "time", Attr::CeTimestamp(late));
            assert_eq!(client.refused(publish("events", event)).await.code, "BAD_REQUEST");
        }
        client.publish("events", text("2", "only this")).await;
        assert_eq!(client.texts(1).await, ["only this"], "{via:?}");
    }
    others_work(node.addrs()).await;
}

#[tokio::test]
async fn a_cursor_of_an_unknown_epoch_completes_with_epoch_reset() {
    let node = TestNode::start("").await;
    for via in Via::ALL {
        let channel = format!("epoch.{via:?}");
        let mut client = RawClient::connect(node.addrs(), via).await;
        let epochs = ["0", "1", "18446744073709551615", "99999999999999999999999", "", "abc", "-1", "\u{0}"];
        for n in 0..2 {
            client.publish(&channel, text(&n.to_string(), &n.to_string())).await;
        }
        for epoch in epochs {
            for inside_connect in [false, true] {
                let cursor = Position { epoch: epoch.into(), offset: 1 };
                let mut client = RawClient::open(node.addrs(), via).await;
                if inside_connect {
                    client.say_connect(extended([recover(&channel, cursor)])).await;
                } else {
                    client.say_connect(extended([])).await;
                    client.subscribe([recover(&channel, cursor)]).await;
                }
                let (_, complete) = client.recovered().await;
                assert!(complete.gap, "{via:?} {epoch:?}");
                assert_eq!(complete.gap_reason, "EPOCH_RESET", "{via:?} {epoch:?}");
                goes_on(&mut client).await;
            }
        }
    }
    others_work(node.addrs()).await;
}

#[tokio::test]
async fn json_nested_a_thousand_deep_gets_bad_request() {
    let node = TestNode::start("").await;
    let mut client = RawClient::connect_v1(node.addrs(), Via::WsJson).await;
    let deep = [
        format!("{{\"x\":{}1{}}}", "[".repeat(1_000), "]".repeat(1_000)),
        format!("{}1{}", "{\"a\":".repeat(1_000), "}".repeat(1_000)),
        "[".repeat(30_000),
        format!(
            "{{\"survey_response\":{{\"error\":{{\"metadata\":{}1{}}}}}}}",
            "{\"a\":".repeat(1_000),
            "}".repeat(1_000)
        ),
    ];
    for text in deep {
        client.send_raw(text).await;
        assert_eq!(error(&mut client).await.code, "BAD_REQUEST");
        goes_on(&mut client).await;
    }
    // Brackets within a text nest nothing.
    client.publish("goes.on", text("1", &"[{".repeat(2_000))).await;
    others_work(node.addrs()).await;
}

#[tokio::test]
async fn a_frame_without_meaning_for_its_transport_harms_nobody() {
    let node = TestNode::start("").await;
    for via in Via::ALL {
        let mut client = RawClient::connect(node.addrs(), via).await;
        // Answers that nobody asked for are dropped.
        client.send(frame(In::Pong(Default::default()))).await;
        client.send(frame(In::SurveyResponse(Default::default()))).await;
        // A frame without envelope: NOT_SUPPORTED.
        assert_eq!(client.refused(InboundMessage::default()).await.code, "NOT_SUPPORTED", "{via:?}");
        // Nothing to do is done.
        assert!(client.subscribe([]).await.subscriptions.is_empty());
        goes_on(&mut client).await;
    }
}

#[tokio::test]
async fn proto_data_in_json_is_refused_and_the_error_says_what_to_send() {
    let node = TestNode::start("").await;
    let mut client = RawClient::connect_v1(node.addrs(), Via::WsJson).await;
    let any = r#"{"@type":"type.googleapis.com/google.protobuf.Duration","value":"1s"}"#;
    for data in [any, r#"{"type_url":"x.Y","value":"AAEC"}"#, r#"{"@type":"x"}"#, "7"] {
        let event =
            format!(r#"{{"id":"e","source":"s","spec_version":"1.0","type":"t","proto_data":{data}}}"#);
        client.send_raw(format!(r#"{{"channel":"any","publish":{event}}}"#)).await;
        let error = error(&mut client).await;
        assert_eq!(error.code, "BAD_REQUEST", "{data}");
        assert!(error.message.contains("binary_data"), "{data}: {error:?}");
        goes_on(&mut client).await;
    }
}
