//! The frame format: parses a client's frame head, encodes the server's frames.
//!
//! ```text
//!  0               1               2               3
//! +-+-+-+-+-------+-+-------------+-------------------------------+
//! |F|R|R|R| opcode|M| length (7)  | length (16 if 126, 64 if 127) |
//! |I|S|S|S|  (4)  |A|             +-------------------------------+
//! |N|V|V|V|       |S|             | mask key (32, client only) .. |
//! | |1|2|3|       |K|             | payload ..                    |
//! +-+-+-+-+-------+-+-------------+-------------------------------+
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use fastwebsockets::{Frame, OpCode, Payload};

use super::close::ReadError;

/// Longest head of a client frame: 2 bytes, a 64-bit length, the mask key.
pub const MAX_CLIENT_HEAD: usize = 14;
/// Longest head of a server frame: 2 bytes and a 64-bit length (servers do not mask).
const MAX_SERVER_HEAD: usize = 10;
/// Longest payload of a control frame (RFC 6455 section 5.5).
pub const MAX_CONTROL_PAYLOAD: usize = 125;
/// Longest reason of a close frame: a control payload without the code.
pub const MAX_CLOSE_REASON: usize = MAX_CONTROL_PAYLOAD - 2;

/// Head of a client's frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientHead {
    /// Whether this frame ends its message.
    pub fin: bool,
    /// The opcode; one that RFC 6455 defines.
    pub opcode: OpCode,
    /// Payload length in bytes.
    pub len: u64,
    /// Mask key; starts at the payload's first byte.
    pub mask: [u8; 4],
}

impl ClientHead {
    /// Parses the head at the start of `bytes`: the head and its size, or `None` when bytes are missing.
    ///
    /// # Errors
    /// Every rule that the head alone can break, reported at the first byte that breaks it: reserved bits
    /// and opcodes, fragmented or overlong control frames, a missing mask, an illegal length.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, ReadError> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        let (fin, opcode) = parse_first(first)?;
        let Some(&second) = bytes.get(1) else { return Ok(None) };
        if second & 0x80 == 0 {
            return Err(ReadError::Unmasked);
        }
        let short = second & 0x7f;
        if is_control(opcode) && usize::from(short) > MAX_CONTROL_PAYLOAD {
            return Err(ReadError::ControlTooLong);
        }
        let Some((len, mask_at)) = parse_len(short, &bytes[2..])? else { return Ok(None) };
        let Some(mask) = bytes[2 + mask_at..].first_chunk::<4>() else { return Ok(None) };
        Ok(Some((Self { fin, opcode, len, mask: *mask }, 2 + mask_at + 4)))
    }
}

/// FIN and opcode from a frame's first byte.
fn parse_first(first: u8) -> Result<(bool, OpCode), ReadError> {
    if first & 0x70 != 0 {
        return Err(ReadError::ReservedBits { first });
    }
    let fin = first & 0x80 != 0;
    let opcode =
        OpCode::try_from(first & 0x0f).map_err(|_| ReadError::ReservedOpcode { got: first & 0x0f })?;
    if is_control(opcode) && !fin {
        return Err(ReadError::FragmentedControl);
    }
    Ok((fin, opcode))
}

/// The payload length and how many of the bytes after the second it takes.
fn parse_len(short: u8, bytes: &[u8]) -> Result<Option<(u64, usize)>, ReadError> {
    let (len, size, least) = match short {
        126 => match bytes.first_chunk::<2>() {
            Some(len) => (u64::from(u16::from_be_bytes(*len)), 2, 126),
            None => return Ok(None),
        },
        127 => match bytes.first_chunk::<8>() {
            Some(len) => (u64::from_be_bytes(*len), 8, 1 << 16),
            None => return Ok(None),
        },
        short => return Ok(Some((u64::from(short), 0))),
    };
    if len >> 63 != 0 {
        return Err(ReadError::LengthTopBit { got: len });
    }
    if len < least {
        return Err(ReadError::LengthNotMinimal { got: len });
    }
    Ok(Some((len, size)))
}

/// Whether an opcode is close, ping or pong.
#[must_use]
pub fn is_control(opcode: OpCode) -> bool {
    matches!(opcode, OpCode::Close | OpCode::Ping | OpCode::Pong)
}

/// Encodes one whole, final, unmasked server frame. The result is shared: encode once, queue it on every
/// connection that gets the same message (cloning it copies nothing).
///
/// The caller keeps to RFC 6455: text is UTF-8, control payloads have at most [`MAX_CONTROL_PAYLOAD`]
/// bytes.
#[must_use]
pub fn encode_frame(opcode: OpCode, payload: &[u8]) -> Bytes {
    debug_assert!(!is_control(opcode) || payload.len() <= MAX_CONTROL_PAYLOAD);
    let mut head = [0; MAX_SERVER_HEAD];
    let size = Frame::new(true, opcode, None, Payload::Borrowed(payload)).fmt_head(&mut head);
    let mut frame = BytesMut::with_capacity(size + payload.len());
    frame.put_slice(&head[..size]);
    frame.put_slice(payload);
    frame.freeze()
}

/// Encodes a close frame. A reason above [`MAX_CLOSE_REASON`] bytes is cut at a character boundary. `None`
/// makes the empty close frame, the answer to a close without a code.
#[must_use]
pub fn encode_close(code_and_reason: Option<(u16, &str)>) -> Bytes {
    let Some((code, reason)) = code_and_reason else { return encode_frame(OpCode::Close, &[]) };
    let mut end = reason.len().min(MAX_CLOSE_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let reason = &reason[..end];
    encode_frame(OpCode::Close, &[&code.to_be_bytes(), reason.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [u8; 4] = [9, 8, 7, 6];

    fn head(first: u8, second: u8, len: &[u8]) -> Vec<u8> {
        [&[first, second], len, &MASK].concat()
    }

    #[test]
    fn heads_of_all_three_length_forms_parse_and_wait_for_their_last_byte() {
        let cases = [
            (head(0x81, 0x80 | 125, &[]), 125),
            (head(0x81, 0x80 | 126, &126u16.to_be_bytes()), 126),
            (head(0x81, 0x80 | 126, &u16::MAX.to_be_bytes()), 65535),
            (head(0x81, 0x80 | 127, &65536u64.to_be_bytes()), 65536),
            (head(0x81, 0x80 | 127, &(u64::MAX >> 1).to_be_bytes()), u64::MAX >> 1),
        ];
        for (bytes, len) in cases {
            for cut in 0..bytes.len() {
                assert_eq!(ClientHead::parse(&bytes[..cut]), Ok(None), "{len} cut at {cut}");
            }
            let expected = ClientHead { fin: true, opcode: OpCode::Text, len, mask: MASK };
            assert_eq!(ClientHead::parse(&bytes), Ok(Some((expected, bytes.len()))));
        }
    }

    #[test]
    fn first_byte_rules_are_reported_at_the_first_byte() {
        for bit in [0x40, 0x20, 0x10] {
            assert_eq!(ClientHead::parse(&[0x81 | bit]), Err(ReadError::ReservedBits { first: 0x81 | bit }));
        }
        for got in (3..=7).chain(11..=15) {
            assert_eq!(ClientHead::parse(&[0x80 | got]), Err(ReadError::ReservedOpcode { got }));
            assert_eq!(ClientHead::parse(&[got]), Err(ReadError::ReservedOpcode { got }));
        }
        for opcode in [8, 9, 10] {
            assert_eq!(ClientHead::parse(&[opcode]), Err(ReadError::FragmentedControl));
        }
    }

    #[test]
    fn unmasked_and_long_control_frames_are_reported_at_the_second_byte() {
        assert_eq!(ClientHead::parse(&[0x81, 5]), Err(ReadError::Unmasked));
        for opcode in [0x88, 0x89, 0x8a] {
            assert_eq!(ClientHead::parse(&[opcode, 0x80 | 126]), Err(ReadError::ControlTooLong));
            assert_eq!(ClientHead::parse(&[opcode, 0x80 | 127]), Err(ReadError::ControlTooLong));
        }
    }

    #[test]
    fn illegal_lengths_are_refused() {
        let top = 1u64 << 63;
        let error = ClientHead::parse(&head(0x82, 0xff, &top.to_be_bytes()));
        assert_eq!(error, Err(ReadError::LengthTopBit { got: top }));
        let error = ClientHead::parse(&head(0x82, 0xff, &65535u64.to_be_bytes()));
        assert_eq!(error, Err(ReadError::LengthNotMinimal { got: 65535 }));
        let error = ClientHead::parse(&head(0x82, 0xfe, &125u16.to_be_bytes()));
        assert_eq!(error, Err(ReadError::LengthNotMinimal { got: 125 }));
    }

    #[test]
    fn server_frames_are_final_unmasked_and_minimal() {
        assert_eq!(&encode_frame(OpCode::Text, b"hi")[..], b"\x81\x02hi");
        assert_eq!(&encode_frame(OpCode::Binary, &[7; 126])[..5], b"\x82\x7e\x00\x7e\x07");
        assert_eq!(&encode_frame(OpCode::Binary, &[7; 65536])[..11], b"\x82\x7f\0\0\0\0\0\x01\0\0\x07");
    }

    #[test]
    fn close_reason_is_cut_at_a_character() {
        assert_eq!(&encode_close(None)[..], b"\x88\x00");
        assert_eq!(&encode_close(Some((1000, "bye")))[..], b"\x88\x05\x03\xe8bye");
        let long = "x".repeat(122) + "\u{fc}";
        let frame = encode_close(Some((1000, &long)));
        assert_eq!((frame.len(), frame[1], frame.last()), (2 + 2 + 122, 124, Some(&b'x')));
    }
}
