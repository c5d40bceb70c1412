//! Work queues: each job is handed to one consumer of a group, and again to another until one has acked it.
//!
//! Owns: the [`Queues`] part of a broker, what goes in and out of it, and how deliveries are named on the wire. Never does:
//! deliver by itself, or know of sessions beyond their names.
//!
//! A *queue* is what one *group* shares of a channel. A channel whose policy says `queue` has the group [`DEFAULT_GROUP`]
//! from the start, and keeps nothing but jobs; every other group begins with its first consumer, on any channel, and
//! gets a job of its own of every publication from then on, also of a transient one. A group stays until it is removed,
//! but the default group of a queue channel may be forgotten while it is empty and has no consumers: it is surely listed,
//! and has statistics, from its first job or consumer until then.
//!
//! Invariants that every implementation keeps, and that `broker::conformance` checks:
//! - A publish is answered after every group of its channel has its job, or none has it ([`BrokerError::QueueFull`]).
//! - Until its deadline a job is its consumer's alone; from then on, or once it is given back, it is handed to the next
//!   consumer that has credit, on whatever node, with the next attempt. Nothing but an ack, the end of its attempts and
//!   [`Queues::purge`] or [`Queues::remove_group`] removes it.
//! - A job whose last attempt is given back, or reaches its deadline, is dead at once, whatever the delay. Its publication
//!   is then published to the dead letter channel, with the same event, unless that is the queue's own channel; if that is
//!   refused, it is dead all the same.
//! - Until it is handed out again, given back or dead, a delivery may be settled although its deadline has passed.
//! - Jobs are handed out for the first time in the order of their publishes, but for their delays.
//! - Of the jobs with one ordering key only the first that is not settled is handed out: in the order of their publishes,
//!   so that a delayed one holds up those behind it. A dead one holds up nothing.
//! - A delivery that is not the latest of its job changes nothing.

mod delivery_id;
mod group;
mod stats;

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;

pub use delivery_id::{DeliveryId, DeliveryIdError};
pub use group::{DEFAULT_GROUP, Group, GroupError};
pub use stats::{QueuePage, QueueQuery, QueueStats, QueuedJob, Shelf};

use super::{BrokerError, Publication, SinkId};
use crate::channel::Channel;

/// What one group shares of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueName {
    /// Where jobs are published.
    pub channel: Channel,
    /// Who shares them.
    pub group: Group,
}

/// How a publication waits in queues; of no effect in channels without groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobOptions {
    /// Nobody gets it before that has passed.
    pub delay: Option<Duration>,
    /// Jobs of one queue with the same key are handled one at a time, in their order.
    pub ordering_key: Option<String>,
}

/// Names a consumer to the sink that takes its jobs; unique within the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConsumerId(pub u64);

/// A consumer to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consume {
    /// Of what.
    pub queue: QueueName,
    /// How the sink is told of its jobs.
    pub consumer: ConsumerId,
    /// Whose deliveries they are: only this session settles them, from whatever node.
    pub session: String,
    /// Most unsettled deliveries at a time, at least 1. One whose deadline has passed does not count.
    pub credit: u32,
}

/// A job that is handed to a consumer.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// To whom.
    pub consumer: ConsumerId,
    /// Names this delivery, and says of which queue.
    pub id: DeliveryId,
    /// Milliseconds since the Unix epoch by the broker's clock: from then on somebody else may get it.
    pub deadline_ms: u64,
    /// The message. Its position is that of the history, if the channel keeps one.
    pub publication: Arc<Publication>,
}

/// What becomes of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settle {
    /// It is done.
    Ack,
    /// It is given back: another consumer may have it after the delay, if it has attempts left.
    Nack {
        /// From now on.
        delay: Duration,
    },
    /// It needs more time.
    Extend {
        /// From now on; `None`: the visibility timeout of the queue.
        by: Option<Duration>,
    },
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// What was asked for.
    Done,
    /// Nothing: the job was settled before, is dead, or was never there.
    Gone,
    /// Nothing: its time has passed, and the job was handed out again or given back since.
    Expired,
    /// Nothing: it is the delivery of another session.
    NotYours,
}

/// The queues of a broker. See the module for what every implementation keeps.
pub trait Queues: Send + Sync + 'static {
    /// Has `sink` get jobs of a queue as [`Delivery::Job`](super::Delivery::Job), for the consumer named. The group begins
    /// with its first consumer. Jobs may come before the answer. A consumer that consumes again has its credit changed.
    fn consume(&self, sink: SinkId, consume: Consume) -> BoxFuture<'static, Result<(), BrokerError>>;

    /// Ends a consumer. If `release`, what it has unsettled is given back at once, else when its deadline has passed: its
    /// session may still settle it. Jobs already under way may still arrive; those are given back by the caller.
    fn stop_consuming(&self, queue: &QueueName, consumer: ConsumerId, release: bool);

    /// Settles deliveries of one queue for `session`, in their order; the answer has an outcome for each (of another queue:
    /// [`Settled::Gone`]). Safe to repeat.
    fn settle(
        &self,
        queue: &QueueName,
        session: &str,
        deliveries: Vec<(DeliveryId, Settle)>,
    ) -> BoxFuture<'static, Result<Vec<Settled>, BrokerError>>;

    /// How a queue is doing; `None` if there is no such queue.
    fn queue_stats(&self, queue: &QueueName) -> BoxFuture<'static, Result<Option<QueueStats>, BrokerError>>;

    /// Lists the queues, in the order of their channels and groups.
    fn queues(&self, query: QueueQuery) -> BoxFuture<'static, Result<QueuePage, BrokerError>>;

    /// Looks at the first jobs of a shelf, without handing them out; at most `limit`.
    fn peek(
        &self,
        queue: &QueueName,
        shelf: Shelf,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<QueuedJob>, BrokerError>>;

    /// Makes dead jobs ready again, as if they had just been published, under other names and at the end of their ordering
    /// keys; at most `limit` and as many as there is room for, the oldest first. Answers how many.
    fn redrive(&self, queue: &QueueName, limit: u64) -> BoxFuture<'static, Result<u64, BrokerError>>;

    /// Removes what is on a shelf. Answers how many jobs that were.
    fn purge(&self, queue: &QueueName, shelf: Shelf) -> BoxFuture<'static, Result<u64, BrokerError>>;

    /// Removes a group with all its jobs, also with those in flight. Its consumers get nothing more until they consume anew.
    /// The default group of a queue channel is there again with the next publish.
    fn remove_group(&self, queue: &QueueName) -> BoxFuture<'static, Result<(), BrokerError>>;
}
