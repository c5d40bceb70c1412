//! One timer wheel for all connections of a shard, instead of a timer per connection.
//!
//! Resolution is [`TICK_MS`]; a deadline is never early, and at most a tick late. Deadlines beyond the wheel's
//! horizon fire at the horizon, and their owner puts them back: every owner checks the time itself.

/// Milliseconds of one slot.
pub const TICK_MS: u64 = 50;
const SLOTS: usize = 2048;

/// A key, and the stamp by which its owner knows whether the entry still counts.
pub type Entry = (u32, u32);

/// Keys by the tick at which they are due.
#[derive(Debug)]
pub struct Wheel {
    slots: Vec<Vec<Entry>>,
    /// The next tick to run.
    tick: u64,
}

impl Wheel {
    /// An empty wheel that starts at `now_ms`.
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        Self { slots: (0..SLOTS).map(|_| Vec::new()).collect(), tick: now_ms / TICK_MS }
    }

    /// Wakes the entry's owner at `at_ms`, or at the next tick if that has passed.
    pub fn insert(&mut self, entry: Entry, at_ms: u64) {
        let due = at_ms.div_ceil(TICK_MS).clamp(self.tick, self.tick + SLOTS as u64 - 1);
        self.slots[(due % SLOTS as u64) as usize].push(entry);
    }

    /// Moves every entry that is due at `now_ms` to `due`.
    pub fn advance(&mut self, now_ms: u64, due: &mut Vec<Entry>) {
        let now = now_ms / TICK_MS;
        // After a long stall every slot is visited once, not once for each tick that was missed.
        let last = now.min(self.tick + SLOTS as u64 - 1);
        while self.tick <= last {
            due.append(&mut self.slots[(self.tick % SLOTS as u64) as usize]);
            self.tick += 1;
        }
        self.tick = self.tick.max(now + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fired(wheel: &mut Wheel, now: u64) -> Vec<u32> {
        let mut due = Vec::new();
        wheel.advance(now, &mut due);
        due.into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn a_key_fires_once_not_early_and_at_most_a_tick_late() {
        let mut wheel = Wheel::new(1_000);
        wheel.insert((7, 0), 1_120);
        assert!(fired(&mut wheel, 1_119).is_empty());
        assert_eq!(fired(&mut wheel, 1_120 + TICK_MS), [7]);
        assert!(fired(&mut wheel, 500_000).is_empty());
    }

    #[test]
    fn a_deadline_beyond_the_horizon_fires_at_the_horizon() {
        let mut wheel = Wheel::new(0);
        wheel.insert((1, 0), u64::MAX / 2);
        assert_eq!(fired(&mut wheel, TICK_MS * SLOTS as u64), [1]);
    }

    #[test]
    fn a_stall_longer_than_the_wheel_loses_nothing() {
        let mut wheel = Wheel::new(0);
        for key in 0..100 {
            wheel.insert((key, 0), u64::from(key) * 977);
        }
        assert_eq!(fired(&mut wheel, 10_000_000).len(), 100);
        wheel.insert((5, 0), 10_000_010);
        assert_eq!(fired(&mut wheel, 10_000_200), [5]);
    }
}
