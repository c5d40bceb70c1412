//! Frames made to hurt: each is an error, quickly, and nothing else.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use streamgate_proto::v1::inbound_message::Envelope;
use streamgate_proto::{DecodeError, Encoding, decode_inbound, decode_outbound, json::MAX_DEPTH};

fn json(text: &str) -> Result<streamgate_proto::v1::InboundMessage, DecodeError> {
    decode_inbound(Encoding::Json, text.as_bytes())
}

fn nested(open: &str, close: &str, depth: usize) -> String {
    format!("{}{}", open.repeat(depth), close.repeat(depth))
}

#[test]
fn json_nested_too_deeply_is_refused_wherever_it_is() {
    for depth in [MAX_DEPTH, 1_000, 1_000_000] {
        let arrays = nested("[", "]", depth);
        let objects = nested("{\"a\":[", "]}", depth);
        for deep in [&arrays, &objects] {
            for frame in [
                deep.clone(),
                format!("{{\"no_such_field\":{deep},\"id\":\"1\"}}"),
                format!("{{\"publish\":{{\"attributes\":{{\"a\":{{\"x\":{deep}}}}}}}}}"),
                format!("{{\"survey_response\":{{\"error\":{{\"metadata\":{{\"m\":{deep}}}}}}}}}"),
                format!("{{\"id\":\"1\",\"x\":{}", "[".repeat(depth)),
            ] {
                let error = json(&frame).unwrap_err();
                if frame != *deep || depth > MAX_DEPTH {
                    assert_eq!(error, DecodeError::TooDeep { limit: MAX_DEPTH });
                }
            }
        }
    }
}

#[test]
fn json_as_deep_as_allowed_is_read() {
    let deep = nested("[", "]", MAX_DEPTH - 1);
    assert_eq!(json(&format!("{{\"no_such_field\":{deep},\"id\":\"1\"}}")).unwrap().id, "1");
    let text = format!("{{\"publish\":{{\"text_data\":\"{}\"}}}}", "[".repeat(1_000));
    assert!(matches!(json(&text).unwrap().envelope, Some(Envelope::Publish(_))));
}

#[test]
fn protobuf_nested_too_deeply_is_refused() {
    // error.metadata.fields{"": Value{list_value: ListValue{values: [Value ...]}}}, innermost first.
    let field = |number: u8, body: &[u8]| {
        let mut out = vec![number << 3 | 2];
        let mut length = body.len();
        while length >= 0x80 {
            out.push((length as u8 & 0x7f) | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
        out.extend_from_slice(body);
        out
    };
    let frame = |depth: usize| {
        let value = (0..depth).fold(vec![], |value, _| field(6, &field(1, &value)));
        let metadata = field(1, &field(2, &value));
        field(11, &field(4, &metadata))
    };
    assert!(decode_outbound(Encoding::Protobuf, &frame(10)).is_ok());
    for depth in [100, 1_000, 20_000] {
        assert!(decode_outbound(Encoding::Protobuf, &frame(depth)).is_err());
    }
}

#[test]
fn protobuf_with_a_lying_length_is_refused() {
    for length in [&[5u8][..], &[0xff, 0xff, 0xff, 0xff, 0x07], &[0xff; 9], &[0xff; 11]] {
        for field in [1u8, 4, 11, 14, 16, 43] {
            // As a varint: fields from 16 on have a tag of two bytes.
            let tag = u16::from(field) << 3 | 2;
            let mut frame =
                if tag < 0x80 { vec![tag as u8] } else { vec![(tag & 0x7f) as u8 | 0x80, (tag >> 7) as u8] };
            frame.extend_from_slice(length);
            frame.extend_from_slice(b"abcd");
            let error = decode_inbound(Encoding::Protobuf, &frame).unwrap_err();
            assert!(matches!(error, DecodeError::Protobuf(_)), "{error}");
        }
    }
}

#[test]
fn protobuf_text_that_is_not_utf8_is_refused() {
    assert!(decode_inbound(Encoding::Protobuf, &[0x0a, 2, 0xc3, 0x28]).is_err());
}

#[test]
fn a_frame_of_the_other_encoding_is_refused() {
    assert!(decode_inbound(Encoding::Protobuf, br#"{"id":"1","ping":{}}"#).is_err());
    assert!(decode_inbound(Encoding::Json, &[0x0a, 1, b'1', 0x7a, 0]).is_err());
}

#[test]
fn json_that_is_not_one_envelope_is_refused() {
    for text in [
        "",
        " ",
        "null",
        "[]",
        "\"x\"",
        "1",
        "{",
        "{\"id\":\"1\"",
        "{\"id\":\"1\"} x",
        "{\"id\":\"1\"}{\"id\":\"2\"}",
        "{\"id\":1}",
        "{\"id\":\"\\ud800\"}",
        "{\"id\":\"1\",\"id\":\"2\"}",
        "{\"ping\":{},\"publish\":{}}",
        "{\"ping\":[]}",
        "{\"time\":-1}",
        "{\"time\":\"18446744073709551616\"}",
        "{\"time\":1.5}",
        "{\"publish\":[\"e1\",\"/s\",\"1.0\",\"t\"]}",
        "{\"publish\":{\"text_data\":\"a\",\"binary_data\":\"YQ==\"}}",
        "{\"publish\":{\"binary_data\":\"not base64!\"}}",
        "{\"publish\":{\"attributes\":{\"a\":{\"ce_string\":\"x\",\"ce_integer\":1}}}}",
        "{\"publish\":{\"attributes\":{\"a\":\"x\"}}}",
    ] {
        assert!(matches!(json(text), Err(DecodeError::Json { .. })), "{text}");
    }
    assert!(decode_inbound(Encoding::Json, b"{\"id\":\"\xff\"}").is_err());
}

#[test]
fn errors_do_not_repeat_the_frame() {
    let long = "ключ".repeat(50_000);
    let error = json(&format!("{{\"time\":\"1\",\"publish\":\"{long}\"}}")).unwrap_err();
    assert!(error.to_string().len() < 400, "{} bytes", error.to_string().len());
}
