//! One task for each partition, which owns all that this node knows of its channels.
//!
//! Owns: where each local channel is, who listens, the publish combiner, continuity and back-fills, recoveries and their
//! shared cache; this node's members and who watches for joins and leaves; the node's lease and its turns as reaper. Never does: wait for Redis (calls are futures beside its loop), share state, or lock.
//!
//! Invariants:
//! - Requests take effect in the order in which [`Partition::send`] was called.
//! - A sink takes part in deliveries from the moment of its answer on, and gets exactly what follows the position in it:
//!   what was delivered to others between the read and the answer is in the answer, what is still to come through the
//!   inbox up to that position is skipped.
//! - Deliveries of a channel pass through one place (`deliver.rs`), which lets only continuous ones through. Joins and
//!   leaves pass through `known.rs`, which lets them through in turn.
//! - Whatever Redis forgets or takes away (members, interest, the lease), a re-sync tells it again.

mod actor;
mod audit;
mod catalogue;
mod changes;
mod deliver;
#[cfg(test)]
mod doubt_tests;
#[cfg(test)]
mod hole_tests;
mod known;
mod lease;
mod load;
mod member_calls;
mod members;
mod pattern_recovery;
mod patterns;
mod publishing;
mod renewal;
mod resync;
mod slot;
mod subscribe;
mod watch;
mod watching;

use tokio::sync::{mpsc, oneshot};

use super::{combiner::Waiting, entry::InboxEntry};
use crate::{
    broker::{
        BrokerError, ChannelCatchup, Member, Owner, PatternCursors, PresencePage, SinkId, Start, Subscribed,
    },
    channel::{Channel, Pattern, Target},
    position::Position,
};

pub use actor::Environment;
pub use load::{Load, Permit};

/// What a partition may be asked.
#[derive(Debug)]
pub enum Request {
    /// A publish.
    Publish(Waiting),
    /// Interest in one channel.
    Subscribe {
        /// Who.
        sink: SinkId,
        /// In what.
        channel: Channel,
        /// From where.
        start: Start<Position>,
        /// Who waits.
        reply: oneshot::Sender<Result<Subscribed, BrokerError>>,
        /// Its share of the load.
        permit: Permit,
    },
    /// Interest in a pattern, as far as this partition is concerned.
    SubscribePattern {
        /// Who.
        sink: SinkId,
        /// In what.
        pattern: Pattern,
        /// From where; the cursors are those of this partition's channels.
        start: Start<PatternCursors>,
        /// Highest epoch of this partition at the client's marker.
        marker: Option<u64>,
        /// Who waits.
        reply: oneshot::Sender<Result<PatternPart, BrokerError>>,
        /// Its share of the load.
        permit: Permit,
    },
    /// The end of interest.
    Unsubscribe {
        /// Whose.
        sink: SinkId,
        /// In what.
        target: Target,
    },
    /// A member of a channel. Never refused: what Redis cannot be told now it is told later.
    Join {
        /// Where.
        channel: Channel,
        /// Who.
        member: Member,
        /// By whom it is held.
        owner: Owner,
        /// Who waits.
        reply: oneshot::Sender<Result<(), BrokerError>>,
    },
    /// The end of a membership.
    Leave {
        /// Where.
        channel: Channel,
        /// Who.
        session: String,
        /// Who held it.
        owner: Owner,
    },
    /// Who is on a channel.
    Members {
        /// Where.
        channel: Channel,
        /// Most members in the answer.
        limit: usize,
        /// Who waits.
        reply: oneshot::Sender<Result<PresencePage, BrokerError>>,
        /// Its share of the load.
        permit: Permit,
    },
    /// Interest in joins and leaves, as far as this partition is concerned.
    Watch {
        /// Who.
        sink: SinkId,
        /// In what.
        target: Target,
        /// Who waits.
        reply: oneshot::Sender<Result<(), BrokerError>>,
        /// Its share of the load.
        permit: Permit,
    },
    /// The end of that.
    Unwatch {
        /// Whose.
        sink: SinkId,
        /// In what.
        target: Target,
    },
    /// The node withdraws from Redis: nothing is sent any more.
    Withdraw {
        /// Told when that is so.
        done: oneshot::Sender<()>,
    },
}

/// A partition's part of the answer to a pattern.
#[derive(Debug, Default)]
pub struct PatternPart {
    /// Where the channels that match stand.
    pub positions: Vec<(Channel, Position)>,
    /// Highest epoch of the partition.
    pub top: u64,
    /// What was missed.
    pub missed: Vec<ChannelCatchup>,
    /// There is more than was looked at.
    pub truncated: bool,
}

/// What the inbox reader tells.
#[derive(Debug)]
pub enum FromReader {
    /// Entries of the inbox, in order.
    Entries(Vec<InboxEntry>),
    /// Entries may be missing before what comes next.
    Missed(&'static str),
}

/// A handle to a partition's task.
#[derive(Debug, Clone)]
pub struct Partition {
    requests: mpsc::UnboundedSender<Request>,
    load: Load,
}

impl Partition {
    /// Starts the task. It ends when all handles and senders are gone, or at the environment's stop.
    pub fn start(environment: Environment) -> (Self, mpsc::Sender<FromReader>) {
        let (requests, from_handles) = mpsc::unbounded_channel();
        // Small: the reader waits when the task falls behind, and entries wait in Redis.
        let (entries, from_reader) = mpsc::channel(4);
        tokio::spawn(actor::Actor::new(environment).run(from_handles, from_reader));
        (Self { requests, load: Load::default() }, entries)
    }

    /// A share of the load for a request of `bytes`.
    ///
    /// # Errors
    /// [`BrokerError::NotAvailable`], never sent, if too much waits already.
    pub fn admit(&self, bytes: usize) -> Result<Permit, BrokerError> {
        self.load.admit(bytes)
    }

    /// Enqueues a request now.
    ///
    /// # Errors
    /// [`BrokerError::Stopped`].
    pub fn send(&self, request: Request) -> Result<(), BrokerError> {
        self.requests.send(request).map_err(|_| BrokerError::Stopped)
    }
}
