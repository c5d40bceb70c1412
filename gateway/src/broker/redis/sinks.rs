//! The sinks of this node.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::watch;

use crate::broker::{Delivery, Sink, SinkId, TakeLetter, interest::SinkSet};

/// Greatest number of sinks: each is a bit of a [`SinkSet`].
const GREATEST: usize = 64;

/// Shared list of the attached sinks; cheap to clone, read without a lock.
#[derive(Clone, Default)]
pub struct Sinks {
    shards: Arc<ArcSwap<Vec<Arc<dyn Sink>>>>,
    letters: Arc<OnceLock<TakeLetter>>,
    doubts: Arc<watch::Sender<u64>>,
}

impl Sinks {
    /// Adds a sink. The 65th and later ones share the last id, which no broker invariant allows: the caller promises
    /// at most 64 ([`SinkId`]).
    pub fn attach(&self, sink: &Arc<dyn Sink>) -> SinkId {
        let before = self.shards.rcu(|sinks| {
            let mut sinks = sinks.as_ref().clone();
            sinks.push(sink.clone());
            sinks
        });
        if before.len() >= GREATEST {
            tracing::error!(sinks = before.len() + 1, "more sinks than a broker can tell apart");
        }
        SinkId(u8::try_from(before.len()).unwrap_or(u8::MAX))
    }

    /// Hands `delivery` to each of `set`.
    pub fn deliver(&self, set: SinkSet, delivery: &Delivery) {
        let sinks = self.shards.load();
        for id in set.iter() {
            if let Some(sink) = sinks.get(usize::from(id.0)) {
                sink.deliver(delivery.clone());
            }
        }
    }

    /// Names who takes letters; only the first time counts.
    pub fn take_letters(&self, take: TakeLetter) {
        if self.letters.set(take).is_err() {
            tracing::error!("letters are taken by somebody else already");
        }
    }

    /// Tells that something may have been lost ([`crate::broker::Broker::doubts`]).
    pub fn doubt(&self) {
        self.doubts.send_modify(|times| *times += 1);
    }

    /// How often.
    pub fn doubts(&self) -> watch::Receiver<u64> {
        self.doubts.subscribe()
    }

    /// Hands a letter to whoever takes them.
    pub fn take_letter(&self, letter: Bytes) {
        if let Some(take) = self.letters.get() {
            take(letter);
        }
    }
}
