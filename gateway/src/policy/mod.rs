//! Policies: the settings that a channel name matches, the rights of clients, and the limits that hold for every client.
//!
//! Owns: [`ChannelPolicy`], the ordered table [`Policies`] (first match wins), [`rights`], [`Limits`] and what [`Users`] use.
//! Never does: read files (that is `config`). Invariant: lookups see one whole table; a reload swaps it at once.

mod bucket;
mod limits;
mod queue;
pub mod rights;
mod users;

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;

use crate::channel::glob;

pub use bucket::Bucket;
pub use limits::Limits;
pub use queue::QueuePolicy;
pub use users::{Stay, Users};

/// What holds for the channels that a pattern matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelPolicy {
    /// Publications that history keeps, 0: no history, thus no positions and no recovery.
    pub history_size: u64,
    /// How long history is kept after the last publication; also the greatest age of an entry that is read.
    pub history_ttl: Duration,
    /// How long a publish with the same idempotency key returns the first position.
    pub idempotency_window: Duration,
    /// Whether clients may recover missed publications.
    pub recovery: bool,
    /// Whether members are listed.
    pub presence: bool,
    /// Whether joins and leaves are announced.
    pub join_leave: bool,
    /// Whether subscribers learn who published.
    pub publisher_identity: bool,
    /// Greatest encoded size of an event, in bytes (protobuf form).
    pub max_message_size: usize,
    /// Publications are delivered to whoever is there, and not kept.
    pub transient: bool,
    /// Of the channel's queues.
    pub queue: QueuePolicy,
}

impl Default for ChannelPolicy {
    fn default() -> Self {
        Self {
            history_size: 1_000,
            history_ttl: Duration::from_secs(600),
            idempotency_window: Duration::from_secs(300),
            recovery: true,
            presence: true,
            join_leave: true,
            publisher_identity: false,
            max_message_size: 64 * 1024,
            transient: false,
            queue: QueuePolicy::default(),
        }
    }
}

impl ChannelPolicy {
    /// Whether publications get a position and are kept.
    #[must_use]
    pub fn keeps_history(&self) -> bool {
        self.history_size > 0 && !self.transient && !self.queue.channel_is_queue
    }
}

/// One row of the table: a pattern (or a plain channel name) and what holds for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRule {
    /// Channel name or pattern, already checked.
    pub pattern: String,
    /// What holds for the channels it matches.
    pub policy: Arc<ChannelPolicy>,
}

/// The table of policies, replaced as a whole on reload. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Policies(Arc<ArcSwap<Table>>);

#[derive(Debug)]
struct Table {
    rules: Vec<PolicyRule>,
    fallback: Arc<ChannelPolicy>,
}

impl Policies {
    /// A table in which the first matching rule wins; `fallback` holds where none matches.
    #[must_use]
    pub fn new(rules: Vec<PolicyRule>, fallback: ChannelPolicy) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(Table { rules, fallback: Arc::new(fallback) })))
    }

    /// The policy of `channel`.
    #[must_use]
    pub fn of(&self, channel: &str) -> Arc<ChannelPolicy> {
        let table = self.0.load();
        table
            .rules
            .iter()
            .find(|rule| glob(&rule.pattern, channel))
            .map_or(&table.fallback, |rule| &rule.policy)
            .clone()
    }

    /// Replaces the whole table; later lookups see only the new one.
    pub fn replace(&self, rules: Vec<PolicyRule>, fallback: ChannelPolicy) {
        self.0.store(Arc::new(Table { rules, fallback: Arc::new(fallback) }));
    }
}

impl Default for Policies {
    fn default() -> Self {
        Self::new(Vec::new(), ChannelPolicy::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_matching_rule_wins() {
        let rule = |pattern: &str, history_size| PolicyRule {
            pattern: pattern.into(),
            policy: Arc::new(ChannelPolicy { history_size, ..ChannelPolicy::default() }),
        };
        let policies = Policies::new(vec![rule("a.b", 1), rule("a.**", 2)], ChannelPolicy::default());
        assert_eq!(policies.of("a.b").history_size, 1);
        assert_eq!(policies.of("a.c").history_size, 2);
        assert_eq!(policies.of("b").history_size, 1_000);
    }
}
