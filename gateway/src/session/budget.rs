//! How much one connection may ask for: publishes per second, new channels per minute.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
};

/// A token bucket whose burst is one second's worth.
#[derive(Debug, Default)]
pub struct Bucket {
    /// Thousandths of a token that are spent; refilled by time.
    spent_milli: u64,
    at_ms: u64,
}

impl Bucket {
    /// Takes one of `per_second`; `false` if none is left.
    pub fn take(&mut self, now_ms: u64, per_second: u32) -> bool {
        let per_second = u64::from(per_second);
        let refill = now_ms.saturating_sub(self.at_ms).saturating_mul(per_second);
        self.at_ms = now_ms;
        self.spent_milli = self.spent_milli.saturating_sub(refill);
        if self.spent_milli + 1_000 > per_second * 1_000 {
            return false;
        }
        self.spent_milli += 1_000;
        true
    }
}

/// Which channels the connection used in this minute and the one before, by hash.
#[derive(Debug, Default)]
pub struct ChannelBudget(Option<Box<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    window: u64,
    fresh: u32,
    current: HashSet<u64>,
    before: HashSet<u64>,
    hasher: RandomState,
}

impl ChannelBudget {
    /// Notes the use of `channel`; `false` if it counts and the minute's `limit` is used up. It counts if it is new, or
    /// if `again`: what others are told of counts each time.
    pub fn take(&mut self, now_ms: u64, channel: &str, again: bool, limit: u32) -> bool {
        let seen = self.0.get_or_insert_default();
        let window = now_ms / 60_000;
        if window != seen.window {
            let before = std::mem::take(&mut seen.current);
            seen.before = if window == seen.window + 1 { before } else { HashSet::new() };
            seen.window = window;
            seen.fresh = 0;
        }
        let hash = seen.hasher.hash_one(channel);
        if again || !(seen.current.contains(&hash) || seen.before.contains(&hash)) {
            if seen.fresh >= limit {
                return false;
            }
            seen.fresh += 1;
        }
        seen.current.insert(hash);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_one_second_is_allowed_then_the_rate() {
        let mut budget = Bucket::default();
        let allowed = |budget: &mut Bucket, now| (0..100).filter(|_| budget.take(now, 10)).count();
        assert_eq!(allowed(&mut budget, 5_000), 10);
        assert_eq!(allowed(&mut budget, 5_000), 0);
        assert_eq!(allowed(&mut budget, 5_300), 3);
        assert_eq!(allowed(&mut budget, 60_000), 10);
    }

    #[test]
    fn known_channels_are_free_and_new_ones_count() {
        let mut budget = ChannelBudget::default();
        assert!(
            budget.take(0, "a", false, 2) && budget.take(0, "b", false, 2) && budget.take(0, "a", false, 2)
        );
        assert!(!budget.take(0, "c", false, 2));
        assert!(
            budget.take(60_000, "a", false, 1)
                && budget.take(60_000, "b", false, 1)
                && budget.take(60_000, "c", false, 1)
        );
        assert!(!budget.take(60_000, "d", false, 1));
    }

    #[test]
    fn what_counts_each_time_uses_the_limit_up() {
        let mut budget = ChannelBudget::default();
        assert!(
            budget.take(0, "a", true, 2) && budget.take(0, "a", true, 2) && !budget.take(0, "a", true, 2)
        );
        assert!(budget.take(0, "a", false, 2) && budget.take(60_000, "a", true, 2));
    }
}
