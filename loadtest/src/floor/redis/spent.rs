//! CPU time of rows, and what is made of their rounds.

/// CPU time of a row in a round: seconds, or microseconds for each publish.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Spent {
    /// By what publishes; all of it where reading is not told apart.
    pub writing: f64,
    /// By reading what was published; zero where it is not told apart.
    pub reading: f64,
}

impl Spent {
    /// Both.
    pub fn total(&self) -> f64 {
        self.writing + self.reading
    }

    /// From seconds of `publishes` publishes to microseconds of one.
    pub fn each_of(self, publishes: usize) -> Self {
        let micros = |seconds: f64| seconds * 1e6 / publishes as f64;
        Self { writing: micros(self.writing), reading: micros(self.reading) }
    }
}

/// Median over the rounds of a row's cost divided by that of `base` in the same round.
pub fn ratio(rounds: &[Spent], base: &[Spent]) -> f64 {
    median(rounds.iter().zip(base).map(|(round, base)| round.total() / base.total()))
}

/// The middle one; of an even number the higher of the two; NaN of none.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent(totals: &[f64]) -> Vec<Spent> {
        totals.iter().map(|&writing| Spent { writing, reading: 0.0 }).collect()
    }

    #[test]
    fn ratios_are_those_of_the_same_round() {
        // The second round was disturbed, for both alike.
        assert_eq!(ratio(&spent(&[4.0, 40.0, 4.0]), &spent(&[2.0, 20.0, 2.0])), 2.0);
        assert!(ratio(&[], &[]).is_nan());
    }

    #[test]
    fn a_round_becomes_microseconds_of_one_publish() {
        let each = Spent { writing: 0.5, reading: 0.25 }.each_of(250_000);
        assert_eq!((each.writing, each.reading, each.total()), (2.0, 1.0, 3.0));
        assert_eq!(median([3.0, 1.0, 2.0, 4.0].into_iter()), 3.0);
    }
}
