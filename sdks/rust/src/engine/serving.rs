//! What this client answers: the methods that it offers, and surveys.
//!
//! Invariants: one offer is under way at a time, and it names everything that is offered then; a call or survey is answered
//! at most once, on the connection by which it came; one that nobody here answers is refused at once.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use streamgate_proto::v1::{self, inbound_message::Envelope};
use tokio::sync::watch;

use super::{
    Effect, Effects, RequestIds, frame,
    question::{Asked, Outcome, Question, answer_frame, wire_error},
};
use crate::{error::Error, target::matches};

/// How long to wait when the server cannot take an offer now.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Longest that a survey is worked on: unlike a call, it does not say until when it is waited for.
const SURVEY_TIME: Duration = Duration::from_secs(60);
/// Longest that a call is worked on whose deadline cannot be told.
const CALL_TIME: Duration = Duration::from_secs(30);

/// Names a handler inside this client.
pub(crate) type ServingId = u64;

/// How the offer of a handler stands, for its guard.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Offered {
    NotYet,
    /// The server has accepted it once; it is offered again after every reconnect.
    Accepted,
    /// It will not be offered again.
    Ended(Error),
}

/// A handler that is offered from now on.
#[derive(Debug)]
pub(crate) struct Offering {
    pub(crate) id: ServingId,
    /// Pattern over methods; `None` for surveys, which need no offer.
    pub(crate) method: Option<String>,
    pub(crate) told: watch::Sender<Offered>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// The server does not know of it on this connection.
    Wanted,
    /// The offer under way names it.
    Asked,
    Accepted,
    /// Calls are answered until the server knows that there shall be no more.
    Leaving,
}

#[derive(Debug)]
struct Offer {
    method: String,
    standing: Standing,
    told: watch::Sender<Offered>,
}

#[derive(Debug)]
struct Asking {
    request: u64,
    /// What it offers for the first time on this connection.
    wanted: Vec<ServingId>,
    /// What it leaves out for the first time.
    left_out: Vec<ServingId>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Servings {
    /// In the order in which they were made: the first one that matches a call answers it.
    offers: BTreeMap<ServingId, Offer>,
    /// Who answers surveys: the last one.
    surveys: BTreeMap<ServingId, watch::Sender<Offered>>,
    asking: Option<Asking>,
    /// An offer of several was refused: each by itself, to find the culprit.
    one_by_one: bool,
    retry_at: Option<Instant>,
    /// Everything was taken back on this connection.
    withdrawn: bool,
    /// What handlers of this connection work on.
    open: HashSet<Question>,
}

impl Servings {
    pub(super) fn add(&mut self, offering: Offering) {
        let Offering { id, method, told } = offering;
        match method {
            Some(method) => {
                self.offers.insert(id, Offer { method, standing: Standing::Wanted, told });
            }
            None => {
                told.send_replace(Offered::Accepted);
                self.surveys.insert(id, told);
            }
        }
    }

    pub(super) fn remove(&mut self, id: ServingId, effects: &mut Effects) {
        let Some(offer) = self.offers.get_mut(&id) else {
            if self.surveys.remove(&id).is_some() {
                effects.push_back(Effect::Unserved(id));
            }
            return;
        };
        if offer.standing == Standing::Wanted {
            self.forget(id, effects);
        } else {
            offer.standing = Standing::Leaving;
        }
    }

    fn forget(&mut self, id: ServingId, effects: &mut Effects) {
        if self.offers.remove(&id).is_some() {
            effects.push_back(Effect::Unserved(id));
        }
    }

    pub(super) fn lost(&mut self, effects: &mut Effects) {
        (self.asking, self.retry_at) = (None, None);
        (self.one_by_one, self.withdrawn) = (false, false);
        self.open.clear();
        let left = self.offers.iter().filter(|(_, offer)| offer.standing == Standing::Leaving);
        for id in left.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.forget(id, effects);
        }
        self.offers.values_mut().for_each(|offer| offer.standing = Standing::Wanted);
    }

    pub(super) fn end_all(&mut self, error: &Error) {
        let offers = std::mem::take(&mut self.offers).into_values().map(|offer| offer.told);
        for told in offers.chain(std::mem::take(&mut self.surveys).into_values()) {
            told.send_replace(Offered::Ended(error.clone()));
        }
    }

    /// The server knows what is offered, or cannot take it now.
    pub(super) fn is_settled(&self) -> bool {
        let wanted = || self.offers.values().any(|offer| offer.standing == Standing::Wanted);
        self.asking.is_none() && (self.retry_at.is_some() || !wanted())
    }

    /// Something on this connection waits for an answer, from either side.
    pub(super) fn is_busy(&self) -> bool {
        self.asking.is_some() || !self.open.is_empty()
    }

    pub(super) fn next_retry(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Tells the server what is offered, if that has changed.
    pub(super) fn sync(&mut self, ids: &mut RequestIds, now: Instant, effects: &mut Effects) {
        if self.asking.is_some() || self.retry_at.is_some_and(|at| at > now) {
            return;
        }
        self.retry_at = None;
        let at_most = if self.one_by_one { 1 } else { usize::MAX };
        let wanted: Vec<_> = self.standing(Standing::Wanted).take(at_most).collect();
        let left_out: Vec<_> = self.standing(Standing::Leaving).collect();
        if wanted.is_empty() && left_out.is_empty() {
            return;
        }
        for id in &wanted {
            if let Some(offer) = self.offers.get_mut(id) {
                offer.standing = Standing::Asked;
            }
        }
        let offered = |offer: &&Offer| matches!(offer.standing, Standing::Asked | Standing::Accepted);
        let mut methods: Vec<_> =
            self.offers.values().filter(offered).map(|offer| offer.method.clone()).collect();
        methods.sort_unstable();
        methods.dedup();
        self.ask(ids, methods, wanted, left_out, effects);
    }

    /// Takes everything back on this connection, which will be left.
    pub(super) fn withdraw(&mut self, ids: &mut RequestIds, effects: &mut Effects) {
        let unknown = self.offers.values().all(|offer| offer.standing == Standing::Wanted);
        if !self.withdrawn && !unknown {
            self.withdrawn = true;
            let left_out = self.standing(Standing::Leaving).collect();
            self.ask(ids, Vec::new(), Vec::new(), left_out, effects);
        }
    }

    fn ask(
        &mut self,
        ids: &mut RequestIds,
        methods: Vec<String>,
        wanted: Vec<ServingId>,
        left_out: Vec<ServingId>,
        effects: &mut Effects,
    ) {
        let request = ids.next();
        let serve = Envelope::RpcServe(v1::RpcServe { methods });
        effects.push_back(Effect::Send(frame(request, serve)));
        self.asking = Some(Asking { request, wanted, left_out });
    }

    fn standing(&self, standing: Standing) -> impl Iterator<Item = ServingId> {
        self.offers.iter().filter(move |(_, offer)| offer.standing == standing).map(|(id, _)| *id)
    }

    /// The server has taken the offer `request`; false if that is none.
    pub(super) fn accepted(&mut self, request: u64, effects: &mut Effects) -> bool {
        let Some(asking) = self.asking.take_if(|asking| asking.request == request) else { return false };
        for id in asking.wanted {
            if let Some(offer) = self.offers.get_mut(&id)
                && offer.standing == Standing::Asked
            {
                offer.standing = Standing::Accepted;
                offer.told.send_replace(Offered::Accepted);
            }
        }
        asking.left_out.into_iter().for_each(|id| self.forget(id, effects));
        let more = self.standing(Standing::Wanted).next().is_some();
        self.one_by_one &= more;
        true
    }

    /// The server has refused the offer `request`; false if that is none. What it knew before, it goes on to know.
    pub(super) fn refused(
        &mut self,
        request: u64,
        error: &Error,
        now: Instant,
        effects: &mut Effects,
    ) -> bool {
        let Some(asking) = self.asking.take_if(|asking| asking.request == request) else { return false };
        for id in &asking.wanted {
            if let Some(offer) = self.offers.get_mut(id)
                && offer.standing == Standing::Asked
            {
                offer.standing = Standing::Wanted;
            }
        }
        if passes(error) {
            self.retry_at = Some(now + RETRY_DELAY);
        } else {
            match asking.wanted.as_slice() {
                // Who is called nevertheless will say that nothing here answers.
                [] => asking.left_out.into_iter().for_each(|id| self.forget(id, effects)),
                [only] => self.end(*only, error, effects),
                _ => self.one_by_one = true,
            }
        }
        true
    }

    /// The server takes no offers at all.
    pub(super) fn refuse_all(&mut self, error: &Error, effects: &mut Effects) {
        for id in self.standing(Standing::Wanted).collect::<Vec<_>>() {
            self.end(id, error, effects);
        }
    }

    fn end(&mut self, id: ServingId, error: &Error, effects: &mut Effects) {
        if let Some(offer) = self.offers.get(&id) {
            offer.told.send_replace(Offered::Ended(error.clone()));
        }
        self.forget(id, effects);
    }

    /// Takes a call. `sent`: when the server sent it, by its own clock, in milliseconds since the Unix epoch.
    pub(super) fn call(
        &mut self,
        call: v1::RpcCall,
        sent: u64,
        now: Instant,
        ids: &mut RequestIds,
        effects: &mut Effects,
    ) {
        // Both are the server's: this machine's clock may say something else.
        let left = (sent > 0).then(|| Duration::from_millis(call.deadline.saturating_sub(sent)));
        let question = Question::Call(call.request_id);
        let found = self.offers.iter().find(|(_, offer)| matches(&offer.method, &call.method));
        match found.map(|(id, _)| *id) {
            Some(id) => {
                let asked = Asked {
                    question: question.clone(),
                    channel: call.channel,
                    method: call.method,
                    event: call.payload.unwrap_or_default(),
                    deadline: now + left.filter(|_| call.deadline > 0).unwrap_or(CALL_TIME),
                };
                self.open.insert(question);
                effects.push_back(Effect::Serve(id, Box::new(asked)));
            }
            None => {
                let text = format!("nothing here answers {:?}", call.method);
                send(question, Err(wire_error("NO_PROXY", "proxy_error", text)), ids, effects);
            }
        }
    }

    /// Takes a survey.
    pub(super) fn survey(
        &mut self,
        survey: v1::SurveyRequest,
        now: Instant,
        ids: &mut RequestIds,
        effects: &mut Effects,
    ) {
        let question = Question::Survey(survey.request_id);
        match self.surveys.last_key_value() {
            Some((id, _)) => {
                let asked = Asked {
                    question: question.clone(),
                    channel: String::new(),
                    method: String::new(),
                    event: survey.payload.unwrap_or_default(),
                    deadline: now + SURVEY_TIME,
                };
                self.open.insert(question);
                effects.push_back(Effect::Serve(*id, Box::new(asked)));
            }
            None => {
                let text = "this client answers no surveys".to_owned();
                send(question, Err(wire_error("NOT_SUPPORTED", "request_error", text)), ids, effects);
            }
        }
    }

    /// A handler has done with a question; without an outcome nobody waits for one.
    pub(super) fn answered(
        &mut self,
        question: Question,
        outcome: Option<Outcome>,
        ids: &mut RequestIds,
        effects: &mut Effects,
    ) {
        if self.open.remove(&question)
            && let Some(outcome) = outcome
        {
            send(question, outcome, ids, effects);
        }
    }
}

/// Whether the same offer may be taken later: the server shows offers to all nodes, by way of its broker.
fn passes(error: &Error) -> bool {
    error.is_retryable()
        || error.is_timeout()
        || matches!(error, Error::Server { code, .. } if code == "RATE_LIMITED")
}

fn send(question: Question, outcome: Outcome, ids: &mut RequestIds, effects: &mut Effects) {
    effects.push_back(Effect::Send(answer_frame(ids.next(), question, outcome)));
}

#[cfg(test)]
mod tests;
