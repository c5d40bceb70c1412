//! Sending the clients of a shard away, one by one, evenly over the drain.
//!
//! Every connection gets a slot, in random order so that no group of users goes first. At its slot an extended client
//! is told to `reconnect`; until it goes, or a moment later is closed with 1012, it is served as before, so what it has
//! asked is answered. A client that does not know `reconnect` is closed at its slot, once its requests are answered.
//! The server's own closing makes the rate, whatever clients do. See `docs/decisions/0016-even-drain.md`.

use std::time::Duration;

use metrics::{Gauge, gauge};
use rand::seq::SliceRandom as _;
use streamgate_proto::v1::{OutboundMessage, Reconnect, outbound_message::Envelope};
use tokio::sync::watch;

use super::{ConnId, Shard, State, frames::encode};
use crate::{
    error::CloseCode,
    session::{Now, ReplyTo},
    telemetry::metrics::DRAIN_LEFT,
};

/// Greatest `after_ms`. The slots spread the clients; this only spreads those that share a tick of the shard.
const RETURN_SPREAD_MS: u32 = 200;
/// How long an extended client is served after its `reconnect`: it goes by itself before that, as long as the round trip
/// takes less than what this is longer than the spread.
const SETTLE_MS: u64 = 1_000;
/// How long requests without an answer, of the client or for it, may keep a connection after its slot.
const ANSWER_MS: u64 = 2_000;

/// How far the drain of a shard is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DrainProgress {
    /// Connections that it had, late ones included.
    pub total: usize,
    /// Connections that are not yet told to go, or not yet closed.
    pub open: usize,
    /// Connections that are still there: those, and those whose client has yet to read the close.
    pub left: usize,
}

/// When how many may stay.
#[derive(Debug, Clone, Copy)]
struct Pace {
    start_ms: u64,
    over_ms: u64,
    total: usize,
}

impl Pace {
    /// Connections whose slot has come: the first at once, the others evenly after it.
    fn due(&self, now_ms: u64) -> usize {
        let elapsed = now_ms.saturating_sub(self.start_ms);
        if elapsed >= self.over_ms {
            return self.total;
        }
        // Below the total, as elapsed is below the whole.
        let slots = u128::from(elapsed) * self.total as u128 / u128::from(self.over_ms);
        (slots as usize + 1).min(self.total)
    }
}

/// A connection whose slot has come.
struct Leaving {
    id: ConnId,
    not_before_ms: u64,
    deadline_ms: u64,
}

/// A drain under way.
pub(super) struct Drain {
    pace: Pace,
    /// Those whose slot is to come, in reverse order.
    waiting: Vec<ConnId>,
    leaving: Vec<Leaving>,
    progress: watch::Sender<Option<DrainProgress>>,
    left: Gauge,
}

impl Drain {
    fn note(&self, change: impl FnOnce(&mut DrainProgress)) {
        self.progress.send_modify(|progress| {
            let progress = progress.get_or_insert_default();
            let before = progress.left;
            change(progress);
            self.left.increment(progress.left as f64 - before as f64);
        });
    }

    /// A connection came although nobody is accepted: it was on its way.
    pub fn came(&self) {
        self.note(|progress| {
            progress.total += 1;
            progress.left += 1;
        });
    }

    /// A connection is gone.
    pub fn went(&self) {
        self.note(|progress| progress.left = progress.left.saturating_sub(1));
    }

    /// Takes those whose slot has come.
    fn due(&mut self, now_ms: u64) -> Vec<ConnId> {
        let stay = self.pace.total - self.pace.due(now_ms);
        self.waiting.split_off(stay.min(self.waiting.len()))
    }
}

impl Drop for Drain {
    /// Ended before all were gone: the gauge is the whole process's.
    fn drop(&mut self) {
        self.note(|progress| progress.left = 0);
    }
}

impl Shard {
    /// Begins to send every client away; `progress` tells how far that is, from the first moment on.
    pub(super) fn begin_drain(&self, over: Duration, progress: watch::Sender<Option<DrainProgress>>) {
        let now = self.now();
        let state = &mut *self.0.state.borrow_mut();
        let mut waiting = Vec::new();
        let mut early = Vec::new();
        for (key, connection) in &state.connections {
            let id = ConnId { key: key as u32, serial: connection.serial };
            if connection.session.is_new() || connection.closing { early.push(id) } else { waiting.push(id) }
        }
        waiting.shuffle(&mut rand::rng());
        let over_ms = u64::try_from(over.as_millis()).unwrap_or(u64::MAX);
        let pace = Pace { start_ms: now.mono_ms, over_ms, total: waiting.len() };
        let drain = Drain { pace, waiting, leaving: Vec::new(), progress, left: gauge!(DRAIN_LEFT) };
        let total = state.connections.len();
        drain.note(|progress| *progress = DrainProgress { total, open: total, left: total });
        state.drain = Some(drain);
        // Nobody waits for an answer on these, so they need no slot. What is closing already stays as it is.
        for id in early {
            self.close_connection(state, id.key, CloseCode::Draining, CloseCode::Draining.reason());
        }
        self.drain_on(state, now);
        self.flush(state);
    }

    /// Tells those whose slot has come to go, and closes those that had their time. Cheap when there is no drain.
    pub(super) fn drain_on(&self, state: &mut State, now: Now) {
        let Some(drain) = &mut state.drain else { return };
        let mut leaving = std::mem::take(&mut drain.leaving);
        for id in drain.due(now.mono_ms) {
            leaving.extend(self.send_away(state, id, now));
        }
        leaving.retain(|leaving| {
            let Some(connection) = state.connection(leaving.id) else { return false };
            let answered = !connection.is_busy() && connection.pages.is_empty() && !connection.owes_answers();
            let busy = !answered && now.mono_ms < leaving.deadline_ms;
            let stays = now.mono_ms < leaving.not_before_ms || busy;
            if !stays {
                let (key, code) = (leaving.id.key, CloseCode::Draining);
                self.close_connection(state, key, code, code.reason());
            }
            stays
        });
        let Some(drain) = &mut state.drain else { return };
        drain.leaving = leaving;
        let open = drain.waiting.len() + drain.leaving.len();
        drain.progress.send_if_modified(|progress| {
            progress.as_mut().is_some_and(|progress| std::mem::replace(&mut progress.open, open) != open)
        });
    }

    /// The slot of a connection, unless it is gone.
    fn send_away(&self, state: &mut State, id: ConnId, now: Now) -> Option<Leaving> {
        self.withdraw_offers(id);
        let connection = state.connection(id)?;
        let deadline_ms = now.mono_ms.saturating_add(ANSWER_MS);
        if !connection.session.is_open() || !connection.session.is_extended() {
            return Some(Leaving { id, not_before_ms: now.mono_ms, deadline_ms });
        }
        let after_ms = rand::random_range(0..=RETURN_SPREAD_MS);
        let reconnect = OutboundMessage {
            id: ReplyTo::fresh().id,
            time: now.unix_ms,
            envelope: Some(Envelope::Reconnect(Reconnect { after_ms })),
            ..OutboundMessage::default()
        };
        match encode(connection.outlet.wire(), &reconnect) {
            Ok(frame) => self.push(state, id.key, frame),
            Err(code) => self.close_connection(state, id.key, code, code.reason()),
        }
        Some(Leaving { id, not_before_ms: now.mono_ms.saturating_add(SETTLE_MS), deadline_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_even_over_the_duration() {
        let pace = Pace { start_ms: 7_000, over_ms: 20_000, total: 2_000 };
        let mut before = 0;
        for window in 1..=20_u64 {
            let due = pace.due(7_000 + window * 1_000 - 1);
            assert_eq!(due - before, 100, "window {window}");
            before = due;
        }
        assert_eq!(before, 2_000);
    }

    #[test]
    fn the_first_goes_at_once_and_the_last_before_the_end() {
        for total in [1, 2, 3, 1_000] {
            let pace = Pace { start_ms: 5, over_ms: 10_000, total };
            assert_eq!(pace.due(5), 1);
            assert_eq!(pace.due(10_004), total);
        }
    }

    #[test]
    fn no_duration_means_all_at_once_and_nobody_means_nothing() {
        assert_eq!(Pace { start_ms: 5, over_ms: 0, total: 9 }.due(5), 9);
        assert_eq!(Pace { start_ms: 5, over_ms: 10, total: 0 }.due(6), 0);
        assert_eq!(Pace { start_ms: 5, over_ms: 0, total: 0 }.due(5), 0);
    }

    #[test]
    fn numbers_never_overflow_and_a_clock_that_stands_still_does_no_harm() {
        let pace = Pace { start_ms: 0, over_ms: u64::MAX, total: usize::MAX };
        assert_eq!(pace.due(u64::MAX / 2), usize::MAX / 2 + 1);
        assert_eq!(pace.due(u64::MAX), usize::MAX);
        assert_eq!(Pace { start_ms: 10, over_ms: 10, total: 4 }.due(3), 1);
    }

    #[test]
    fn connections_are_taken_once_each_whatever_the_steps() {
        let ids = (0..100).map(|key| ConnId { key, serial: 1 }).collect();
        let (progress, watched) = watch::channel(None);
        let pace = Pace { start_ms: 0, over_ms: 1_000, total: 100 };
        let mut drain = Drain { pace, waiting: ids, leaving: Vec::new(), progress, left: Gauge::noop() };
        drain.note(|progress| *progress = DrainProgress { total: 100, open: 100, left: 100 });
        let mut taken = Vec::new();
        for now in [0, 1, 17, 500, 500, 499, 999, 1_000, 2_000] {
            taken.extend(drain.due(now).into_iter().map(|id| id.key));
        }
        taken.sort_unstable();
        assert_eq!(taken, (0..100).collect::<Vec<_>>());
        drain.came();
        drain.went();
        assert_eq!(*watched.borrow(), Some(DrainProgress { total: 101, open: 100, left: 100 }));
        drop(drain);
        assert_eq!(watched.borrow().map(|progress| progress.left), Some(0));
    }
}
