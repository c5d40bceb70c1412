//! Times, each counted in its bucket: nanoseconds with 3 significant digits, up to 10 minutes.

use anyhow::{Context as _, anyhow};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};

use crate::report::result::Latency;

/// Greatest time that is told from greater ones, nanoseconds.
const GREATEST: u64 = 600 * 1_000_000_000;
/// Significant digits of a value.
const DIGITS: u8 = 3;

/// A distribution of times. It has all its memory (about 0.3 MB) from the beginning: recording never allocates.
#[derive(Debug, Clone)]
pub struct Histogram(hdrhistogram::Histogram<u64>);

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    /// An empty one.
    #[expect(clippy::expect_used, reason = "the bounds are constants that fit: every test here makes one")]
    pub fn new() -> Self {
        Self(hdrhistogram::Histogram::new_with_max(GREATEST, DIGITS).expect("constant bounds"))
    }

    /// Counts a time in nanoseconds; more than 10 minutes count as 10 minutes.
    #[expect(clippy::expect_used, reason = "times are within the bounds, or the bounds grow")]
    pub fn record(&mut self, ns: u64) {
        self.0.record(ns.min(GREATEST)).expect("within bounds");
    }

    /// Adds all that `other` has counted.
    #[expect(clippy::expect_used, reason = "all have the same bounds, `read` sees to it")]
    pub fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("equal bounds");
    }

    /// How many times were counted.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time, in microseconds, that this share (0 to 1) of all is at or below; none if nothing was counted.
    pub fn quantile_us(&self, share: f64) -> Option<f64> {
        (!self.0.is_empty()).then(|| us(self.0.value_at_quantile(share)))
    }

    /// The greatest time, microseconds; none if nothing was counted.
    pub fn max_us(&self) -> Option<f64> {
        (!self.0.is_empty()).then(|| us(self.0.max()))
    }

    /// The figures and the whole distribution, as they are written to disk; all zero if nothing was counted.
    ///
    /// # Errors
    /// It cannot be serialised.
    pub fn to_latency(&self, name: &str) -> anyhow::Result<Latency> {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new()
            .serialize(&self.0, &mut bytes)
            .map_err(|error| anyhow!("cannot serialise the histogram of {name}: {error:?}"))?;
        let quantile = |share| self.quantile_us(share).unwrap_or(0.0);
        Ok(Latency {
            name: name.to_owned(),
            count: self.count(),
            min: us(self.0.min()),
            mean: self.0.mean() / 1_000.0,
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p999: quantile(0.999),
            max: self.max_us().unwrap_or(0.0),
            histogram: STANDARD.encode(bytes),
        })
    }

    /// Reads what [`Latency::histogram`] holds: HdrHistogram V2, deflated or not, base64.
    ///
    /// # Errors
    /// It is not that, or holds times beyond 10 minutes.
    pub fn read(text: &str) -> anyhow::Result<Self> {
        let bytes = STANDARD.decode(text).context("a histogram that is not base64")?;
        let read: hdrhistogram::Histogram<u64> = Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .context("a histogram that is not HdrHistogram V2")?;
        let mut histogram = Self::new();
        histogram.0.add(&read).map_err(|error| anyhow!("a histogram of other bounds: {error}"))?;
        Ok(histogram)
    }
}

/// The same for one of thousands of seconds: whole microseconds with 2 significant digits, and memory only for times as
/// long as it has counted, about 6 KiB up to 100 ms.
#[derive(Debug, Clone)]
pub struct Coarse(hdrhistogram::Histogram<u32>);

impl Default for Coarse {
    #[expect(clippy::expect_used, reason = "a constant number of digits that is allowed")]
    fn default() -> Self {
        Self(hdrhistogram::Histogram::new(2).expect("constant digits"))
    }
}

impl Coarse {
    /// Counts a time in nanoseconds; more than 10 minutes count as 10 minutes.
    #[expect(clippy::expect_used, reason = "it grows as far as it must")]
    pub fn record(&mut self, ns: u64) {
        self.0.record(ns.min(GREATEST).div_ceil(1_000)).expect("it grows");
    }

    /// Adds all that `other` has counted.
    #[expect(clippy::expect_used, reason = "it grows as far as it must")]
    pub fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("it grows");
    }

    /// As [`Histogram::quantile_us`].
    pub fn quantile_us(&self, share: f64) -> Option<f64> {
        (!self.0.is_empty()).then(|| self.0.value_at_quantile(share) as f64)
    }

    /// As [`Histogram::max_us`].
    pub fn max_us(&self) -> Option<f64> {
        (!self.0.is_empty()).then(|| self.0.max() as f64)
    }
}

fn us(ns: u64) -> f64 {
    ns as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1 us, 2 us ... 1,000 us.
    fn thousand() -> Histogram {
        let mut histogram = Histogram::new();
        (1..=1_000).for_each(|us| histogram.record(us * 1_000));
        histogram
    }

    fn near(value: f64, expected: f64) {
        assert!((value - expected).abs() <= expected / 1_000.0, "{value} is not {expected}");
    }

    #[test]
    fn figures_are_microseconds() {
        let latency = thousand().to_latency("deliver").unwrap();
        assert_eq!((latency.name.as_str(), latency.count), ("deliver", 1_000));
        near(latency.min, 1.0);
        near(latency.mean, 500.5);
        near(latency.p50, 500.0);
        near(latency.p90, 900.0);
        near(latency.p99, 990.0);
        near(latency.p999, 999.0);
        near(latency.max, 1_000.0);
    }

    #[test]
    fn coarse_ones_tell_long_times_as_well_and_add_up() {
        let (mut one, mut two) = (Coarse::default(), Coarse::default());
        one.record(1_000);
        two.record(30_000_000_000);
        two.record(u64::MAX);
        one.merge(&two);
        assert_eq!(one.quantile_us(0.0), Some(1.0));
        assert!((one.quantile_us(0.5).unwrap() / 30e6 - 1.0).abs() < 0.01);
        assert!((one.max_us().unwrap() / 600e6 - 1.0).abs() < 0.01);
    }

    #[test]
    fn what_was_written_reads_the_same_and_merges() {
        let written = thousand().to_latency("deliver").unwrap();
        let mut read = Histogram::read(&written.histogram).unwrap();
        assert_eq!(read.to_latency("deliver").unwrap(), written);
        read.merge(&thousand());
        assert_eq!(read.count(), 2_000);
        near(read.quantile_us(0.99).unwrap(), 990.0);
    }

    #[test]
    fn nothing_has_no_quantiles_and_all_zero_figures() {
        let histogram = Histogram::new();
        assert_eq!((histogram.quantile_us(0.5), histogram.max_us()), (None, None));
        let latency = histogram.to_latency("none").unwrap();
        assert_eq!((latency.count, latency.min, latency.mean, latency.max), (0, 0.0, 0.0, 0.0));
        assert_eq!(Histogram::read(&latency.histogram).unwrap().count(), 0);
    }

    #[test]
    fn times_out_of_bounds_are_counted_at_the_bound() {
        let mut histogram = Histogram::new();
        histogram.record(u64::MAX);
        histogram.record(0);
        assert_eq!(histogram.count(), 2);
        near(histogram.max_us().unwrap(), 600e6);
    }

    #[test]
    fn damage_is_an_error() {
        for text in ["?", "", "AAAA", "HISTFAAA"] {
            Histogram::read(text).unwrap_err();
        }
    }
}
