//! Time-bounded fuzzing of the WebSocket frame reader.
//!
//! `FUZZ_SECONDS` (default 2) bounds each test; `FUZZ_SEED` starts from another seed. A failure prints the
//! seed of its case: `FUZZ_SEED=<it>` runs that case first.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::io::{self, Cursor, Read, Write};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use streamgate::transport::ws::{DataKinds, Event, FrameReader, ReadError};
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message, WebSocket};

const LIMIT: u32 = 700;
/// Limit and the largest control payload: the most that a reader may hold.
const MOST_HELD: usize = LIMIT as usize + 125;

/// Runs cases with consecutive seeds until the time is up.
fn fuzz(name: &str, mut case: impl FnMut(&mut StdRng)) {
    struct PrintSeed(u64);
    impl Drop for PrintSeed {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("reproduce with FUZZ_SEED={}", self.0);
            }
        }
    }
    let number = |name| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let first = number("FUZZ_SEED").unwrap_or(0x5eed_0001);
    let end = Instant::now() + Duration::from_secs(number("FUZZ_SECONDS").unwrap_or(2));
    let mut seed = PrintSeed(first);
    while Instant::now() < end {
        case(&mut StdRng::seed_from_u64(seed.0));
        seed.0 = seed.0.wrapping_add(1);
    }
    println!("{name}: {} cases from seed {first}", seed.0.wrapping_sub(first));
}

/// An event in a form that can be compared with what tungstenite reports.
#[derive(Debug, Clone, PartialEq)]
enum Seen {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

impl From<Event<'_>> for Seen {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Text(text) => Self::Text(text.into_owned()),
            Event::Binary(bytes) => Self::Binary(bytes.into_owned()),
            Event::Ping(bytes) => Self::Ping(bytes.into_owned()),
            Event::Pong(bytes) => Self::Pong(bytes.into_owned()),
            Event::Close(frame) => Self::Close(frame.map(|frame| (frame.code, frame.reason.into_owned()))),
        }
    }
}

#[derive(Debug, Default, PartialEq)]
struct Outcome {
    seen: Vec<Seen>,
    error: Option<ReadError>,
    mid_message: bool,
}

/// Reads a stream in pieces whose sizes `next_size` gives; checks the bound on memory after each.
fn read(stream: &[u8], mut next_size: impl FnMut() -> usize) -> Outcome {
    let mut reader = FrameReader::new(LIMIT, DataKinds::Both);
    let (mut outcome, mut at) = (Outcome::default(), 0);
    while at < stream.len() {
        let end = (at + next_size()).min(stream.len());
        let mut scratch = stream[at..end].to_vec();
        for event in reader.read(&mut scratch) {
            assert!(outcome.error.is_none(), "event after an error");
            assert!(!matches!(outcome.seen.last(), Some(Seen::Close(_))), "event after a close");
            match event {
                Ok(event) => outcome.seen.push(event.into()),
                Err(error) => outcome.error = Some(error),
            }
        }
        at = end;
        assert!(reader.held_bytes() <= MOST_HELD.min(2 * at), "holds {} of {at}", reader.held_bytes());
        assert!(reader.held_bytes() == 0 || reader.is_mid_message(), "idle reader holds heap");
    }
    outcome.mid_message = reader.is_mid_message();
    outcome
}

fn assert_independent_of_splits(stream: &[u8], rng: &mut StdRng) -> Outcome {
    let whole = read(stream, || usize::MAX / 2);
    assert_eq!(read(stream, || 1), whole, "byte by byte: {stream:02x?}");
    for most in [4, 20, 300] {
        assert_eq!(read(stream, || rng.random_range(1..=most)), whole, "pieces up to {most}: {stream:02x?}");
    }
    whole
}

/// A client frame; now and then with a head that breaks a rule.
fn push_frame(out: &mut Vec<u8>, first: u8, payload: &[u8], rng: &mut StdRng) {
    let mask: [u8; 4] = rng.random();
    let len = payload.len();
    out.push(first);
    match rng.random_range(0..200) {
        0 => out.extend_from_slice(&[&[0xff][..], &rng.random::<u64>().to_be_bytes()].concat()),
        1 => out.extend_from_slice(&[&[0xfe][..], &rng.random::<u16>().to_be_bytes()].concat()),
        _ if len < 126 => out.push(0x80 | len as u8),
        _ => out.extend_from_slice(&[&[0xfe][..], &(len as u16).to_be_bytes()].concat()),
    }
    out.extend_from_slice(&mask);
    out.extend(payload.iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]));
}

fn random_len(rng: &mut StdRng) -> usize {
    let limit = LIMIT as usize;
    let edges = [0, 1, 2, 124, 125, 126, 127, limit - 1, limit, limit + 1];
    if rng.random_bool(0.3) { edges[rng.random_range(0..edges.len())] } else { rng.random_range(0..60) }
}

fn random_text(rng: &mut StdRng) -> String {
    const ALPHABET: [char; 8] =
        ['a', '\n', '\u{7f}', '\u{e9}', '\u{7ff}', '\u{20ac}', '\u{fffd}', '\u{10ffff}'];
    let len = random_len(rng);
    let mut text = String::new();
    loop {
        let next = ALPHABET[rng.random_range(0..ALPHABET.len())];
        if text.len() + next.len_utf8() > len {
            return text;
        }
        text.push(next);
    }
}

fn random_bytes(rng: &mut StdRng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    rng.fill(&mut bytes[..]);
    bytes
}

fn push_control(out: &mut Vec<u8>, rng: &mut StdRng) {
    let opcode = [0x89, 0x8a, 0x89, 0x8a, 0x89, 0x8a, 0x88][rng.random_range(0..7)];
    let payload = if opcode == 0x88 {
        let code = [1000, 1001, 1005, 3512, 4999, 999][rng.random_range(0..6)] as u16;
        [&code.to_be_bytes()[..], random_text(rng).as_bytes()].concat()
    } else {
        let len = random_len(rng).min(125);
        random_bytes(rng, len)
    };
    push_frame(out, opcode, &payload[..payload.len().min(125)], rng);
}

/// Mostly well-formed: messages cut into fragments anywhere, control frames between them.
fn random_stream(rng: &mut StdRng) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..rng.random_range(1..6) {
        let (opcode, payload) = if rng.random_bool(0.6) {
            (1, random_text(rng).into_bytes())
        } else {
            let len = random_len(rng);
            (2, random_bytes(rng, len))
        };
        let (mut at, mut first) = (0, opcode);
        loop {
            let end = if rng.random_bool(0.5) { payload.len() } else { rng.random_range(at..=payload.len()) };
            let last = end == payload.len() && rng.random_bool(0.8);
            push_frame(&mut out, if last { 0x80 | first } else { first }, &payload[at..end], rng);
            if last {
                break;
            }
            (at, first) = (end, 0);
            if rng.random_bool(0.3) {
                push_control(&mut out, rng);
            }
        }
    }
    out
}

fn mutate(stream: &mut Vec<u8>, rng: &mut StdRng) {
    for _ in 0..rng.random_range(0..3) {
        if stream.is_empty() {
            return;
        }
        let at = rng.random_range(0..stream.len());
        match rng.random_range(0..5) {
            0 => stream[at] ^= 1 << rng.random_range(0..8),
            1 => stream[at] = rng.random(),
            2 => stream.truncate(at),
            3 => drop(stream.drain(at..(at + rng.random_range(1..9)).min(stream.len()))),
            _ => {
                let len = rng.random_range(1..9);
                let inserted = random_bytes(rng, len);
                drop(stream.splice(at..at, inserted));
            }
        }
    }
}

/// A socket whose peer has sent `input` and gone.
struct Recorded {
    input: Cursor<Vec<u8>>,
    written: Vec<u8>,
}

impl Recorded {
    fn new(input: Vec<u8>) -> Self {
        Self { input: Cursor::new(input), written: Vec::new() }
    }
}

impl Read for Recorded {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.input.read(buf)
    }
}

impl Write for Recorded {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.written.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What tungstenite as the server makes of a stream; `true`: it found a violation.
fn oracle(stream: &[u8]) -> (Vec<Seen>, bool) {
    let limit = Some(LIMIT as usize);
    let config = WebSocketConfig::default().max_message_size(limit).max_frame_size(limit);
    let mut socket = WebSocket::from_raw_socket(Recorded::new(stream.to_vec()), Role::Server, Some(config));
    let mut seen = Vec::new();
    loop {
        seen.push(match socket.read() {
            Ok(Message::Text(text)) => Seen::Text(text.to_string()),
            Ok(Message::Binary(bytes)) => Seen::Binary(bytes.to_vec()),
            Ok(Message::Ping(bytes)) => Seen::Ping(bytes.to_vec()),
            Ok(Message::Pong(bytes)) => Seen::Pong(bytes.to_vec()),
            Ok(Message::Close(frame)) => {
                seen.push(Seen::Close(frame.map(|frame| (frame.code.into(), frame.reason.to_string()))));
                return (seen, false);
            }
            Ok(Message::Frame(_)) => unreachable!("never reported by read"),
            Err(Error::Protocol(
                tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
            )) => return (seen, false),
            Err(Error::Protocol(_) | Error::Capacity(_) | Error::Utf8(_)) => return (seen, true),
            Err(_) => return (seen, false),
        });
    }
}

#[test]
fn reading_mutated_streams_depends_on_the_bytes_alone() {
    fuzz("mutated streams", |rng| {
        let mut stream = random_stream(rng);
        mutate(&mut stream, rng);
        assert_independent_of_splits(&stream, rng);
    });
}

#[test]
fn reading_random_bytes_depends_on_the_bytes_alone() {
    fuzz("random bytes", |rng| {
        let len = rng.random_range(1..200);
        let mut stream = random_bytes(rng, len);
        // Let half of them pass the first byte's rules.
        stream[0] = if rng.random_bool(0.5) { 0x81 } else { stream[0] };
        assert_independent_of_splits(&stream, rng);
    });
}

#[test]
fn nothing_is_accepted_that_tungstenite_refuses_or_reads_differently() {
    fuzz("against tungstenite", |rng| {
        let mut stream = random_stream(rng);
        mutate(&mut stream, rng);
        let mut ours = read(&stream, || rng.random_range(1..200));
        let (mut theirs, violation) = oracle(&stream);
        // IANA registered 1014 ("bad gateway") later than tungstenite's table was written: there it is a violation.
        if let Some(Seen::Close(Some((1014, _)))) = ours.seen.last() {
            ours.seen.pop();
            theirs.pop();
        }
        if ours.error.is_some() {
            // It tolerates more (and turns a bad close code into a close), so it may have read further.
            theirs.truncate(ours.seen.len());
        } else {
            assert!(!violation, "only tungstenite found a violation in {stream:02x?}");
        }
        assert_eq!(ours.seen, theirs, "{stream:02x?}");
    });
}

#[test]
fn messages_that_tungstenite_encodes_are_read_back() {
    fuzz("tungstenite's encoder", |rng| {
        let mut socket = WebSocket::from_raw_socket(Recorded::new(Vec::new()), Role::Client, None);
        let mut sent = Vec::new();
        for _ in 0..rng.random_range(1..5) {
            if rng.random_bool(0.3) {
                let len = random_len(rng).min(125);
                let payload = random_bytes(rng, len);
                socket.send(Message::Ping(payload.clone().into())).unwrap();
                sent.push(Seen::Ping(payload));
            }
            let text = random_text(rng);
            if text.len() > LIMIT as usize {
                continue;
            }
            if rng.random_bool(0.5) {
                socket.send(Message::text(text.clone())).unwrap();
            } else {
                let (a, b) = text.as_bytes().split_at(rng.random_range(0..=text.len()));
                let (a, b) = (Bytes::copy_from_slice(a), Bytes::copy_from_slice(b));
                socket.send(Message::Frame(Frame::message(a, OpCode::Data(Data::Text), false))).unwrap();
                socket.send(Message::Frame(Frame::message(b, OpCode::Data(Data::Continue), true))).unwrap();
            }
            sent.push(Seen::Text(text));
        }
        socket.close(None).unwrap();
        sent.push(Seen::Close(None));
        let stream = std::mem::take(&mut socket.get_mut().written);
        let outcome = assert_independent_of_splits(&stream, rng);
        assert_eq!(outcome, Outcome { seen: sent, error: None, mid_message: false });
    });
}
