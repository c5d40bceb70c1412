//! What JSON input may look like, and what JSON output does look like, beyond the oracle's own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;

use streamgate_proto::cloudevents::{Attr, CloudEvent, CloudEventAttributeValue, Data};
use streamgate_proto::v1::{InboundMessage, OutboundMessage, inbound_message, outbound_message};
use streamgate_proto::wkt::{Any, Struct, Timestamp, Value, value::Kind};
use streamgate_proto::{DecodeError, EncodeError, Encoding, decode_inbound, encode_outbound, json, shared};

fn inbound(text: &str) -> InboundMessage {
    decode_inbound(Encoding::Json, text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn event(text: &str) -> CloudEvent {
    json::decode(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn timestamp(text: &str) -> Result<Timestamp, DecodeError> {
    json::decode(format!("\"{text}\"").as_bytes())
}

#[test]
fn both_names_of_a_field_are_accepted() {
    let proto =
        r#"{"id":"e","spec_version":"1.0","binary_data":"AAE=","attributes":{"a":{"ce_uri_ref":"/x"}}}"#;
    let camel = r#"{"id":"e","specVersion":"1.0","binaryData":"AAE=","attributes":{"a":{"ceUriRef":"/x"}}}"#;
    assert_eq!(event(proto), event(camel));
    assert_eq!(inbound(r#"{"timeoutMs":5}"#), inbound(r#"{"timeout_ms":"5"}"#));
    let options = inbound(r#"{"publishOptions":{"excludeSelf":true}}"#).publish_options.unwrap();
    assert!(options.exclude_self);
}

#[test]
fn unknown_fields_are_ignored_everywhere() {
    let text = r#"{"x":{"y":[1,{}]},"id":"1","publish":{"id":"e","x":1,"attributes":{"a":{"x":null,"ce_string":"v"}}}}"#;
    let Some(inbound_message::Envelope::Publish(event)) = inbound(text).envelope else {
        panic!("not a publish")
    };
    assert_eq!(event.attributes["a"].attr, Some(Attr::CeString("v".to_owned())));
}

#[test]
fn null_means_unset() {
    let text = r#"{"id":null,"time":null,"metadata":null,"subscribe":{"subscriptions":[{"channel":"a","token":null,"recover":null,"cursor":null}]}}"#;
    assert_eq!(inbound(text), inbound(r#"{"subscribe":{"subscriptions":[{"channel":"a"}]}}"#));
    let null = json::decode::<shared::Error>(br#"{"code":null,"metadata":{"n":null}}"#).unwrap();
    assert_eq!(null.metadata.unwrap().fields["n"].kind, Some(Kind::NullValue(0)));
}

#[test]
fn numbers_of_64_bits_come_as_text_or_number() {
    let max = u64::MAX;
    for text in [format!("{{\"time\":\"{max}\"}}"), format!("{{\"time\":{max}}}")] {
        assert_eq!(inbound(&text).time, max);
    }
}

#[test]
fn bytes_come_in_any_base64() {
    for text in ["-_-_/w==", "+/+//w==", "-_-__w", "+/+//w", "-_-__w=="] {
        let read = json::decode::<CloudEvent>(format!("{{\"binary_data\":\"{text}\"}}").as_bytes());
        if text.contains('-') && text.contains('/') {
            assert!(read.is_err(), "a mixture of both alphabets");
        } else {
            let expected = Data::BinaryData(vec![0xfb, 0xff, 0xbf, 0xff].into());
            assert_eq!(read.unwrap().data, Some(expected), "{text}");
        }
    }
}

#[test]
fn timestamps_are_rfc_3339_and_written_with_z() {
    for (text, canonical) in [
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("2026-01-01T01:30:00+01:30", "2026-01-01T00:00:00Z"),
        ("2025-12-31T23:00:00-01:00", "2026-01-01T00:00:00Z"),
        ("2000-02-29T12:00:00.5Z", "2000-02-29T12:00:00.500Z"),
        ("1969-12-31T23:59:59.000001Z", "1969-12-31T23:59:59.000001Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("9999-12-31T23:59:59.999999999Z", "9999-12-31T23:59:59.999999999Z"),
    ] {
        let time = timestamp(text).unwrap();
        assert_eq!(json::encode(&time).unwrap(), format!("\"{canonical}\""));
    }
}

#[test]
fn what_is_not_a_time_is_refused() {
    for text in [
        "",
        "now",
        "2026-01-01",
        "2026-01-01T00:00:00",
        "2026-01-01 00:00:00Z",
        "2026-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-00-10T00:00:00Z",
        "2026-01-00T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:60:00Z",
        "2026-01-01T00:00:00.Z",
        "2026-01-01T00:00:00.0123456789Z",
        "2026-01-01T00:00:00+1:00",
        "2026-01-01T00:00:00+24:00",
        "0000-12-31T23:59:59Z",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "2026-01-01T00:00:00Zx",
        "+026-01-01T00:00:00Z",
    ] {
        assert!(timestamp(text).is_err(), "{text}");
    }
}

fn reply(event: CloudEvent) -> OutboundMessage {
    OutboundMessage { envelope: Some(outbound_message::Envelope::RpcReply(event)), ..Default::default() }
}

#[test]
fn proto_data_reaches_json_clients_as_binary_data_with_its_type() {
    let any = Any { type_url: "type.example/a.B".to_owned(), value: vec![8, 1].into() };
    let event = CloudEvent { id: "e".to_owned(), data: Some(Data::ProtoData(any)), ..Default::default() };
    let frame = encode_outbound(Encoding::Json, &reply(event.clone())).unwrap();
    let expected = r#"{"rpc_reply":{"id":"e","attributes":{"dataschema":{"ce_uri":"type.example/a.B"}},"binary_data":"CAE="}}"#;
    assert_eq!(std::str::from_utf8(&frame).unwrap(), expected);
    // Protobuf clients get it as it was sent.
    let frame = encode_outbound(Encoding::Protobuf, &reply(event.clone())).unwrap();
    assert_eq!(streamgate_proto::decode_outbound(Encoding::Protobuf, &frame).unwrap(), reply(event));
}

#[test]
fn proto_data_in_json_input_says_what_to_send_instead() {
    let error = json::decode::<CloudEvent>(br#"{"id":"e","proto_data":{"@type":"x"}}"#).unwrap_err();
    assert!(error.to_string().contains("send binary_data"), "{error}");
}

#[test]
fn what_json_cannot_carry_is_an_error_and_leaves_the_buffer_alone() {
    let time = Attr::CeTimestamp(Timestamp { seconds: i64::MAX, nanos: 0 });
    let attributes = BTreeMap::from([("time".to_owned(), CloudEventAttributeValue { attr: Some(time) })]);
    let message = reply(CloudEvent { attributes, ..Default::default() });
    let mut buffer = b"before".to_vec();
    let result = streamgate_proto::encode_outbound_into(Encoding::Json, &message, &mut buffer);
    assert!(matches!(result, Err(EncodeError::Json { .. })));
    assert_eq!(buffer, b"before");
}

#[test]
fn equal_messages_have_equal_bytes() {
    let number = |n: f64| Value { kind: Some(Kind::NumberValue(n)) };
    let names: Vec<String> = (0..50).map(|n| format!("k{n}")).collect();
    let forward = Struct { fields: names.iter().map(|name| (name.clone(), number(1.0))).collect() };
    let backward = Struct { fields: names.iter().rev().map(|name| (name.clone(), number(1.0))).collect() };
    assert_eq!(json::encode(&forward).unwrap(), json::encode(&backward).unwrap());
    assert_eq!(prost::Message::encode_to_vec(&forward), prost::Message::encode_to_vec(&backward));
}
