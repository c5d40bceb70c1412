//! What is known of one job.

use std::sync::Arc;

use crate::broker::{
    Publication, Stored,
    memory::history::entry_bytes,
    queue::{ConsumerId, QueuedJob, Shelf},
};

/// Names a job of this broker; those of one queue are handed out in this order.
pub(super) type JobNumber = u64;

/// Bookkeeping of one job: its places in the queue and in the line of its key.
const JOB_OVERHEAD: usize = 240;

/// Bytes that a job counts, dead or not.
pub(super) fn job_bytes(stored: &Stored, key: Option<&str>) -> usize {
    JOB_OVERHEAD + entry_bytes(stored) + key.map_or(0, |key| 2 * key.len())
}

/// A job that is not settled.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub publication: Arc<Publication>,
    pub key: Option<Arc<str>>,
    /// Deliveries so far.
    pub attempts: u32,
    pub state: State,
    /// Whose the latest delivery is, unless it was given back: it may be settled although its deadline has passed.
    pub holder: Option<Holder>,
}

/// Who has, or had, a job.
#[derive(Debug, Clone)]
pub(super) struct Holder {
    pub consumer: ConsumerId,
    pub session: Arc<str>,
}

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It waits for a consumer, or for its turn.
    Ready,
    /// It waits for a time.
    Delayed(u64),
    /// It is its holder's until then.
    InFlight(u64),
}

impl State {
    /// When something happens to the job by itself.
    pub fn due_ms(self) -> Option<u64> {
        match self {
            Self::Delayed(until) | Self::InFlight(until) => Some(until),
            Self::Ready => None,
        }
    }

    /// Where the job is looked at, as long as it is not dead.
    pub fn shelf(self) -> Shelf {
        match self {
            Self::Ready => Shelf::Ready,
            Self::Delayed(_) => Shelf::Delayed,
            Self::InFlight(_) => Shelf::InFlight,
        }
    }
}

impl Entry {
    pub fn new(publication: Arc<Publication>, key: Option<Arc<str>>, state: State) -> Self {
        Self { publication, key, attempts: 0, state, holder: None }
    }

    /// Bytes that it counts.
    pub fn bytes(&self) -> usize {
        job_bytes(&self.publication.stored, self.key.as_deref())
    }

    /// As it is looked at.
    pub fn show(&self, number: JobNumber) -> QueuedJob {
        QueuedJob {
            job: number.to_string(),
            attempts: self.attempts,
            ordering_key: self.key.as_deref().unwrap_or_default().to_owned(),
            publication: self.publication.clone(),
        }
    }
}
