//! Subscriptions of the shard: opening them with the broker, replaying, dropping.

use std::sync::Arc;

use futures_util::future::{join, join_all};

use super::{
    ConnId, Shard, State,
    flow::{Flow, Step},
    frames::{Frames, encode},
    index::{Index, Seat},
    presence::PresenceCalls,
};
use crate::{
    broker::{BrokerError, PatternCursors, Publication, Start, Subscribe, Subscribed},
    channel::Target,
    error::CloseCode,
    session::{SubscribeBatch, Wish, gap_frame, recover_complete_frame, subscribe_to},
};

/// How long a broker may deliver late what a replay contained; later, a client sees a position again.
const SETTLE_MS: u64 = 60_000;

/// One subscription of one connection.
pub(super) struct Subscription {
    /// Key of its connection.
    pub connection: u32,
    /// The session's name for it.
    slot: u32,
    seat: Seat,
    pub flow: Flow,
    /// Makes its session a member of the channel.
    pub member: bool,
    /// Backends know of it.
    pub told: bool,
    /// Why there is no recovery, if it was asked for and refused.
    refused: Option<&'static str>,
}

impl Subscription {
    /// Whether it listens to a pattern.
    pub fn is_pattern(&self, index: &Index) -> bool {
        matches!(self.target(index), Target::Pattern(_))
    }

    /// What it listens to.
    pub fn target<'a>(&self, index: &'a Index) -> &'a Target {
        index.target(self.seat)
    }
}

impl Shard {
    /// Opens a batch: interest first, so that from before the broker's answer nothing is missed.
    pub(super) fn subscribe(&self, state: &mut State, id: ConnId, batch: SubscribeBatch) {
        let mut requests = Vec::with_capacity(batch.items.len());
        let mut calls = PresenceCalls::default();
        for item in &batch.items {
            let entry = state.subscriptions.vacant_entry();
            let key = entry.key() as u32;
            entry.insert(Subscription {
                connection: id.key,
                slot: item.slot,
                seat: state.index.join(&item.target, key),
                flow: Flow::opening(item.wish != Wish::Live),
                member: false,
                told: false,
                refused: if let Wish::Refused(why) = item.wish { Some(why) } else { None },
            });
            state.connections[id.key as usize].slots.insert(item.slot, key);
            requests.push(self.0.broker.subscribe(self.0.sink, Subscribe { to: item.request() }));
            self.take_part(state, key, item, &mut calls);
        }
        for change in &batch.changes {
            self.change_part(state, id.key, change, &mut calls);
        }
        self.0.meters.subscriptions.increment(batch.items.len() as f64);
        let answered = async move {
            let (answers, part) = join(join_all(requests), calls.answered()).await;
            part.and_then(|()| answers.into_iter().collect::<Result<Vec<_>, _>>())
        };
        self.operate(state, id, answered, move |shard, result| shard.opened(id, batch, result));
    }

    /// Acknowledges the batch, then starts its replays.
    fn opened(&self, id: ConnId, batch: SubscribeBatch, result: Result<Vec<Subscribed>, BrokerError>) {
        let answers = match result {
            Ok(mut answers) => {
                answers.iter_mut().for_each(|answer| self.withhold(answer));
                answers
            }
            Err(error) => {
                return self.with_session(id, |_, session, now, fx| {
                    session.subscribe_failed(now, batch, &error, fx)
                });
            }
        };
        let opened: Vec<_> = batch.items.iter().map(|item| (item.slot, item.target.clone())).collect();
        let changed: Vec<_> = batch.changes.iter().map(|change| change.slot).collect();
        self.with_session(id, |_, session, now, fx| session.subscribe_done(now, batch, &answers, fx));
        let state = &mut *self.0.state.borrow_mut();
        // After the acknowledgement: a client that asks then who is there misses nothing.
        for slot in opened.iter().map(|(slot, _)| *slot).chain(changed) {
            if let Some(key) =
                state.connection(id).and_then(|connection| connection.slots.get(&slot)).copied()
            {
                state.watchers.go_live(key);
            }
        }
        for ((slot, target), answer) in opened.into_iter().zip(answers) {
            // Unsubscribed or closed meanwhile, if there is none.
            let Some(key) = state.connection(id).and_then(|connection| connection.slots.get(&slot).copied())
            else {
                continue;
            };
            if matches!(target, Target::Pattern(_)) {
                state.settling.push_back((self.now().mono_ms + SETTLE_MS, key, id.serial, slot));
            }
            self.tell_subscribed(state, key);
            state.subscriptions[key as usize].flow.opened(&target, answer);
            self.pump(state, key);
        }
        self.flush(state);
    }

    /// Frees what pattern subscriptions keep to recognise late deliveries.
    pub(super) fn settle(&self, state: &mut State, now_ms: u64) {
        while let Some((at, key, serial, slot)) = state.settling.front().copied()
            && at <= now_ms
        {
            state.settling.pop_front();
            if let Some(subscription) = state.subscriptions.get_mut(key as usize)
                && subscription.slot == slot
                && state.connections[subscription.connection as usize].serial == serial
            {
                subscription.flow.settled();
            }
        }
    }

    /// Takes out of a recovery the channels whose policy allows none: a pattern may match such channels, too. Not for
    /// what is read again for a subscriber that was there all the time.
    fn withhold(&self, answer: &mut Subscribed) {
        if let Some(catchup) = &mut answer.catchup {
            let policies = &self.0.settings.policies;
            catchup.channels.retain(|part| policies.of(part.channel.as_str()).recovery);
        }
    }

    /// Sends of a subscription's replay what the connection has room for.
    pub(super) fn pump(&self, state: &mut State, key: u32) {
        let now_ms = self.now().mono_ms;
        loop {
            let Some(subscription) = state.subscriptions.get_mut(key as usize) else { return };
            if subscription.flow.is_live() {
                return;
            }
            let connection = &mut state.connections[subscription.connection as usize];
            if connection.outlet.queued_bytes() >= connection.outlet.limit() / 2 {
                // Whatever else is sent to it meanwhile: only what it takes is progress.
                connection.stall.lasts_ms(connection.outlet.taken_bytes(), now_ms);
                if !connection.waiting.contains(&key) {
                    connection.waiting.push(key);
                }
                return;
            }
            connection.stall.ends();
            match subscription.flow.step() {
                None | Some(Step::Wait) => return,
                Some(step) => self.take_step(state, key, step),
            }
        }
    }

    fn take_step(&self, state: &mut State, key: u32, step: Step) {
        let now = self.now();
        let subscription = &state.subscriptions[key as usize];
        let connection = subscription.connection;
        match step {
            Step::Wait => {}
            Step::Replay(publication) => self.send_replay(state, connection, &publication),
            Step::Live(publication) => {
                // Another subscription of this connection may hold it, too.
                let others: Vec<u32> =
                    state.connections[connection as usize].slots.values().copied().collect();
                for other in others {
                    state.subscriptions[other as usize].flow.forget(&publication);
                }
                state.delivery += 1;
                self.send_live(state, now, connection, &publication, &mut Frames::default());
            }
            Step::Gap(channel, position, reason) => {
                self.send_extended(state, connection, &gap_frame(&channel, position, reason, now));
            }
            Step::Complete(mut recovered) => {
                recovered.refused = subscription.refused;
                let target = state.index.target(subscription.seat);
                let frame = recover_complete_frame(target, recovered, now);
                self.send_extended(state, connection, &frame);
            }
            Step::Refetch(cursors) => self.refetch(state, key, cursors),
        }
    }

    fn send_replay(&self, state: &mut State, key: u32, publication: &Arc<Publication>) {
        let now = self.now();
        let connection = &state.connections[key as usize];
        if self.withholds(connection, publication) {
            return;
        }
        let (wire, extended) = (connection.outlet.wire(), connection.session.is_extended());
        match state.replays.get(publication, wire, extended, now) {
            Ok(frame) => self.push(state, key, frame),
            Err(code) => self.close_connection(state, key, code, code.reason()),
        }
    }

    pub(super) fn send_extended(
        &self,
        state: &mut State,
        key: u32,
        frame: &streamgate_proto::v1::OutboundMessage,
    ) {
        let connection = &state.connections[key as usize];
        if !connection.session.is_extended() {
            return;
        }
        match encode(connection.outlet.wire(), frame) {
            Ok(frame) => self.push(state, key, frame),
            Err(code) => self.close_connection(state, key, code, code.reason()),
        }
    }

    /// Reads again what could not be held. If that fails the connection is closed: it recovers when it comes back,
    /// while going on would skip.
    fn refetch(&self, state: &mut State, key: u32, cursors: PatternCursors) {
        let subscription = &state.subscriptions[key as usize];
        let (connection, slot) = (subscription.connection, subscription.slot);
        let target = state.index.target(subscription.seat).clone();
        let id = ConnId { key: connection, serial: state.connections[connection as usize].serial };
        let request = Subscribe { to: subscribe_to(&target, Start::After(cursors)) };
        let answered = self.0.broker.subscribe(self.0.sink, request);
        self.operate(state, id, answered, move |shard, result| shard.refetched(id, slot, &target, result));
    }

    fn refetched(&self, id: ConnId, slot: u32, target: &Target, result: Result<Subscribed, BrokerError>) {
        let state = &mut *self.0.state.borrow_mut();
        let Some(connection) = state.connection(id) else { return };
        let Some(key) = connection.slots.get(&slot).copied() else { return };
        match result {
            Ok(answer) => {
                state.subscriptions[key as usize].flow.opened(target, answer);
                self.pump(state, key);
            }
            Err(error) => {
                tracing::debug!(%error, "a subscription cannot catch up");
                self.close_connection(
                    state,
                    id.key,
                    CloseCode::SlowConsumer,
                    CloseCode::SlowConsumer.reason(),
                );
            }
        }
        self.flush(state);
    }

    /// Ends one subscription.
    pub(super) fn drop_slot(&self, state: &mut State, connection: u32, slot: u32) {
        if let Some(key) = state.connections[connection as usize].slots.remove(&slot) {
            self.tell_unsubscribed(state, key);
            self.drop_subscription(state, key);
        }
    }

    /// Ends all subscriptions of a connection.
    pub(super) fn drop_subscriptions(&self, state: &mut State, connection: u32) {
        let connection = &mut state.connections[connection as usize];
        connection.waiting.clear();
        for (_, key) in std::mem::take(&mut connection.slots) {
            self.drop_subscription(state, key);
        }
    }

    pub(super) fn drop_subscription(&self, state: &mut State, key: u32) {
        self.part(state, key);
        let subscription = state.subscriptions.remove(key as usize);
        let left = state.index.leave(subscription.seat);
        if let Some((moved, seat)) = left.moved {
            state.subscriptions[moved as usize].seat = seat;
        }
        if let Some(target) = left.last {
            self.0.broker.unsubscribe(self.0.sink, target);
        }
        self.0.meters.subscriptions.decrement(1);
    }
}
