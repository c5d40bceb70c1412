//! Clients that make requests: one session for all of a client's requests to a shard, for as long as they come.
//!
//! A session for each request would check the token, and ask backends about it, each time; and no limit would hold for a
//! client that counts anew with every request. The session is known to nobody else ([`Manner::Requests`]); see decision 0031.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::{Rc, Weak},
    time::Duration,
};

use bytes::Bytes;
use prost::Message as _;
use streamgate_proto::v1::{
    Connect, InboundMessage, OutboundMessage, inbound_message::Envelope as In,
    outbound_message::Envelope as Out,
};
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, timeout_at},
};

use crate::{
    error::{ClientError, CloseCode, ErrorCode},
    session::{Arrival, BatchItem, EXTENDED, Manner, ReplyTo},
    shard::{ConnId, Shard},
    transport::{Outlet, Overflow, Wire, http::Refusal},
};

/// How long a session waits for the next request of its client.
const IDLE: Duration = Duration::from_secs(60);
/// Clients that may have a session for their requests, on one shard.
const MOST_CLIENTS: usize = 16 * 1024;
/// Requests of one client to one shard at the same time.
const AT_A_TIME: usize = 256;
/// Name of the connect, among the numbers of requests.
const CONNECT: &str = "connect";

thread_local! {
    /// A shard has a thread of its own. What holds a session is its task: this must not outlive the shard.
    static CLIENTS: RefCell<HashMap<Arrival, Weak<Requester>>> = RefCell::default();
}

/// Why a session ended before it answered.
type End = (CloseCode, String);

/// A client by its session.
pub(super) struct Requester {
    shard: Shard,
    id: Cell<Option<ConnId>>,
    desk: Rc<Desk>,
    used: Cell<Instant>,
}

/// Where answers come in. Never borrowed while the shard is called.
#[derive(Default)]
struct Desk {
    waiting: RefCell<HashMap<String, oneshot::Sender<OutboundMessage>>>,
    /// Whether it is connected; who came before waits.
    connected: Cell<bool>,
    coming: RefCell<Vec<oneshot::Sender<()>>>,
    /// Why nobody is let in.
    refused: RefCell<Option<ClientError>>,
    ended: RefCell<Option<End>>,
    end: Notify,
    next: Cell<u64>,
    taken: Cell<u64>,
}

/// The session of whoever makes a request, connected.
///
/// Cancel: safe; the session is there for the next one.
///
/// # Errors
/// The client is not let in.
pub(super) async fn client(shard: &Shard, arrival: Arrival) -> Result<Rc<Requester>, Refusal> {
    let arrival = Arrival { manner: Manner::Requests, ..arrival };
    let known = CLIENTS.with_borrow(|clients| clients.get(&arrival).and_then(Weak::upgrade));
    let requester = match known.filter(|requester| requester.desk.is_open()) {
        Some(requester) => requester,
        None => Requester::open(shard, arrival)?,
    };
    requester.used.set(Instant::now());
    requester.desk.ready().await?;
    Ok(requester)
}

impl Requester {
    fn open(shard: &Shard, arrival: Arrival) -> Result<Rc<Self>, Refusal> {
        if CLIENTS.with_borrow(HashMap::len) >= MOST_CLIENTS {
            let text = format!("the node has requests of {MOST_CLIENTS} clients to serve");
            return Err(ClientError::new(ErrorCode::NotAvailable, text).into());
        }
        let desk = Rc::new(Desk::default());
        let (id, used) = (Cell::new(None), Cell::new(Instant::now()));
        let requester = Rc::new(Self { shard: shard.clone(), id, desk: desk.clone(), used });
        CLIENTS.with_borrow_mut(|clients| clients.insert(arrival.clone(), Rc::downgrade(&requester)));
        let id = shard.open(Box::new(RequestOutlet(desk)), arrival.clone());
        requester.id.set(Some(id));
        let connect =
            Connect { client_type: "http".to_owned(), caps: vec![EXTENDED.to_owned()], ..Connect::default() };
        let frame = InboundMessage {
            id: CONNECT.to_owned(),
            envelope: Some(In::Connect(connect)),
            ..InboundMessage::default()
        };
        shard.understood(id, Ok(frame));
        tokio::task::spawn_local(stay(requester.clone(), arrival));
        Ok(requester)
    }

    /// Makes a request of one answer; an error of the session is one of the answers.
    pub async fn ask(&self, frame: InboundMessage) -> Result<OutboundMessage, Refusal> {
        let (id, answer) = self.desk.expect()?;
        self.say(InboundMessage { id, ..frame });
        self.desk.answered(answer).await
    }

    fn say(&self, frame: InboundMessage) {
        if let Some(id) = self.id.get() {
            self.shard.understood(id, Ok(frame));
        }
    }

    /// Publishes events, all or none; an answer for each, in their order.
    pub async fn publish(
        &self,
        channel: &str,
        events: Vec<(streamgate_proto::cloudevents::CloudEvent, String)>,
    ) -> Result<Vec<OutboundMessage>, Refusal> {
        let mut items = Vec::with_capacity(events.len());
        let mut answers = Vec::with_capacity(events.len());
        for (event, key) in events {
            // The batch counts as one request.
            let (id, answer) = self.desk.number();
            items.push(BatchItem { reply: ReplyTo { id, ..ReplyTo::default() }, event, key });
            answers.push(answer);
        }
        if let Some(id) = self.id.get() {
            self.shard.publish_batch(id, channel, items);
        }
        let mut answered = Vec::with_capacity(answers.len());
        for answer in answers {
            answered.push(self.desk.answered(answer).await?);
        }
        Ok(answered)
    }
}

impl Drop for Requester {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.shard.gone(id);
        }
    }
}

/// Keeps a session until its client makes no more requests, or it ends.
async fn stay(requester: Rc<Requester>, arrival: Arrival) {
    loop {
        let until = requester.used.get() + IDLE;
        let ended = timeout_at(until, requester.desk.end.notified()).await.is_ok();
        let busy =
            !requester.desk.waiting.borrow().is_empty() || requester.used.get() + IDLE > Instant::now();
        if ended || !busy {
            break;
        }
        if requester.used.get() == until - IDLE {
            requester.used.set(Instant::now());
        }
    }
    CLIENTS.with_borrow_mut(|clients| {
        if clients.get(&arrival).is_some_and(|known| known.as_ptr() == Rc::as_ptr(&requester)) {
            clients.remove(&arrival);
        }
    });
}

impl Desk {
    fn is_open(&self) -> bool {
        self.ended.borrow().is_none() && self.refused.borrow().is_none()
    }

    /// Waits until the session is connected.
    async fn ready(&self) -> Result<(), Refusal> {
        if !self.connected.get() && self.is_open() {
            let (come, coming) = oneshot::channel();
            self.coming.borrow_mut().push(come);
            // Dropped without a word: it has ended.
            let _ = coming.await;
        }
        if self.connected.get() && self.is_open() { Ok(()) } else { Err(self.why()) }
    }

    fn number(&self) -> (String, oneshot::Receiver<OutboundMessage>) {
        let number = self.next.replace(self.next.get() + 1).to_string();
        let (told, answer) = oneshot::channel();
        self.waiting.borrow_mut().insert(number.clone(), told);
        (number, answer)
    }

    fn expect(&self) -> Result<(String, oneshot::Receiver<OutboundMessage>), Refusal> {
        if self.waiting.borrow().len() >= AT_A_TIME {
            let text = format!("more than {AT_A_TIME} requests at a time");
            return Err(ClientError::new(ErrorCode::RateLimited, text).into());
        }
        Ok(self.number())
    }

    async fn answered(&self, answer: oneshot::Receiver<OutboundMessage>) -> Result<OutboundMessage, Refusal> {
        answer.await.map_err(|_| self.why())
    }

    fn why(&self) -> Refusal {
        if let Some(error) = &*self.refused.borrow() {
            return error.clone().into();
        }
        match &*self.ended.borrow() {
            Some((code, reason)) => Refusal::of_close(*code, reason),
            None => Refusal::of_close(CloseCode::Draining, CloseCode::Draining.reason()),
        }
    }

    fn take(&self, frame: OutboundMessage) {
        if frame.id == CONNECT {
            match frame.envelope {
                Some(Out::Connected(_)) => self.connected.set(true),
                Some(Out::Error(error)) => *self.refused.borrow_mut() = Some(ClientError::from_wire(error)),
                _ => {}
            }
            self.coming.borrow_mut().clear();
            if !self.is_open() {
                self.end.notify_one();
            }
            return;
        }
        if let Some(waiting) = self.waiting.borrow_mut().remove(&frame.id) {
            // Whoever asked may be gone.
            let _ = waiting.send(frame);
        }
    }

    fn end(&self, code: CloseCode, reason: &str) {
        self.ended.borrow_mut().get_or_insert_with(|| (code, reason.to_owned()));
        self.waiting.borrow_mut().clear();
        self.coming.borrow_mut().clear();
        self.end.notify_one();
    }
}

/// The shard's side: hands answers to whom they are for, and holds nothing.
struct RequestOutlet(Rc<Desk>);

impl Outlet for RequestOutlet {
    fn wire(&self) -> Wire {
        Wire::Http
    }

    fn push(&mut self, frame: Bytes) -> Result<(), Overflow> {
        self.0.taken.set(self.0.taken.get() + frame.len() as u64);
        match OutboundMessage::decode(frame) {
            Ok(frame) => self.0.take(frame),
            Err(error) => tracing::error!(%error, "an answer cannot be read"),
        }
        Ok(())
    }

    fn queued_bytes(&self) -> usize {
        0
    }

    fn taken_bytes(&self) -> u64 {
        self.0.taken.get()
    }

    fn limit(&self) -> usize {
        usize::MAX
    }

    fn flush(&mut self) {}

    fn ping(&mut self) {}

    fn close(&mut self, code: CloseCode, reason: &str) {
        self.0.end(code, reason);
    }

    /// What is under way for one client is bounded by its requests.
    fn pause_reading(&mut self, _paused: bool) {}
}

impl Drop for RequestOutlet {
    fn drop(&mut self) {
        self.0.end(CloseCode::Draining, CloseCode::Draining.reason());
    }
}
