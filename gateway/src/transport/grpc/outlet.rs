//! The way from a shard to a gRPC stream.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use futures_util::Stream;
use prost::Message as _;
use streamgate_proto::{
    shared,
    v1::{OutboundMessage, outbound_message::Envelope},
    wkt,
};
use tokio::sync::watch;
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
    paused: watch::Sender<bool>,
}

/// The client's side: ends after the frame that says why.
pub(super) struct Frames {
    queue: Shared,
    limit: usize,
    mailbox: Mailbox,
    /// Set once the shard has given the session an id.
    id: watch::Receiver<Option<ConnId>>,
}

/// Both sides, and whether reading from the client is paused.
pub(super) fn channel(
    limit: usize,
    mailbox: Mailbox,
    id: watch::Receiver<Option<ConnId>>,
) -> (GrpcOutlet, Frames, watch::Receiver<bool>) {
    let queue = Shared::default();
    let (paused, is_paused) = watch::channel(false);
    (GrpcOutlet { queue: queue.clone(), limit, paused }, Frames { queue, limit, mailbox, id }, is_paused)
}

impl Outlet for GrpcOutlet {
    fn wire(&self) -> Wire {
        Wire::Grpc
    }

    fn push(&mut self, frame: Bytes) -> Result<(), Overflow> {
        let mut queue = lock(&self.queue);
        if queue.closed || (queue.bytes + frame.len() > self.limit && !queue.frames.is_empty()) {
            return Err(Overflow);
        }
        queue.bytes += frame.len();
        queue.frames.push_back(frame);
        Ok(())
    }

    fn queued_bytes(&self) -> usize {
        lock(&self.queue).bytes
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
        self.flush();
    }

    fn pause_reading(&mut self, paused: bool) {
        self.paused.send_replace(paused);
    }
}

impl Drop for GrpcOutlet {
    fn drop(&mut self) {
        lock(&self.queue).closed = true;
        self.flush();
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
        // Replays are paced at half of the limit: tell the shard when the queue falls below.
        let room = self.limit / 2;
        if before >= room
            && queue.bytes < room
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
    let fields = [("code".to_owned(), number), ("reason".to_owned(), text(reason))].into_iter().collect();
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
