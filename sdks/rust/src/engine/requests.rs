//! Requests that wait for an answer, across connections.
//!
//! Invariants: each is answered exactly once (answer, error or timeout); those of one kind are sent in the order in which
//! they were made, again after a reconnect; one that must not be sent twice fails when the connection breaks under it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use streamgate_proto::v1::{InboundMessage, outbound_message::Envelope};
use tokio::sync::oneshot;

use super::{Effect, Effects};
use crate::error::Error;

/// How long to wait when the server says that it cannot do it now.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Whether a request may be sent again after its outcome became unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// Asking twice does no harm.
    Always,
    /// It might be carried out twice: only if it was never sent.
    UnlessSent,
}

/// One request.
#[derive(Debug)]
pub(crate) struct Request {
    /// What to send; the id is set here.
    pub(crate) frame: InboundMessage,
    pub(crate) retry: Retry,
    pub(crate) deadline: Instant,
    /// For the error of the deadline.
    pub(crate) what: &'static str,
    /// The answer's envelope, never an error envelope.
    pub(crate) reply: oneshot::Sender<Result<Envelope, Error>>,
}

#[derive(Debug)]
struct Pending {
    request: Request,
    /// Sent on the connection of now.
    sent: bool,
    /// The server asked to wait.
    not_before: Option<Instant>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// By id, so in the order in which they were made.
    pending: BTreeMap<u64, Pending>,
    /// When to look at which request; entries of answered ones are stale until they come up.
    timers: BTreeSet<(Instant, u64)>,
}

impl Requests {
    pub(super) fn add(
        &mut self,
        id: u64,
        mut request: Request,
        up: bool,
        now: Instant,
        effects: &mut Effects,
    ) {
        request.frame.id = id.to_string();
        self.timers.insert((request.deadline, id));
        let mut pending = Pending { request, sent: false, not_before: None };
        if up {
            pending.send(now, effects);
        }
        self.pending.insert(id, pending);
    }

    /// Sends what is not on the wire of the current connection.
    pub(super) fn flush(&mut self, now: Instant, effects: &mut Effects) {
        // Whoever gave up on a request does not want it to be made later.
        self.pending.retain(|_, pending| !pending.request.reply.is_closed());
        for pending in self.pending.values_mut() {
            pending.send(now, effects);
        }
    }

    pub(super) fn answer(&mut self, id: u64, answer: Envelope) {
        self.finish(id, Ok(answer));
    }

    pub(super) fn refuse(&mut self, id: u64, error: Error) {
        self.finish(id, Err(error));
    }

    /// Puts a request that the server could not carry out back; false if it is none that may be repeated.
    pub(super) fn retry_later(&mut self, id: u64, now: Instant) -> bool {
        let Some(pending) = self.pending.get_mut(&id) else { return false };
        let at = now + RETRY_DELAY;
        if pending.request.retry != Retry::Always || at >= pending.request.deadline {
            return false;
        }
        pending.sent = false;
        pending.not_before = Some(at);
        self.timers.insert((at, id));
        true
    }

    pub(super) fn lost(&mut self, error: &Error) {
        let unknown: Vec<_> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.sent && pending.request.retry == Retry::UnlessSent)
            .map(|(id, _)| *id)
            .collect();
        for id in unknown {
            let what = self.pending.get(&id).map_or("request", |pending| pending.request.what);
            // Closed by this side: that is no surprise.
            let error = match error {
                Error::ClientClosed => Error::ClientClosed,
                cause => Error::OutcomeUnknown { what, cause: Box::new(cause.clone()) },
            };
            self.refuse(id, error);
        }
        for pending in self.pending.values_mut() {
            pending.sent = false;
        }
    }

    pub(super) fn fail_all(&mut self, error: &Error) {
        for (_, pending) in std::mem::take(&mut self.pending) {
            pending.finish(Err(error.clone()));
        }
        self.timers.clear();
    }

    /// Whether a request was sent on this connection and is not yet answered.
    pub(super) fn awaits_answers(&self) -> bool {
        self.pending.values().any(|pending| pending.sent)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    pub(super) fn tick(&mut self, now: Instant, up: bool, effects: &mut Effects) {
        while let Some(&(at, id)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            let Some(pending) = self.pending.get_mut(&id) else { continue };
            if pending.request.deadline <= now {
                let what = pending.request.what;
                self.refuse(id, Error::Timeout { what });
            } else if up {
                pending.send(now, effects);
            }
        }
    }

    fn finish(&mut self, id: u64, outcome: Result<Envelope, Error>) {
        if let Some(pending) = self.pending.remove(&id) {
            self.timers.remove(&(pending.request.deadline, id));
            pending.finish(outcome);
        }
    }
}

impl Pending {
    fn send(&mut self, now: Instant, effects: &mut Effects) {
        if self.sent || self.not_before.is_some_and(|at| at > now) {
            return;
        }
        self.sent = true;
        self.not_before = None;
        let mut frame = self.request.frame.clone();
        // What was waited for a connection is not waited for again.
        let left = self.request.deadline.saturating_duration_since(now).as_millis();
        frame.timeout_ms = frame.timeout_ms.min(u32::try_from(left).unwrap_or(u32::MAX).max(1));
        effects.push_back(Effect::Send(frame));
    }

    fn finish(self, outcome: Result<Envelope, Error>) {
        // The asker may have gone; then nobody wants to know.
        let _ = self.request.reply.send(outcome);
    }
}
