//! Connection shards: one per core, each a thread that owns its connections and subscription index.
//!
//! Owns: sessions, their outlets and subscriptions, the timer wheel, the local index. Nobody else touches them, so
//! there is no lock on the way of a message; the world talks to a shard by [`Mail`].
//!
//! Never does: know how bytes look on a socket (that is `transport`) or what a frame means (that is `session`).
//!
//! Invariants: a live publication reaches each connection at most once, however many of its subscriptions match
//! (replays come once for each subscription that asked); a subscription that is not live holds or re-reads what comes
//! meanwhile, so nothing is skipped; a connection that cannot take a frame is closed with 3512 and harms nobody else;
//! nobody is closed for calls and surveys of others; a gap reaches whoever it may
//! concern, in its place; whoever was acknowledged as a watcher gets every join and leave from then on, or is closed.

mod calls;
mod connection;
mod deliver;
mod drain;
mod effects;
mod errand;
pub mod flow;
mod frames;
pub mod gap;
pub mod index;
mod lifecycle;
mod mailbox;
mod meters;
#[cfg(test)]
mod owed_tests;
mod places;
mod presence;
mod questions;
#[cfg(test)]
mod questions_tests;
mod rights;
mod run;
mod stall;
#[cfg(test)]
mod stall_tests;
mod subscriptions;
mod survey_budget;
pub mod tops;
mod watchers;
pub mod wheel;

use std::{
    cell::RefCell,
    collections::VecDeque,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use slab::Slab;
use tokio::{sync::Notify, time::Instant};

pub use drain::DrainProgress;
pub use errand::Errand;
#[cfg(test)]
pub use mailbox::mailbox;
pub use mailbox::{Mail, Mailbox};
pub use places::Neighbours;
pub use questions::CallOutcome;
pub use run::{Serve, ShardConfig, ShardHandle, spawn};
pub use survey_budget::SurveyBudget;

use crate::{
    broker::{Broker, SinkId},
    hooks::Lifecycle,
    rpc::Router,
    session::{Now, Settings},
};
use connection::Connection;
use drain::Drain;
use frames::ReplayFrames;
use index::Index;
use meters::Meters;
use subscriptions::Subscription;
use watchers::Watchers;
use wheel::Wheel;

/// Bytes for one connection, or of deliveries, after which what is queued is written out at once: long before a write
/// queue of usual size is full for a client that reads.
const FLUSH_BYTES: usize = 64 * 1024;

/// Names a connection of a shard; never used again by another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnId {
    key: u32,
    serial: u32,
}

#[cfg(test)]
impl ConnId {
    /// For tests without a shard.
    pub fn first() -> Self {
        Self { key: 0, serial: 0 }
    }
}

/// A shard as its own tasks see it; cheap to clone, never leaves its thread.
#[derive(Clone)]
pub struct Shard(Rc<Inner>);

struct Inner {
    /// Never borrowed across an await.
    state: RefCell<State>,
    /// Where all connections read into; never borrowed across an await.
    scratch: RefCell<Vec<u8>>,
    broker: Arc<dyn Broker>,
    sink: SinkId,
    settings: Settings,
    /// Which of the node's shards this is.
    number: u16,
    neighbours: Neighbours,
    rpc: Router,
    lifecycle: Option<Lifecycle>,
    rpc_timeout: Duration,
    started: Instant,
    meters: Meters,
    /// Wakes the shard's loop for a flush, when what is ready now has been taken.
    flush_soon: Notify,
}

/// Everything that changes.
struct State {
    connections: Slab<Connection>,
    subscriptions: Slab<Subscription>,
    index: Index,
    watchers: Watchers,
    wheel: Wheel,
    /// Connections with something to flush.
    dirty: Vec<u32>,
    replays: ReplayFrames,
    /// Pattern subscriptions that filter late deliveries: until when, key, serial of the connection, slot.
    settling: VecDeque<(u64, u32, u32, u32)>,
    /// A buffer for the listeners of a delivery.
    members: Vec<u32>,
    next_serial: u32,
    next_stamp: u32,
    /// Number of the delivery under way, by which a connection knows that it has it already.
    delivery: u64,
    /// Set once the node stops.
    drain: Option<Drain>,
}

impl Shard {
    /// The time by the shard's clock.
    #[must_use]
    pub fn now(&self) -> Now {
        let mono_ms = u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono_ms, unix_ms: u64::try_from(unix.as_millis()).unwrap_or(u64::MAX) }
    }

    /// Lends the buffer that all connections of the shard read into.
    pub fn with_scratch<R>(&self, read: impl FnOnce(&mut [u8]) -> R) -> R {
        read(&mut self.0.scratch.borrow_mut())
    }

    /// The settings of all sessions.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }
}
