//! The schema as prost-reflect sees it: the oracle, and a generator of messages of any type.

#![allow(dead_code, reason = "each test binary uses a part of this")]

use std::collections::HashMap;

use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor,
    ReflectMessage, SerializeOptions, Value,
};
use streamgate_proto::{DESCRIPTOR_SET, V1_DESCRIPTOR_SET};

/// The whole schema.
pub fn pool() -> DescriptorPool {
    DescriptorPool::decode(DESCRIPTOR_SET).unwrap()
}

/// MessageLoop v1 alone.
pub fn v1_pool() -> DescriptorPool {
    DescriptorPool::decode(V1_DESCRIPTOR_SET).unwrap()
}

/// Our own message types, without the entries of maps.
pub fn own_messages(pool: &DescriptorPool) -> Vec<MessageDescriptor> {
    pool.all_messages()
        .filter(|message| !message.is_map_entry() && !message.full_name().starts_with("google."))
        .collect()
}

pub fn to_json(message: &DynamicMessage, proto_names: bool) -> String {
    let options = SerializeOptions::new().use_proto_field_name(proto_names);
    let mut out = Vec::new();
    message.serialize_with_options(&mut serde_json::Serializer::new(&mut out), &options).unwrap();
    String::from_utf8(out).unwrap()
}

/// Parses as a strict client would: an unknown field is an error.
pub fn from_json(descriptor: &MessageDescriptor, text: &[u8]) -> Result<DynamicMessage, serde_json::Error> {
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let mut parser = serde_json::Deserializer::from_slice(text);
    let message = DynamicMessage::deserialize_with_options(descriptor.clone(), &mut parser, &options)?;
    parser.end()?;
    Ok(message)
}

/// Names of the messages that hold a field their descriptor does not know, at any depth.
pub fn unknown_fields(message: &DynamicMessage) -> Vec<String> {
    fn visit(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Message(message) => found.extend(unknown_fields(message)),
            Value::List(items) => items.iter().for_each(|item| visit(item, found)),
            Value::Map(entries) => entries.values().for_each(|entry| visit(entry, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    if message.unknown_fields().next().is_some() {
        found.push(message.descriptor().full_name().to_owned());
    }
    message.fields().for_each(|(_, value)| visit(value, &mut found));
    found
}

/// What decides how a message is filled.
pub enum Choices<'a> {
    /// From bytes; zero once they are used up, so that shorter input means a smaller message.
    Bytes(&'a [u8]),
    /// Every field set; of each oneof the member with this index.
    Full(usize),
}

impl Choices<'_> {
    fn set(&mut self) -> bool {
        matches!(self, Self::Full(_)) || self.pick(4) > 1
    }

    fn pick(&mut self, count: usize) -> usize {
        match self {
            Self::Full(index) => *index % count,
            Self::Bytes(bytes) => {
                let Some((first, rest)) = bytes.split_first() else { return 0 };
                *bytes = rest;
                usize::from(*first) % count
            }
        }
    }

    fn one_of<T: Clone>(&mut self, values: &[T]) -> T {
        values[self.pick(values.len())].clone()
    }
}

/// A message of this type that has a JSON form: no `Any`, times in range, numbers finite.
pub fn generate(descriptor: &MessageDescriptor, choices: &mut Choices<'_>) -> DynamicMessage {
    let bytes = generate_at(descriptor, choices, 0).encode_to_vec();
    // Through protobuf, because reflection tells a default that was set from one that was not.
    DynamicMessage::decode(descriptor.clone(), bytes.as_slice()).unwrap()
}

fn generate_at(descriptor: &MessageDescriptor, choices: &mut Choices<'_>, depth: usize) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    match descriptor.full_name() {
        "google.protobuf.Timestamp" => {
            let seconds =
                choices.one_of(&[0i64, 1, -1, 1_767_225_600, -62_135_596_800, 253_402_300_799, 951_782_400]);
            let nanos = choices.one_of(&[0i32, 1, 500_000_000, 120_000, 999_999_999]);
            message.set_field_by_name("seconds", Value::I64(seconds));
            message.set_field_by_name("nanos", Value::I32(nanos));
            return message;
        }
        "google.protobuf.Value" if depth > 8 => {
            message.set_field_by_name("bool_value", Value::Bool(choices.set()));
            return message;
        }
        _ => {}
    }
    for oneof in descriptor.oneofs() {
        let members: Vec<_> = oneof.fields().filter(|field| field.name() != "proto_data").collect();
        let must = oneof.full_name() == "google.protobuf.Value.kind";
        if must || choices.set() {
            let field = choices.one_of(&members);
            message.set_field(&field, generate_value(&field, choices, depth));
        }
    }
    for field in descriptor.fields().filter(|field| field.containing_oneof().is_none()) {
        if choices.set() {
            message.set_field(&field, generate_field(&field, choices, depth));
        }
    }
    message
}

fn generate_field(field: &FieldDescriptor, choices: &mut Choices<'_>, depth: usize) -> Value {
    let count = if matches!(choices, Choices::Full(_)) { 1 } else { choices.pick(4) };
    if field.is_map() {
        let Kind::Message(entry) = field.kind() else { unreachable!("a map's entries are messages") };
        let value = entry.map_entry_value_field();
        let entries = (0..count)
            .map(|index| {
                let key = format!("{}{index}", text(choices));
                (MapKey::String(key), generate_value(&value, choices, depth))
            })
            .collect::<HashMap<_, _>>();
        return Value::Map(entries);
    }
    if field.is_list() {
        return Value::List((0..count).map(|_| generate_value(field, choices, depth)).collect());
    }
    generate_value(field, choices, depth)
}

fn generate_value(field: &FieldDescriptor, choices: &mut Choices<'_>, depth: usize) -> Value {
    match field.kind() {
        Kind::Message(descriptor) => Value::Message(generate_at(&descriptor, choices, depth + 1)),
        Kind::String => Value::String(text(choices)),
        Kind::Bytes => Value::Bytes(choices.one_of(&["", "a", "\0\x7f?>", "bytes"]).into()),
        Kind::Bool => Value::Bool(matches!(choices, Choices::Full(_)) || choices.set()),
        Kind::Int32 => Value::I32(choices.one_of(&[7, 0, -1, i32::MAX, i32::MIN])),
        Kind::Uint32 => Value::U32(choices.one_of(&[7, 0, 1, u32::MAX])),
        Kind::Uint64 => Value::U64(choices.one_of(&[7, 0, 42, 1 << 53, u64::MAX])),
        Kind::Double => Value::F64(choices.one_of(&[1.5, 0.0, -3.0, 1e300, 9.5e-7])),
        Kind::Enum(_) => Value::EnumNumber(0),
        kind => unreachable!("the schema has no {kind:?}"),
    }
}

fn text(choices: &mut Choices<'_>) -> String {
    choices.one_of(&["a", "", "room.blue", "\"\\\u{0}\n/", "ключ 🎈", "null", "{\"n\":[1]}"]).to_owned()
}
