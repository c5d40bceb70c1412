//! The way from a shard to a gRPC stream.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures_util::Stream;
use prost::Message as _;
use streamgate_proto::{
    shared,
    v1::{OutboundMessage, outbound_message::Envelope},
    wkt,
};
use tokio::sync::{oneshot, watch};
use tonic::Status;

use crate::{
    error::{CloseCode, ErrorCode},
    shard::{ConnId, Mail, Mailbox},
    transport::{Outlet, Overflow, Wire},
};

/// Frames between a shard and a stream.
#[derive(Default)]
struct Queue {
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// Bytes of the frames that were taken out.
    taken: u64,
    /// A frame did not fit.
    wanted: bool,
    /// No frame follows: the stream ends when the queue is empty.
    closed: bool,
    reader: Option<Waker>,
}

type Shared = Arc<Mutex<Queue>>;

fn lock(queue: &Shared) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The shard's side.
pub(super) struct GrpcOutlet {
    queue: Shared,
    limit: usize,
    reading: watch::Sender<ReadState>,
}

/// What the shard wants of the client's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadState {
    /// Frames.
    Open,
    /// No more for now.
    Paused,
    /// Nothing any more: the last frame is on its way out.
    Closing,
}

/// The client's side: ends after the frame that says why.
pub(super) struct Frames {
    queue: Shared,
    limit: usize,
    mailbox: Mailbox,
    /// Set once the shard has given the session an id.
    id: watch::Receiver<Option<ConnId>>,
    /// Dropped with this.
    _there: oneshot::Sender<Infallible>,
}

/// What a client has still to read when its session has ended.
pub(super) struct Rest {
    queue: Shared,
    /// Resolves when [`Frames`] is dropped.
    dropped: oneshot::Receiver<Infallible>,
}

/// The parts of a stream.
pub(super) struct Parts {
    /// For the shard.
    pub outlet: GrpcOutlet,
    /// For the client.
    pub frames: Frames,
    /// What is to be read from the client.
    pub state: watch::Receiver<ReadState>,
    /// For whoever sees the end.
    pub rest: Rest,
}

/// Makes the parts of a stream.
pub(super) fn channel(limit: usize, mailbox: Mailbox, id: watch::Receiver<Option<ConnId>>) -> Parts {
    let queue = Shared::default();
    let (reading, state) = watch::channel(ReadState::Open);
    let (there, dropped) = oneshot::channel();
    Parts {
        outlet: GrpcOutlet { queue: queue.clone(), limit, reading },
        frames: Frames { queue: queue.clone(), limit, mailbox, id, _there: there },
        state,
        rest: Rest { queue, dropped },
    }
}

impl Rest {
    /// Waits until the client has read it, and drops what it has not read in `time`.
    pub(super) async fn linger(self, time: Duration) {
        if tokio::time::timeout(time, self.dropped).await.is_err() {
            let queue = &mut *lock(&self.queue);
            queue.frames.clear();
            queue.end();
        }
    }
}

impl Queue {
    /// Takes no more frames; the reader goes on to the end.
    fn end(&mut self) {
        self.closed = true;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl Outlet for GrpcOutlet {
    fn wire(&self) -> Wire {
        Wire::Grpc
    }

    fn push(&mut self, frame: Bytes) -> Result<(), Overflow> {
        let mut queue = lock(&self.queue);
        if queue.closed || (queue.bytes + frame.len() > self.limit && !queue.frames.is_empty()) {
            queue.wanted = true;
            return Err(Overflow);
        }
        queue.bytes += frame.len();
        queue.frames.push_back(frame);
        Ok(())
    }

    fn queued_bytes(&self) -> usize {
        lock(&self.queue).bytes
    }

    fn taken_bytes(&self) -> u64 {
        lock(&self.queue).taken
    }

    fn limit(&self) -> usize {
        self.limit
    }

    fn flush(&mut self) {
        let reader = lock(&self.queue).reader.take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// HTTP/2 pings by itself.
    fn ping(&mut self) {}

    fn close(&mut self, code: CloseCode, reason: &str) {
        {
            let mut queue = lock(&self.queue);
            if code == CloseCode::SlowConsumer {
                queue.frames.clear();
                queue.bytes = 0;
            }
            let frame = Bytes::from(disconnect_error(code, reason).encode_to_vec());
            queue.bytes += frame.len();
            queue.frames.push_back(frame);
            queue.closed = true;
        }
        self.reading.send_replace(ReadState::Closing);
        self.flush();
    }

    fn pause_reading(&mut self, paused: bool) {
        let next = if paused { ReadState::Paused } else { ReadState::Open };
        // Answers may still come for a client that is being closed.
        self.reading.send_if_modified(|state| {
            let changes = *state != ReadState::Closing && *state != next;
            if changes {
                *state = next;
            }
            changes
        });
    }
}

impl Drop for GrpcOutlet {
    /// What was answered is still to be read: the client may have ended its side only.
    fn drop(&mut self) {
        lock(&self.queue).end();
    }
}

impl Stream for Frames {
    type Item = Result<Bytes, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut queue = lock(&self.queue);
        let Some(frame) = queue.frames.pop_front() else {
            if queue.closed {
                return Poll::Ready(None);
            }
            queue.reader = Some(cx.waker().clone());
            return Poll::Pending;
        };
        let before = queue.bytes;
        queue.bytes -= frame.len();
        queue.taken += frame.len() as u64;
        // Replays and pages are paced at half of the limit: tell the shard when the queue falls below. And when it is empty,
        // if something large did not fit though it was below.
        let room = self.limit / 2;
        let emptied = queue.frames.is_empty() && std::mem::take(&mut queue.wanted);
        if (before >= room && queue.bytes < room || emptied)
            && let Some(id) = *self.id.borrow()
        {
            self.mailbox.send(Mail::Drained(id));
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        if let Some(id) = *self.id.borrow() {
            self.mailbox.send(Mail::Gone(id));
        }
    }
}

/// What stands for a close code on a stream (PROTOCOL part A, last point of "Behaviour").
fn disconnect_error(code: CloseCode, reason: &str) -> OutboundMessage {
    let text = |text: &str| wkt::Value { kind: Some(wkt::value::Kind::StringValue(text.to_owned())) };
    let number = wkt::Value { kind: Some(wkt::value::Kind::NumberValue(f64::from(code.code()))) };
    // MessageLoop's own clients look for the code under the longer name.
    let fields = [("code", number.clone()), ("disconnect_code", number), ("reason", text(reason))];
    let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    OutboundMessage {
        id: uuid::Uuid::new_v4().to_string(),
        envelope: Some(Envelope::Error(shared::Error {
            code: ErrorCode::DisconnectError.as_str().to_owned(),
            r#type: ErrorCode::DisconnectError.kind().to_owned(),
            message: reason.to_owned(),
            metadata: Some(wkt::Struct { fields }),
        })),
        ..OutboundMessage::default()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;
    use crate::shard::{Mailbox, mailbox};

    fn both() -> (GrpcOutlet, Frames) {
        let Parts { outlet, frames, .. } = channel(1024, Mailbox::unheard(), watch::channel(None).1);
        (outlet, frames)
    }

    async fn all(frames: Frames) -> Vec<Bytes> {
        frames.map(|frame| frame.unwrap()).collect().await
    }

    #[tokio::test]
    async fn what_did_not_fit_may_come_when_all_before_it_was_taken() {
        let id: ConnId = ConnId::first();
        let (mailbox, mut inbox) = mailbox();
        let Parts { mut outlet, mut frames, .. } = channel(100, mailbox, watch::channel(Some(id)).1);
        // Far below half of the limit, and yet the next one has no room.
        outlet.push(Bytes::from_static(&[0; 10])).unwrap();
        outlet.push(Bytes::from_static(&[0; 95])).unwrap_err();
        frames.next().await.unwrap().unwrap();
        let mut mail = Vec::new();
        inbox.receive(&mut mail, 1).await;
        assert!(matches!(mail[..], [Mail::Drained(told)] if told == id));
        outlet.push(Bytes::from_static(&[0; 95])).unwrap();
    }

    #[tokio::test]
    async fn what_was_answered_before_the_client_was_gone_is_read_though_nothing_was_flushed() {
        let (mut outlet, frames) = both();
        outlet.push(Bytes::from_static(b"answer")).unwrap();
        drop(outlet);
        assert_eq!(all(frames).await, ["answer"]);
    }

    #[tokio::test]
    async fn what_was_answered_before_a_close_is_read_with_its_reason_though_the_client_was_gone_right_then()
    {
        let (mut outlet, frames) = both();
        outlet.push(Bytes::from_static(b"answer")).unwrap();
        outlet.close(CloseCode::BadRequest, "no");
        drop(outlet);
        let read = all(frames).await;
        assert_eq!((read.len(), &read[0][..]), (2, &b"answer"[..]));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_read_in_time_is_dropped() {
        let Parts { mut outlet, frames, rest, .. } =
            channel(1024, Mailbox::unheard(), watch::channel(None).1);
        outlet.push(Bytes::from_static(b"answer")).unwrap();
        drop(outlet);
        rest.linger(Duration::from_secs(30)).await;
        assert!(all(frames).await.is_empty());
    }
}
