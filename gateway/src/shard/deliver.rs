//! From the broker to the subscribers of this shard.

use std::sync::Arc;

use super::{Shard, State, connection::Connection, frames::Frames, gap::Gap};
use crate::{
    broker::{Delivery, GapReason, Publication},
    channel::Channel,
    error::CloseCode,
    position::Position,
    session::{Now, gap_frame},
};

impl Shard {
    /// Takes one delivery; the caller flushes after a batch.
    pub(super) fn deliver(&self, state: &mut State, now: Now, delivery: &Delivery) {
        match delivery {
            Delivery::Publication(publication) => self.publication(state, now, publication),
            Delivery::Gap { channel, after, left, position, reason } => {
                let (channel, after, left, position) = (channel.clone(), *after, *left, *position);
                self.gap(state, now, &Gap { channel, after, left, position, reason: *reason });
            }
            Delivery::Presence(event) => self.presence(state, now, event),
            // Nobody consumes yet.
            Delivery::Job(_) => {}
        }
    }

    fn publication(&self, state: &mut State, now: Now, publication: &Arc<Publication>) {
        state.delivery += 1;
        let members = state.listeners(&publication.channel);
        let mut frames = Frames::default();
        let mut behind = false;
        for key in &members {
            let Some(subscription) = state.subscriptions.get_mut(*key as usize) else { continue };
            if !subscription.flow.is_live() {
                behind = true;
                continue;
            }
            let connection = subscription.connection;
            let overtaken = subscription.flow.is_overtaken_by(publication);
            if subscription.flow.accept(publication) {
                if overtaken {
                    self.reset(state, now, connection, publication);
                }
                // That may have closed it.
                if state.subscriptions.contains(*key as usize) {
                    self.send_live(state, now, connection, publication, &mut frames);
                }
            }
        }
        if behind {
            // Only after all live ones: what a connection just got by one subscription needs not be held by another.
            for key in &members {
                let Some(subscription) = state.subscriptions.get_mut(*key as usize) else { continue };
                if state.connections[subscription.connection as usize].delivery == state.delivery {
                    subscription.flow.pass_by(publication);
                } else {
                    subscription.flow.accept(publication);
                }
            }
        }
        if !members.is_empty() {
            let waited = now.unix_ms.saturating_sub(publication.time_ms);
            self.0.meters.latency.record(waited as f64 / 1_000.0);
        }
        state.members = members;
    }

    /// Sends a live publication to a connection, unless it has it already or must not have it.
    pub(super) fn send_live(
        &self,
        state: &mut State,
        now: Now,
        key: u32,
        publication: &Publication,
        frames: &mut Frames,
    ) {
        let delivery = state.delivery;
        let connection = &mut state.connections[key as usize];
        if std::mem::replace(&mut connection.delivery, delivery) == delivery
            || self.withholds(connection, publication)
        {
            return;
        }
        let (wire, extended) = (connection.outlet.wire(), connection.session.is_extended());
        match frames.get(publication, wire, extended, false, now) {
            Ok(frame) => self.push(state, key, frame),
            Err(code) => self.close_connection(state, key, code, code.reason()),
        }
    }

    /// Tells a connection that what it was answered was lost, before what comes in its place.
    fn reset(&self, state: &mut State, now: Now, key: u32, publication: &Publication) {
        let before = publication.position.map(|at| Position { offset: at.offset.saturating_sub(1), ..at });
        let frame = gap_frame(&publication.channel, before, GapReason::EpochReset, now);
        self.send_extended(state, key, &frame);
    }

    /// Whether the publication is not for this connection (`exclude_self`), or for nobody any more (`ttl_ms`). Asked when it
    /// is about to be sent, live, held back or replayed: it is accounted for by then, so what is withheld is no gap.
    pub(super) fn withholds(&self, connection: &Connection, publication: &Publication) -> bool {
        let stored = &publication.stored;
        let excluded =
            !stored.exclude_session.is_empty() && stored.exclude_session == connection.session.id();
        excluded || (stored.ttl_ms > 0 && publication.is_over(self.0.broker.now_ms()))
    }

    fn gap(&self, state: &mut State, now: Now, gap: &Gap) {
        state.delivery += 1;
        let frame = gap_frame(&gap.channel, gap.position, gap.reason, now);
        for key in state.listeners(&gap.channel) {
            let Some(subscription) = state.subscriptions.get_mut(key as usize) else { continue };
            if subscription.flow.gap(gap) {
                let connection = subscription.connection;
                self.send_gap(state, connection, &frame);
            }
        }
    }

    /// Sends a gap to an extended client, once for each delivery.
    fn send_gap(&self, state: &mut State, key: u32, frame: &streamgate_proto::v1::OutboundMessage) {
        let delivery = state.delivery;
        let connection = &mut state.connections[key as usize];
        if !connection.session.is_extended()
            || std::mem::replace(&mut connection.delivery, delivery) == delivery
        {
            return;
        }
        match super::frames::encode(connection.outlet.wire(), frame) {
            Ok(frame) => self.push(state, key, frame),
            Err(code) => self.close_connection(state, key, code, code.reason()),
        }
    }

    /// Has everything of `channel` after `before` read again, for it did not fit into the mailbox.
    pub(super) fn fell_behind(&self, state: &mut State, channel: &Channel, before: Position) {
        tracing::warn!(%channel, "the shard fell behind, reading the channel's history");
        for key in state.listeners(channel) {
            let Some(subscription) = state.subscriptions.get_mut(key as usize) else { continue };
            if subscription.flow.is_live() && subscription.is_pattern(&state.index) {
                // Without its marker a pattern cannot be read again; its client has it and recovers exactly.
                let connection = subscription.connection;
                let code = CloseCode::SlowConsumer;
                self.close_connection(state, connection, code, "the node fell behind, reconnect to catch up");
                continue;
            }
            subscription.flow.fall_behind(channel, before);
            self.pump(state, key);
        }
    }
}

impl State {
    /// Keys of the subscriptions that listen to `channel`, in a buffer that the caller may give back to
    /// [`State::members`]: sending may close connections, which changes the index.
    fn listeners(&mut self, channel: &Channel) -> Vec<u32> {
        let mut members = std::mem::take(&mut self.members);
        members.clear();
        self.index.listeners(channel, &mut |keys| members.extend_from_slice(keys));
        members
    }
}
