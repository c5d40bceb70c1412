//! What this node believes of the channels it publishes to, so that most publishes take the script's fast path. Pure.

use std::time::{Duration, Instant};

use ahash::AHashMap;

use crate::channel::Channel;

/// Channels to remember; beyond that everything is forgotten, which costs each channel one slow path.
const CAPACITY: usize = 100_000;

/// Beliefs of one partition. They hold only under the replid that they were learned under: forget them with it.
#[derive(Debug, Default)]
pub struct Beliefs(AHashMap<Channel, Belief>);

/// What is believed of one channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Belief {
    /// The epoch that it is in.
    pub epoch: u64,
    /// When this node last refreshed its time to live.
    pub refreshed: Instant,
    /// How long the history was promised to live, when that was.
    pub promised: Duration,
}

impl Beliefs {
    /// What is believed of `channel`.
    #[must_use]
    pub fn of(&self, channel: &Channel) -> Option<Belief> {
        self.0.get(channel).copied()
    }

    /// Takes what a publish under `promised` answered; `refreshed` is whether it refreshed the time to live, `sent` when.
    pub fn learn(
        &mut self,
        channel: &Channel,
        epoch: u64,
        promised: Duration,
        refreshed: bool,
        sent: Instant,
    ) {
        let news = Belief { epoch, refreshed: sent, promised };
        if let Some(belief) = self.0.get_mut(channel) {
            // In another epoch the script took the slow path, which always refreshes.
            if refreshed || belief.epoch != epoch {
                *belief = news;
            }
            return;
        }
        if self.0.len() >= CAPACITY {
            self.0.clear();
        }
        self.0.insert(channel.clone(), news);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// How long Redis is told to keep a history: half longer than promised, so that it need not be told each time.
#[must_use]
pub fn keep(promised: Duration) -> Duration {
    promised + promised / 2
}

/// Whether the time to live must be refreshed with this publish. What remains is then at least what is promised;
/// a policy may promise something else since.
#[must_use]
pub fn is_due(belief: Belief, promised: Duration, now: Instant) -> bool {
    belief.promised != promised || now.duration_since(belief.refreshed) >= promised * 2 / 5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_always_outlives_its_last_publication_by_what_was_promised() {
        let promised = Duration::from_secs(100);
        let start = Instant::now();
        let belief = Belief { epoch: 1, refreshed: start, promised };
        for second in 0..100 {
            let now = start + Duration::from_secs(second);
            if !is_due(belief, promised, now) {
                let expires = belief.refreshed + keep(promised);
                assert!(expires >= now + promised, "{second}");
            }
        }
        assert!(is_due(belief, promised, start + Duration::from_secs(40)));
    }

    #[test]
    fn another_promise_is_kept_from_the_next_publication_on() {
        let (promised, now) = (Duration::from_secs(100), Instant::now());
        let belief = Belief { epoch: 1, refreshed: now, promised };
        assert!(!is_due(belief, promised, now));
        assert!(is_due(belief, promised * 10, now) && is_due(belief, promised / 10, now));
    }

    #[test]
    fn another_epoch_replaces_the_belief() {
        let channel = Channel::parse("a").unwrap();
        let (mut beliefs, start) = (Beliefs::default(), Instant::now());
        let (later, promised) = (start + Duration::from_secs(5), Duration::from_secs(100));
        beliefs.learn(&channel, 7, promised, true, start);
        beliefs.learn(&channel, 7, promised, false, later);
        assert_eq!(beliefs.of(&channel), Some(Belief { epoch: 7, refreshed: start, promised }));
        beliefs.learn(&channel, 8, promised, false, later);
        assert_eq!(beliefs.of(&channel), Some(Belief { epoch: 8, refreshed: later, promised }));
    }
}
