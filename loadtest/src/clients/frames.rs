//! WebSocket frames (RFC 6455) of a client: sans-IO, without extensions.
//!
//! The mask of what is sent is zero: legal to read for every server, and it costs this side nothing.

/// Longest frame that is taken, in bytes: a page of history is one.
const GREATEST: usize = 64 * 1024 * 1024;
/// Longest head of a frame from a server: two bytes and a length of eight.
const LONGEST_HEAD: usize = 10;

/// A frame from the server.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A whole message.
    Data(&'a [u8]),
    /// To be answered by [`pong`] with the same payload.
    Ping(&'a [u8]),
    /// Nothing to do.
    Pong,
    /// The end: code (1005 if there is none) and reason.
    Close(u16, String),
}

/// What a server must not send to a client that speaks as this one does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a WebSocket frame that this client does not take (first bytes {head:02x?}, length {length})")]
pub struct BadFrame {
    head: [u8; 2],
    length: usize,
}

/// Reads the first frame of `input`: the frame and its length; `None` if it is not all there.
///
/// # Errors
/// [`BadFrame`]: masked, fragmented (no server that is measured here does so), of an unknown kind, or too long.
pub fn read(input: &[u8]) -> Result<Option<(Frame<'_>, usize)>, BadFrame> {
    let &[first, second, ..] = input else { return Ok(None) };
    let short = usize::from(second & 0x7f);
    let (start, length) = match short {
        126 if input.len() < 4 => return Ok(None),
        126 => (4, usize::from(u16::from_be_bytes([input[2], input[3]]))),
        127 => match input.get(2..LONGEST_HEAD).and_then(|bytes| bytes.try_into().ok()) {
            None => return Ok(None),
            Some(bytes) => (LONGEST_HEAD, usize::try_from(u64::from_be_bytes(bytes)).unwrap_or(usize::MAX)),
        },
        _ => (2, short),
    };
    let bad = BadFrame { head: [first, second], length };
    // Final, no reserved bits, not masked.
    if first & 0xf0 != 0x80 || second & 0x80 != 0 || length > GREATEST {
        return Err(bad);
    }
    let Some(payload) = input.get(start..start + length) else { return Ok(None) };
    let frame = match first & 0x0f {
        1 | 2 => Frame::Data(payload),
        8 => match payload {
            [high, low, reason @ ..] => {
                Frame::Close(u16::from_be_bytes([*high, *low]), String::from_utf8_lossy(reason).into_owned())
            }
            _ => Frame::Close(1005, String::new()),
        },
        9 => Frame::Ping(payload),
        10 => Frame::Pong,
        _ => return Err(bad),
    };
    Ok(Some((frame, start + length)))
}

/// Appends a data frame: binary or text.
pub fn data(binary: bool, payload: &[u8], out: &mut Vec<u8>) {
    write(if binary { 0x82 } else { 0x81 }, payload, out);
}

/// Appends the answer to a ping.
pub fn pong(payload: &[u8], out: &mut Vec<u8>) {
    write(0x8a, payload, out);
}

/// Appends a close frame with code 1000.
pub fn close(out: &mut Vec<u8>) {
    write(0x88, &1000_u16.to_be_bytes(), out);
}

fn write(first: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(first);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ 0..=125), _) => out.push(0x80 | length),
        (_, Ok(length)) => {
            out.push(0x80 | 126);
            out.extend(length.to_be_bytes());
        }
        _ => {
            out.push(0x80 | 127);
            out.extend((payload.len() as u64).to_be_bytes());
        }
    }
    out.extend([0; 4]);
    out.extend(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut masked = Vec::new();
        write(first, payload, &mut masked);
        let head = masked.len() - payload.len();
        masked[1] &= 0x7f;
        masked.drain(head - 4..head);
        masked
    }

    #[test]
    fn frames_of_every_length_are_read_however_they_are_cut() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let payload = vec![7; length];
            let bytes = unmasked(0x82, &payload);
            for end in [0, 1, 2, 3, 9, bytes.len() - 1] {
                let cut = &bytes[..end.min(bytes.len() - 1)];
                assert_eq!(read(cut), Ok(None), "{length} cut at {end}");
            }
            assert_eq!(read(&bytes), Ok(Some((Frame::Data(&payload), bytes.len()))));
        }
    }

    #[test]
    fn control_frames_are_told_apart() {
        assert_eq!(read(&unmasked(0x89, b"hi")), Ok(Some((Frame::Ping(b"hi"), 4))));
        assert_eq!(read(&unmasked(0x8a, b"")), Ok(Some((Frame::Pong, 2))));
        assert_eq!(read(&unmasked(0x88, b"\x0d\xb8slow")), Ok(Some((Frame::Close(3512, "slow".into()), 8))));
        assert_eq!(read(&unmasked(0x88, b"")), Ok(Some((Frame::Close(1005, String::new()), 2))));
    }

    #[test]
    fn fragments_masks_and_reserved_bits_are_refused() {
        for bytes in [[0x01, 0], [0x81, 0x80], [0xc1, 0], [0x83, 0]] {
            read(&bytes).unwrap_err();
        }
    }
}
