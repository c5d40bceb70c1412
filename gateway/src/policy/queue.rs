//! What holds for the queues of a channel.

use std::time::Duration;

use crate::channel::Channel;

/// Settings of every queue (group) of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuePolicy {
    /// The channel is a queue: publications are jobs of the default group, and neither kept in a history nor delivered to
    /// plain subscribers; who subscribes without naming a group consumes the default one.
    pub channel_is_queue: bool,
    /// How long a consumer has a job before another one may get it.
    pub visibility_timeout: Duration,
    /// Deliveries after which a job is dead, at least 1.
    pub max_attempts: u32,
    /// Jobs that a queue holds, whether ready, delayed or in flight; a publish beyond that is refused.
    pub max_length: u64,
    /// Dead jobs that a queue keeps; the oldest go when there are more.
    pub max_dead: u64,
    /// Where dead jobs are published, too, with the same event.
    pub dead_letter: Option<Channel>,
}

impl Default for QueuePolicy {
    fn default() -> Self {
        Self {
            channel_is_queue: false,
            visibility_timeout: Duration::from_secs(30),
            max_attempts: 5,
            max_length: 100_000,
            max_dead: 10_000,
            dead_letter: None,
        }
    }
}
