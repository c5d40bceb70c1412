//! What is told of queues.

use std::sync::Arc;

use super::QueueName;
use crate::{broker::Publication, channel::Target};

/// How a queue is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Jobs that wait for a consumer, those that wait for their turn in an ordering key included.
    pub ready: u64,
    /// Jobs that a consumer has, and whose deadline has not passed.
    pub in_flight: u64,
    /// Jobs whose delay has not passed: published so, or given back so.
    pub delayed: u64,
    /// Jobs out of attempts, which are kept to be looked at.
    pub dead: u64,
    /// Milliseconds since the oldest job that is neither settled nor dead was published; 0 if there is none.
    pub oldest_age_ms: u64,
    /// Consumers on all nodes; roughly, for one whose node was killed counts until the lease ends.
    pub consumers: u64,
}

/// Which jobs of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shelf {
    /// Those that wait for a consumer.
    Ready,
    /// Those whose delay has not passed.
    Delayed,
    /// Those that consumers have.
    InFlight,
    /// Those that are out of attempts.
    Dead,
}

/// A job as it is looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct QueuedJob {
    /// As in [`DeliveryId::job`](super::DeliveryId::job).
    pub job: String,
    /// Deliveries so far.
    pub attempts: u32,
    /// Its ordering key, empty without one.
    pub ordering_key: String,
    /// The message, with the time of its publish.
    pub publication: Arc<Publication>,
}

/// Which queues to list.
#[derive(Debug, Clone)]
pub struct QueueQuery {
    /// Of which channels; `None`: of all.
    pub channels: Option<Target>,
    /// Only those behind this one.
    pub after: Option<QueueName>,
    /// At most so many.
    pub limit: usize,
}

/// A page of queues.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueuePage {
    /// In the order of their channels, then of their groups.
    pub queues: Vec<(QueueName, QueueStats)>,
    /// There are more behind the last one.
    pub more: bool,
}
