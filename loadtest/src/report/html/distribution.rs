//! The curve of a distribution: how long the slowest 10 %, 1 %, 0.1 % ... took.

use crate::measure::histogram::Histogram;

/// Points of the curve between 90 % and 99 %, and so on.
const POINTS: u32 = 32;
/// Nines after which there is nothing to see: 99.99999 %.
const MOST_NINES: f64 = 7.0;

/// Points of a histogram of nanoseconds as in `Latency::histogram`: x in nines (1 is 90 %, 2 is 99 %), y in
/// microseconds. None if it is empty or not such a histogram: the numbers of the result stand without it.
pub fn points(histogram: &str) -> Vec<Option<(f64, f64)>> {
    Histogram::read(histogram).map(|histogram| curve(&histogram)).unwrap_or_default()
}

fn curve(histogram: &Histogram) -> Vec<Option<(f64, f64)>> {
    if histogram.count() == 0 {
        return Vec::new();
    }
    // One value of n is the slowest 1/n of them, so there is nothing beyond: the curve ends with the greatest.
    let most = (histogram.count() as f64).log10().min(MOST_NINES);
    let steps = (most * f64::from(POINTS)).ceil() as u32;
    let point = |step: u32| {
        let nines = (f64::from(step) / f64::from(POINTS)).min(most);
        let quantile = if step == steps { 1.0 } else { 1.0 - 10_f64.powf(-nines) };
        histogram.quantile_us(quantile).map(|micros| (nines, micros))
    };
    (0..=steps).map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(values: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::new();
        values.into_iter().for_each(|value| histogram.record(value));
        histogram
    }

    #[test]
    fn nines_are_percentiles() {
        let curve = curve(&histogram((1..=1_000).map(|value| value * 1_000)));
        let at = |nines: f64| curve.iter().flatten().find(|(x, _)| (x - nines).abs() < 1e-9).unwrap().1;
        assert_eq!(curve.len(), 97);
        for (nines, micros) in [(0.0, 1.0), (1.0, 900.0), (2.0, 990.0), (3.0, 1_000.0)] {
            assert!((at(nines) / micros - 1.0).abs() < 0.01, "{nines} nines: {}", at(nines));
        }
    }

    #[test]
    fn few_values_make_a_short_curve() {
        assert_eq!(curve(&histogram([])), []);
        assert_eq!(curve(&histogram([5_000])).len(), 1);
    }

    #[test]
    fn what_is_no_histogram_has_no_curve() {
        assert_eq!(points(""), []);
        assert_eq!(points("***"), []);
        assert_eq!(points("AAAA"), []);
    }
}
