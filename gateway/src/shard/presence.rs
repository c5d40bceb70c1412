//! Presence on a shard: who joins and leaves by its connections, and who of them is told.
//!
//! A subscription knows by one bit whether it makes its session a member. The broker is told of a membership by the
//! connection's owner number: an old connection of a session that has moved on ends nothing.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};

use super::{ConnId, Shard, State, frames::encode};
use crate::{
    broker::{BrokerError, PresenceEvent},
    channel::{Channel, Target},
    error::CloseCode,
    session::{Change, Item, Now, ReplyTo, presence_frame},
    transport::Wire,
};

/// What a batch waits for, besides the subscriptions themselves.
#[derive(Default)]
pub(super) struct PresenceCalls {
    joins: Vec<BoxFuture<'static, Result<(), BrokerError>>>,
    watches: Vec<BoxFuture<'static, Result<(), BrokerError>>>,
}

impl PresenceCalls {
    /// Waits for all answers. An error of a join is none of the client's: the broker makes it so later. Who cannot
    /// watch must know.
    pub async fn answered(self) -> Result<(), BrokerError> {
        for joined in join_all(self.joins).await {
            if let Err(error) = joined {
                tracing::debug!(%error, "a member is not stored yet");
            }
        }
        join_all(self.watches).await.into_iter().collect()
    }
}

impl Shard {
    /// Takes up what a new subscription wants of presence, and what it has from the one that it replaces.
    pub(super) fn take_part(&self, state: &mut State, key: u32, item: &Item, calls: &mut PresenceCalls) {
        if item.watch {
            self.watch(state, key, &item.target, calls);
        }
        let connection = &mut state.connections[state.subscriptions[key as usize].connection as usize];
        if let Some(former) = item.former.and_then(|slot| connection.slots.remove(&slot)) {
            if state.watchers.is_live(former) {
                state.watchers.go_live(key);
            }
            // Of a stay that goes on there is no leave.
            state.subscriptions[former as usize].member &= !item.member;
            // It goes on under another slot.
            state.subscriptions[key as usize].told = state.subscriptions[former as usize].told;
            self.drop_subscription(state, former);
        }
        self.set_member(state, key, &item.target, item.member, calls);
    }

    /// Carries out a change to an open subscription.
    pub(super) fn change_part(
        &self,
        state: &mut State,
        connection: u32,
        change: &Change,
        calls: &mut PresenceCalls,
    ) {
        let Some(key) = state.connections[connection as usize].slots.get(&change.slot).copied() else {
            return;
        };
        self.set_member(state, key, &change.target, change.member, calls);
        if change.watch {
            self.watch(state, key, &change.target, calls);
        } else {
            self.unwatch(state, key);
        }
    }

    fn watch(&self, state: &mut State, key: u32, target: &Target, calls: &mut PresenceCalls) {
        state.watchers.add(key, target);
        // Also if others watch it: theirs may not be answered yet, or fail.
        calls.watches.push(self.0.broker.watch(self.0.sink, target.clone()));
    }

    fn unwatch(&self, state: &mut State, key: u32) {
        if let Some(target) = state.watchers.remove(key) {
            self.0.broker.unwatch(self.0.sink, target);
        }
    }

    fn set_member(
        &self,
        state: &mut State,
        key: u32,
        target: &Target,
        member: bool,
        calls: &mut PresenceCalls,
    ) {
        let subscription = &mut state.subscriptions[key as usize];
        let was = std::mem::replace(&mut subscription.member, member);
        let connection = &state.connections[subscription.connection as usize];
        let Target::Channel(channel) = target else { return };
        if member {
            let (member, owner) = (connection.session.member(), connection.owner);
            calls.joins.push(self.0.broker.join(channel.clone(), member, owner));
        } else if was {
            self.0.broker.leave(channel.clone(), connection.session.id(), connection.owner);
        }
    }

    /// Ends the part that a subscription has in presence; the caller drops it.
    pub(super) fn part(&self, state: &mut State, key: u32) {
        let Some(subscription) = state.subscriptions.get(key as usize) else { return };
        if subscription.member
            && let Target::Channel(channel) = subscription.target(&state.index)
        {
            let connection = &state.connections[subscription.connection as usize];
            self.0.broker.leave(channel.clone(), connection.session.id(), connection.owner);
        }
        self.unwatch(state, key);
    }

    /// Asks the broker who is on `channel`.
    pub(super) fn ask_presence(
        &self,
        state: &mut State,
        id: ConnId,
        reply: ReplyTo,
        channel: Channel,
        limit: usize,
    ) {
        let page = self.0.broker.presence(channel.clone(), limit);
        self.operate(state, id, page, move |shard, result| {
            shard.with_session(id, |_, session, now, fx| {
                session.presence_done(now, reply, &channel, result, fx);
            });
        });
    }

    /// Tells of a join or leave: each connection once, and never the one that it is about.
    pub(super) fn presence(&self, state: &mut State, now: Now, event: &Arc<PresenceEvent>) {
        state.delivery += 1;
        let delivery = state.delivery;
        let mut frames: [Option<Result<Bytes, CloseCode>>; Wire::COUNT] = Default::default();
        for key in state.told_of(&event.channel) {
            // Sending may close connections.
            let Some(subscription) = state.subscriptions.get(key as usize) else { continue };
            let key = subscription.connection;
            let connection = &mut state.connections[key as usize];
            if std::mem::replace(&mut connection.delivery, delivery) == delivery
                || connection.session.id() == event.member.session_id
            {
                continue;
            }
            let wire = connection.outlet.wire();
            let frame = frames[wire.index()].get_or_insert_with(|| encode(wire, &presence_frame(event, now)));
            match frame.clone() {
                Ok(frame) => self.push(state, key, frame),
                Err(code) => self.close_connection(state, key, code, code.reason()),
            }
        }
    }

    /// Sends whoever watches `channel` away, for joins or leaves are lost: coming back it asks who is there.
    pub(super) fn presence_lost(&self, state: &mut State, channel: &Channel) {
        tracing::warn!(%channel, "the shard fell behind, closing who watches the channel's members");
        for key in state.told_of(channel) {
            let Some(subscription) = state.subscriptions.get(key as usize) else { continue };
            let (connection, code) = (subscription.connection, CloseCode::SlowConsumer);
            self.close_connection(state, connection, code, "the node fell behind, ask again who is there");
        }
    }
}

impl State {
    fn told_of(&self, channel: &Channel) -> Vec<u32> {
        let mut keys = Vec::new();
        self.watchers.of(channel, &mut |key| keys.push(key));
        keys
    }
}
