//! How long to wait before the next attempt to connect: exponential backoff with full jitter.

use std::time::Duration;

/// A connection that held this long was a good one: the next loss starts again at the base.
const STEADY: Duration = Duration::from_secs(5);

/// Delays drawn evenly from zero to a ceiling that doubles with every attempt.
///
/// Full jitter spreads the clients of a lost node over the whole interval instead of having them all return at once.
/// Pure: the caller brings the random numbers.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    attempts: u32,
}

impl Backoff {
    /// Ceilings `base`, `2 * base`, `4 * base`, ... up to `cap`.
    #[must_use]
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, attempts: 0 }
    }

    /// The next delay; `random` is in `0.0..1.0`.
    pub fn next(&mut self, random: f64) -> Duration {
        let ceiling = self.base.saturating_mul(2u32.saturating_pow(self.attempts)).min(self.cap);
        self.attempts = self.attempts.saturating_add(1);
        ceiling.mul_f64(random.clamp(0.0, 1.0))
    }

    /// Takes note of how long a connection held. Short ones count as failed attempts, so that a server that accepts
    /// and closes at once is not hammered.
    pub fn held_for(&mut self, time: Duration) {
        if time >= STEADY.min(self.cap) {
            self.attempts = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_ceiling_doubles_up_to_the_cap() {
        let mut backoff = Backoff::new(100 * MS, 1000 * MS);
        let ceilings: Vec<_> = (0..6).map(|_| backoff.next(1.0)).collect();
        assert_eq!(ceilings, [100 * MS, 200 * MS, 400 * MS, 800 * MS, 1000 * MS, 1000 * MS]);
    }

    #[test]
    fn the_delay_is_anywhere_below_the_ceiling() {
        let mut backoff = Backoff::new(100 * MS, 1000 * MS);
        assert_eq!(backoff.next(0.0), Duration::ZERO);
        assert_eq!(backoff.next(0.25), 50 * MS);
    }

    #[test]
    fn only_a_connection_that_held_resets_it() {
        let mut backoff = Backoff::new(100 * MS, 60_000 * MS);
        backoff.next(1.0);
        backoff.held_for(10 * MS);
        assert_eq!(backoff.next(1.0), 200 * MS);
        backoff.held_for(STEADY);
        assert_eq!(backoff.next(1.0), 100 * MS);
    }

    #[test]
    fn many_attempts_do_not_overflow() {
        let mut backoff = Backoff::new(Duration::MAX, Duration::from_secs(20));
        backoff.attempts = u32::MAX;
        assert_eq!(backoff.next(1.0), Duration::from_secs(20));
    }
}
