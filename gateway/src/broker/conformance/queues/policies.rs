//! The channels that the cases of queues use, by their first segment.

use std::time::Duration;

use crate::{
    channel::Channel,
    policy::{ChannelPolicy, QueuePolicy},
};

/// How long a consumer has a job of `jobs.…` and `brittle.…`.
pub(in crate::broker::conformance) const VISIBLE: Duration = Duration::from_secs(1);

/// Where dead jobs of `fragile.…` are published, too; shared by all that use the storage.
pub(in crate::broker::conformance) const DEAD_LETTERS: &str = "deadletters.fragile";

/// Longer than any case takes.
const LONG: Duration = Duration::from_secs(120);

/// Pattern and policy.
pub(in crate::broker::conformance) fn all() -> Vec<(&'static str, ChannelPolicy)> {
    let usual = || QueuePolicy { visibility_timeout: LONG, max_attempts: 3, ..QueuePolicy::default() };
    let queue = || QueuePolicy { channel_is_queue: true, ..usual() };
    let dead_letter = Channel::parse(DEAD_LETTERS).ok();
    let policies = [
        // Queues whose jobs come back only by what a case does.
        ("work.**", queue()),
        // Queues whose jobs come back soon.
        ("jobs.**", QueuePolicy { visibility_timeout: VISIBLE, ..queue() }),
        // Queues whose jobs die of one timeout.
        ("brittle.**", QueuePolicy { visibility_timeout: VISIBLE, max_attempts: 1, ..queue() }),
        // Queues whose jobs die of one nack.
        ("fragile.**", QueuePolicy { max_attempts: 1, max_dead: 2, dead_letter, ..queue() }),
        // Queues that are soon full.
        ("tiny.**", QueuePolicy { max_length: 5, ..queue() }),
        // Ordinary channels whose groups are soon full.
        ("narrow.**", QueuePolicy { max_length: 2, ..usual() }),
    ];
    let channel = |(pattern, queue)| (pattern, ChannelPolicy { queue, ..ChannelPolicy::default() });
    policies.map(channel).into()
}
