//! One connection of the shard, and what its transport tells of it.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering},
};

use ahash::AHashMap;
use bytes::Bytes;
use streamgate_proto::{decode_inbound, v1::InboundMessage};
use tokio_util::sync::CancellationToken;

use super::{ConnId, FLUSH_BYTES, Shard, State, questions::Owed, stall::Stall};
use crate::{
    broker::Owner,
    error::{ClientError, CloseCode, ErrorCode},
    peers::Place,
    session::{Arrival, BatchItem, Effects, Now, Session},
    transport::Outlet,
};

/// Operations that one connection may have under way before it is no longer read from. They end by themselves, whatever the
/// client does: mostly they are storage's, and have the time of a request.
pub(super) const IN_FLIGHT: u32 = 1024;
/// Calls and surveys that one connection may wait for, and requests that a backend is asked about; more are refused. It is
/// read from meanwhile: what it waits for may be its own answer.
const ASKING: u32 = 1024;

/// How long a client may take nothing while a replay waits before it counts as one that does not read.
const STALLED_REPLAY_MS: u64 = 60_000;

/// The last owner that was given out. One for the whole process: no two shards of a node may give out the same.
static OWNERS: AtomicU64 = AtomicU64::new(0);

/// A client's connection, from the transport's first frame until the transport is gone.
pub(super) struct Connection {
    pub serial: u32,
    /// Its name towards the broker: what tells this stay of a session from its others.
    pub owner: Owner,
    pub session: Session,
    pub outlet: Box<dyn Outlet>,
    /// Keys of its subscriptions by the session's slot.
    pub slots: AHashMap<u32, u32>,
    /// Subscriptions whose replay waits for room in the write queue.
    pub waiting: Vec<u32>,
    /// Pages of history that wait for it.
    pub pages: VecDeque<Bytes>,
    /// Operations under way; see [`IN_FLIGHT`].
    pub in_flight: u32,
    /// Answers that it waits for; see [`ASKING`].
    pub asking: u32,
    /// The last delivery that reached it, see [`State::delivery`].
    pub delivery: u64,
    /// When the wheel is to look at it, and the stamp of that entry: others of this key are stale.
    pub wake_ms: u64,
    pub stamp: u32,
    /// Since when the client takes nothing, while `waiting` or `pages` has any.
    pub stall: Stall,
    pub dirty: bool,
    pub closing: bool,
    /// Backends know of its session.
    pub told: bool,
    /// Others can find the session here.
    pub placed: bool,
    /// Answers that it owes.
    pub owed: Option<Box<Owed>>,
    /// Cancelled when it ends, for what is only worth doing for its client; made when first needed.
    pub leaving: Option<CancellationToken>,
}

impl Connection {
    /// Answers that it owes.
    pub fn owed(&mut self) -> &mut Owed {
        self.owed.get_or_insert_default()
    }

    /// Whether somebody waits for its answer.
    pub fn owes_answers(&self) -> bool {
        self.owed.as_ref().is_some_and(|owed| owed.awaited())
    }

    /// Whether requests of it are unanswered.
    pub fn is_busy(&self) -> bool {
        self.in_flight > 0 || self.asking > 0
    }

    /// Cancelled when the connection ends.
    pub fn leaving(&mut self) -> CancellationToken {
        self.leaving.get_or_insert_default().clone()
    }
}

impl Shard {
    /// Takes a new connection.
    #[must_use]
    pub fn open(&self, outlet: Box<dyn Outlet>, arrival: Arrival) -> ConnId {
        let now = self.now();
        let state = &mut *self.0.state.borrow_mut();
        state.next_serial = state.next_serial.wrapping_add(1);
        let serial = state.next_serial;
        self.0.meters.connections[outlet.wire().index()].increment(1);
        let key = state.connections.insert(Connection {
            serial,
            owner: Owner(OWNERS.fetch_add(1, Ordering::Relaxed)),
            session: Session::new(self.0.settings.clone(), now, arrival),
            outlet,
            slots: AHashMap::new(),
            waiting: Vec::new(),
            pages: VecDeque::new(),
            in_flight: 0,
            asking: 0,
            delivery: 0,
            wake_ms: 0,
            stamp: 0,
            stall: Stall::default(),
            dirty: false,
            closing: false,
            placed: false,
            owed: None,
            leaving: None,
            told: false,
        }) as u32;
        self.tick_connection(state, key, now);
        if let Some(drain) = &state.drain {
            drain.came();
            self.close_connection(state, key, CloseCode::Draining, CloseCode::Draining.reason());
        }
        self.flush(state);
        ConnId { key, serial }
    }

    /// Takes one whole message of the client, an envelope in the encoding of its transport.
    pub fn receive(&self, id: ConnId, payload: &[u8]) {
        self.with_session(id, |wire, session, now, fx| {
            self.0.meters.received[wire.index()].increment(1);
            match decode_inbound(wire.encoding(), payload) {
                Ok(frame) => session.receive(now, frame, fx),
                Err(error) => session.undecodable(now, &error.to_string(), fx),
            }
        });
    }

    /// Takes what a client said that speaks no envelopes, as its transport understands it; an error says why it does not.
    pub fn understood(&self, id: ConnId, frame: Result<InboundMessage, String>) {
        self.with_session(id, |wire, session, now, fx| {
            self.0.meters.received[wire.index()].increment(1);
            match frame {
                Ok(frame) => session.receive(now, frame, fx),
                Err(reason) => session.undecodable(now, &reason, fx),
            }
        });
    }

    /// Takes events that are published as one.
    pub fn publish_batch(&self, id: ConnId, channel: &str, items: Vec<BatchItem>) {
        self.with_session(id, |wire, session, now, fx| {
            self.0.meters.received[wire.index()].increment(items.len() as u64);
            session.publish_batch(now, channel, items, fx);
        });
    }

    /// Takes notice of a sign of life below the protocol.
    pub fn heard(&self, id: ConnId) {
        let now = self.now();
        if let Some(connection) = self.0.state.borrow_mut().connection(id) {
            connection.session.heard(now);
        }
    }

    /// Closes the connection for what its transport saw, as a broken frame.
    pub fn fail(&self, id: ConnId, code: CloseCode, reason: &str) {
        let state = &mut *self.0.state.borrow_mut();
        if state.connection(id).is_some() {
            self.close_connection(state, id.key, code, reason);
        }
    }

    /// Goes on with replays and pages that waited for room in the write queue.
    pub fn drained(&self, id: ConnId) {
        let state = &mut *self.0.state.borrow_mut();
        let Some(connection) = state.connection(id) else { return };
        let waiting = std::mem::take(&mut connection.waiting);
        self.send_pages(state, id.key);
        for subscription in waiting {
            self.pump(state, subscription);
        }
        self.flush(state);
    }

    /// Forgets a connection whose transport is gone.
    pub fn gone(&self, id: ConnId) {
        let state = &mut *self.0.state.borrow_mut();
        if state.connection(id).is_none() {
            return;
        }
        self.tell_disconnected(
            state,
            id.key,
            CloseCode::ConnectionClosed,
            CloseCode::ConnectionClosed.reason(),
        );
        self.drop_subscriptions(state, id.key);
        self.displace(state, id.key);
        let mut connection = state.connections.remove(id.key as usize);
        connection.session.disconnected();
        self.0.meters.connections[connection.outlet.wire().index()].decrement(1);
        if let Some(drain) = &state.drain {
            drain.went();
        }
    }

    /// Takes back what a client offers to answer, for it is about to go.
    pub(super) fn withdraw_offers(&self, id: ConnId) {
        if self.0.rpc.responders.withdraw(Place { shard: self.0.number, conn: id }) {
            // Nobody waits for it.
            drop(self.0.rpc.cards.changed());
        }
    }

    /// Takes a session that ends from where others find it, and ends what waits for it.
    pub(super) fn displace(&self, state: &mut State, key: u32) {
        let connection = &mut state.connections[key as usize];
        connection.owed = None;
        if let Some(leaving) = connection.leaving.take() {
            leaving.cancel();
        }
        if std::mem::take(&mut connection.placed) {
            let conn = ConnId { key, serial: connection.serial };
            let place = Place { shard: self.0.number, conn };
            self.0.rpc.places.close(connection.session.id(), connection.session.user_id(), place);
            self.withdraw_offers(conn);
        }
    }

    /// Lets the session work, then carries out what it wants.
    pub(super) fn with_session(
        &self,
        id: ConnId,
        work: impl FnOnce(crate::transport::Wire, &mut Session, Now, &mut Effects),
    ) {
        let now = self.now();
        let state = &mut *self.0.state.borrow_mut();
        let Some(connection) = state.connection(id) else { return };
        let wire = connection.outlet.wire();
        let mut fx = Effects::new();
        work(wire, &mut connection.session, now, &mut fx);
        self.carry_out(state, id.key, fx);
        self.flush_in_time(state, id);
    }

    /// Has what was queued for a connection written. Answers of a broker come many at a time, often several for one
    /// connection: they leave with one write, unless they are large.
    pub(super) fn flush_in_time(&self, state: &mut State, id: ConnId) {
        if state.connection(id).is_some_and(|connection| connection.outlet.queued_bytes() >= FLUSH_BYTES) {
            self.flush(state);
        } else if !state.dirty.is_empty() {
            self.0.flush_soon.notify_one();
        }
    }

    /// Runs the session's deadlines and puts the connection back into the wheel.
    pub(super) fn tick_connection(&self, state: &mut State, key: u32, now: Now) {
        let connection = &mut state.connections[key as usize];
        let mut fx = Effects::new();
        if connection.in_flight >= IN_FLIGHT {
            // It may say something, but is not read from.
            connection.session.heard(now);
        }
        let next = connection.session.tick(now, &mut fx);
        let taken = connection.outlet.taken_bytes();
        let stalled = (!connection.waiting.is_empty() || !connection.pages.is_empty())
            && connection.stall.lasts_ms(taken, now.mono_ms) > STALLED_REPLAY_MS;
        if next != u64::MAX {
            state.schedule(key, next);
        }
        self.carry_out(state, key, fx);
        if stalled {
            self.close_connection(state, key, CloseCode::SlowConsumer, CloseCode::SlowConsumer.reason());
        }
    }

    /// Runs every deadline that is due.
    pub(super) fn tick(&self) {
        let now = self.now();
        let state = &mut *self.0.state.borrow_mut();
        let mut due = Vec::new();
        state.wheel.advance(now.mono_ms, &mut due);
        for (key, stamp) in due {
            let Some(connection) = state.connections.get(key as usize) else { continue };
            if connection.stamp != stamp {
                continue;
            }
            if connection.wake_ms <= now.mono_ms {
                self.tick_connection(state, key, now);
            } else {
                // Cut off at the wheel's horizon.
                let at = connection.wake_ms;
                state.schedule(key, at);
            }
        }
        state.replays.sweep(now);
        self.settle(state, now.mono_ms);
        self.drain_on(state, now);
        self.flush(state);
    }

    /// Closes whoever came in with a token that is revoked now.
    pub(super) fn check_revoked(&self) {
        let now = self.now();
        let state = &mut *self.0.state.borrow_mut();
        let keys: Vec<_> = state.connections.iter().map(|(key, _)| key as u32).collect();
        for key in keys {
            let mut fx = Effects::new();
            state.connections[key as usize].session.check_revoked(now, &mut fx);
            self.carry_out(state, key, fx);
        }
        self.flush(state);
    }

    /// Closes by the session, so that it knows.
    pub(super) fn close_connection(&self, state: &mut State, key: u32, code: CloseCode, reason: &str) {
        let mut fx = Effects::new();
        state.connections[key as usize].session.close(code, reason, &mut fx);
        self.carry_out(state, key, fx);
    }

    /// Notes the begin of an operation; a client with too many is not read from until some are done.
    pub(super) fn begin(&self, state: &mut State, key: u32) {
        let connection = &mut state.connections[key as usize];
        connection.in_flight += 1;
        if connection.in_flight == IN_FLIGHT {
            connection.outlet.pause_reading(true);
        }
    }

    /// Notes the end of an operation.
    pub(super) fn end(&self, id: ConnId) {
        let state = &mut *self.0.state.borrow_mut();
        let Some(connection) = state.connection(id) else { return };
        connection.in_flight -= 1;
        if connection.in_flight == IN_FLIGHT - 1 {
            connection.outlet.pause_reading(false);
        }
    }

    /// Notes that a client waits for somebody's answer.
    ///
    /// # Errors
    /// `RATE_LIMITED`: it waits for as many as it may. Nothing was noted.
    pub(super) fn begin_asking(&self, state: &mut State, key: u32) -> Result<(), ClientError> {
        let connection = &mut state.connections[key as usize];
        if connection.asking >= ASKING {
            let text = format!("the client waits for {ASKING} answers already");
            return Err(ClientError::new(ErrorCode::RateLimited, text));
        }
        connection.asking += 1;
        Ok(())
    }

    /// Notes that it does not any more.
    pub(super) fn end_asking(&self, id: ConnId) {
        if let Some(connection) = self.0.state.borrow_mut().connection(id) {
            connection.asking -= 1;
        }
    }

    /// Writes what was pushed since the last time, one write for each connection.
    pub(super) fn flush(&self, state: &mut State) {
        while let Some(key) = state.dirty.pop() {
            let Some(connection) = state.connections.get_mut(key as usize) else { continue };
            connection.dirty = false;
            connection.outlet.flush();
            // What has room again marks the connection anew, so this ends when the socket takes no more.
            let waiting = std::mem::take(&mut connection.waiting);
            self.send_pages(state, key);
            for subscription in waiting {
                self.pump(state, subscription);
            }
        }
    }
}

impl State {
    /// The connection, unless it is gone.
    pub(super) fn connection(&mut self, id: ConnId) -> Option<&mut Connection> {
        self.connections.get_mut(id.key as usize).filter(|connection| connection.serial == id.serial)
    }

    /// Puts a connection into the wheel; its former entry no longer counts.
    fn schedule(&mut self, key: u32, at_ms: u64) {
        self.next_stamp = self.next_stamp.wrapping_add(1);
        let connection = &mut self.connections[key as usize];
        (connection.wake_ms, connection.stamp) = (at_ms, self.next_stamp);
        self.wheel.insert((key, self.next_stamp), at_ms);
    }

    /// Marks a connection for the next flush.
    pub(super) fn mark_dirty(&mut self, key: u32) {
        let connection = &mut self.connections[key as usize];
        if !std::mem::replace(&mut connection.dirty, true) {
            self.dirty.push(key);
        }
    }
}
