//! What a partition knows of one channel that somebody here listens to.

use std::{sync::Arc, time::Instant};

use tokio::sync::oneshot;

use super::{super::replay_cache::ReplayCache, Permit};
use crate::{
    broker::{BrokerError, Publication, SinkId, Start, Subscribed},
    position::Position,
};

/// Publications that are held while a back-fill is under way; beyond that all are dropped and read again.
const GREATEST_HELD: usize = 1_000;

/// State of one channel.
#[derive(Debug)]
pub struct Slot {
    /// Delivered up to here; `None` until that is known, and for channels without history.
    pub last: Option<Position>,
    /// Set while `last` is only known from a read and nothing was delivered yet; holds the last inbox entry up to it.
    pub stragglers: Option<Position>,
    /// A back-fill that is under way or waits for a connection.
    pub fill: Option<Fill>,
    /// Whether Redis knows of this node's interest in the channel by name.
    pub registered: bool,
    /// Grows when that interest is withdrawn: an answer to an earlier call proves nothing any more.
    pub version: u64,
    /// A read for those who wait is under way; deliveries since then.
    pub reading: Option<Vec<Arc<Publication>>>,
    /// Subscribers without an answer so far.
    pub waiters: Vec<Waiter>,
    /// For recoveries.
    pub cache: Option<Cached>,
    /// When something was last delivered or checked.
    pub seen: Instant,
}

/// A replay cache with the time of its last use.
#[derive(Debug)]
pub struct Cached {
    pub cache: ReplayCache,
    pub used: Instant,
    /// Redis' clock minus the time since the Unix epoch here is unknown; this is Redis' clock at `read`.
    pub now_ms: u64,
    pub read: Instant,
}

/// A subscriber that waits.
#[derive(Debug)]
pub struct Waiter {
    pub sink: SinkId,
    pub start: Start<Position>,
    pub reply: oneshot::Sender<Result<Subscribed, BrokerError>>,
    /// Whether the sink had no interest before, so that a failure takes it back.
    pub fresh: bool,
    /// [`Slot::version`] when it came.
    pub version: u64,
    /// The whole history was read in vain for this one: read its own part.
    pub own_read: bool,
    pub _permit: Permit,
}

/// A hole that is being filled.
#[derive(Debug, Default)]
pub struct Fill {
    /// Publications after the hole, in order of arrival.
    pub held: Vec<Arc<Publication>>,
    /// Too many were held and dropped: the read must be followed by another.
    pub dropped: bool,
    /// A read is under way.
    pub under_way: bool,
    /// Reads that did not close the hole.
    pub vain: u32,
}

impl Fill {
    /// Keeps a publication for after the read.
    pub fn hold(&mut self, publication: Arc<Publication>) {
        if self.held.len() >= GREATEST_HELD {
            self.held.clear();
            self.dropped = true;
        }
        if !self.dropped {
            self.held.push(publication);
        }
    }
}

impl Slot {
    pub fn new(last: Option<Position>) -> Self {
        Self {
            last,
            stragglers: None,
            fill: None,
            registered: false,
            version: 0,
            reading: None,
            waiters: Vec::new(),
            cache: None,
            seen: Instant::now(),
        }
    }

    /// Learns from a read where the history ends, if nothing was delivered yet.
    pub fn learn_end(&mut self, end: Position) {
        if self.last.is_none() {
            self.last = Some(end);
            self.stragglers = Some(Position { epoch: 0, offset: 0 });
        }
    }

    /// Whether a publication up to `last` must be delivered all the same: it was in the inbox before the read that
    /// told `last`, and somebody else's subscription may have been answered with an earlier position.
    pub fn is_straggler(&mut self, position: Position) -> bool {
        match &mut self.stragglers {
            Some(before) if *before < position => {
                *before = position;
                true
            }
            _ => false,
        }
    }

    /// Takes note of a delivery.
    pub fn delivered(&mut self, publication: &Arc<Publication>) {
        self.seen = Instant::now();
        self.last = publication.position.or(self.last);
        self.stragglers = None;
        if let Some(cached) = &mut self.cache {
            cached.cache.append(publication);
        }
        if let Some(tail) = &mut self.reading {
            tail.push(publication.clone());
        }
    }

    /// Continuity is lost: nothing before can be replayed from memory.
    pub fn broken(&mut self) {
        self.cache = None;
        if let Some(tail) = &mut self.reading {
            tail.clear();
        }
    }
}
