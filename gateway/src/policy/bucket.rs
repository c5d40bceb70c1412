//! A rate, kept by a token bucket.

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
}
