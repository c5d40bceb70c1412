//! The strict check of what a MessageLoop v1 client gets.

use std::sync::OnceLock;

use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, ReflectMessage as _, Value,
};
use streamgate_proto::{Encoding, V1_DESCRIPTOR_SET};

/// Parses a frame as a strict client does.
///
/// # Panics
/// It has a field or an envelope that MessageLoop v1 does not know.
pub(super) fn assert_v1(encoding: Encoding, frame: &[u8]) {
    let message = match encoding {
        Encoding::Json => {
            let options = DeserializeOptions::new().deny_unknown_fields(true);
            let mut parser = serde_json::Deserializer::from_slice(frame);
            DynamicMessage::deserialize_with_options(outbound(), &mut parser, &options)
                .unwrap_or_else(|error| panic!("not a v1 frame: {error}: {}", String::from_utf8_lossy(frame)))
        }
        Encoding::Protobuf => DynamicMessage::decode(outbound(), frame).expect("a valid frame"),
    };
    assert_known(&message);
    let oneof = message.descriptor().oneofs().next().expect("the envelope");
    assert!(
        oneof.fields().any(|field| message.has_field(&field)),
        "a frame without a v1 envelope: {message:?}"
    );
}

fn outbound() -> MessageDescriptor {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    let pool = POOL.get_or_init(|| DescriptorPool::decode(V1_DESCRIPTOR_SET).expect("the schema"));
    pool.get_message_by_name("messageloop.v1.OutboundMessage").expect("the message")
}

fn assert_known(message: &DynamicMessage) {
    assert!(message.unknown_fields().next().is_none(), "a field that v1 does not know: {message:?}");
    for (_, value) in message.fields() {
        visit(value);
    }
}

fn visit(value: &Value) {
    match value {
        Value::Message(message) => assert_known(message),
        Value::List(items) => items.iter().for_each(visit),
        Value::Map(entries) => entries.values().for_each(visit),
        _ => {}
    }
}
