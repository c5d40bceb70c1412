//! Telling Redis of this node's members: one call under way, in the order of requests. What is known of them is in
//! `members.rs`.

use bytes::Bytes;
use prost::Message as _;
use tokio::sync::oneshot;

use super::{
    super::{
        reply::{Reply, ReplyError},
        scripts,
    },
    Permit,
    actor::{Actor, Done},
    member_calls::{flag, list_members},
    members::{Change, Outcome, PageReply, Patience, Step},
};
use crate::{
    broker::{BrokerError, Member, Owner},
    channel::Channel,
    telemetry::metrics::PRESENCE_EVENTS,
};

impl Actor {
    /// How long another node's call may be late, and how long that node may then take to end what it did.
    fn patience(&self) -> Patience {
        let window = 2 * self.environment.deadline;
        Patience { window, doubted: self.environment.lease + window }
    }

    pub(super) fn join(
        &mut self,
        channel: Channel,
        member: &Member,
        owner: Owner,
        reply: oneshot::Sender<Result<(), BrokerError>>,
    ) {
        let key = (channel, member.session_id.clone());
        self.members.join(key, owner, Bytes::from(member.encode_to_vec()), reply);
    }

    pub(super) fn leave(&mut self, channel: Channel, session: String, owner: Owner) {
        self.members.leave((channel, session), owner);
    }

    /// Another node has taken a member over. Most often its client has gone there, and this node has yet to notice. But
    /// the news may be old, or the other's call may have been the late one: Redis is asked.
    pub(super) fn take_over(&mut self, channel: Channel, session: String) {
        let patience = self.patience();
        if self.members.taken((channel, session), patience) {
            self.send_changes();
        }
    }

    pub(super) fn confirm_members(&mut self) {
        let patience = self.patience();
        self.members.confirm_all(patience);
        self.send_changes();
    }

    pub(super) fn query_members(&mut self, channel: Channel, limit: usize, reply: PageReply, permit: Permit) {
        self.members.steps.push_back(Step::Query { channel, limit, reply, permit });
    }

    /// Sends what waits, unless a call is under way. Without a connection who waits is told so at once.
    pub(super) fn send_changes(&mut self) {
        while !self.members.under_way {
            let settled = self.members.is_settled();
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
        if outcome == Outcome::Announced {
            let action = if change.joins { "join" } else { "leave" };
            metrics::counter!(PRESENCE_EVENTS, "action" => action).increment(1);
        }
        let patience = self.patience();
        self.members.finish(change, outcome, patience);
    }

    /// Tries again what failed, and sometimes what another node holds.
    pub(super) fn settle_members(&mut self, contested: bool) {
        self.members.try_again(contested);
        self.send_changes();
    }

    pub(super) fn fail_members(&mut self, error: &BrokerError) {
        self.members.fail_steps(error);
    }
}

fn outcomes_of(items: &[Reply], count: usize) -> Result<Vec<Outcome>, BrokerError> {
    if items.len() != count + 1 {
        return Err(ReplyError::Length { expected: count + 1, got: items.len() }.into());
    }
    let outcome = |item: &Reply| {
        Ok(match item.as_int()? {
            1 => Outcome::Announced,
            2 => Outcome::HeldElsewhere,
            _ => Outcome::Unchanged,
        })
    };
    items.iter().skip(1).map(outcome).collect()
}
