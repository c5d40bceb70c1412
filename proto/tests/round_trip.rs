//! Envelopes survive both codecs unchanged, and no bytes make a decoder panic.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

mod schema;

use proptest::prelude::*;
use prost::Message as _;
use schema::{Choices, generate, pool};
use streamgate_proto::v1::{InboundMessage, OutboundMessage};
use streamgate_proto::{
    Encoding, decode_inbound, decode_outbound, encode_inbound, encode_inbound_into, encode_outbound,
    encode_outbound_into,
};

const ENCODINGS: [Encoding; 2] = [Encoding::Json, Encoding::Protobuf];

fn inbound(entropy: &[u8]) -> InboundMessage {
    let descriptor = pool().get_message_by_name("messageloop.v1.InboundMessage").unwrap();
    InboundMessage::decode(generate(&descriptor, &mut Choices::Bytes(entropy)).encode_to_vec().as_slice())
        .unwrap()
}

fn outbound(entropy: &[u8]) -> OutboundMessage {
    let descriptor = pool().get_message_by_name("messageloop.v1.OutboundMessage").unwrap();
    OutboundMessage::decode(generate(&descriptor, &mut Choices::Bytes(entropy)).encode_to_vec().as_slice())
        .unwrap()
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 256, failure_persistence: None, ..Default::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn inbound_envelopes_round_trip(entropy in proptest::collection::vec(any::<u8>(), 0..400)) {
        let message = inbound(&entropy);
        for encoding in ENCODINGS {
            let frame = encode_inbound(encoding, &message).unwrap();
            prop_assert_eq!(&decode_inbound(encoding, &frame).unwrap(), &message);
            let mut buffer = b"before".to_vec();
            encode_inbound_into(encoding, &message, &mut buffer).unwrap();
            prop_assert_eq!(&buffer[6..], &frame[..]);
        }
    }

    #[test]
    fn outbound_envelopes_round_trip(entropy in proptest::collection::vec(any::<u8>(), 0..400)) {
        let message = outbound(&entropy);
        for encoding in ENCODINGS {
            let frame = encode_outbound(encoding, &message).unwrap();
            prop_assert_eq!(&decode_outbound(encoding, &frame).unwrap(), &message);
            let mut buffer = b"before".to_vec();
            encode_outbound_into(encoding, &message, &mut buffer).unwrap();
            prop_assert_eq!(&buffer[6..], &frame[..]);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(frame in proptest::collection::vec(any::<u8>(), 0..300)) {
        for encoding in ENCODINGS {
            let _ = decode_inbound(encoding, &frame);
            let _ = decode_outbound(encoding, &frame);
        }
    }

    #[test]
    fn arbitrary_json_never_panics(text in r#"[\[\]{}:,"\\a-z0-9.eE+ -]{0,80}"#, member in "[a-z_]{1,16}") {
        for frame in [text.clone(), format!("{{\"{member}\":{text}}}"), format!("{{\"publish\":{{\"{member}\":{text}}}}}")] {
            let _ = decode_inbound(Encoding::Json, frame.as_bytes());
            let _ = decode_outbound(Encoding::Json, frame.as_bytes());
        }
    }
}
