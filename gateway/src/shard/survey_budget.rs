//! What a survey may cost a node, all its shards together.

use std::sync::atomic::{AtomicUsize, Ordering};

/// What is left for one survey. Shared by the shards that carry it out.
#[derive(Debug)]
pub struct SurveyBudget {
    /// Subscribers that may still be asked.
    asks: AtomicUsize,
    /// Answers that may still be told.
    answers: AtomicUsize,
    /// Bytes that they may have, in protobuf.
    bytes: AtomicUsize,
}

impl SurveyBudget {
    /// For `most` subscribers and as many answers, of `bytes` in all.
    #[must_use]
    pub fn new(most: usize, bytes: usize) -> Self {
        Self { asks: AtomicUsize::new(most), answers: AtomicUsize::new(most), bytes: AtomicUsize::new(bytes) }
    }

    /// How many of `wanted` subscribers may be asked.
    pub(super) fn ask(&self, wanted: usize) -> usize {
        let before = self
            .asks
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(wanted)));
        before.map_or(0, |left| left.min(wanted))
    }

    /// Whether an answer of so many bytes may be told.
    pub(super) fn answer(&self, bytes: usize) -> bool {
        take(&self.bytes, bytes) && take(&self.answers, 1)
    }
}

/// Takes all of `wanted`, or nothing.
fn take(from: &AtomicUsize, wanted: usize) -> bool {
    from.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(wanted)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_by_one_is_missing_to_the_others() {
        let budget = SurveyBudget::new(5, 100);
        assert_eq!((budget.ask(3), budget.ask(3), budget.ask(3)), (3, 2, 0));
        assert!(budget.answer(90) && !budget.answer(11));
        assert!(budget.answer(10), "a small one still fits");
        assert!(!budget.answer(1));
        let many = SurveyBudget::new(2, 100);
        assert!(many.answer(1) && many.answer(1) && !many.answer(1));
    }
}
