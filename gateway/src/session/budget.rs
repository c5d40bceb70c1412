//! How many channels one connection may use for the first time.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
};

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
