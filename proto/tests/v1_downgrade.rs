//! A client that knows only MessageLoop v1 never sees a field that is not in v1, and loses none
//! that is.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

mod schema;

use proptest::prelude::*;
use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor, ReflectMessage as _};
use schema::{Choices, from_json, generate, own_messages, pool, unknown_fields, v1_pool};
use streamgate_proto::v1::OutboundMessage;
use streamgate_proto::{Encoding, NotInV1, downgrade_to_v1, encode_outbound};

const OUTBOUND: &str = "messageloop.v1.OutboundMessage";

fn envelope_of(message: &DynamicMessage) -> Option<String> {
    let oneof = message.descriptor().oneofs().next().unwrap();
    oneof.fields().find(|field| message.has_field(field)).map(|field| field.name().to_owned())
}

/// The frame as v1 sees it, with what v1 does not know dropped.
fn as_v1(descriptor: &MessageDescriptor, frame: &[u8]) -> DynamicMessage {
    let mut message = DynamicMessage::decode(descriptor.clone(), frame).unwrap();
    // A round trip through JSON drops the unknown fields of every message within.
    message = from_json(descriptor, schema::to_json(&message, true).as_bytes()).unwrap();
    message
}

fn check(full: &DynamicMessage) {
    let v1 = v1_pool().get_message_by_name(OUTBOUND).unwrap();
    let frame = full.encode_to_vec();
    let mut message = OutboundMessage::decode(frame.as_slice()).unwrap();
    let expected = as_v1(&v1, &frame);

    if downgrade_to_v1(&mut message) == Err(NotInV1) {
        assert!(envelope_of(full).is_some());
        assert_eq!(envelope_of(&expected), None, "a frame of v1 was refused");
        assert_eq!(
            message.encode_to_vec(),
            OutboundMessage::decode(frame.as_slice()).unwrap().encode_to_vec()
        );
        return;
    }
    assert_eq!(envelope_of(&expected), envelope_of(full), "a frame of another kind was let through");
    let protobuf = encode_outbound(Encoding::Protobuf, &message).unwrap();
    let strict = DynamicMessage::decode(v1.clone(), protobuf).unwrap();
    assert_eq!(unknown_fields(&strict), Vec::<String>::new());
    assert!(strict == expected);
    let json = encode_outbound(Encoding::Json, &message).unwrap();
    assert!(from_json(&v1, &json).unwrap() == expected);
}

#[test]
fn every_kind_of_frame_with_every_field_set() {
    let descriptor = pool().get_message_by_name(OUTBOUND).unwrap();
    let kinds = descriptor.oneofs().next().unwrap().fields().count();
    for member in 0..kinds {
        check(&generate(&descriptor, &mut Choices::Full(member)));
    }
}

#[test]
fn the_check_sees_fields_of_the_extension() {
    let descriptor = pool().get_message_by_name(OUTBOUND).unwrap();
    let v1 = v1_pool().get_message_by_name(OUTBOUND).unwrap();
    let ack =
        descriptor.oneofs().next().unwrap().fields().position(|field| field.name() == "publish_ack").unwrap();
    let frame = generate(&descriptor, &mut Choices::Full(ack)).encode_to_vec();
    let strict = DynamicMessage::decode(v1.clone(), frame.as_slice()).unwrap();
    assert_eq!(unknown_fields(&strict), ["messageloop.v1.PublishAck"]);
    let message = OutboundMessage::decode(frame.as_slice()).unwrap();
    assert!(from_json(&v1, &encode_outbound(Encoding::Json, &message).unwrap()).is_err());
}

#[test]
fn the_v1_schema_is_the_published_one() {
    let v1 = v1_pool();
    for message in own_messages(&v1).iter().filter(|message| message.package_name() == "messageloop.v1") {
        assert!(message.fields().all(|field| field.number() < 40), "{}", message.full_name());
    }
    let mut names: Vec<_> = own_messages(&v1)
        .iter()
        .filter(|message| message.package_name() == "messageloop.v1")
        .map(|message| message.name().to_owned())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "Connect",
            "Connected",
            "InboundMessage",
            "Message",
            "OutboundMessage",
            "Ping",
            "Pong",
            "Publication",
            "PublishAck",
            "SubRefresh",
            "SubRefreshAck",
            "Subscribe",
            "SubscribeAck",
            "Subscription",
            "SurveyRequest",
            "SurveyResponse",
            "Unsubscribe",
            "UnsubscribeAck",
        ]
    );
    // Every field of the extension in the whole schema is numbered from 40 in a message of v1.
    let full = pool();
    for name in names {
        let name = format!("messageloop.v1.{name}");
        let (full, v1) = (full.get_message_by_name(&name).unwrap(), v1.get_message_by_name(&name).unwrap());
        assert_eq!(full.fields().filter(|field| field.number() < 40).count(), v1.fields().count(), "{name}");
    }
}

#[test]
fn the_v1_schema_of_the_server_api_is_the_published_one() {
    let v1 = v1_pool();
    let service = v1.get_service_by_name("messageloop.server.v1.APIService").unwrap();
    let mut methods: Vec<_> = service.methods().map(|method| method.name().to_owned()).collect();
    methods.sort();
    assert_eq!(methods, ["Disconnect", "Publish", "Subscribe", "Survey", "Unsubscribe"]);
    let mut names = Vec::new();
    for message in
        own_messages(&v1).iter().filter(|message| message.package_name() == "messageloop.server.v1")
    {
        assert!(message.fields().all(|field| field.number() < 40), "{}", message.full_name());
        names.push(message.name().to_owned());
    }
    names.sort();
    assert_eq!(
        names,
        [
            "Destination",
            "DisconnectRequest",
            "DisconnectResponse",
            "Publication",
            "PublicationOptions",
            "PublishRequest",
            "PublishResponse",
            "SubscribeRequest",
            "SubscribeResponse",
            "SurveyRequest",
            "SurveyResponse",
            "SurveyResult",
            "UnsubscribeRequest",
            "UnsubscribeResponse",
        ]
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..Default::default() })]

    #[test]
    fn generated_frames(entropy in proptest::collection::vec(any::<u8>(), 0..400)) {
        let descriptor = pool().get_message_by_name(OUTBOUND).unwrap();
        check(&generate(&descriptor, &mut Choices::Bytes(&entropy)));
    }
}
