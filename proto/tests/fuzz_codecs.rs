//! Mutates valid frames for `FUZZ_SECONDS` (default 2) and feeds them to both decoders: nothing
//! panics, and what is read can be written and read again. `FUZZ_SEED` repeats a run.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

mod schema;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prost::Message as _;
use schema::{Choices, generate, pool};
use streamgate_proto::v1::{InboundMessage, OutboundMessage, inbound_message::Envelope};
use streamgate_proto::{
    DecodeError, Encoding, cloudevent, decode_inbound, decode_outbound, downgrade_to_v1, encode_inbound,
    encode_outbound,
};

/// Marsaglia's xorshift64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// Pieces that mean something to one of the parsers.
const TOKENS: [&[u8]; 16] = [
    b"null",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\u",
    b"\\ud800",
    b":",
    b",",
    b"-1",
    b"1e999",
    b"\xff\xff\xff\xff\x0f",
    b"\x0a\x7f",
    b"\x00",
    b"\xc3\x28",
];

fn mutate(frame: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(frame.len() + 1);
        match random.below(7) {
            0 if at < frame.len() => frame[at] ^= 1 << random.below(8),
            1 if at < frame.len() => frame[at] = random.next() as u8,
            2 => frame.truncate(at),
            3 => frame.insert(at, random.next() as u8),
            4 => {
                let token = TOKENS[random.below(TOKENS.len())];
                frame.splice(at..at, token.iter().copied());
            }
            5 => {
                let end = at + random.below(frame.len() - at + 1);
                let piece: Vec<u8> = frame.drain(at..end).collect();
                if random.below(2) == 0 {
                    let to = random.below(frame.len() + 1);
                    frame.splice(to..to, piece.iter().chain(&piece).copied());
                }
            }
            _ => {
                let from = random.below(other.len());
                frame.truncate(at);
                frame.extend_from_slice(&other[from..]);
            }
        }
    }
    frame.truncate(64 * 1024);
}

/// Valid frames of every kind, each full and partly filled, for one encoding.
fn seeds(encoding: Encoding, random: &mut Random) -> Vec<Vec<u8>> {
    let pool = pool();
    let inbound = pool.get_message_by_name("messageloop.v1.InboundMessage").unwrap();
    let outbound = pool.get_message_by_name("messageloop.v1.OutboundMessage").unwrap();
    let mut frames = Vec::new();
    for member in 0..24 {
        let entropy: Vec<u8> = (0..200).map(|_| random.next() as u8).collect();
        for mut choices in [Choices::Full(member), Choices::Bytes(&entropy)] {
            let bytes = generate(&inbound, &mut choices).encode_to_vec();
            let message = InboundMessage::decode(bytes.as_slice()).unwrap();
            frames.push(encode_inbound(encoding, &message).unwrap().to_vec());
        }
        for mut choices in [Choices::Full(member), Choices::Bytes(&entropy)] {
            let bytes = generate(&outbound, &mut choices).encode_to_vec();
            let message = OutboundMessage::decode(bytes.as_slice()).unwrap();
            frames.push(encode_outbound(encoding, &message).unwrap().to_vec());
        }
    }
    frames
}

/// Protobuf allows deeper `Struct`s than JSON input does here; that one refusal is fair.
fn readable<T>(result: Result<T, DecodeError>) -> Option<T> {
    match result {
        Ok(message) => Some(message),
        Err(DecodeError::TooDeep { .. }) => None,
        Err(error) => panic!("cannot read what was written: {error}"),
    }
}

/// True if the frame was an envelope. Compared by bytes: a `Struct` may hold NaN.
fn feed(encoding: Encoding, frame: &[u8]) -> bool {
    let inbound = decode_inbound(encoding, frame);
    if let Ok(message) = &inbound {
        if let Some(Envelope::Publish(event) | Envelope::RpcRequest(event)) = &message.envelope {
            let _ = cloudevent::validate(event);
        }
        let bytes = encode_inbound(Encoding::Protobuf, message).unwrap();
        let again = readable(decode_inbound(Encoding::Protobuf, &bytes)).unwrap();
        assert_eq!(again.encode_to_vec(), bytes);
        if let Ok(text) = encode_inbound(Encoding::Json, message) {
            if let Some(again) = readable(decode_inbound(Encoding::Json, &text)) {
                assert_eq!(encode_inbound(Encoding::Json, &again).unwrap(), text);
            }
        } else {
            assert_eq!(encoding, Encoding::Protobuf, "JSON cannot write what it read");
        }
    }
    let outbound = decode_outbound(encoding, frame);
    if let Ok(message) = &outbound {
        let bytes = encode_outbound(Encoding::Protobuf, message).unwrap();
        let again = readable(decode_outbound(Encoding::Protobuf, &bytes)).unwrap();
        assert_eq!(again.encode_to_vec(), bytes);
        let mut v1 = message.clone();
        let _ = downgrade_to_v1(&mut v1);
        if let Ok(text) = encode_outbound(Encoding::Json, message)
            && let Some(again) = readable(decode_outbound(Encoding::Json, &text))
        {
            assert_eq!(encode_outbound(Encoding::Json, &again).unwrap(), text);
        }
    }
    inbound.is_ok() || outbound.is_ok()
}

fn run(encoding: Encoding) {
    let variable = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = variable("FUZZ_SEED").unwrap_or_else(clock).max(1);
    println!("{encoding:?}: repeat with FUZZ_SEED={seed}");
    let mut random = Random(seed);
    let frames = seeds(encoding, &mut random);
    let end = Instant::now() + Duration::from_secs(variable("FUZZ_SECONDS").unwrap_or(2));
    let (mut fed, mut read) = (0u64, 0u64);
    while Instant::now() < end {
        for _ in 0..256 {
            let mut frame = frames[random.below(frames.len())].clone();
            let other = random.below(frames.len());
            mutate(&mut frame, &frames[other], &mut random);
            fed += 1;
            read += u64::from(feed(encoding, &frame));
        }
    }
    println!("{encoding:?}: {fed} frames, {read} of them were envelopes");
    assert!(read > 0 && read < fed, "mutation is too strong or too weak: {read} of {fed}");
}

#[test]
fn json_decoders_survive_mutated_frames() {
    run(Encoding::Json);
}

#[test]
fn protobuf_decoders_survive_mutated_frames() {
    run(Encoding::Protobuf);
}
