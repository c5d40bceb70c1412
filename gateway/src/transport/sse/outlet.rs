//! The way from a shard to the body of a stream. Both are on the shard's thread.

use std::{
    cell::RefCell,
    collections::VecDeque,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use streamgate_proto::v1::{OutboundMessage, Position, outbound_message::Envelope};
use tokio::sync::oneshot;

use super::{
    frame::{Packed, notice, unpack},
    ids::Ids,
};
use crate::{
    channel::Target,
    error::{ClientError, CloseCode},
    transport::{Outlet, Overflow, Wire, cloudevents::Notice, cursor::Cursor},
};

/// What a piece of text costs beside its bytes, as in the write queue of WebSocket.
const PIECE_OVERHEAD: usize = 64;
/// How long a client waits before it comes back, in ms, where no drain says otherwise: one that was told to hurry then
/// must not do so for ever.
const RETRY_MS: u32 = 3_000;
const KEEP_ALIVE: Bytes = Bytes::from_static(b":\n\n");

/// Text that waits for the client.
#[derive(Default)]
pub(super) struct Queue {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    /// Bytes that were taken so far.
    taken: u64,
    /// Nothing follows.
    closed: bool,
    reader: Option<Waker>,
}

/// Both ends of a stream hold it; never borrowed while the shard is called.
pub(super) type Shared = Rc<RefCell<Queue>>;

impl Queue {
    fn fits(&self, bytes: usize, limit: usize) -> bool {
        self.pieces.is_empty() || self.bytes + bytes + PIECE_OVERHEAD * (self.pieces.len() + 1) <= limit
    }

    fn push(&mut self, piece: Bytes) {
        self.bytes += piece.len();
        self.pieces.push_back(piece);
    }

    /// The next piece; ready without one at the end.
    pub fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match self.pieces.pop_front() {
            Some(piece) => {
                self.bytes -= piece.len();
                self.taken += piece.len() as u64;
                Poll::Ready(Some(piece))
            }
            None if self.closed => Poll::Ready(None),
            None => {
                self.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// How the request of a stream ends.
#[derive(Debug)]
pub(super) enum Begin {
    /// The session is connected: the stream begins.
    Stream,
    /// It is refused.
    Refused(ClientError),
    /// The session ended before.
    Closed(CloseCode, String),
}

/// The shard's side.
pub(super) struct SseOutlet {
    queue: Shared,
    limit: usize,
    ids: Ids,
    /// Patterns of which the client's cursor did not tell everything.
    unsure: Vec<Target>,
    /// Until the stream has begun or is refused.
    begin: Option<oneshot::Sender<Begin>>,
}

impl SseOutlet {
    pub fn new(
        queue: Shared,
        limit: usize,
        targets: &[Target],
        cursor: &Cursor,
        begin: oneshot::Sender<Begin>,
    ) -> Result<Self, ClientError> {
        let patterns = targets.iter().filter(|target| matches!(target, Target::Pattern(_)));
        let unsure = if cursor.is_partial() { patterns.cloned().collect() } else { Vec::new() };
        Ok(Self { queue, limit, ids: Ids::new(targets, cursor)?, unsure, begin: Some(begin) })
    }

    fn answer(&mut self, begin: Begin) -> bool {
        // Who asked may be gone; the shard hears of that by itself.
        self.begin.take().map(|asked| asked.send(begin)).is_some()
    }

    /// Queues text behind the id of where the client stands with it.
    fn queue(&mut self, id: Option<String>, text: Bytes) -> Result<(), Overflow> {
        let id = id.map(|id| Bytes::from(format!("id: {id}\n")));
        let mut queue = self.queue.borrow_mut();
        if queue.closed || !queue.fits(text.len() + id.as_ref().map_or(0, Bytes::len), self.limit) {
            return Err(Overflow);
        }
        id.into_iter().for_each(|id| queue.push(id));
        queue.push(text);
        Ok(())
    }

    fn envelope(&mut self, frame: &OutboundMessage) -> Result<(), Overflow> {
        match &frame.envelope {
            Some(Envelope::Connected(connected)) => {
                let acked: Vec<_> = connected.subscriptions.iter().map(Cursor::of_ack).collect();
                acked.iter().for_each(|cursor| self.ids.take(cursor));
                return self.begun(frame);
            }
            Some(Envelope::Error(error)) if self.begin.is_some() => {
                self.answer(Begin::Refused(ClientError::from_wire(error.clone())));
                return Ok(());
            }
            Some(Envelope::SubscribeAck(ack)) => {
                let acked: Vec<_> = ack.subscriptions.iter().map(Cursor::of_ack).collect();
                acked.iter().for_each(|cursor| self.ids.take(cursor));
            }
            Some(Envelope::Gap(gap)) => self.see(&gap.channel, gap.position.as_ref()),
            Some(Envelope::RecoverComplete(end)) => self.see(&end.channel, end.position.as_ref()),
            _ => {}
        }
        let Some(said) = Notice::of(frame) else { return Ok(()) };
        let mut text = Vec::new();
        if let Some(Envelope::Reconnect(reconnect)) = &frame.envelope {
            text = format!("retry: {}\n", reconnect.after_ms).into_bytes();
        }
        text.extend(rendered(&said, frame.time));
        self.queue(self.ids.text(), text.into())
    }

    fn see(&mut self, name: &str, at: Option<&Position>) {
        if let Some(at) = at {
            self.ids.see_at(name, at);
        }
    }

    /// The head of the stream: an id without data, which is no event, but tells a client that loses its connection before the
    /// first event where to go on.
    fn begun(&mut self, frame: &OutboundMessage) -> Result<(), Overflow> {
        self.answer(Begin::Stream);
        self.queue(self.ids.text(), format!("retry: {RETRY_MS}\n\n").into())?;
        for pattern in std::mem::take(&mut self.unsure) {
            let gap = Notice::gap(pattern.as_str(), None, "TRUNCATED");
            self.queue(None, rendered(&gap, frame.time).into())?;
        }
        Ok(())
    }
}

/// The time of an answer is always one that JSON can carry.
fn rendered(said: &Notice, time_ms: u64) -> Vec<u8> {
    notice(said, time_ms).unwrap_or_default()
}

impl Outlet for SseOutlet {
    fn wire(&self) -> Wire {
        Wire::Sse
    }

    fn push(&mut self, frame: Bytes) -> Result<(), Overflow> {
        match unpack(frame) {
            Some(Packed::Publication { name, place, text }) => {
                let placed = place.is_some();
                if let Some(place) = place {
                    self.ids.see(&name, place);
                }
                let id = if placed { self.ids.text() } else { None };
                self.queue(id, text)
            }
            Some(Packed::Envelope(frame)) => self.envelope(&frame),
            // Something that is not said on streams.
            None => Ok(()),
        }
    }

    fn queued_bytes(&self) -> usize {
        self.queue.borrow().bytes
    }

    fn taken_bytes(&self) -> u64 {
        self.queue.borrow().taken
    }

    fn limit(&self) -> usize {
        self.limit
    }

    fn flush(&mut self) {
        let reader = self.queue.borrow_mut().reader.take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    fn ping(&mut self) {
        let mut queue = self.queue.borrow_mut();
        if !queue.closed && queue.pieces.is_empty() {
            queue.push(KEEP_ALIVE);
        }
    }

    fn close(&mut self, code: CloseCode, reason: &str) {
        if !self.answer(Begin::Closed(code, reason.to_owned())) {
            let mut queue = self.queue.borrow_mut();
            if code == CloseCode::SlowConsumer {
                queue.pieces.clear();
                queue.bytes = 0;
            }
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            let now_ms = u64::try_from(now.as_millis()).unwrap_or_default();
            queue.push(rendered(&Notice::closed(code, reason), now_ms).into());
        }
        self.queue.borrow_mut().closed = true;
        self.flush();
    }

    /// The client says nothing.
    fn pause_reading(&mut self, _paused: bool) {}
}

impl Drop for SseOutlet {
    /// The shard has ended with whatever was connected.
    fn drop(&mut self) {
        self.queue.borrow_mut().closed = true;
        self.flush();
    }
}
