//! The broker: everything that must outlive a connection.
//!
//! Owns: the [`Broker`] trait, what goes in and out of it, and its implementations (`memory` and `redis`).
//! Never does: know of sessions, sockets or encodings; a publication's event stays the bytes that the edge made.
//!
//! Invariants that every implementation keeps, and that `broker::conformance` checks:
//! - A publish is answered after it is stored; the publication then has its final position.
//! - Deliveries of one channel reach a sink in the order of their positions, none twice. Every publication after
//!   the position that [`Broker::subscribe`] answered reaches the sink, or a [`Delivery::Gap`] says that some cannot.
//! - Calls for one sink and target take effect in the order in which the *methods were called* (not polled): a
//!   method enqueues its work before it returns its future, and dropping the future does not undo the work.

mod catalogue;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
pub mod interest;
pub mod memory;
mod node;
mod occupancy;
mod presence;
mod publication;
pub mod queue;
pub mod recovery;
pub mod redis;
mod request;
mod session_record;
mod work;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

pub use catalogue::{ChannelPage, ChannelQuery};
pub use error::BrokerError;
pub use node::{Addressee, NodeId, Revocation, Revocations, Revoked, TakeLetter};
pub use occupancy::{OCCUPANCY, Occupancy};
pub use presence::{Member, Owner, PresenceAction, PresenceEvent, PresencePage};
pub use publication::{Publication, PublisherInfo, Stored};
pub use request::{
    Catchup, ChannelCatchup, From, GapReason, HistoryPage, HistoryQuery, PatternCursors, Publish, Published,
    Start, Subscribe, SubscribeTo, Subscribed,
};
pub use session_record::{Kept, LoadedSession, SessionRecord};
pub use work::{Turn, WorkItem};

use crate::{
    channel::{Channel, Target},
    position::Position,
};

/// Names a [`Sink`] of this node; given by [`Broker::attach`], at most 64 to a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SinkId(pub u8);

/// Takes deliveries for one connection shard.
///
/// `deliver` must return at once: it is called from the broker's own tasks. What cannot be taken must be bounded by
/// the sink itself.
pub trait Sink: Send + Sync + 'static {
    /// Takes one delivery.
    fn deliver(&self, delivery: Delivery);
}

/// What a broker tells a sink about channels that it has interest in.
#[derive(Debug, Clone)]
pub enum Delivery {
    /// A publication, in order within its channel.
    Publication(Arc<Publication>),
    /// Continuity of `channel` is lost: publications before `position` (if it is known) may be missing.
    Gap {
        /// The channel concerned.
        channel: Channel,
        /// The last position delivered before the loss. Who was answered a position beyond it and at or past `position`
        /// came after the loss, and was told what it missed in its own answer.
        after: Option<Position>,
        /// Where the former epoch really ended, if delivery goes on right behind that: who was answered exactly this has
        /// lost nothing.
        left: Option<Position>,
        /// Live publications go on after this position.
        position: Option<Position>,
        /// Why.
        reason: GapReason,
    },
    /// A join or leave, for those who [`Broker::watch`]. Of one session on one channel they come in turn.
    Presence(Arc<PresenceEvent>),
    /// A job, for one consumer.
    Job(Arc<queue::Job>),
}

impl Delivery {
    /// About how many bytes it holds, for bounds of what waits.
    #[must_use]
    pub fn weight(&self) -> usize {
        const OVERHEAD: usize = 256;
        match self {
            Self::Publication(publication) => OVERHEAD + publication.stored.event.len(),
            Self::Job(job) => OVERHEAD + job.publication.stored.event.len(),
            Self::Gap { .. } | Self::Presence(_) => OVERHEAD,
        }
    }
}

/// Whether the broker can take work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerStatus {
    /// Never yet connected; the reason is fit for an operator.
    Starting(String),
    /// Will never work: what it found is unfit, or laid out otherwise. Waiting does not help.
    Refused(String),
    /// Works.
    Ready,
    /// Was ready before, is not now; the node stays ready and waits.
    Away(String),
    /// Shut down by [`Broker::shutdown`].
    Stopped,
}

/// Order, history, interest, presence, queues, idempotency and session records. See the module for what every implementation keeps.
pub trait Broker: queue::Queues {
    /// Registers the sink of a connection shard.
    fn attach(&self, sink: Arc<dyn Sink>) -> SinkId;

    /// Stores and fans out one publication. A repeated idempotency key answers the first position.
    fn publish(&self, publish: Publish) -> BoxFuture<'static, Result<Published, BrokerError>>;

    /// Registers the interest of `sink` (once or again: it is a set, not a count) and answers where live
    /// deliveries start, with what was missed if the request asks for it.
    fn subscribe(
        &self,
        sink: SinkId,
        request: Subscribe,
    ) -> BoxFuture<'static, Result<Subscribed, BrokerError>>;

    /// Withdraws the interest of `sink`. Deliveries already under way may still arrive.
    fn unsubscribe(&self, sink: SinkId, target: Target);

    /// Reads a page of history.
    fn history(&self, query: HistoryQuery) -> BoxFuture<'static, Result<HistoryPage, BrokerError>>;

    /// Removes a channel's history. Later publications start a newer epoch at offset 1.
    fn remove_history(&self, channel: Channel) -> BoxFuture<'static, Result<(), BrokerError>>;

    /// Lists the channels that have a history, in the order of their names.
    fn channels(&self, query: ChannelQuery) -> BoxFuture<'static, Result<ChannelPage, BrokerError>>;

    /// Makes `member` one of the members of `channel`, until [`Broker::leave`] or the death of this node, and announces
    /// it to those who watch. If its session is a member already, on this node or another, `owner` takes it over, and
    /// nothing is announced.
    ///
    /// An error says that storage does not know of it yet: the broker makes it so as soon as it can.
    fn join(
        &self,
        channel: Channel,
        member: Member,
        owner: Owner,
    ) -> BoxFuture<'static, Result<(), BrokerError>>;

    /// Ends a membership that `owner` holds, and announces it. One that another owner has taken over stays.
    fn leave(&self, channel: Channel, session: &str, owner: Owner);

    /// Who is on a channel: the number of members, and at most `limit` of them. Joins and leaves that this node asked
    /// for before are in it.
    fn presence(
        &self,
        channel: Channel,
        limit: usize,
    ) -> BoxFuture<'static, Result<PresencePage, BrokerError>>;

    /// Has `sink` told of every join and leave of a channel, or of all channels that a pattern matches (once or again: it
    /// is a set, not a count). Only channels whose policy announces them have any. What happens after the answer is told;
    /// after an error, [`Broker::unwatch`] ends what part of it may be in place.
    fn watch(&self, sink: SinkId, target: Target) -> BoxFuture<'static, Result<(), BrokerError>>;

    /// Ends that. What is under way may still arrive.
    fn unwatch(&self, sink: SinkId, target: Target);

    /// Keeps (or replaces) the record by which any node resumes the session, and that it is on this node, for the
    /// connection of this tenure; forgotten after `ttl_ms`. Once a later tenure has saved, an earlier one changes nothing
    /// any more. A session that begins has tenure 1.
    fn save_session(
        &self,
        session: &str,
        tenure: u32,
        record: SessionRecord,
        ttl_ms: u64,
    ) -> BoxFuture<'static, Result<Kept, BrokerError>>;

    /// The node that saved the session's record last; it may have gone since, or the session from it.
    fn find_session(&self, session: &str) -> BoxFuture<'static, Result<Option<NodeId>, BrokerError>>;

    /// The record that was saved last, if it is still kept, with a tenure for who resumes it.
    fn load_session(&self, session: &str) -> BoxFuture<'static, Result<Option<LoadedSession>, BrokerError>>;

    /// The broker's clock, as near as this node knows it: milliseconds since the Unix epoch. Who hands a publication out
    /// asks it whether [`Publication::is_over`]; pages of history hold none that is.
    fn now_ms(&self) -> u64;

    /// This node's name; none before the broker was ready for the first time.
    fn node(&self) -> Option<NodeId>;

    /// Has `take` called with every letter to this node, from now on. Once only.
    fn take_letters(&self, take: TakeLetter);

    /// Sends a letter, and answers whose inbox took it. Letters arrive once or not at all: who needs to know asks for an
    /// answer, and waits for no longer than its sender would.
    fn post(&self, to: Addressee, letter: Bytes) -> BoxFuture<'static, Result<Vec<NodeId>, BrokerError>>;

    /// Replaces what [`Broker::nodes`] shows of this node, as long as it lives.
    fn announce(&self, card: Bytes) -> BoxFuture<'static, Result<(), BrokerError>>;

    /// The nodes that live, in the order of their names, with what they announced.
    fn nodes(&self) -> BoxFuture<'static, Result<Vec<(NodeId, Bytes)>, BrokerError>>;

    /// Adds to the list of revocations, until `until_ms` (milliseconds since the Unix epoch).
    fn revoke(&self, what: Revoked, until_ms: u64) -> BoxFuture<'static, Result<(), BrokerError>>;

    /// The list of revocations, unless its version is still `known`.
    fn revocations(&self, known: u64) -> BoxFuture<'static, Result<Option<Revocations>, BrokerError>>;

    /// How many lanes each queue of shared work has; numbered from 0.
    fn lanes(&self) -> usize;

    /// The lane of what belongs to `key`, the same on every node.
    fn lane_of(&self, key: &str) -> usize;

    /// Appends items to a lane of a queue, as long as no more than `most` of it are unfinished; answers how many.
    ///
    /// An error that may have been sent leaves open whether they were appended: appending them again may double them.
    fn add_work(
        &self,
        queue: &str,
        lane: usize,
        items: Vec<Bytes>,
        most: u64,
    ) -> BoxFuture<'static, Result<usize, BrokerError>>;

    /// Takes at most `most` items of a lane, if it is or becomes this node's; with 0 it only stays so. They are the first ones
    /// that are not finished, or the first ones of these that were added after the one with the id `after`, be that finished
    /// or not. To be asked again within a third of the lease of the node, also while the items are being done.
    fn take_work(
        &self,
        queue: &str,
        lane: usize,
        after: Option<String>,
        most: usize,
    ) -> BoxFuture<'static, Result<Turn, BrokerError>>;

    /// Removes items that are done.
    fn finish_work(
        &self,
        queue: &str,
        lane: usize,
        ids: Vec<String>,
    ) -> BoxFuture<'static, Result<(), BrokerError>>;

    /// From now on, and as long as a node lives that has asked for it, the first subscriber of a channel by its name and the
    /// end of the last one, of all nodes, are items of the queue [`OCCUPANCY`]. To be asked for before the broker is ready;
    /// later it may take a second. Of a lane that is full nothing is recorded, which is counted as dropped.
    fn record_occupancy(&self);

    /// Lets another node have the lane at once.
    fn give_up_work(&self, queue: &str, lane: usize) -> BoxFuture<'static, Result<(), BrokerError>>;

    /// Counts how often letters to this node, or what it keeps in storage, may have been lost: while it was away, taken for
    /// dead, or when storage lost its data.
    fn doubts(&self) -> watch::Receiver<u64>;

    /// Follows whether the broker can take work.
    fn status(&self) -> watch::Receiver<BrokerStatus>;

    /// Withdraws what this node holds and stops the broker's tasks.
    fn shutdown(&self) -> BoxFuture<'static, ()>;
}
