//! The frames of MessageLoop v1, byte for byte: see `golden/README.md`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

mod schema;

use std::path::{Path, PathBuf};

use prost_reflect::DynamicMessage;
use schema::{from_json, unknown_fields, v1_pool};
use streamgate_proto::{
    Encoding, decode_inbound, decode_outbound, downgrade_to_v1, encode_inbound, encode_outbound,
};

/// Name, JSON and protobuf of every frame whose name starts with `prefix`.
fn frames(prefix: &str) -> Vec<(String, Vec<u8>, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: &Path| std::fs::read_to_string(path).unwrap().trim_end().to_owned();
    paths
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, read(path).into_bytes(), from_hex(&read(&path.with_extension("hex"))))
        })
        .filter(|(name, ..)| name.starts_with(prefix))
        .collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn frames_from_clients_are_read_and_written_exactly() {
    let frames = frames("in_");
    assert_eq!(frames.len(), 8);
    for (name, json, protobuf) in frames {
        let message = decode_inbound(Encoding::Json, &json).unwrap();
        assert_eq!(decode_inbound(Encoding::Protobuf, &protobuf).unwrap(), message, "{name}");
        assert!(message.envelope.is_some(), "{name}");
        let written = encode_inbound(Encoding::Json, &message).unwrap();
        assert_eq!(std::str::from_utf8(&written), std::str::from_utf8(&json), "{name}");
        assert_eq!(encode_inbound(Encoding::Protobuf, &message).unwrap(), protobuf, "{name}");
    }
}

#[test]
fn frames_to_clients_are_read_and_written_exactly() {
    let frames = frames("out_");
    assert_eq!(frames.len(), 10);
    for (name, json, protobuf) in frames {
        let mut message = decode_outbound(Encoding::Json, &json).unwrap();
        assert_eq!(decode_outbound(Encoding::Protobuf, &protobuf).unwrap(), message, "{name}");
        assert!(message.envelope.is_some(), "{name}");
        downgrade_to_v1(&mut message).unwrap();
        let written = encode_outbound(Encoding::Json, &message).unwrap();
        assert_eq!(std::str::from_utf8(&written), std::str::from_utf8(&json), "{name}");
        assert_eq!(encode_outbound(Encoding::Protobuf, &message).unwrap(), protobuf, "{name}");
    }
}

#[test]
fn every_frame_is_in_the_v1_schema() {
    for (prefix, message) in
        [("in_", "messageloop.v1.InboundMessage"), ("out_", "messageloop.v1.OutboundMessage")]
    {
        let descriptor = v1_pool().get_message_by_name(message).unwrap();
        for (name, json, protobuf) in frames(prefix) {
            let read = DynamicMessage::decode(descriptor.clone(), protobuf.as_slice()).unwrap();
            assert_eq!(unknown_fields(&read), Vec::<String>::new(), "{name}");
            assert!(from_json(&descriptor, &json).unwrap() == read, "{name}");
        }
    }
}
