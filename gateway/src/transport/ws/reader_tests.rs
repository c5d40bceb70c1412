//! Tests of the frame reader, one for each rule.

use super::*;

const LIMIT: u32 = 1000;

/// A masked client frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x5a, 0x01, 0xff, 0x33];
    let mut out = vec![first];
    match payload.len() {
        len @ 0..126 => out.push(0x80 | len as u8),
        len @ 126..65536 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    out.extend(payload.iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]));
    out
}

fn owned(event: Event<'_>) -> Event<'static> {
    match event {
        Event::Text(text) => Event::Text(Cow::Owned(text.into_owned())),
        Event::Binary(bytes) => Event::Binary(Cow::Owned(bytes.into_owned())),
        Event::Ping(bytes) => Event::Ping(Cow::Owned(bytes.into_owned())),
        Event::Pong(bytes) => Event::Pong(Cow::Owned(bytes.into_owned())),
        Event::Close(close) => Event::Close(close.map(CloseFrame::into_owned)),
    }
}

type Outcome = Vec<Result<Event<'static>, ReadError>>;

fn read_split(reader: &mut FrameReader, stream: &[u8], size: usize) -> Outcome {
    let mut out = Vec::new();
    for piece in stream.chunks(size) {
        let mut scratch = piece.to_vec();
        out.extend(reader.read(&mut scratch).map(|event| event.map(owned)));
    }
    out
}

/// Reads a stream at every split size and requires the same outcome from all.
fn read_all(stream: &[u8]) -> Outcome {
    let whole = read_split(&mut FrameReader::new(LIMIT, DataKinds::Both), stream, stream.len());
    for size in 1..stream.len().min(200) {
        let split = read_split(&mut FrameReader::new(LIMIT, DataKinds::Both), stream, size);
        assert_eq!(split, whole, "split into pieces of {size}");
    }
    whole
}

fn text(s: &str) -> Result<Event<'static>, ReadError> {
    Ok(Event::Text(Cow::Owned(s.to_owned())))
}

fn assert_fails(stream: &[u8], error: ReadError, code: u16) {
    assert_eq!(error.close_code(), code);
    // What follows an error must be ignored, so append something valid.
    let stream = [stream, &frame(0x81, b"ignored")].concat();
    assert_eq!(read_all(&stream).last(), Some(&Err(error)));
}

#[test]
fn reader_is_small_and_idle_reader_holds_no_heap() {
    assert!(size_of::<FrameReader>() <= 64, "{}", size_of::<FrameReader>());
    let mut reader = FrameReader::new(LIMIT, DataKinds::Both);
    let stream = [frame(0x01, "caf\u{e9}".as_bytes()), frame(0x89, b"hi"), frame(0x80, b"!")].concat();
    assert_eq!(read_split(&mut reader, &stream, 3).len(), 2);
    assert_eq!((reader.held_bytes(), reader.is_mid_message()), (0, false));
}

#[test]
fn whole_messages_are_borrowed_from_the_scratch_buffer() {
    let mut scratch = [frame(0x81, b"one"), frame(0x82, &[2; 300]), frame(0x89, b"three")].concat();
    let mut reader = FrameReader::new(LIMIT, DataKinds::Both);
    let mut events = reader.read(&mut scratch);
    assert!(matches!(events.next(), Some(Ok(Event::Text(Cow::Borrowed("one"))))));
    assert!(matches!(events.next(), Some(Ok(Event::Binary(Cow::Borrowed(b)))) if b == [2; 300]));
    assert!(matches!(events.next(), Some(Ok(Event::Ping(Cow::Borrowed(b"three"))))));
    assert!(events.next().is_none());
    assert_eq!(reader.held_bytes(), 0);
}

#[test]
fn payload_is_borrowed_even_when_only_its_head_was_split() {
    let stream = frame(0x81, b"one");
    let (mut head, mut rest) = (stream[..4].to_vec(), stream[4..].to_vec());
    let mut reader = FrameReader::new(LIMIT, DataKinds::Both);
    assert!(reader.read(&mut head).next().is_none());
    assert!(reader.is_mid_message());
    assert!(matches!(reader.read(&mut rest).next(), Some(Ok(Event::Text(Cow::Borrowed("one"))))));
}

#[test]
fn empty_frames_are_messages() {
    let stream = [frame(0x81, b""), frame(0x82, b""), frame(0x89, b""), frame(0x8a, b"")].concat();
    let empty = Cow::Borrowed(&[][..]);
    let (binary, ping, pong) = (Event::Binary(empty.clone()), Event::Ping(empty.clone()), Event::Pong(empty));
    assert_eq!(read_all(&stream), [text(""), Ok(binary), Ok(ping), Ok(pong)]);
}

#[test]
fn fragments_join_around_control_frames() {
    let stream = [
        frame(0x01, b"fr"),
        frame(0x89, b"p1"),
        frame(0x00, b""),
        frame(0x00, b"ag"),
        frame(0x8a, &[7; 125]),
        frame(0x80, b"ment"),
        frame(0x82, b"next"),
    ]
    .concat();
    let ping = Event::Ping(Cow::Borrowed(b"p1"));
    let pong = Event::Pong(Cow::Borrowed(&[7; 125]));
    let next = Event::Binary(Cow::Borrowed(b"next"));
    assert_eq!(read_all(&stream), [Ok(ping), Ok(pong), text("fragment"), Ok(next)]);
}

#[test]
fn characters_may_be_split_between_fragments() {
    let bytes = "\u{e9}\u{20ac}\u{1f600}".as_bytes();
    let mut stream = frame(0x01, &bytes[..1]);
    bytes[1..].iter().for_each(|byte| stream.extend(frame(0x00, &[*byte])));
    stream.extend(frame(0x80, b""));
    assert_eq!(read_all(&stream), [text("\u{e9}\u{20ac}\u{1f600}")]);
}

#[test]
fn invalid_utf8_is_1007_in_one_frame_across_fragments_and_truncated() {
    assert_fails(&frame(0x81, b"ab\xff"), ReadError::Utf8 { offset: 2 }, 1007);
    assert_fails(&frame(0x81, b"ab\xe2\x82"), ReadError::Utf8 { offset: 2 }, 1007);
    assert_fails(&frame(0x81, b"\xed\xa0\x80"), ReadError::Utf8 { offset: 0 }, 1007);
    assert_fails(&frame(0x81, b"\xf4\x90\x80\x80"), ReadError::Utf8 { offset: 0 }, 1007);
    assert_fails(&frame(0x81, b"\xc0\xaf"), ReadError::Utf8 { offset: 0 }, 1007);
    let split = [frame(0x01, b"a\xe2"), frame(0x80, b"\x28\xa1")].concat();
    assert_fails(&split, ReadError::Utf8 { offset: 1 }, 1007);
    let truncated = [frame(0x01, b"a\xe2"), frame(0x00, b"\x82"), frame(0x80, b"")].concat();
    assert_fails(&truncated, ReadError::Utf8 { offset: 1 }, 1007);
}

#[test]
fn invalid_utf8_fails_before_the_frame_has_ended() {
    let stream = frame(0x01, b"caf\xc3\x28 and much more to come");
    let mut part = stream[..6 + 5].to_vec();
    let mut reader = FrameReader::new(LIMIT, DataKinds::Both);
    assert_eq!(reader.read(&mut part).next(), Some(Err(ReadError::Utf8 { offset: 3 })));
    assert_eq!((reader.held_bytes(), reader.is_done()), (0, true));
}

#[test]
fn binary_messages_may_hold_any_bytes() {
    let stream = [frame(0x02, b"\xff"), frame(0x80, b"\xfe")].concat();
    assert_eq!(read_all(&stream), [Ok(Event::Binary(Cow::Borrowed(b"\xff\xfe")))]);
}

#[test]
fn head_violations_are_1002() {
    assert_fails(b"\x81\x05hello", ReadError::Unmasked, 1002);
    assert_fails(&frame(0xc1, b""), ReadError::ReservedBits { first: 0xc1 }, 1002);
    assert_fails(&frame(0x83, b""), ReadError::ReservedOpcode { got: 3 }, 1002);
    assert_fails(&frame(0x8b, b""), ReadError::ReservedOpcode { got: 11 }, 1002);
    assert_fails(&frame(0x09, b""), ReadError::FragmentedControl, 1002);
    assert_fails(&frame(0x89, &[0; 126]), ReadError::ControlTooLong, 1002);
    assert_fails(b"\x82\xff\x80\0\0\0\0\0\0\0mask", ReadError::LengthTopBit { got: 1 << 63 }, 1002);
    assert_fails(b"\x82\xfe\0\x05mask.....", ReadError::LengthNotMinimal { got: 5 }, 1002);
}

#[test]
fn fragmentation_violations_are_1002() {
    assert_fails(&frame(0x80, b"x"), ReadError::UnexpectedContinuation, 1002);
    assert_fails(&frame(0x00, b"x"), ReadError::UnexpectedContinuation, 1002);
    for second in [0x81, 0x82, 0x01, 0x02] {
        let stream = [frame(0x01, b"x"), frame(second, b"y")].concat();
        assert_fails(&stream, ReadError::ExpectedContinuation, 1002);
    }
    let stream = [frame(0x01, b"x"), frame(0x80, b"y"), frame(0x80, b"z")].concat();
    assert_fails(&stream, ReadError::UnexpectedContinuation, 1002);
}

#[test]
fn limit_holds_for_the_assembled_message() {
    assert_eq!(read_all(&frame(0x82, &[1; 1000])), [Ok(Event::Binary(Cow::Borrowed(&[1; 1000])))]);
    assert_fails(&frame(0x82, &[1; 1001]), ReadError::TooBig { got: 1001, limit: LIMIT }, 1009);
    let fitting = [frame(0x02, &[1; 600]), frame(0x89, &[2; 125]), frame(0x80, &[1; 400])].concat();
    assert_eq!(read_all(&fitting).last(), Some(&Ok(Event::Binary(Cow::Borrowed(&[1; 1000])))));
    let over = [frame(0x02, &[1; 600]), frame(0x80, &[1; 401])].concat();
    assert_fails(&over, ReadError::TooBig { got: 1001, limit: LIMIT }, 1009);
}

#[test]
fn oversize_is_refused_from_the_head_and_nothing_is_reserved_for_it() {
    let mut head = b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xffmask".to_vec();
    let mut reader = FrameReader::new(u32::MAX, DataKinds::Both);
    let got = (1 << 63) - 1;
    assert_eq!(reader.read(&mut head).next(), Some(Err(ReadError::TooBig { got, limit: u32::MAX })));
    let mut head = b"\x82\xff\0\0\0\0\x7f\xff\xff\xffmask12345678".to_vec();
    let mut reader = FrameReader::new(u32::MAX, DataKinds::Both);
    assert!(reader.read(&mut head).next().is_none());
    assert_eq!(reader.held_bytes(), 8);
}

#[test]
fn held_memory_follows_received_bytes_and_stays_below_the_limit() {
    let mut reader = FrameReader::new(LIMIT, DataKinds::Both);
    let most = LIMIT as usize + MAX_CONTROL_PAYLOAD;
    let mut received = 0;
    let stream = [frame(0x02, &[1; 900]), frame(0x89, &[2; 125]), frame(0x00, &[3; 99])].concat();
    for byte in stream {
        received += 1;
        reader.read(&mut [byte]).for_each(|event| assert!(event.is_ok()));
        assert!(reader.held_bytes() <= most.min(2 * received), "{} at {received}", reader.held_bytes());
    }
    assert_eq!(reader.read(&mut frame(0x80, b"!")).count(), 1);
    assert_eq!(reader.held_bytes(), 0);
}

#[test]
fn refused_kinds_are_1003_before_their_payload() {
    let mut head = frame(0x02, b"payload")[..6].to_vec();
    let mut reader = FrameReader::new(LIMIT, DataKinds::Text);
    let error = ReadError::KindNotAccepted { text: false };
    assert_eq!(error.close_code(), 1003);
    assert_eq!(reader.read(&mut head).next(), Some(Err(error)));
    let mut reader = FrameReader::new(LIMIT, DataKinds::Binary);
    let error = ReadError::KindNotAccepted { text: true };
    assert_eq!(reader.read(&mut frame(0x81, b"x")).next(), Some(Err(error)));
    let mut reader = FrameReader::new(LIMIT, DataKinds::Binary);
    let mut stream = [frame(0x89, b""), frame(0x82, b"x")].concat();
    assert!(reader.read(&mut stream).all(|event| event.is_ok()));
}

#[test]
fn close_ends_the_stream() {
    let close = [&1001u16.to_be_bytes()[..], "ad\u{e9}u".as_bytes()].concat();
    let stream = [frame(0x01, b"half"), frame(0x88, &close), frame(0x80, b"ignored"), vec![0xff; 9]].concat();
    let event = Event::Close(Some(CloseFrame { code: 1001, reason: "ad\u{e9}u".into() }));
    assert_eq!(read_all(&stream), [Ok(event)]);
    let mut reader = FrameReader::new(LIMIT, DataKinds::Both);
    assert_eq!(read_split(&mut reader, &stream, 5).len(), 1);
    assert_eq!((reader.held_bytes(), reader.is_done(), reader.is_mid_message()), (0, true, false));
    assert_eq!(read_all(&frame(0x88, b"")), [Ok(Event::Close(None))]);
}

#[test]
fn bad_close_payloads_map_to_their_codes() {
    assert_fails(&frame(0x88, b"\x03"), ReadError::CloseWithoutCode, 1002);
    assert_fails(&frame(0x88, &1005u16.to_be_bytes()), ReadError::CloseCode { got: 1005 }, 1002);
    assert_fails(&frame(0x88, b"\x03\xe8\xff"), ReadError::CloseReason, 1007);
}
