//! The open connections of one thread, for whoever has something to send.
//!
//! What is sent waits until [`Links::flush`], so that one write carries all that an event or a tick caused.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    ops::Deref,
    rc::Rc,
    time::Duration,
};

use rustix::net::sockopt::set_socket_linger;
use streamgate_proto::v1::InboundMessage;
use tokio::{
    net::{TcpStream, tcp::OwnedWriteHalf},
    sync::{Notify, mpsc, oneshot},
    time::timeout,
};

use super::{
    dialect::{Detail, Dialect, Event, Request, streamgate},
    frames,
};

/// How long an answer is waited for.
const ANSWER: Duration = Duration::from_secs(30);
/// The request that every connection begins with.
pub(super) const CONNECT: u64 = 1;

/// Everything that is open, by the number of the client.
#[derive(Debug)]
pub struct Links {
    pub(super) dialect: Dialect,
    pub(super) detail: Detail,
    links: RefCell<Vec<Option<Rc<Link>>>>,
    /// Those with something to write.
    dirty: RefCell<Vec<usize>>,
    last_id: Cell<u64>,
    /// Who waits for which answer.
    asked: RefCell<HashMap<u64, Asked>>,
}

/// A request that somebody waits for the answer of.
#[derive(Debug)]
struct Asked {
    client: usize,
    answer: oneshot::Sender<Event>,
}

/// One connection's side that is written to.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) out: Out,
    /// Told once that the server has said `connected`.
    pub(super) connected: RefCell<Option<oneshot::Sender<Event>>>,
    /// This side wants it closed.
    pub(super) closing: Cell<bool>,
    /// Wakes the task of the connection: something could not be written, or it shall end.
    pub(super) wake: Notify,
    dirty: Cell<bool>,
}

#[derive(Debug)]
pub(super) enum Out {
    WebSocket { half: Half, pending: RefCell<Vec<u8>> },
    Grpc(mpsc::UnboundedSender<InboundMessage>),
}

/// The half that is written to. That it is dropped ends nothing: tokio's own would say an orderly end before the connection
/// can be reset.
#[derive(Debug)]
pub(super) struct Half(Option<OwnedWriteHalf>);

impl From<OwnedWriteHalf> for Half {
    fn from(half: OwnedWriteHalf) -> Self {
        Self(Some(half))
    }
}

impl Deref for Half {
    type Target = OwnedWriteHalf;

    #[expect(clippy::expect_used, reason = "there until it is dropped")]
    fn deref(&self) -> &OwnedWriteHalf {
        self.0.as_ref().expect("only taken by drop")
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        if let Some(half) = self.0.take() {
            half.forget();
        }
    }
}

/// The client has no open connection, or the dialect no such request.
#[derive(Debug, thiserror::Error)]
pub enum NotSent {
    /// It is not connected.
    #[error("client {0} is not connected")]
    Closed(usize),
    /// It cannot be said.
    #[error(transparent)]
    Unspoken(#[from] anyhow::Error),
}

impl Links {
    pub(super) fn new(dialect: Dialect, detail: Detail) -> Self {
        Self {
            dialect,
            detail,
            links: RefCell::default(),
            dirty: RefCell::default(),
            last_id: Cell::new(CONNECT),
            asked: RefCell::default(),
        }
    }

    /// A number that no request of this thread has had.
    pub fn next_id(&self) -> u64 {
        self.last_id.set(self.last_id.get() + 1);
        self.last_id.get()
    }

    /// Queues a request of a client; its answer comes as an event with the returned number.
    ///
    /// # Errors
    /// [`NotSent`].
    pub fn request(&self, client: usize, request: &Request<'_>) -> Result<u64, NotSent> {
        let id = self.next_id();
        self.queue(client, id, request).map(|()| id)
    }

    /// Sends a request and waits for its answer, which nobody else is told of; `None` if none comes within half a minute, or
    /// the connection ends.
    ///
    /// # Errors
    /// [`NotSent`].
    pub async fn ask(&self, client: usize, request: &Request<'_>) -> Result<Option<Event>, NotSent> {
        let (sender, answer) = oneshot::channel();
        let id = self.next_id();
        self.asked.borrow_mut().insert(id, Asked { client, answer: sender });
        if let Err(error) = self.queue(client, id, request) {
            self.asked.borrow_mut().remove(&id);
            return Err(error);
        }
        self.flush();
        let answer = timeout(ANSWER, answer).await;
        self.asked.borrow_mut().remove(&id);
        Ok(answer.ok().and_then(Result::ok))
    }

    /// Closes a client's connection; its end is then not counted as a loss.
    pub fn close(&self, client: usize) {
        if let Some(link) = self.get(client) {
            link.closing.set(true);
            link.wake.notify_one();
        }
    }

    /// True if the client has a connection, be it one that is about to close.
    pub fn is_open(&self, client: usize) -> bool {
        self.links.borrow().get(client).is_some_and(Option::is_some)
    }

    /// Writes what is queued.
    pub fn flush(&self) {
        let dirty = std::mem::take(&mut *self.dirty.borrow_mut());
        for client in dirty {
            if let Some(link) = self.get(client) {
                link.dirty.set(false);
                link.write_some();
            }
        }
    }

    pub(super) fn insert(&self, client: usize, out: Out) -> Rc<Link> {
        let link = Rc::new(Link {
            out,
            connected: RefCell::default(),
            closing: Cell::new(false),
            wake: Notify::new(),
            dirty: Cell::new(false),
        });
        let mut links = self.links.borrow_mut();
        if links.len() <= client {
            links.resize_with(client + 1, || None);
        }
        links[client] = Some(link.clone());
        link
    }

    /// The next `connected` of this client goes there.
    pub(super) fn await_connected(&self, client: usize, told: oneshot::Sender<Event>) {
        if let Some(link) = self.get(client) {
            link.connected.replace(Some(told));
        }
    }

    pub(super) fn remove(&self, client: usize) {
        if let Some(link) = self.links.borrow_mut().get_mut(client) {
            *link = None;
        }
        // Whoever waits for an answer is told that none will come.
        self.asked.borrow_mut().retain(|_, asked| asked.client != client);
    }

    /// Gives an event to who asked for it; back if nobody did.
    pub(super) fn answer(&self, client: usize, event: Event) -> Option<Event> {
        let id = match &event {
            Event::Connected => {
                let waiting = self.get(client).and_then(|link| link.connected.borrow_mut().take());
                return match waiting.map(|waiting| waiting.send(event)) {
                    None => Some(Event::Connected),
                    // Whoever waited has given up, and closes.
                    Some(_) => None,
                };
            }
            Event::Done { id } | Event::Acked { id } | Event::Refused { id, .. } => *id,
            Event::Page { id, .. } | Event::Members { id, .. } => *id,
            _ => return Some(event),
        };
        if let Event::Refused { id: 0 | CONNECT, .. } = event
            && let Some(waiting) = self.get(client).and_then(|link| link.connected.borrow_mut().take())
        {
            let _ = waiting.send(event);
            return None;
        }
        if self.asked.borrow().is_empty() {
            return Some(event);
        }
        match self.asked.borrow_mut().remove(&id) {
            None => Some(event),
            Some(asked) => {
                // An error: whoever waited has given up.
                let _ = asked.answer.send(event);
                None
            }
        }
    }

    /// Queues a request under this number.
    pub(super) fn queue(&self, client: usize, id: u64, request: &Request<'_>) -> Result<(), NotSent> {
        let link = self.get(client).ok_or(NotSent::Closed(client))?;
        match &link.out {
            // An error means that the call has ended, which its task sees, too.
            Out::Grpc(queue) => drop(queue.send(streamgate::request(id, request))),
            Out::WebSocket { pending, .. } => {
                let mut payload = Vec::new();
                self.dialect.write(id, request, &mut payload)?;
                // A server that greets first needs no request to connect.
                if payload.is_empty() {
                    return Ok(());
                }
                frames::data(self.dialect.binary(), &payload, &mut pending.borrow_mut());
                self.mark(client, &link);
            }
        }
        Ok(())
    }

    /// Queues the answer to a ping of WebSocket.
    pub(super) fn pong(&self, client: usize, payload: &[u8]) {
        if let Some(link) = self.get(client)
            && let Out::WebSocket { pending, .. } = &link.out
        {
            frames::pong(payload, &mut pending.borrow_mut());
            self.mark(client, &link);
        }
    }

    fn mark(&self, client: usize, link: &Link) {
        if !link.dirty.replace(true) {
            self.dirty.borrow_mut().push(client);
        }
    }

    fn get(&self, client: usize) -> Option<Rc<Link>> {
        self.links.borrow().get(client).cloned().flatten()
    }
}

impl Link {
    /// Writes what the socket takes. An error is seen by the task that reads.
    pub(super) fn write_some(&self) {
        let Out::WebSocket { half, pending } = &self.out else { return };
        let mut pending = pending.borrow_mut();
        match half.try_write(&pending) {
            Ok(written) if written == pending.len() => {
                pending.clear();
                // A connection that has said all it will say for long keeps no memory for it.
                pending.shrink_to(256);
                return;
            }
            Ok(written) => drop(pending.drain(..written)),
            Err(_) => {}
        }
        self.wake.notify_one();
    }

    /// True if something waits until the socket takes it.
    pub(super) fn unwritten(&self) -> bool {
        matches!(&self.out, Out::WebSocket { pending, .. } if !pending.borrow().is_empty())
    }

    /// Waits until the socket takes more. Safe to cancel.
    pub(super) async fn writable(&self) {
        if let Out::WebSocket { half, .. } = &self.out {
            // An error is seen by the task that reads.
            let _ = half.writable().await;
        }
    }

    /// Writes a close frame, if the socket takes it.
    pub(super) fn say_goodbye(&self) {
        let Out::WebSocket { half, pending } = &self.out else { return };
        let mut pending = pending.borrow_mut();
        // A reset would overtake it.
        let stream: &TcpStream = half.as_ref();
        let _ = set_socket_linger(stream, None);
        frames::close(&mut pending);
        // Whether it arrives makes no difference: the socket is closed next.
        let _ = half.try_write(&pending);
    }
}
