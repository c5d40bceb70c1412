//! The task that owns a client's connection: carries out what the engine says.
//!
//! Deliveries that a subscriber has no room for wait in the backlog, and while they do, the connection is not read: the
//! slow subscriber is felt by the server, not hidden in memory. Sending, commands and deadlines go on meanwhile.

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    pin::Pin,
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until, timeout},
};

use crate::{
    backoff::Backoff,
    engine::{
        Asked, Delivery, Effect, Engine, Offering, Outcome, Question, Request, Return, ServingId,
        Subscribing, SubscriptionId, wire_error,
    },
    error::Error,
    status::Status,
    transport::{Encoding, Endpoint, Received, Transport},
    unasked::{Listeners, UnaskedEvent},
};

/// What handles ask of the driver.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all of them are requests")]
pub(crate) enum Command {
    Request(Request),
    Subscribe(Subscribing, mpsc::Sender<Delivery>),
    Unsubscribe(SubscriptionId),
    Serve(Offering, mpsc::Sender<Work>),
    Unserve(ServingId),
    /// A handler has done with a question.
    Answered(Question, Option<Outcome>),
    /// Answered when the connection is closed.
    Close(oneshot::Sender<()>),
}

/// A question for a handler.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) asked: Asked,
    /// Closed when the connection is gone, and with it whoever waits for the answer.
    pub(crate) connection: watch::Receiver<()>,
}

type Connecting = Pin<Box<dyn Future<Output = Result<Transport, Error>> + Send>>;

enum Link {
    /// Until the next attempt.
    Waiting(Instant),
    Connecting(Connecting),
    /// Since then.
    Open(Box<Transport>, Instant),
}

enum Arrival {
    Retry,
    Connected(Result<Transport, Error>),
    Received(Received),
}

pub(crate) struct Driver {
    engine: Engine,
    endpoints: Vec<Endpoint>,
    /// Of the current or the next attempt.
    endpoint: usize,
    encoding: Encoding,
    connect_timeout: Duration,
    backoff: Backoff,
    commands: mpsc::UnboundedReceiver<Command>,
    status: watch::Sender<Status>,
    link: Link,
    outlets: HashMap<SubscriptionId, mpsc::Sender<Delivery>>,
    backlog: VecDeque<(SubscriptionId, Delivery)>,
    handlers: HashMap<ServingId, mpsc::Sender<Work>>,
    /// Whoever wants what no subscription asked for; perhaps nobody.
    unasked: Listeners,
    /// Stands for the connection; whoever works for it watches this.
    connection: watch::Sender<()>,
}

/// Why the loop ends.
enum End {
    /// Nobody holds the client any more.
    Dropped,
    Closed(oneshot::Sender<()>),
    Failed(Error),
}

impl Driver {
    pub(crate) fn new(
        engine: Engine,
        endpoints: Vec<Endpoint>,
        encoding: Encoding,
        connect_timeout: Duration,
        backoff: Backoff,
        commands: mpsc::UnboundedReceiver<Command>,
        status: watch::Sender<Status>,
    ) -> Self {
        Self {
            engine,
            endpoints,
            endpoint: 0,
            encoding,
            connect_timeout,
            backoff,
            commands,
            status,
            link: Link::Waiting(Instant::now()),
            outlets: HashMap::new(),
            backlog: VecDeque::new(),
            handlers: HashMap::new(),
            unasked: Listeners::default(),
            connection: watch::Sender::new(()),
        }
    }

    /// Whoever wants what no subscription asked for.
    pub(crate) fn unasked(&self) -> Listeners {
        self.unasked.clone()
    }

    pub(crate) async fn run(mut self) {
        let end = loop {
            if let Some(end) = self.step().await {
                break end;
            }
        };
        let (error, done) = match end {
            End::Failed(error) => (error, None),
            End::Dropped => (Error::ClientClosed, None),
            End::Closed(done) => (Error::ClientClosed, Some(done)),
        };
        let by_server = error != Error::ClientClosed;
        self.engine.stop(&error);
        while let Some(effect) = self.engine.effect() {
            // Closed by this side, streams just end.
            if by_server && let Effect::Deliver(id, delivery) = effect {
                self.backlog.push_back((id, delivery));
            }
        }
        self.handlers.clear();
        self.connection = watch::Sender::new(());
        if let Link::Open(transport, _) = std::mem::replace(&mut self.link, Link::Waiting(Instant::now())) {
            transport.close().await;
        }
        self.status.send_replace(Status::Closed { error });
        self.unasked.close();
        if let Some(done) = done {
            let _ = done.send(());
        }
        self.commands.close();
        if by_server {
            self.drain().await;
        }
    }

    /// Waits for whatever comes first, and reacts. Safe to cancel at its one `select!`: all its branches are.
    async fn step(&mut self) -> Option<End> {
        let deadline = self.engine.deadline().map(Instant::from_std);
        let blocked = self.backlog.front().and_then(|(id, _)| self.outlets.get(id)).cloned();
        tokio::select! {
            command = self.commands.recv() => {
                let Some(command) = command else { return Some(End::Dropped) };
                if let Some(end) = self.command(command) {
                    return Some(end);
                }
            }
            arrival = arrive(&mut self.link, blocked.is_none()) => self.arrived(arrival),
            () = room(blocked.as_ref()), if blocked.is_some() => {
                // Nothing was read meanwhile, which is not the server's fault.
                self.engine.heard(now());
            }
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                if blocked.is_some() {
                    self.engine.heard(now());
                }
                self.engine.tick(now());
            }
        }
        self.carry_out()
    }

    fn command(&mut self, command: Command) -> Option<End> {
        match command {
            Command::Request(request) => self.engine.request(request, now()),
            Command::Subscribe(subscribing, outlet) => {
                self.outlets.insert(subscribing.id, outlet);
                self.engine.subscribe(subscribing, now());
            }
            Command::Unsubscribe(id) => {
                self.outlets.remove(&id);
                self.engine.unsubscribe(id, now());
            }
            Command::Serve(offering, outlet) => {
                self.handlers.insert(offering.id, outlet);
                self.engine.serve(offering, now());
            }
            Command::Unserve(id) => self.engine.unserve(id, now()),
            Command::Answered(question, outcome) => self.engine.answered(question, outcome),
            Command::Close(done) => return Some(End::Closed(done)),
        }
        None
    }

    fn arrived(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Retry => self.start_connecting(),
            Arrival::Connected(Ok(transport)) => {
                self.link = Link::Open(Box::new(transport), Instant::now());
                self.engine.opened(now());
            }
            Arrival::Connected(Err(error)) | Arrival::Received(Received::Closed(error)) => {
                self.engine.leave_with(error);
            }
            Arrival::Received(Received::Frame(frame)) => self.engine.frame(*frame, now()),
            Arrival::Received(Received::Alive) => self.engine.heard(now()),
            Arrival::Received(Received::Undecodable(reason)) => {
                tracing::warn!(reason, "a frame from the server cannot be read");
                self.engine.heard(now());
            }
        }
    }

    fn start_connecting(&mut self) {
        let Some(endpoint) = self.endpoints.get(self.endpoint).cloned() else { return };
        let (address, encoding, limit) = (endpoint.address.clone(), self.encoding, self.connect_timeout);
        self.status.send_replace(Status::Connecting { address: address.clone() });
        self.link = Link::Connecting(Box::pin(async move {
            let late =
                || Error::Unreachable { address, reason: format!("no answer in {} ms", limit.as_millis()) };
            timeout(limit, Transport::connect(endpoint, encoding)).await.unwrap_or_else(|_| Err(late()))
        }));
    }

    /// Does everything that the engine wants done.
    fn carry_out(&mut self) -> Option<End> {
        while let Some(effect) = self.engine.effect() {
            match effect {
                Effect::Send(frame) => self.send(frame),
                Effect::Deliver(id, delivery) => self.backlog.push_back((id, delivery)),
                Effect::Unasked(event) => self.unasked.tell(&event),
                Effect::Serve(id, asked) => self.serve(id, *asked),
                Effect::Unserved(id) => {
                    self.handlers.remove(&id);
                }
                Effect::Opened { session_id, resumed } => {
                    let address = self.address();
                    tracing::debug!(address, session_id, resumed, "connected");
                    self.status.send_replace(Status::Connected { address, session_id, resumed });
                }
                Effect::Leave { error, .. } if error.is_final() => return Some(End::Failed(error)),
                Effect::Leave { error, back } => self.leave(error, back),
            }
        }
        self.deliver();
        None
    }

    fn send(&mut self, frame: streamgate_proto::v1::InboundMessage) {
        let Link::Open(transport, _) = &self.link else { return };
        let id = frame.id.clone();
        if let Err(error) = transport.send(frame) {
            self.engine.unsendable(&id, Error::Invalid(error.to_string()));
        }
    }

    /// Gives a question to its handler. One that has too many to do already says so.
    fn serve(&mut self, id: ServingId, asked: Asked) {
        let question = asked.question.clone();
        let work = Work { asked, connection: self.connection.subscribe() };
        let text = match self.handlers.get(&id).map(|handler| handler.try_reserve()) {
            Some(Ok(room)) => return room.send(work),
            Some(Err(mpsc::error::TrySendError::Full(()))) => "too many calls wait here already",
            Some(Err(mpsc::error::TrySendError::Closed(()))) | None => "the handler has ended",
        };
        self.engine
            .answered(question, Some(Err(wire_error("NOT_AVAILABLE", "unavailable", text.to_owned()))));
    }

    /// Gives the connection up; the next attempt goes to the next node.
    fn leave(&mut self, error: Error, back: Return) {
        if let Link::Open(_, since) = &self.link {
            self.backoff.held_for(since.elapsed());
            self.unasked.tell(&UnaskedEvent::Interrupted);
        }
        let retry_in = match back {
            Return::AtOnce => Duration::ZERO,
            Return::At(at) => at.saturating_duration_since(now()),
            Return::Backoff => self.backoff.next(rand::random()),
        };
        let link = std::mem::replace(&mut self.link, Link::Waiting(Instant::now() + retry_in));
        if let (Link::Open(transport, _), Return::At(_)) = (link, back) {
            // Says goodbye, so that the server takes it for a leave and not for a loss; nobody waits for that.
            tokio::spawn(transport.close());
        }
        tracing::debug!(%error, ?retry_in, "disconnected");
        self.connection = watch::Sender::new(());
        self.endpoint = (self.endpoint + 1) % self.endpoints.len().max(1);
        self.engine.lost(&error);
        self.status.send_replace(Status::Disconnected { error, retry_in });
    }

    fn address(&self) -> String {
        self.endpoints.get(self.endpoint).map(|endpoint| endpoint.address.clone()).unwrap_or_default()
    }

    /// Hands on what there is room for, in order.
    fn deliver(&mut self) {
        while let Some((id, delivery)) = self.backlog.pop_front() {
            let Some(outlet) = self.outlets.get(&id) else { continue };
            let last = matches!(delivery, Delivery::End(_));
            match outlet.try_send(delivery) {
                Err(mpsc::error::TrySendError::Full(delivery)) => {
                    return self.backlog.push_front((id, delivery));
                }
                // Dropped: its unsubscribe is on the way.
                Err(mpsc::error::TrySendError::Closed(_)) => {}
                Ok(()) if last => {
                    self.outlets.remove(&id);
                }
                Ok(()) => {}
            }
        }
    }

    /// Hands on all the rest, however long the subscribers take.
    async fn drain(&mut self) {
        while let Some((id, delivery)) = self.backlog.pop_front() {
            if let Some(outlet) = self.outlets.get(&id) {
                // An error means that the subscriber has gone.
                let _ = outlet.send(delivery).await;
            }
        }
    }
}

/// Engine time; follows tokio's clock, which tests may pause.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// What happens next on the link. Safe to cancel: see [`Transport::receive`].
async fn arrive(link: &mut Link, reading: bool) -> Arrival {
    match link {
        Link::Waiting(until) => {
            sleep_until(*until).await;
            Arrival::Retry
        }
        Link::Connecting(attempt) => Arrival::Connected(attempt.await),
        Link::Open(transport, _) if reading => Arrival::Received(transport.receive().await),
        Link::Open(..) => std::future::pending().await,
    }
}

/// Waits until the subscriber has room, or is gone.
async fn room(outlet: Option<&mpsc::Sender<Delivery>>) {
    if let Some(outlet) = outlet {
        // The permit is given back at once: only this task sends, so the room stays.
        let _ = outlet.reserve().await;
    }
}
