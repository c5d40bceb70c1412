//! How long publishes wait while their server refuses them unexecuted. Pure.
//!
//! While a slot moves, or a master is replaced, Redis answers that the call was not executed. Most such times are over
//! within a moment: the publishes wait, in their order, and clients see latency instead of errors. What lasts longer is
//! told: then every publish fails at once until one succeeds.

use std::time::{Duration, Instant};

/// See the module.
#[derive(Debug, Default)]
pub struct Hold {
    until: Option<Instant>,
}

impl Hold {
    /// Publishes were refused: whether they may wait. They do for at most `longest` after the first refusal since the
    /// last success.
    pub fn refused(&mut self, now: Instant, longest: Duration) -> bool {
        now < *self.until.get_or_insert(now + longest)
    }

    /// Publishes were taken.
    pub fn succeeded(&mut self) {
        self.until = None;
    }

    /// Whether publishes wait at `now`.
    #[must_use]
    pub fn is_on(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishes_wait_for_a_while_after_the_first_refusal_and_then_fail_until_one_succeeds() {
        let (mut hold, start, longest) = (Hold::default(), Instant::now(), Duration::from_secs(2));
        assert!(!hold.is_on(start));
        assert!(hold.refused(start, longest));
        assert!(hold.refused(start + longest / 2, longest));
        assert!(hold.is_on(start + longest / 2));
        assert!(!hold.refused(start + longest, longest));
        assert!(!hold.refused(start + longest * 5, longest), "a refusal that lasts is told");
        hold.succeeded();
        assert!(!hold.is_on(start + longest / 2));
        assert!(hold.refused(start + longest * 6, longest));
    }
}
