//! The client's side of the protocol as a pure state machine: frames, requests and time in, effects out.
//!
//! Owns what must survive a lost connection (requests without an answer, subscriptions and their cursors) and what
//! belongs to one connection (connect, heartbeat). Must never do I/O, sleep, or read a clock.
//!
//! Invariants: a message is handed to a subscription once and in order, and its cursor moves only then; whoever executes
//! the effects delivers every `Deliver`, whatever happens to the connection. No frame, however odd, panics.

mod heartbeat;
mod held;
mod incoming;
mod question;
mod requests;
mod serving;
mod subscription;
mod subscriptions;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use streamgate_proto::v1::{self, Connect, InboundMessage, inbound_message as inbound};

pub(crate) use question::{Asked, Outcome, Question, answer_frame, wire_error};
pub(crate) use requests::{Request, Retry};
pub(crate) use serving::{Offered, Offering, ServingId};
pub(crate) use subscription::{Delivery, Subscribing};

use crate::{error::Error, unasked::UnaskedEvent};
use heartbeat::{Beat, Heartbeat};
use requests::Requests;
use serving::Servings;
use subscriptions::Subscriptions;

/// The capability that selects the extended schema (PROTOCOL part B).
pub(crate) const EXTENDED: &str = "streamgate.v1";

/// Names a subscription inside this client.
pub(crate) type SubscriptionId = u64;

/// What the engine needs to know for its whole life.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) client_id: String,
    pub(crate) token: String,
    pub(crate) extended: bool,
    /// How long the server may take to answer `connect`.
    pub(crate) connect_timeout: Duration,
    /// How often to ping a server that does not ping.
    pub(crate) ping_interval: Duration,
}

/// What is to be done, in this order.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Send on the current connection.
    Send(InboundMessage),
    /// Hand to a subscriber; must not be dropped when the connection breaks.
    Deliver(SubscriptionId, Delivery),
    /// Hand to whoever wants what no subscription asked for; may be dropped.
    Unasked(UnaskedEvent),
    /// Hand to the handler; it is worked on only while the connection lasts.
    Serve(ServingId, Box<Asked>),
    /// Nothing more comes for the handler.
    Unserved(ServingId),
    /// The session is established.
    Opened { session_id: String, resumed: bool },
    /// Leave this connection because of the error.
    Leave { error: Error, back: Return },
}

/// When to connect again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Return {
    /// After the usual, growing delay: something failed.
    Backoff,
    AtOnce,
    /// The server asked to come back elsewhere, not before this.
    At(Instant),
}

/// Effects in the order in which they are to be carried out.
pub(crate) type Effects = VecDeque<Effect>;

#[derive(Debug)]
enum Link {
    Down,
    /// Waits for the answer to the `connect` of this request id.
    Connecting {
        request: u64,
        deadline: Instant,
    },
    Up {
        heartbeat: Heartbeat,
        /// The server asked to go, and come back elsewhere then.
        leave_at: Option<Instant>,
        /// That time has come: nothing new is sent, only what was asked here is still to be answered.
        leaving: bool,
    },
}

/// Numbers of requests; never reused by one client.
#[derive(Debug, Default)]
pub(crate) struct RequestIds(u64);

impl RequestIds {
    fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Engine {
    settings: Settings,
    link: Link,
    ids: RequestIds,
    requests: Requests,
    subscriptions: Subscriptions,
    servings: Servings,
    /// What is said when the server knows again what is offered, and until when that has to be.
    announcement: Option<(Effect, Instant)>,
    resume_token: String,
    /// The server offers the extension, too.
    extended: bool,
    /// The server refused a connect over its subscriptions: ask for each by itself, to find the culprit.
    connect_bare: bool,
    effects: Effects,
}

impl Engine {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            link: Link::Down,
            ids: RequestIds::default(),
            requests: Requests::default(),
            subscriptions: Subscriptions::default(),
            servings: Servings::default(),
            announcement: None,
            resume_token: String::new(),
            extended: false,
            connect_bare: false,
            effects: Effects::new(),
        }
    }

    /// The next thing to do.
    pub(crate) fn effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// A connection is there: says hello.
    pub(crate) fn opened(&mut self, now: Instant) {
        let request = self.ids.next();
        let mut connect = Connect {
            client_id: self.settings.client_id.clone(),
            client_type: "streamgate-rust".to_owned(),
            token: self.settings.token.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Connect::default()
        };
        if self.settings.extended {
            connect.caps = vec![EXTENDED.to_owned()];
        }
        if !self.connect_bare {
            connect.resume_token.clone_from(&self.resume_token);
            connect.subscriptions = self.subscriptions.with_connect(request, self.extended);
        }
        self.link = Link::Connecting { request, deadline: now + self.settings.connect_timeout };
        self.effects.push_back(Effect::Send(frame(request, inbound::Envelope::Connect(connect))));
    }

    /// The connection is gone.
    pub(crate) fn lost(&mut self, error: &Error) {
        self.link = Link::Down;
        self.requests.lost(error);
        self.subscriptions.lost();
        self.announcement = None;
        // What was meant for the dead connection; deliveries stay.
        self.effects.retain(|effect| {
            matches!(effect, Effect::Deliver(..) | Effect::Unasked(_) | Effect::Unserved(..))
        });
        self.servings.lost(&mut self.effects);
    }

    /// Nothing will ever work again: everyone who waits is told why.
    pub(crate) fn stop(&mut self, error: &Error) {
        self.lost(error);
        self.requests.fail_all(error);
        self.subscriptions.end_all(error, &mut self.effects);
        self.servings.end_all(error);
    }

    /// Takes a request; it is sent as soon as there is a connection.
    pub(crate) fn request(&mut self, request: Request, now: Instant) {
        let id = self.ids.next();
        let up = self.is_up();
        self.requests.add(id, request, up, now, &mut self.effects);
    }

    /// A frame could not be encoded: its request fails.
    pub(crate) fn unsendable(&mut self, id: &str, error: Error) {
        if let Ok(id) = id.parse() {
            self.requests.refuse(id, error.clone());
            self.subscriptions.refused(id, error, None, &mut self.effects);
        }
    }

    /// Takes a subscription, or answers it at once if the target is taken.
    pub(crate) fn subscribe(&mut self, subscribing: Subscribing, now: Instant) {
        self.subscriptions.add(subscribing);
        self.start_subscriptions(now);
    }

    /// Nobody listens to the subscription any more.
    pub(crate) fn unsubscribe(&mut self, subscription: SubscriptionId, now: Instant) {
        let Some((target, asked)) = self.subscriptions.remove(subscription) else { return };
        match self.is_up() {
            true if asked => self.send_unsubscribe(vec![target]),
            true => self.subscriptions.forget(&target),
            false => {}
        }
        self.start_subscriptions(now);
    }

    /// Takes a handler; what it answers is offered as soon as there is a connection.
    pub(crate) fn serve(&mut self, offering: Offering, now: Instant) {
        self.servings.add(offering);
        self.sync_servings(now);
    }

    /// Nobody wants to answer with that handler any more.
    pub(crate) fn unserve(&mut self, serving: ServingId, now: Instant) {
        self.servings.remove(serving, &mut self.effects);
        self.sync_servings(now);
    }

    /// A handler has done with a question.
    pub(crate) fn answered(&mut self, question: Question, outcome: Option<Outcome>) {
        self.servings.answered(question, outcome, &mut self.ids, &mut self.effects);
        self.leave_when_answered();
    }

    /// Something came from the server, if only a ping of the transport.
    pub(crate) fn heard(&mut self, now: Instant) {
        if let Link::Up { heartbeat, .. } = &mut self.link {
            heartbeat.heard(now);
        }
    }

    /// When [`tick`](Self::tick) has to be called at the latest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let link = match &self.link {
            Link::Down => None,
            Link::Connecting { deadline, .. } => Some(*deadline),
            Link::Up { heartbeat, leaving: true, .. } => Some(heartbeat.deadline()),
            Link::Up { heartbeat, leave_at, .. } => {
                let retries = [self.subscriptions.next_retry(), self.servings.next_retry()];
                let announce = self.announcement.as_ref().map(|(_, until)| *until);
                let all = [Some(heartbeat.deadline()), *leave_at, announce].into_iter().chain(retries);
                all.flatten().min()
            }
        };
        link.into_iter().chain(self.requests.deadline()).min()
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Instant) {
        if let Link::Up { leave_at: Some(at), leaving, .. } = &mut self.link {
            *leaving |= *at <= now;
        }
        self.withdraw_when_leaving();
        let up = self.is_up();
        self.requests.tick(now, up, &mut self.effects);
        match &mut self.link {
            Link::Down => {}
            Link::Connecting { deadline, .. } => {
                if *deadline <= now {
                    self.leave(Error::Timeout { what: "connect" }, false);
                }
            }
            Link::Up { heartbeat, .. } => match heartbeat.beat(now) {
                Beat::Fine => {
                    self.start_subscriptions(now);
                    self.sync_servings(now);
                }
                Beat::Ping => {
                    let id = self.ids.next();
                    let ping = frame(id, inbound::Envelope::Ping(v1::Ping {}));
                    self.effects.push_back(Effect::Send(ping));
                }
                Beat::Dead(silence) => {
                    let text = format!("nothing heard for {} ms", silence.as_millis());
                    self.leave(Error::ConnectionLost(text), true);
                }
            },
        }
        let silent = self.announcement.as_ref().is_some_and(|(_, until)| *until <= now);
        if silent && matches!(self.link, Link::Up { .. }) {
            self.leave(Error::Timeout { what: "rpc_serve" }, false);
        }
        self.leave_when_answered();
    }

    /// The transport failed, or the server closed it.
    pub(crate) fn leave_with(&mut self, error: Error) {
        self.leave(error, false);
    }

    /// Goes because the server asked for it, once everything that was asked here is answered. The server closes the
    /// connection if that takes too long, and every request has a deadline of its own.
    fn leave_when_answered(&mut self) {
        let busy = self.requests.awaits_answers() || self.servings.is_busy();
        if matches!(self.link, Link::Up { leaving: true, .. }) && !busy {
            self.leave(Error::Closed { code: 1012, reason: "the node drains".to_owned() }, true);
        }
    }

    fn leave(&mut self, error: Error, soon: bool) {
        let back = match self.link {
            // However the connection ended: that it would was said before, and is no failure.
            Link::Up { leave_at: Some(at), .. } => Return::At(at),
            _ if soon => Return::AtOnce,
            _ => Return::Backoff,
        };
        self.link = Link::Down;
        self.effects.push_back(Effect::Leave { error, back });
    }

    /// Whether something new may be sent.
    fn is_up(&self) -> bool {
        matches!(self.link, Link::Up { leaving: false, .. })
    }

    fn start_subscriptions(&mut self, now: Instant) {
        if self.is_up() {
            self.subscriptions.start(&mut self.ids, self.extended, now, &mut self.effects);
        }
    }

    /// Tells the server what is offered, and everybody else of the connection once it knows.
    fn sync_servings(&mut self, now: Instant) {
        if self.is_up() {
            // A server without the extension knows no offers: whoever wanted one was told.
            if self.extended {
                self.servings.sync(&mut self.ids, now, &mut self.effects);
            } else {
                self.servings.refuse_all(&not_offered(), &mut self.effects);
            }
        }
        if matches!(self.link, Link::Up { .. }) && self.servings.is_settled() {
            self.effects.extend(self.announcement.take().map(|(opened, _)| opened));
        }
    }

    /// New calls shall go elsewhere; those that are worked on are answered here.
    fn withdraw_when_leaving(&mut self) {
        if matches!(self.link, Link::Up { leaving: true, .. }) {
            self.servings.withdraw(&mut self.ids, &mut self.effects);
        }
    }

    fn send_unsubscribe(&mut self, targets: Vec<String>) {
        let subscriptions = targets
            .into_iter()
            .map(|channel| v1::Subscription { channel, ..v1::Subscription::default() })
            .collect();
        let unsubscribe = inbound::Envelope::Unsubscribe(v1::Unsubscribe { subscriptions });
        let id = self.ids.next();
        self.effects.push_back(Effect::Send(frame(id, unsubscribe)));
    }
}

fn not_offered() -> Error {
    Error::Server {
        code: "NOT_SUPPORTED".to_owned(),
        kind: "request_error".to_owned(),
        message: format!("only connections with {EXTENDED} have calls for clients"),
    }
}

fn frame(id: u64, envelope: inbound::Envelope) -> InboundMessage {
    InboundMessage { id: id.to_string(), envelope: Some(envelope), ..InboundMessage::default() }
}
