//! Sessions: what a client may say and what it gets back.
//!
//! Owns: the [`Session`] state machine. A decoded frame or a completed operation goes in, [`Effect`]s come out; every
//! transport drives the same machine. Never does: touch sockets, clocks or the broker; the time is an argument.
//!
//! Invariants:
//! - Nothing is answered before `connect` succeeded, except errors about it.
//! - The answer to a request carries the request's `id` and `metadata`.
//! - A client that did not list `streamgate.v1` never gets a field outside MessageLoop v1.
//! - Nothing is done for a client that the rights of that moment do not allow; publishes leave in the order in which they came.
//! - After [`Effect::Close`] no effect follows.

mod arrival;
#[cfg(test)]
mod auth_tests;
mod budget;
mod connect;
mod effect;
mod history;
mod keep;
mod presence;
#[cfg(test)]
mod presence_tests;
mod publish;
mod publish_batch;
#[cfg(test)]
mod publish_batch_tests;
mod publish_queue;
mod publish_rules;
mod recheck;
#[cfg(test)]
mod recheck_tests;
mod refresh;
mod render;
#[cfg(test)]
mod resume_tests;
#[cfg(test)]
mod revoked_tests;
mod rights;
#[cfg(test)]
mod rights_tests;
mod rpc;
mod screen;
mod server;
mod settings;
mod subscribe;
#[cfg(test)]
mod tests;
mod token;

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
};

use streamgate_proto::{
    downgrade_to_v1,
    v1::{InboundMessage, OutboundMessage, inbound_message::Envelope as In, outbound_message as out},
};

pub use arrival::{Arrival, Manner};
pub use connect::Connecting;
pub use effect::{
    Asking, Change, Effect, Effects, Item, ReplyTo, RpcRequest, SubscribeBatch, Survey, Ticket, Wish,
    subscribe_to,
};
pub use presence::{MOST_MEMBERS, presence_frame};
pub(crate) use presence::{switched_off, wire_member};
pub use publish_batch::BatchItem;
pub(crate) use publish_rules::{check_event, check_key, check_ttl, sound};
pub(crate) use render::message as wire_message;
pub use render::{Recovered, gap_frame, publication_frame, recover_complete_frame};
pub use rights::{Answer, Judging, Question, not_allowed};
pub use rpc::survey_frame;
pub use screen::bad_token;
pub use settings::Settings;
pub(crate) use subscribe::wire_position;
pub use token::ResumeToken;

use crate::{
    auth::{Grants, Stamp, Token},
    channel::Target,
    client_headers::ClientHeaders,
    error::{ClientError, CloseCode, ErrorCode},
    policy::{Bucket, Stay},
};
use budget::ChannelBudget;
use keep::FIRST_TENURE;
use publish_queue::PublishQueue;
use screen::{Grant, Pending};

/// The capability that selects the extended schema (PROTOCOL part B).
pub const EXTENDED: &str = "streamgate.v1";

/// The time of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Milliseconds of a clock that never goes back.
    pub mono_ms: u64,
    /// Milliseconds since the Unix epoch.
    pub unix_ms: u64,
}

/// How far a session is.
#[derive(Debug)]
enum Phase {
    /// Waiting for connect.
    New,
    /// Connect is being carried out; what the client sent after it waits.
    Connecting(VecDeque<InboundMessage>),
    Open,
    Closed,
}

/// Frames that may follow connect before it is answered.
const DEFERRED_FRAMES: usize = 256;

/// One client's logical connection.
#[derive(Debug)]
pub struct Session {
    settings: Settings,
    phase: Phase,
    id: String,
    extended: bool,
    client_id: String,
    client_type: String,
    user_id: String,
    /// What the client showed before its connect: with the upgrade request or the call.
    presented: Option<Token>,
    /// Where it is, beyond proxies that are trusted.
    address: Option<IpAddr>,
    /// Headers that it came with, for backends.
    headers: ClientHeaders,
    /// What it can be asked.
    manner: Manner,
    /// When its token ends.
    expires_unix_ms: Option<u64>,
    /// By what its token can be revoked; none: it showed none.
    stamp: Option<Box<Stamp>>,
    /// What its token brings, if anything.
    grants: Option<Box<Grants>>,
    /// Counts it for its user.
    stay: Option<Stay>,
    /// The table that subscriptions were last checked against.
    rights_seen: u64,
    /// Batches of subscriptions that wait for a verdict, and the number of the last.
    pending: Vec<Pending>,
    next_batch: u64,
    /// Publishes that do.
    waiting: PublishQueue,
    calls: Bucket,
    /// Set for extended clients; what brings the session back.
    resume: Option<ResumeToken>,
    /// Methods that it offers to answer.
    offered: Vec<String>,
    /// By channel or pattern.
    subscriptions: HashMap<Target, Held>,
    next_slot: u32,
    errors_in_a_row: u32,
    /// Connects so far, refused ones included.
    connects: u32,
    started_ms: u64,
    /// When connect came, for others to see.
    connected_unix_ms: u64,
    heard_ms: u64,
    pinged_ms: u64,
    /// When its record is to be kept again.
    save_ms: u64,
    saves: Bucket,
    /// Numbers its connections: this one is later than those of lower numbers.
    tenure: u32,
    /// The connection before this one is being closed, if there was one.
    settled: bool,
    /// Pages of history and lists of members that are being read.
    reading: u32,
    publishes: Bucket,
    channels: ChannelBudget,
}

/// What a session knows of one of its subscriptions.
#[derive(Debug)]
struct Held {
    slot: u32,
    ephemeral: bool,
    /// Is told of joins and leaves.
    watch: bool,
    /// Makes the session a member.
    member: bool,
    /// By what it is allowed.
    grant: Grant,
    /// The broker has answered.
    open: bool,
}

impl Session {
    /// A session whose transport is connected since `now`. A token in the connect frame goes before that of `arrival`.
    #[must_use]
    pub fn new(settings: Settings, now: Now, arrival: Arrival) -> Self {
        Self {
            rights_seen: settings.rights.revision(),
            settings,
            phase: Phase::New,
            id: uuid::Uuid::new_v4().to_string(),
            extended: false,
            client_id: String::new(),
            client_type: String::new(),
            user_id: String::new(),
            presented: arrival.token,
            address: arrival.address,
            headers: arrival.headers,
            manner: arrival.manner,
            expires_unix_ms: None,
            stamp: None,
            grants: None,
            stay: None,
            pending: Vec::new(),
            next_batch: 0,
            waiting: PublishQueue::default(),
            calls: Bucket::default(),
            resume: None,
            offered: Vec::new(),
            subscriptions: HashMap::new(),
            next_slot: 0,
            errors_in_a_row: 0,
            connects: 0,
            started_ms: now.mono_ms,
            connected_unix_ms: now.unix_ms,
            heard_ms: now.mono_ms,
            pinged_ms: now.mono_ms,
            save_ms: u64::MAX,
            saves: Bucket::default(),
            tenure: FIRST_TENURE,
            settled: false,
            reading: 0,
            publishes: Bucket::default(),
            channels: ChannelBudget::default(),
        }
    }

    /// Public id: names the session in presence and RPC, proves nothing.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The authenticated user, empty if anonymous.
    #[must_use]
    pub fn user_id(&self) -> &str {
        &self.user_id
    }

    /// What the client says of itself; proves nothing.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Where the client is, beyond proxies that are trusted: for hooks, limits and logs. `None`: not known.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// Whether the client gets the extended schema.
    #[must_use]
    pub fn is_extended(&self) -> bool {
        self.extended
    }

    /// Whether others may ask something of the client, as calls and surveys.
    #[must_use]
    pub fn takes_questions(&self) -> bool {
        self.manner == Manner::Envelopes
    }

    /// Whether others may know of the session: requests have none to speak of.
    #[must_use]
    pub fn is_public(&self) -> bool {
        self.manner != Manner::Requests
    }

    /// Whether the client has not yet said who it is.
    #[must_use]
    pub fn is_new(&self) -> bool {
        matches!(self.phase, Phase::New)
    }

    /// Whether connect succeeded and nothing closed the session.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// Takes a decoded frame.
    pub fn receive(&mut self, now: Now, frame: InboundMessage, fx: &mut Effects) {
        self.heard_ms = now.mono_ms;
        self.errors_in_a_row = 0;
        match &mut self.phase {
            Phase::New => match frame.envelope {
                Some(In::Connect(connect)) => {
                    let reply = ReplyTo { id: frame.id, metadata: frame.metadata };
                    self.connect(now, reply, connect, fx);
                }
                _ => self.close(CloseCode::Stale, "the first frame must be connect", fx),
            },
            Phase::Connecting(deferred) if deferred.len() < DEFERRED_FRAMES => deferred.push_back(frame),
            Phase::Connecting(_) => self.close(CloseCode::BadRequest, "too many frames before connected", fx),
            Phase::Open => self.dispatch(now, frame, fx),
            Phase::Closed => {}
        }
    }

    /// Takes notice of a frame that could not be decoded; `reason` is fit for the client.
    pub fn undecodable(&mut self, now: Now, reason: &str, fx: &mut Effects) {
        self.heard_ms = now.mono_ms;
        match self.phase {
            Phase::Closed => {}
            Phase::New => self.close(CloseCode::Stale, "the first frame must be connect", fx),
            Phase::Connecting(_) | Phase::Open => {
                self.errors_in_a_row += 1;
                self.fail(now, ReplyTo::default(), &ClientError::bad_request(reason), fx);
                if self.errors_in_a_row >= self.settings.limits.load().errors_in_a_row {
                    self.close(CloseCode::TooManyErrors, CloseCode::TooManyErrors.reason(), fx);
                }
            }
        }
    }

    /// Takes notice of a sign of life below the protocol, as a WebSocket pong.
    pub fn heard(&mut self, now: Now) {
        self.heard_ms = now.mono_ms;
    }

    /// Checks deadlines; returns when (in `mono_ms`) to check again.
    pub fn tick(&mut self, now: Now, fx: &mut Effects) -> u64 {
        let limits = self.settings.limits.load_full();
        let silent = now.mono_ms.saturating_sub(self.heard_ms);
        let ping = millis(limits.ping_interval);
        match self.phase {
            Phase::Closed => return u64::MAX,
            Phase::New | Phase::Connecting(_) => {
                let deadline = self.started_ms.saturating_add(millis(limits.connect_deadline));
                if matches!(self.phase, Phase::New) && now.mono_ms >= deadline {
                    self.close(CloseCode::Stale, "no connect in time", fx);
                    return u64::MAX;
                }
                return deadline.max(now.mono_ms + 1);
            }
            Phase::Open => {}
        }
        let good_for = self.good_for(now);
        if good_for == Some(0) {
            self.close(CloseCode::InvalidToken, "the token has expired", fx);
            return u64::MAX;
        }
        self.recheck_if_changed(now, fx);
        let subscribed_for = self.subscription_tokens(now, fx);
        if !self.is_open() {
            return u64::MAX;
        }
        // An extended client answers pings: three unanswered ones are enough to know that it is gone.
        let answers = self.extended && self.manner == Manner::Envelopes;
        let patience = millis(limits.idle_timeout).min(if answers { 3 * ping } else { u64::MAX });
        if silent >= patience {
            self.close(CloseCode::IdleTimeout, "nothing heard for too long", fx);
            return u64::MAX;
        }
        if now.mono_ms >= self.heard_ms.max(self.pinged_ms).saturating_add(ping) {
            self.pinged_ms = now.mono_ms;
            if answers {
                self.answer(now, ReplyTo::fresh(), out::Envelope::Ping(Default::default()), fx);
            } else {
                fx.push(Effect::TransportPing);
            }
        }
        let next = (self.heard_ms.max(self.pinged_ms).saturating_add(ping))
            .min(self.heard_ms.saturating_add(patience))
            .min(good_for.map_or(u64::MAX, |ms| now.mono_ms.saturating_add(ms)))
            .min(subscribed_for.map_or(u64::MAX, |ms| now.mono_ms.saturating_add(ms)));
        if now.mono_ms >= self.save_ms {
            self.keep(now, fx);
        }
        next.min(self.save_ms)
    }

    /// Ends the session by our own will.
    pub fn close(&mut self, code: CloseCode, reason: &str, fx: &mut Effects) {
        if !matches!(self.phase, Phase::Closed) {
            self.phase = Phase::Closed;
            self.stay = None;
            fx.push(Effect::Close { code, reason: reason.to_owned() });
        }
    }

    /// Ends the session because its connection is gone; nothing can be sent any more.
    pub fn disconnected(&mut self) {
        self.phase = Phase::Closed;
        self.stay = None;
    }

    fn dispatch(&mut self, now: Now, frame: InboundMessage, fx: &mut Effects) {
        let reply = ReplyTo { id: frame.id, metadata: frame.metadata };
        let Some(envelope) = frame.envelope else {
            return self.not_supported(now, reply, "the frame has no envelope that this server knows", fx);
        };
        match envelope {
            In::Connect(_) => self.close(CloseCode::BadRequest, "already connected", fx),
            In::Subscribe(subscribe) => self.subscribe(now, reply, subscribe.subscriptions, fx),
            In::Unsubscribe(unsubscribe) => self.unsubscribe(now, reply, unsubscribe.subscriptions, fx),
            In::Publish(event) => {
                self.publish(
                    now,
                    reply,
                    &frame.channel,
                    event,
                    frame.publish_options.unwrap_or_default(),
                    fx,
                );
            }
            In::RpcRequest(event) => {
                let address = (frame.channel, frame.method);
                self.rpc_request(now, reply, address, event, frame.timeout_ms, fx);
            }
            In::Ping(_) => self.answer(now, reply, out::Envelope::Pong(Default::default()), fx),
            In::SubRefresh(request) => self.sub_refresh(now, reply, &request, fx),
            In::History(request) if self.extended => self.history(now, reply, request, fx),
            In::History(_) => {
                self.not_supported(now, reply, "history is offered to streamgate.v1 clients", fx)
            }
            In::Pong(_) => {}
            In::SurveyResponse(answer) => fx.push(rpc::survey_answer(answer)),
            In::SurveyRequest(request) if self.extended => {
                self.survey(now, reply, &frame.channel, request, frame.timeout_ms, fx);
            }
            In::SurveyRequest(_) => {
                self.not_supported(now, reply, "surveys are offered to streamgate.v1 clients", fx)
            }
            In::PresenceQuery(query) if self.extended => self.presence_query(now, reply, &query, fx),
            In::PresenceQuery(_) => {
                self.not_supported(now, reply, "presence is offered to streamgate.v1 clients", fx)
            }
            In::RpcServe(serve) if self.extended => self.rpc_serve(now, reply, serve.methods, fx),
            In::RpcResult(result) if self.extended => self.rpc_result(now, reply, result, fx),
            In::RpcServe(_) | In::RpcResult(_) => {
                self.not_supported(now, reply, "serving RPCs is offered to streamgate.v1 clients", fx)
            }
            In::Ack(_) | In::Nack(_) | In::Extend(_) => {
                self.not_supported(now, reply, "queues are not offered", fx)
            }
            In::Refresh(refresh) if self.extended => self.refresh(now, reply, &refresh.token, fx),
            In::Refresh(_) => {
                self.not_supported(now, reply, "token refresh is offered to streamgate.v1 clients", fx)
            }
        }
    }

    fn not_supported(&self, now: Now, reply: ReplyTo, what: &str, fx: &mut Effects) {
        self.fail(now, reply, &ClientError::new(ErrorCode::NotSupported, what), fx);
    }

    fn fail(&self, now: Now, reply: ReplyTo, error: &ClientError, fx: &mut Effects) {
        self.answer(now, reply, out::Envelope::Error(error.to_wire()), fx);
    }

    fn answer(&self, now: Now, reply: ReplyTo, envelope: out::Envelope, fx: &mut Effects) {
        fx.extend(self.frame(now, reply, envelope).map(Effect::send));
    }

    /// The frame of an answer; `None` if there is nobody to take it.
    fn frame(&self, now: Now, reply: ReplyTo, envelope: out::Envelope) -> Option<OutboundMessage> {
        if matches!(self.phase, Phase::Closed) {
            return None;
        }
        let mut frame = OutboundMessage {
            id: reply.id,
            metadata: reply.metadata,
            time: now.unix_ms,
            envelope: Some(envelope),
        };
        // What v1 has no word for is not said: requests that have such answers are refused before.
        (self.extended || downgrade_to_v1(&mut frame).is_ok()).then_some(frame)
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
