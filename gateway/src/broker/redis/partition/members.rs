//! This node's members, and telling Redis of them: one call under way, in the order of requests; what failed is tried
//! again until Redis has it as it is here.
//!
//! Redis knows only which node holds a member. Which owner on this node does is decided here, where all of them pass.

use std::collections::{BTreeSet, HashMap, VecDeque};

use bytes::Bytes;
use prost::Message as _;
use tokio::sync::oneshot;

use super::{
    super::{reply::ReplyError, scripts},
    Permit,
    actor::{Actor, Done},
    member_calls::{flag, list_members},
};
use crate::{
    broker::{BrokerError, Member, Owner, PresencePage},
    channel::Channel,
    telemetry::metrics::{MEMBERS, PRESENCE_EVENTS},
};

/// Changes in one call.
const BATCH: usize = 200;

type Key = (Channel, String);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// As it is to be, whatever Redis knows so far.
    mine: HashMap<Channel, HashMap<String, Mine>>,
    steps: VecDeque<Step>,
    /// Members, and sessions that are none any more, of which Redis may not know.
    unsettled: BTreeSet<Key>,
    /// Held by another node, so far.
    contested: BTreeSet<Key>,
    /// The last attempt failed: what is unsettled waits for the next tick or connection.
    resting: bool,
    under_way: bool,
}

#[derive(Debug)]
struct Mine {
    owner: Owner,
    /// Encoded.
    member: Bytes,
}

/// What is asked for, in order.
#[derive(Debug)]
enum Step {
    Join { key: Key, member: Bytes, reply: oneshot::Sender<Result<(), BrokerError>> },
    Leave { key: Key },
    Query { channel: Channel, limit: usize, reply: Reply, permit: Permit },
}

type Reply = oneshot::Sender<Result<PresencePage, BrokerError>>;

/// One change of a call.
#[derive(Debug)]
pub(super) struct Change {
    key: Key,
    joins: bool,
    reply: Option<oneshot::Sender<Result<(), BrokerError>>>,
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Unchanged,
    Announced,
    HeldElsewhere,
}

impl Members {
    fn put(&mut self, key: &Key, mine: Mine) {
        if self.mine.entry(key.0.clone()).or_default().insert(key.1.clone(), mine).is_none() {
            metrics::gauge!(MEMBERS).increment(1.0);
        }
    }

    /// Removes the member if `owner` holds it; whether it did.
    fn remove(&mut self, key: &Key, owner: Owner) -> bool {
        let Some(sessions) = self.mine.get_mut(&key.0) else { return false };
        if sessions.get(&key.1).is_none_or(|mine| mine.owner != owner) {
            return false;
        }
        sessions.remove(&key.1);
        if sessions.is_empty() {
            self.mine.remove(&key.0);
        }
        metrics::gauge!(MEMBERS).decrement(1.0);
        true
    }

    fn get(&self, key: &Key) -> Option<&Mine> {
        self.mine.get(&key.0)?.get(&key.1)
    }

    /// Whether `session` is a member of `channel` here, or something of it is on its way.
    pub(super) fn concerns(&self, channel: &Channel, session: &str) -> bool {
        let key = (channel.clone(), session.to_owned());
        self.get(&key).is_some() || self.unsettled.contains(&key)
    }

    /// Redis may have lost any of them.
    pub(super) fn confirm_all(&mut self) {
        let all = self.mine.iter().flat_map(|(channel, sessions)| {
            sessions.keys().map(move |session| (channel.clone(), session.clone()))
        });
        self.unsettled.extend(all);
        self.resting = false;
    }

    /// Has a session that is none of ours any more removed from Redis.
    pub(super) fn settle(&mut self, channel: Channel, session: String) {
        self.unsettled.insert((channel, session));
    }

    fn next_batch(&mut self) -> Vec<(Change, Action, Bytes)> {
        let mut batch = Vec::new();
        while batch.len() < BATCH && !self.resting {
            let Some(key) = self.unsettled.pop_first() else { break };
            let (action, member) = match self.get(&key) {
                Some(mine) => (Action::Keep, mine.member.clone()),
                None => (Action::Leave, Bytes::new()),
            };
            let joins = action != Action::Leave;
            batch.push((Change { key, joins, reply: None }, action, member));
        }
        while batch.len() < BATCH && !matches!(self.steps.front(), None | Some(Step::Query { .. })) {
            match self.steps.pop_front() {
                Some(Step::Join { key, member, reply }) => {
                    batch.push((Change { key, joins: true, reply: Some(reply) }, Action::Join, member));
                }
                Some(Step::Leave { key }) => {
                    batch.push((Change { key, joins: false, reply: None }, Action::Leave, Bytes::new()));
                }
                _ => break,
            }
        }
        batch
    }

    fn fail(&mut self, changes: impl IntoIterator<Item = Change>, error: &BrokerError) {
        for Change { key, reply, .. } in changes {
            self.unsettled.insert(key);
            if let Some(reply) = reply {
                // Who does not wait any more needs no answer.
                let _ = reply.send(Err(error.clone()));
            }
        }
        self.resting = true;
    }

    fn fail_steps(&mut self, error: &BrokerError) {
        for step in std::mem::take(&mut self.steps) {
            match step {
                Step::Join { key, reply, .. } => {
                    self.fail([Change { key, joins: true, reply: Some(reply) }], error);
                }
                Step::Leave { key } => self.fail([Change { key, joins: false, reply: None }], error),
                Step::Query { reply, .. } => drop(reply.send(Err(error.clone()))),
            }
        }
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
enum Action {
    Join,
    Keep,
    Leave,
}

impl Action {
    fn word(self) -> Bytes {
        Bytes::from_static(match self {
            Self::Join => b"join",
            Self::Keep => b"keep",
            Self::Leave => b"leave",
        })
    }
}

impl Actor {
    pub(super) fn join(
        &mut self,
        channel: Channel,
        member: &Member,
        owner: Owner,
        reply: oneshot::Sender<Result<(), BrokerError>>,
    ) {
        let (key, bytes) = ((channel, member.session_id.clone()), Bytes::from(member.encode_to_vec()));
        self.members.put(&key, Mine { owner, member: bytes.clone() });
        self.members.contested.remove(&key);
        self.members.steps.push_back(Step::Join { key, member: bytes, reply });
    }

    pub(super) fn leave(&mut self, channel: Channel, session: String, owner: Owner) {
        let key = (channel, session);
        if self.members.remove(&key, owner) {
            self.members.contested.remove(&key);
            self.members.steps.push_back(Step::Leave { key });
        }
    }

    pub(super) fn query_members(&mut self, channel: Channel, limit: usize, reply: Reply, permit: Permit) {
        self.members.steps.push_back(Step::Query { channel, limit, reply, permit });
    }

    /// Sends what waits, unless a call is under way. Without a connection who waits is told so at once.
    pub(super) fn send_changes(&mut self) {
        while !self.members.under_way {
            let settled = self.members.unsettled.is_empty() || self.members.resting;
            if settled && self.members.steps.is_empty() {
                return;
            }
            let caller = match self.caller() {
                Ok(caller) => caller,
                Err(error) => return self.members.fail_steps(&error),
            };
            if settled && matches!(self.members.steps.front(), Some(Step::Query { .. })) {
                let Some(Step::Query { channel, limit, reply, permit }) = self.members.steps.pop_front()
                else {
                    return;
                };
                let call = list_members(&caller, &channel, limit, false);
                self.later(async move {
                    // Who does not wait any more needs no answer.
                    let _ = reply.send(call.await);
                    drop(permit);
                    Done::Ignored
                });
                continue;
            }
            let batch = self.members.next_batch();
            let mut args = self.presence_args(&caller);
            let mut changes = Vec::with_capacity(batch.len());
            for (change, action, member) in batch {
                let (channel, session) = (&change.key.0, &change.key.1);
                let told = self.environment.policies.of(channel.as_str()).join_leave;
                args.extend([
                    action.word(),
                    Bytes::copy_from_slice(channel.as_str().as_bytes()),
                    Bytes::copy_from_slice(session.as_bytes()),
                    member,
                    flag(told),
                ]);
                changes.push(change);
            }
            self.members.under_way = true;
            let (call, count) = (caller.call(&scripts::CHANGE_MEMBERS, args), changes.len());
            self.later(async move {
                let read = async { outcomes_of(&call.await?.into_array()?, count) };
                Done::Changed { changes, outcome: read.await }
            });
        }
    }

    pub(super) fn finish_changes(
        &mut self,
        changes: Vec<Change>,
        outcome: Result<Vec<Outcome>, BrokerError>,
    ) {
        self.members.under_way = false;
        match outcome {
            Ok(outcomes) => {
                for (change, outcome) in changes.into_iter().zip(outcomes) {
                    self.finish_change(change, outcome);
                }
            }
            Err(error) => {
                tracing::warn!(%error, changes = changes.len(), "joins and leaves are tried again later");
                self.members.fail(changes, &error);
            }
        }
        self.send_changes();
    }

    fn finish_change(&mut self, change: Change, outcome: Outcome) {
        match outcome {
            Outcome::Unchanged => {}
            Outcome::Announced => {
                let action = if change.joins { "join" } else { "leave" };
                metrics::counter!(PRESENCE_EVENTS, "action" => action).increment(1);
            }
            // It has moved on, or its former node has yet to let it go.
            Outcome::HeldElsewhere => {
                if self.members.get(&change.key).is_some() {
                    self.members.contested.insert(change.key);
                }
            }
        }
        if let Some(reply) = change.reply {
            // Who does not wait any more needs no answer.
            let _ = reply.send(Ok(()));
        }
    }

    /// Tries again what failed, and sometimes what another node holds.
    pub(super) fn settle_members(&mut self, contested: bool) {
        self.members.resting = false;
        if contested {
            let mut contested = std::mem::take(&mut self.members.contested);
            self.members.unsettled.append(&mut contested);
        }
        self.send_changes();
    }

    pub(super) fn fail_members(&mut self, error: &BrokerError) {
        self.members.fail_steps(error);
    }
}

fn outcomes_of(items: &[super::super::reply::Reply], count: usize) -> Result<Vec<Outcome>, BrokerError> {
    if items.len() != count + 1 {
        return Err(ReplyError::Length { expected: count + 1, got: items.len() }.into());
    }
    let outcome = |item: &super::super::reply::Reply| {
        Ok(match item.as_int()? {
            1 => Outcome::Announced,
            2 => Outcome::HeldElsewhere,
            _ => Outcome::Unchanged,
        })
    };
    items.iter().skip(1).map(outcome).collect()
}
