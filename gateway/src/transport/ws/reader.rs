//! Sans-IO reader of client frames.
//!
//! Bytes go in as slices of a scratch buffer that many connections share; events come out. A payload that
//! lies whole in the slice is unmasked in place and borrowed from it; only the bytes of an unfinished
//! frame or message are kept, so a connection that says nothing costs the struct alone (under 64 bytes)
//! and no heap.

use std::borrow::Cow;

use fastwebsockets::{OpCode, unmask};

use super::close::{CloseFrame, ReadError};
use super::frame::{ClientHead, MAX_CLIENT_HEAD, MAX_CONTROL_PAYLOAD, is_control};

/// Something a client said. Borrows from the slice it was read from whenever it lay whole in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'b> {
    /// A whole text message.
    Text(Cow<'b, str>),
    /// A whole binary message.
    Binary(Cow<'b, [u8]>),
    /// A ping, to be answered with a pong of the same payload.
    Ping(Cow<'b, [u8]>),
    /// A pong.
    Pong(Cow<'b, [u8]>),
    /// The client closes; nothing after it is read. `None`: it gave no code.
    Close(Option<CloseFrame<'b>>),
}

/// Which data messages a connection takes. Others are refused with 1003 at their head, before any is
/// buffered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DataKinds {
    /// Text and binary.
    #[default]
    Both,
    /// Text only.
    Text,
    /// Binary only.
    Binary,
}

/// Server-side frame reader of one connection.
///
/// Its events depend on the bytes alone, not on how they were split. After a close frame or an error it
/// ignores whatever follows.
#[derive(Debug)]
pub struct FrameReader {
    /// The unfinished message's bytes, unmasked; behind them, those of an unfinished control frame. Holds
    /// at most `limit` + 125 bytes, and only bytes that were received.
    held: Vec<u8>,
    /// Limit of an assembled message, in bytes.
    limit: u32,
    /// How many of the held message's bytes are known to be whole UTF-8 sequences (text only).
    checked: u32,
    phase: Phase,
    /// Kind of the message that was begun and is not yet finished.
    message: Option<DataKind>,
    accepts: DataKinds,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DataKind {
    Text,
    Binary,
}

#[derive(Debug)]
enum Phase {
    /// Waiting for a frame's head, of which these bytes have come.
    Head { bytes: [u8; MAX_CLIENT_HEAD], len: u8 },
    /// Inside a frame's payload.
    Payload(PartialFrame),
    /// After a close frame or an error.
    Done,
}

impl Phase {
    const BETWEEN_FRAMES: Self = Self::Head { bytes: [0; MAX_CLIENT_HEAD], len: 0 };
}

#[derive(Debug, Clone, Copy)]
struct PartialFrame {
    opcode: OpCode,
    fin: bool,
    /// Mask key, rotated so that it starts at the next byte to come.
    mask: [u8; 4],
    /// Payload bytes still to come.
    remaining: u32,
    /// Length of `held` when the frame began.
    held_before: u32,
}

impl FrameReader {
    /// A reader for a new connection. `limit` is the size of the largest message taken, in bytes.
    #[must_use]
    pub fn new(limit: u32, accepts: DataKinds) -> Self {
        let phase = Phase::BETWEEN_FRAMES;
        Self { held: Vec::new(), limit, checked: 0, phase, message: None, accepts }
    }

    /// Feeds the bytes just received (they may be unmasked in place) and iterates over what they complete.
    ///
    /// Drive the iterator to its end before the next call: bytes not yet looked at when it is dropped are
    /// lost.
    pub fn read<'r, 'b>(&'r mut self, input: &'b mut [u8]) -> Events<'r, 'b> {
        Events { reader: self, rest: input }
    }

    /// Heap memory held for unfinished frames and messages, in bytes; 0 when there are none.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held.capacity()
    }

    /// Whether a frame or fragmented message has begun and is not finished (a deadline may apply to it).
    #[must_use]
    pub fn is_mid_message(&self) -> bool {
        let mid_frame = match self.phase {
            Phase::Head { len, .. } => len > 0,
            Phase::Payload(_) => true,
            Phase::Done => return false,
        };
        mid_frame || self.message.is_some()
    }

    /// Whether a close frame or an error ended the stream.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    /// Takes bytes off `rest` up to the next event. `None`: all are taken.
    fn step<'b>(&mut self, rest: &mut &'b mut [u8]) -> Result<Option<Event<'b>>, ReadError> {
        loop {
            match &mut self.phase {
                Phase::Done => return Ok(None),
                Phase::Head { bytes, len } => match take_head(bytes, len, rest)? {
                    Some(head) => self.phase = Phase::Payload(self.admit(head)?),
                    None => return Ok(None),
                },
                Phase::Payload(frame) => {
                    let (chunk, ended) = frame.take(rest);
                    let frame = *frame;
                    if ended {
                        self.phase = Phase::BETWEEN_FRAMES;
                    }
                    let event = if is_control(frame.opcode) {
                        self.control(frame, chunk, ended)?
                    } else {
                        self.data(frame, chunk, ended)?
                    };
                    if event.is_some() || !ended {
                        return Ok(event);
                    }
                }
            }
        }
    }

    /// Checks a head against the message in progress and the limits.
    fn admit(&mut self, head: ClientHead) -> Result<PartialFrame, ReadError> {
        if !is_control(head.opcode) {
            self.begin_data(head.opcode)?;
            let got = head.len.saturating_add(self.held.len() as u64);
            if got > u64::from(self.limit) {
                return Err(ReadError::TooBig { got, limit: self.limit });
            }
        }
        // Both fit: control frames have at most 125 bytes, messages at most `limit`.
        let (remaining, held_before) = (head.len as u32, self.held.len() as u32);
        Ok(PartialFrame { opcode: head.opcode, fin: head.fin, mask: head.mask, remaining, held_before })
    }

    fn begin_data(&mut self, opcode: OpCode) -> Result<(), ReadError> {
        let kind = match (opcode, self.message) {
            (OpCode::Continuation, Some(_)) => return Ok(()),
            (OpCode::Continuation, None) => return Err(ReadError::UnexpectedContinuation),
            (_, Some(_)) => return Err(ReadError::ExpectedContinuation),
            (OpCode::Text, None) => DataKind::Text,
            (_, None) => DataKind::Binary,
        };
        match (self.accepts, kind) {
            (DataKinds::Text, DataKind::Binary) => return Err(ReadError::KindNotAccepted { text: false }),
            (DataKinds::Binary, DataKind::Text) => return Err(ReadError::KindNotAccepted { text: true }),
            _ => {}
        }
        self.message = Some(kind);
        Ok(())
    }

    /// Takes a part of a control frame's payload; the event when it is the last.
    fn control<'b>(
        &mut self,
        frame: PartialFrame,
        chunk: &'b [u8],
        ended: bool,
    ) -> Result<Option<Event<'b>>, ReadError> {
        let start = frame.held_before as usize;
        let payload = if ended && self.held.len() == start {
            Cow::Borrowed(chunk)
        } else {
            self.hold(chunk);
            if !ended {
                return Ok(None);
            }
            Cow::Owned(self.take_held_from(start))
        };
        Ok(Some(match frame.opcode {
            OpCode::Ping => Event::Ping(payload),
            OpCode::Pong => Event::Pong(payload),
            _ => Event::Close(CloseFrame::parse(payload)?),
        }))
    }

    /// Takes a part of a data frame's payload; the event when it is the last of its message.
    fn data<'b>(
        &mut self,
        frame: PartialFrame,
        chunk: &'b [u8],
        ended: bool,
    ) -> Result<Option<Event<'b>>, ReadError> {
        let last = ended && frame.fin;
        let text = self.message == Some(DataKind::Text);
        if last {
            self.message = None;
        }
        if last && self.held.is_empty() {
            return Ok(Some(if text {
                let text = std::str::from_utf8(chunk);
                Event::Text(text.map_err(|e| ReadError::Utf8 { offset: e.valid_up_to() })?.into())
            } else {
                Event::Binary(chunk.into())
            }));
        }
        self.hold(chunk);
        if text {
            self.check_text(last)?;
        }
        if !last {
            return Ok(None);
        }
        self.checked = 0;
        let message = std::mem::take(&mut self.held);
        Ok(Some(if text {
            let text = String::from_utf8(message);
            Event::Text(text.map_err(|e| ReadError::Utf8 { offset: e.utf8_error().valid_up_to() })?.into())
        } else {
            Event::Binary(message.into())
        }))
    }

    /// Fails at the first byte that can belong to no UTF-8 text, however the text was cut into frames and
    /// reads.
    fn check_text(&mut self, last: bool) -> Result<(), ReadError> {
        let checked = self.checked as usize;
        match std::str::from_utf8(&self.held[checked..]) {
            Ok(_) => self.checked = self.held.len() as u32,
            Err(e) if e.error_len().is_none() && !last => self.checked += e.valid_up_to() as u32,
            Err(e) => return Err(ReadError::Utf8 { offset: checked + e.valid_up_to() }),
        }
        Ok(())
    }

    /// Keeps bytes of an unfinished message or control frame. Capacity grows with what was received, at
    /// most twofold, and never past the limit.
    fn hold(&mut self, chunk: &[u8]) {
        let needed = self.held.len() + chunk.len();
        if needed > self.held.capacity() {
            let most = self.limit as usize + MAX_CONTROL_PAYLOAD;
            let capacity = (2 * self.held.capacity()).min(most).max(needed);
            self.held.reserve_exact(capacity - self.held.len());
        }
        self.held.extend_from_slice(chunk);
    }

    /// Splits off a control frame's payload from behind the unfinished message.
    fn take_held_from(&mut self, start: usize) -> Vec<u8> {
        if start == 0 {
            return std::mem::take(&mut self.held);
        }
        let payload = self.held[start..].to_vec();
        self.held.truncate(start);
        payload
    }
}

impl PartialFrame {
    /// Takes what `rest` has of the payload, unmasked, and says whether it is the end of it.
    fn take<'b>(&mut self, rest: &mut &'b mut [u8]) -> (&'b [u8], bool) {
        let size = rest.len().min(self.remaining as usize);
        let (chunk, after) = std::mem::take(rest).split_at_mut(size);
        *rest = after;
        unmask(chunk, self.mask);
        self.mask.rotate_left(size % 4);
        self.remaining -= size as u32;
        (chunk, self.remaining == 0)
    }
}

/// Takes a head's bytes off `rest`, keeping them in `held` while some are missing.
fn take_head(
    held: &mut [u8; MAX_CLIENT_HEAD],
    held_len: &mut u8,
    rest: &mut &mut [u8],
) -> Result<Option<ClientHead>, ReadError> {
    if *held_len == 0
        && let Some((head, size)) = ClientHead::parse(rest)?
    {
        *rest = &mut std::mem::take(rest)[size..];
        return Ok(Some(head));
    }
    while let [next, after @ ..] = std::mem::take(rest) {
        // In bounds: a head is complete (or refused) after MAX_CLIENT_HEAD bytes at the latest.
        held[usize::from(*held_len)] = *next;
        *held_len += 1;
        *rest = after;
        if let Some((head, _)) = ClientHead::parse(&held[..usize::from(*held_len)])? {
            return Ok(Some(head));
        }
    }
    Ok(None)
}

/// Iterator over the events in one slice of input; see [`FrameReader::read`]. Ends after a close frame or
/// an error.
#[derive(Debug)]
pub struct Events<'r, 'b> {
    reader: &'r mut FrameReader,
    rest: &'b mut [u8],
}

impl<'b> Iterator for Events<'_, 'b> {
    type Item = Result<Event<'b>, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.reader.step(&mut self.rest).transpose();
        if matches!(item, Some(Err(_) | Ok(Event::Close(_)))) {
            self.reader.phase = Phase::Done;
            self.reader.held = Vec::new();
        }
        item
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
