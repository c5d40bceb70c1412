//! A WebSocket connection of a shard: the socket, its write queue, and the task that reads.
//!
//! The shard writes by itself after each batch of work ([`Outlet::flush`]); the task writes only what the socket did
//! not take then. Reads go through the shard's scratch buffer, so an idle connection holds no buffer.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io::{self, IoSlice},
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use metrics::{Histogram, histogram};

use super::{
    DataKinds, Event, FrameReader, OpCode, Subprotocol, WriteQueue, encode_frame, socket::Socket,
    writer::MAX_SLICES,
};
use crate::{
    error::CloseCode,
    session::Arrival,
    shard::{ConnId, Shard},
    telemetry::metrics::WRITE_BATCH_FRAMES,
    transport::{
        Outlet, Overflow, Wire,
        cloudevents::{self, Asked},
    },
};

/// How long a client may take to read what is left and to answer the close frame.
const LINGER: Duration = Duration::from_secs(30);
/// Reads of one wake-up, after which others get their turn.
const READS: usize = 8;

/// Shared by the shard (which writes) and the connection's task (which reads, and writes the rest).
struct Connection {
    socket: Socket,
    queue: RefCell<WriteQueue>,
    /// Frames of one write.
    batches: Histogram,
    /// The task, to be woken for what only it can do.
    task: RefCell<Option<Waker>>,
    /// The socket did not take everything: the task waits until it does.
    backlogged: Cell<bool>,
    paused: Cell<bool>,
    /// It speaks events alone, no envelopes.
    events: bool,
    /// Where events go that do not say it; of a client of events alone.
    only: Option<Box<str>>,
}

/// How a connection ended.
enum End {
    /// A close frame is queued: write it, then wait for the client's.
    Closing,
    /// The client is gone.
    Gone,
}

/// What one attempt to write came to.
enum Written {
    All,
    Part,
}

/// Serves an upgraded socket until it ends. `first` are the bytes that came behind the upgrade request.
pub(super) async fn serve(
    shard: Shard,
    socket: Socket,
    mut first: Vec<u8>,
    chosen: Option<Subprotocol>,
    arrival: Arrival,
    asked: Option<Box<Asked>>,
) {
    let (wire, accepts) = match chosen {
        Some(Subprotocol::MessageLoopProto) => (Wire::WsProto, DataKinds::Binary),
        Some(Subprotocol::CloudEventsJson) => (Wire::WsEvents, DataKinds::Text),
        _ => (Wire::WsJson, DataKinds::Text),
    };
    let (limit, frame_bytes) = {
        let limits = shard.settings().limits.load();
        (clamp(limits.write_queue_bytes), clamp(limits.frame_bytes))
    };
    let connection = Rc::new(Connection {
        socket,
        queue: RefCell::new(WriteQueue::new(limit)),
        batches: histogram!(WRITE_BATCH_FRAMES),
        task: RefCell::new(None),
        backlogged: Cell::new(false),
        paused: Cell::new(false),
        events: wire == Wire::WsEvents,
        only: asked.as_ref().and_then(|asked| asked.channel()).map(Box::from),
    });
    let id = shard.open(Box::new(WsOutlet { connection: connection.clone(), wire }), arrival);
    // Also if this task panics: the session must not outlive its socket.
    let _gone = GoneOnDrop { shard: &shard, id };
    if let Some(asked) = asked {
        shard.understood(id, Ok(asked.connect("cloudevents")));
    }
    let mut reader = FrameReader::new(frame_bytes, accepts);
    connection.feed(&shard, id, &mut reader, &mut first);
    drop(first);
    let end = poll_fn(|cx| connection.poll(cx, &shard, id, &mut reader)).await;
    if matches!(end, End::Closing) {
        // Boxed: it is rare, and its state would make every idle connection larger.
        let lingered = Box::pin(tokio::time::timeout(LINGER, connection.linger())).await;
        if let Ok(Err(error)) = lingered {
            tracing::trace!(%error, "the client did not wait for the close");
        }
    }
}

/// Tells the shard of the end of a connection.
struct GoneOnDrop<'a> {
    shard: &'a Shard,
    id: ConnId,
}

impl Drop for GoneOnDrop<'_> {
    fn drop(&mut self) {
        self.shard.gone(self.id);
    }
}

fn clamp(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

impl Connection {
    /// Writes what was left over, then reads and hands on. Pending: waits for the socket or the shard.
    fn poll(&self, cx: &mut Context<'_>, shard: &Shard, id: ConnId, reader: &mut FrameReader) -> Poll<End> {
        self.remember(cx);
        if self.backlogged.get() && self.poll_write(cx, shard, id).is_err() {
            return Poll::Ready(End::Gone);
        }
        for _ in 0..READS {
            if self.queue.borrow().is_closing() {
                return Poll::Ready(End::Closing);
            }
            if self.paused.get() {
                return Poll::Pending;
            }
            match self.socket.poll_read_ready(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(End::Gone),
                Poll::Ready(Ok(())) => {}
            }
            let read = shard.with_scratch(|scratch| {
                let size = self.socket.read(scratch)?;
                self.feed(shard, id, reader, &mut scratch[..size]);
                Ok::<_, io::Error>(size)
            });
            match read {
                Ok(0) => {
                    // It may have closed its side only, and wait for the answers to what it said before.
                    let _ = self.write();
                    self.socket.say_end();
                    let _ = self.socket.flush();
                    return Poll::Ready(End::Gone);
                }
                Ok(_) if self.socket.wants_write() => self.flush(),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(End::Gone),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_write(&self, cx: &mut Context<'_>, shard: &Shard, id: ConnId) -> io::Result<()> {
        loop {
            match self.write()? {
                Written::All => {
                    self.backlogged.set(false);
                    shard.drained(id);
                    // The shard may have filled it again; then it has marked the backlog again, too.
                    if !self.backlogged.get() {
                        return Ok(());
                    }
                }
                Written::Part => match self.socket.poll_write_ready(cx) {
                    Poll::Ready(ready) => ready?,
                    Poll::Pending => {
                        shard.drained(id);
                        return Ok(());
                    }
                },
            }
        }
    }

    /// Writes as much as the socket takes.
    fn write(&self) -> io::Result<Written> {
        let queue = &mut *self.queue.borrow_mut();
        while !queue.is_empty() {
            let (count, written) = match queue.only() {
                Some(frame) => (1, self.socket.write(&[IoSlice::new(frame)])),
                None => {
                    let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                    let count = queue.fill_slices(&mut slices);
                    (count, self.socket.write(&slices[..count]))
                }
            };
            match written {
                Ok(written) => {
                    queue.advance(written);
                    self.batches.record(count as f64);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Written::Part),
                Err(error) => return Err(error),
            }
        }
        match self.socket.flush() {
            Ok(()) => Ok(Written::All),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Written::Part),
            Err(error) => Err(error),
        }
    }

    /// Takes bytes of the client; a violation of the protocol closes with its code.
    fn feed(&self, shard: &Shard, id: ConnId, reader: &mut FrameReader, bytes: &mut [u8]) {
        for event in reader.read(bytes) {
            match event {
                Ok(Event::Text(text)) if self.events => {
                    shard.understood(id, cloudevents::read(text.as_bytes(), self.only.as_deref()));
                }
                Ok(Event::Text(text)) => shard.receive(id, text.as_bytes()),
                Ok(Event::Binary(payload)) => shard.receive(id, &payload),
                Ok(Event::Ping(payload)) => {
                    shard.heard(id);
                    let pushed = self.queue.borrow_mut().push(encode_frame(OpCode::Pong, &payload));
                    match pushed {
                        Ok(()) => self.flush(),
                        // After the close frame nothing is owed; a full queue is that of a client that does not read.
                        Err(super::PushError::Closing) => {}
                        Err(super::PushError::Overflow { .. }) => {
                            shard.fail(id, CloseCode::SlowConsumer, CloseCode::SlowConsumer.reason());
                        }
                    }
                }
                Ok(Event::Pong(_)) => shard.heard(id),
                Ok(Event::Close(frame)) => {
                    shard.gone(id);
                    self.queue.borrow_mut().close(frame.as_ref().map(|frame| (frame.code, &*frame.reason)));
                }
                Err(error) => {
                    let code = match error.close_code() {
                        1003 => CloseCode::UnsupportedData,
                        1007 => CloseCode::InvalidUtf8,
                        1009 => CloseCode::TooBig,
                        _ => CloseCode::Protocol,
                    };
                    shard.fail(id, code, &error.to_string());
                }
            }
        }
    }

    /// Writes what the socket takes, also if it took no more the last time. The task sees to the rest, and to errors.
    fn make_room(&self) {
        if !matches!(self.write(), Ok(Written::All)) && !self.backlogged.replace(true) {
            self.wake();
        }
    }

    /// Writes now; the rest, and errors, are the task's business.
    fn flush(&self) {
        if self.backlogged.get() {
            return;
        }
        if !matches!(self.write(), Ok(Written::All)) {
            self.backlogged.set(true);
            self.wake();
        } else if self.queue.borrow().is_closing() {
            self.wake();
        }
    }

    /// Writes the rest with the close frame, ends our side, and waits for the client to end its own: a socket that is
    /// dropped with unread bytes is reset, and the client might never read the close code.
    async fn linger(&self) -> io::Result<()> {
        let mut ended = false;
        loop {
            match self.write()? {
                Written::Part => self.socket.writable().await?,
                Written::All if ended => break,
                Written::All => {
                    self.socket.say_end();
                    ended = true;
                }
            }
        }
        self.socket.shut_down()?;
        self.socket.ignore_rest().await
    }

    fn remember(&self, cx: &Context<'_>) {
        let mut task = self.task.borrow_mut();
        if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
    }

    fn wake(&self) {
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }
}

/// The shard's side of a connection.
struct WsOutlet {
    connection: Rc<Connection>,
    wire: Wire,
}

impl Outlet for WsOutlet {
    fn wire(&self) -> Wire {
        self.wire
    }

    /// A full queue is first written: what the shard queued in one batch does not make a client slow, only what its
    /// socket does not take.
    fn push(&mut self, frame: Bytes) -> Result<(), Overflow> {
        // Something that such a client is not told.
        if frame.is_empty() {
            return Ok(());
        }
        if !self.connection.queue.borrow().takes(frame.len()) {
            self.connection.make_room();
        }
        self.connection.queue.borrow_mut().push(frame).map_err(|_| Overflow)
    }

    fn queued_bytes(&self) -> usize {
        self.connection.queue.borrow().queued_bytes()
    }

    fn taken_bytes(&self) -> u64 {
        self.connection.queue.borrow().written_bytes()
    }

    fn limit(&self) -> usize {
        self.connection.queue.borrow().limit()
    }

    fn flush(&mut self) {
        self.connection.flush();
    }

    fn ping(&mut self) {
        // A full queue is noticed by the next publication; a ping is no reason to cut anybody off.
        let _ = self.connection.queue.borrow_mut().push(encode_frame(OpCode::Ping, b""));
    }

    fn close(&mut self, code: CloseCode, reason: &str) {
        // What was answered before is not taken back, as far as the socket takes it.
        self.connection.make_room();
        let queue = &mut *self.connection.queue.borrow_mut();
        if code == CloseCode::SlowConsumer {
            queue.discard_unsent();
        }
        queue.close(Some((code.code(), reason)));
        self.connection.wake();
    }

    fn pause_reading(&mut self, paused: bool) {
        self.connection.paused.set(paused);
        if !paused {
            self.connection.wake();
        }
    }
}
