//! Bounded queue of outgoing frames, written many at a time with vectored writes.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

use super::frame::encode_close;

/// What a queued frame costs beside its bytes: its slot in the queue and, roughly, its allocation. Counted
/// against the limit so that a flood of tiny frames (a client that pings and never reads) cannot hold many
/// times the limit in memory.
pub const FRAME_OVERHEAD: usize = 64;

/// Most slices that are worth passing to one vectored write.
pub const MAX_SLICES: usize = 64;

/// Why a frame was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The client reads too slowly: the frame does not fit. Nothing was dropped; close with 3512.
    #[error("write queue full: {queued} bytes queued, frame of {frame}, limit {limit}")]
    Overflow {
        /// Bytes queued, without overhead.
        queued: usize,
        /// Bytes of the frame that did not fit.
        frame: usize,
        /// Limit in bytes, which includes [`FRAME_OVERHEAD`] for each frame.
        limit: usize,
    },
    /// The close frame is queued already; nothing may follow it.
    #[error("connection is closing")]
    Closing,
}

/// Write queue of one connection: whole encoded frames (see [`super::frame::encode_frame`]) in order.
///
/// The cycle: `push` until the wake-up's work is done, then `fill_slices`, one vectored write, `advance`
/// by what the socket took. Empty, it holds no heap memory.
#[derive(Debug)]
pub struct WriteQueue {
    /// The next frame to write, or the rest of it; empty if there is none. Kept here because most often it is the only one.
    first: Bytes,
    /// What follows it; empty without it.
    rest: VecDeque<Bytes>,
    /// Sum of their lengths.
    queued: usize,
    /// Bytes that sockets have taken so far.
    written: u64,
    limit: u32,
    /// Whether a part of `first` was written: then what is left of it must follow, or the stream is garbage.
    first_begun: bool,
    closing: bool,
}

impl WriteQueue {
    /// An empty queue. `limit` in bytes counts frames and their overhead.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        let (first, rest) = (Bytes::new(), VecDeque::new());
        Self { first, rest, queued: 0, written: 0, limit, first_begun: false, closing: false }
    }

    /// Queues a whole encoded frame.
    ///
    /// # Errors
    /// [`PushError::Overflow`] when it does not fit (an empty queue takes any frame, or a frame above the
    /// limit could never be sent); [`PushError::Closing`] after [`WriteQueue::close`]. The queue is
    /// unchanged then.
    pub fn push(&mut self, frame: Bytes) -> Result<(), PushError> {
        if self.closing {
            return Err(PushError::Closing);
        }
        if !self.takes(frame.len()) {
            let (queued, limit) = (self.queued, self.limit as usize);
            return Err(PushError::Overflow { queued, frame: frame.len(), limit });
        }
        self.append(frame);
        Ok(())
    }

    fn append(&mut self, frame: Bytes) {
        self.queued += frame.len();
        if self.first.is_empty() {
            self.first = frame;
        } else {
            self.rest.push_back(frame);
        }
    }

    /// Whether a frame of so many bytes fits.
    #[must_use]
    pub fn takes(&self, frame: usize) -> bool {
        let frames = usize::from(!self.is_empty()) + self.rest.len() + 1;
        self.queued + frame + FRAME_OVERHEAD * frames <= self.limit as usize || self.is_empty()
    }

    /// Queues the close frame (see [`encode_close`]), whatever the limit says; after it nothing is
    /// accepted. A second call does nothing: the first code stands.
    pub fn close(&mut self, code_and_reason: Option<(u16, &str)>) {
        if self.closing {
            return;
        }
        self.append(encode_close(code_and_reason));
        self.closing = true;
    }

    /// Drops every frame of which nothing was written yet, so that a close frame reaches a slow client
    /// without its backlog. Call it before [`WriteQueue::close`]; once closing, it does nothing.
    pub fn discard_unsent(&mut self) {
        if self.closing {
            return;
        }
        self.rest = VecDeque::new();
        if !self.first_begun {
            self.first = Bytes::new();
        }
        self.queued = self.first.len();
    }

    /// Bytes queued and not yet written, without overhead.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.queued
    }

    /// Bytes that the socket has taken so far.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.written
    }

    /// Bytes that may wait, overhead included.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit as usize
    }

    /// Whether nothing waits to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// Whether the close frame was queued; with [`WriteQueue::is_empty`], that it was written.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// The only frame, if there is just one: a plain write of it costs less than a vectored one.
    #[must_use]
    pub fn only(&self) -> Option<&[u8]> {
        self.rest.is_empty().then_some(&*self.first)
    }

    /// Points `slices` at the queue's first frames; returns how many were set. Pass those to one vectored
    /// write.
    pub fn fill_slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let frames = std::iter::once(&self.first).chain(&self.rest).filter(|frame| !frame.is_empty());
        let filled = slices.iter_mut().zip(frames);
        filled.map(|(slice, frame)| *slice = IoSlice::new(frame)).count()
    }

    /// Removes the first `written` bytes, which the socket has taken. `written` is at most what the slices
    /// held.
    pub fn advance(&mut self, mut written: usize) {
        debug_assert!(written <= self.queued);
        self.written += written as u64;
        while !self.first.is_empty() {
            if written < self.first.len() {
                self.first.advance(written);
                self.queued -= written;
                self.first_begun |= written > 0;
                return;
            }
            written -= self.first.len();
            self.queued -= self.first.len();
            self.first_begun = false;
            self.first = self.rest.pop_front().unwrap_or_default();
        }
        if self.rest.capacity() > 0 {
            self.rest = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(len: usize) -> Bytes {
        Bytes::from(vec![len as u8; len])
    }

    /// Writes as a socket would that takes at most `socket` bytes with `slices` slices a time.
    fn drain(queue: &mut WriteQueue, slices: usize, socket: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while !queue.is_empty() {
            let mut filled = [IoSlice::new(&[]); MAX_SLICES];
            let count = queue.fill_slices(&mut filled[..slices]);
            let offered: Vec<u8> = filled[..count].iter().flat_map(|slice| slice.to_vec()).collect();
            let taken = &offered[..offered.len().min(socket)];
            out.extend_from_slice(taken);
            let taken = taken.len();
            queue.advance(taken);
        }
        out
    }

    #[test]
    fn frames_come_out_whole_and_in_order_whatever_the_socket_takes() {
        let frames: Vec<Bytes> = (1..=100).map(frame).collect();
        for (slices, socket) in [(1, 1), (3, 7), (64, 64), (64, usize::MAX), (2, 1000)] {
            let mut queue = WriteQueue::new(1 << 20);
            frames.iter().for_each(|frame| queue.push(frame.clone()).unwrap());
            assert_eq!(queue.queued_bytes(), 5050);
            assert_eq!(drain(&mut queue, slices, socket), frames.concat());
            assert_eq!((queue.queued_bytes(), queue.rest.capacity()), (0, 0), "idle queue holds heap");
        }
    }

    #[test]
    fn overflow_is_reported_and_changes_nothing() {
        let mut queue = WriteQueue::new(1000);
        queue.push(frame(800)).unwrap();
        let overflow = PushError::Overflow { queued: 800, frame: 100, limit: 1000 };
        assert_eq!(queue.push(frame(100)), Err(overflow));
        assert_eq!(queue.queued_bytes(), 800);
        queue.push(frame(72)).unwrap();
        queue.advance(872);
        assert_eq!(queue.written_bytes(), 872);
        queue.push(frame(100)).unwrap();
    }

    #[test]
    fn tiny_frames_count_with_their_overhead() {
        let mut queue = WriteQueue::new(64 * 1024);
        let queued = (0..).take_while(|_| queue.push(frame(2)).is_ok()).count();
        assert_eq!(queued, 64 * 1024 / (2 + FRAME_OVERHEAD));
    }

    #[test]
    fn empty_queue_takes_a_frame_above_the_limit() {
        let mut queue = WriteQueue::new(10);
        queue.push(frame(100)).unwrap();
        assert!(matches!(queue.push(frame(1)), Err(PushError::Overflow { .. })));
    }

    #[test]
    fn close_passes_the_limit_and_nothing_follows_it() {
        let mut queue = WriteQueue::new(10);
        queue.push(frame(100)).unwrap();
        queue.close(Some((3512, "slow")));
        queue.close(Some((1000, "")));
        assert_eq!(queue.push(frame(1)), Err(PushError::Closing));
        queue.discard_unsent();
        let out = drain(&mut queue, 64, 64);
        assert_eq!(&out[100..], &encode_close(Some((3512, "slow")))[..]);
        assert!(queue.is_closing());
    }

    #[test]
    fn discard_keeps_the_rest_of_a_begun_frame() {
        let mut queue = WriteQueue::new(1 << 20);
        [frame(10), frame(20), frame(30)].into_iter().for_each(|frame| queue.push(frame).unwrap());
        queue.advance(14);
        queue.discard_unsent();
        assert_eq!(queue.queued_bytes(), 16);
        queue.close(None);
        assert_eq!(drain(&mut queue, 64, 5), [&[20; 16], &encode_close(None)[..]].concat());
    }

    #[test]
    fn discard_drops_all_when_frames_were_written_to_their_end() {
        let mut queue = WriteQueue::new(1 << 20);
        [frame(10), frame(20)].into_iter().for_each(|frame| queue.push(frame).unwrap());
        queue.advance(10);
        queue.discard_unsent();
        assert_eq!((queue.queued_bytes(), queue.rest.capacity()), (0, 0));
    }
}
