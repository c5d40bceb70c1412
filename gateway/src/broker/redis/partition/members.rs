//! This node's members: as they are to be, and what Redis may not know of them. Pure; `changes.rs` tells Redis, and what
//! failed is tried again until Redis has it as it is here.
//!
//! Redis knows only which node holds a member. Which owner on this node does is decided here, where all of them pass.
//! A member that another node holds is contested: for a while this node asks for it again and again without taking it,
//! as the other's call may have been a late one, whose end follows. After that the other node's client is the one that
//! joined last.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::Permit;
use crate::{
    broker::{BrokerError, Owner, PresencePage},
    channel::Channel,
    telemetry::metrics::MEMBERS,
};

/// Changes in one call.
const BATCH: usize = 200;

pub(super) type Key = (Channel, String);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// As it is to be, whatever Redis knows so far.
    mine: HashMap<Channel, HashMap<String, Mine>>,
    pub(super) steps: VecDeque<Step>,
    /// Members, and sessions that are none any more, of which Redis may not know.
    unsettled: BTreeSet<Key>,
    /// Members that another node holds, or has taken over; and until when that may be the work of a late call.
    contested: BTreeMap<Key, Instant>,
    /// The last attempt failed: what is unsettled waits for the next tick or connection.
    resting: bool,
    pub(super) under_way: bool,
    joins: u64,
}

#[derive(Debug)]
struct Mine {
    owner: Owner,
    /// Encoded.
    member: Bytes,
    /// Which join it was.
    number: u64,
    /// When it was asked for.
    since: Instant,
    /// Redis has said that this node holds it.
    answered: bool,
    /// Redis may have been told of it, or will be by what waits.
    told: bool,
}

/// What is asked for, in order.
#[derive(Debug)]
pub(super) enum Step {
    Join { change: Change, member: Bytes },
    Leave { key: Key },
    Query { channel: Channel, limit: usize, reply: PageReply, permit: Permit },
}

pub(super) type PageReply = oneshot::Sender<Result<PresencePage, BrokerError>>;

/// One change of a call.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) key: Key,
    pub(super) joins: bool,
    /// Which join it tells of.
    number: u64,
    /// Redis was never told of the key before.
    fresh: bool,
    reply: Option<oneshot::Sender<Result<(), BrokerError>>>,
}

impl Change {
    fn leave(key: Key) -> Self {
        Self { key, joins: false, number: 0, fresh: false, reply: None }
    }

    fn answer(&mut self, outcome: Result<(), BrokerError>) {
        if let Some(reply) = self.reply.take() {
            // Who does not wait any more needs no answer.
            let _ = reply.send(outcome);
        }
    }
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Unchanged,
    Announced,
    HeldElsewhere,
}

/// How long a member is contested.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// From a join that Redis has answered: two calls at about the same time may have overtaken each other.
    pub(super) window: Duration,
    /// From the first sign that another node holds a member for which Redis has not answered this node. It was away,
    /// perhaps, and the other's call waited there. Long enough for that node to end it, or to be reaped.
    pub(super) doubted: Duration,
}

impl Members {
    pub(super) fn join(
        &mut self,
        key: Key,
        owner: Owner,
        member: Bytes,
        reply: oneshot::Sender<Result<(), BrokerError>>,
    ) {
        let fresh = match self.get(&key) {
            // This tells of it in the place of what is unsettled.
            Some(mine) if !mine.told => self.unsettled.remove(&key),
            Some(_) => false,
            None => !self.unsettled.contains(&key),
        };
        self.joins += 1;
        let (number, since) = (self.joins, Instant::now());
        let mine = Mine { owner, member: member.clone(), number, since, answered: false, told: true };
        if self.mine.entry(key.0.clone()).or_default().insert(key.1.clone(), mine).is_none() {
            metrics::gauge!(MEMBERS).increment(1.0);
        }
        self.contested.remove(&key);
        let change = Change { key, joins: true, number, fresh, reply: Some(reply) };
        self.steps.push_back(Step::Join { change, member });
    }

    /// Nothing happens unless `owner` holds it.
    pub(super) fn leave(&mut self, key: Key, owner: Owner) {
        if self.get(&key).is_none_or(|mine| mine.owner != owner) {
            return;
        }
        if self.forget(&key).is_some_and(|mine| mine.told) {
            self.steps.push_back(Step::Leave { key });
        } else {
            self.unsettled.remove(&key);
        }
    }

    fn forget(&mut self, key: &Key) -> Option<Mine> {
        self.contested.remove(key);
        let sessions = self.mine.get_mut(&key.0)?;
        let mine = sessions.remove(&key.1)?;
        if sessions.is_empty() {
            self.mine.remove(&key.0);
        }
        metrics::gauge!(MEMBERS).decrement(1.0);
        Some(mine)
    }

    fn get(&self, key: &Key) -> Option<&Mine> {
        self.mine.get(&key.0)?.get(&key.1)
    }

    fn get_mut(&mut self, key: &Key) -> Option<&mut Mine> {
        self.mine.get_mut(&key.0)?.get_mut(&key.1)
    }

    /// Whether `session` is a member of `channel` here, or something of it is on its way.
    pub(super) fn concerns(&self, channel: &Channel, session: &str) -> bool {
        let key = (channel.clone(), session.to_owned());
        self.get(&key).is_some() || self.unsettled.contains(&key)
    }

    /// Redis may have lost any of them. Other nodes, too, may only now come to end what they hold no more.
    pub(super) fn confirm_all(&mut self, patience: Patience) {
        let all = self.mine.iter().flat_map(|(channel, sessions)| {
            sessions.keys().map(move |session| (channel.clone(), session.clone()))
        });
        self.unsettled.extend(all);
        let until = Instant::now() + patience.doubted;
        self.contested.values_mut().for_each(|end| *end = until.max(*end));
        self.resting = false;
    }

    /// Has a session that is none of ours any more removed from Redis.
    pub(super) fn settle(&mut self, channel: Channel, session: String) {
        self.unsettled.insert((channel, session));
    }

    /// Another node has taken it over. Whether there is something to ask: one that has been ours for long goes to who
    /// asked last, unless Redis says that it is ours again, or nobody's while its client is here.
    pub(super) fn taken(&mut self, key: Key, patience: Patience) -> bool {
        let Some(mine) = self.get(&key) else { return false };
        let until =
            if mine.answered { mine.since + patience.window } else { Instant::now() + patience.doubted };
        self.contested.entry(key.clone()).or_insert(until);
        // Also if a call with it is under way: that may have come before.
        self.unsettled.insert(key);
        true
    }

    /// Whether nothing but steps is to be told now.
    pub(super) fn is_settled(&self) -> bool {
        self.unsettled.is_empty() || self.resting
    }

    /// Tries again what failed, and what another node holds if `contested`.
    pub(super) fn try_again(&mut self, contested: bool) {
        self.resting = false;
        if contested {
            self.unsettled.extend(self.contested.keys().cloned());
        }
    }

    pub(super) fn next_batch(&mut self) -> Vec<(Change, Action, Bytes)> {
        let mut batch = Vec::new();
        while batch.len() < BATCH && !self.resting {
            let Some(key) = self.unsettled.pop_first() else { break };
            batch.push(match self.get_mut(&key) {
                Some(mine) => {
                    let fresh = !std::mem::replace(&mut mine.told, true);
                    let (number, member) = (mine.number, mine.member.clone());
                    (Change { key, joins: true, number, fresh, reply: None }, Action::Keep, member)
                }
                None => (Change::leave(key), Action::Leave, Bytes::new()),
            });
        }
        while batch.len() < BATCH && !matches!(self.steps.front(), None | Some(Step::Query { .. })) {
            match self.steps.pop_front() {
                Some(Step::Join { change, member }) => batch.push((change, Action::Join, member)),
                Some(Step::Leave { key }) => batch.push((Change::leave(key), Action::Leave, Bytes::new())),
                _ => break,
            }
        }
        batch
    }

    pub(super) fn finish(&mut self, mut change: Change, outcome: Outcome, patience: Patience) {
        change.answer(Ok(()));
        let key = change.key;
        // It may have left, or joined anew, meanwhile.
        let Some(mine) = self.get_mut(&key).filter(|mine| change.joins && mine.number == change.number)
        else {
            return;
        };
        if outcome != Outcome::HeldElsewhere {
            mine.answered = true;
            self.contested.remove(&key);
            return;
        }
        let now = Instant::now();
        if *self.contested.entry(key.clone()).or_insert(now + patience.doubted) <= now {
            self.forget(&key);
        }
    }

    pub(super) fn fail(&mut self, changes: impl IntoIterator<Item = Change>, error: &BrokerError) {
        let never_sent = matches!(error, BrokerError::NotAvailable { sent: false, .. });
        // Redis knows nothing of these: who comes and goes while it is away leaves nothing behind.
        let mut unknown = HashSet::new();
        for mut change in changes {
            change.answer(Err(error.clone()));
            let Change { key, joins, number, fresh, .. } = change;
            if !never_sent || !(unknown.contains(&key) || fresh && !self.unsettled.contains(&key)) {
                self.unsettled.insert(key);
            } else if joins {
                if let Some(mine) = self.get_mut(&key).filter(|mine| mine.number == number) {
                    mine.told = false;
                    self.unsettled.insert(key.clone());
                }
                unknown.insert(key);
            }
            self.resting = true;
        }
    }

    pub(super) fn fail_steps(&mut self, error: &BrokerError) {
        let mut changes = Vec::new();
        for step in std::mem::take(&mut self.steps) {
            match step {
                Step::Join { change, .. } => changes.push(change),
                Step::Leave { key } => changes.push(Change::leave(key)),
                Step::Query { reply, .. } => drop(reply.send(Err(error.clone()))),
            }
        }
        self.fail(changes, error);
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        let count: usize = self.mine.values().map(HashMap::len).sum();
        if count > 0 {
            metrics::gauge!(MEMBERS).decrement(count as f64);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Join,
    Keep,
    Leave,
}

impl Action {
    pub(super) fn word(self) -> Bytes {
        Bytes::from_static(match self {
            Self::Join => b"join",
            Self::Keep => b"keep",
            Self::Leave => b"leave",
        })
    }
}

#[cfg(test)]
#[path = "members_tests.rs"]
mod tests;
