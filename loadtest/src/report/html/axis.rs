//! The axes of a plot: where they begin and end, where their ticks are, and what is written there.

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};

use crate::report::number::{count, micros, value};

/// Intervals between ticks of a linear axis, at least about that many.
const INTERVALS: f64 = 5.0;
/// Seconds between two ticks of time.
const SECONDS: [f64; 12] = [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_200.0, 1_800.0];
/// Intervals that an axis of time has at most.
const MOST_SECONDS: f64 = 12.0;
/// Decades above which a logarithmic axis has ticks at powers of ten only, not at 2 and 5 of them too.
const MANY_DECADES: f64 = 3.5;

/// How values become places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// In proportion, from 0.
    Linear,
    /// By the decimal logarithm. Values that are not positive have no place.
    Log,
}

/// What the values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Seconds of the run.
    Seconds,
    /// Anything that the label of the axis says.
    Number,
    /// Microseconds.
    Micros,
    /// Percentiles by their nines: 1 is 90 %, 2 is 99 %, 3 is 99.9 %.
    Nines,
}

/// One axis.
#[derive(Debug, Clone, Copy)]
pub struct Axis {
    /// What is written beside it.
    pub label: &'static str,
    /// How values become places.
    pub scale: Scale,
    /// What the values are.
    pub unit: Unit,
}

/// An axis that fits some values. Its places are what the plot is drawn by.
#[derive(Debug, Clone, PartialEq)]
pub struct Fitted {
    /// The first and the last place; never the same.
    pub range: std::ops::Range<f64>,
    /// Places of ticks, ascending.
    pub ticks: Vec<f64>,
}

impl Axis {
    /// Seconds since the measurement began.
    pub const TIME: Self = Self { label: "seconds", scale: Scale::Linear, unit: Unit::Seconds };

    /// Where a value is, or `None` for one that no axis of this scale shows.
    pub fn place(&self, value: f64) -> Option<f64> {
        let place = match self.scale {
            Scale::Linear => value,
            Scale::Log if value > 0.0 => value.log10(),
            Scale::Log => return None,
        };
        place.is_finite().then_some(place)
    }

    /// The axis for these values: its ends are ticks, except at the end of time and of nines.
    pub fn fit(&self, values: impl Iterator<Item = f64>) -> Fitted {
        let places = values.filter_map(|value| self.place(value));
        let (least, most) = places.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), place| {
            (least.min(place), most.max(place))
        });
        match (self.scale, self.unit) {
            (Scale::Log, _) if least.is_finite() => logarithmic(least, most),
            (Scale::Log, _) => logarithmic(0.0, 1.0),
            (Scale::Linear, Unit::Nines) => nines(most.max(1.0)),
            (Scale::Linear, Unit::Seconds) => seconds(most.max(1.0)),
            (Scale::Linear, _) => linear(if most > 0.0 { most } else { 1.0 }),
        }
    }

    /// What is written at a place.
    pub fn tick(&self, place: f64) -> String {
        let shown = match self.scale {
            Scale::Linear => place,
            Scale::Log => 10_f64.powf(place),
        };
        match self.unit {
            Unit::Seconds => count(shown.round() as u64),
            Unit::Number => without_zeros(&value(shown)),
            Unit::Micros if shown == 0.0 => "0".to_owned(),
            Unit::Micros => without_zeros(&micros(shown)),
            Unit::Nines => {
                let decimals = (shown.round() as usize).saturating_sub(2);
                format!("{:.decimals$} %", 100.0 - 10_f64.powf(2.0 - shown))
            }
        }
    }
}

impl Ranged for Fitted {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, place: &f64, (first, last): (i32, i32)) -> i32 {
        let share = (place - self.range.start) / (self.range.end - self.range.start);
        first + (share * f64::from(last - first)).round() as i32
    }

    fn key_points<H: KeyPointHint>(&self, hint: H) -> Vec<f64> {
        // Light points are the grid between the ticks: more lines than anybody reads.
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.range.clone()
    }
}

/// `2.50 ms` as `2.5 ms`.
fn without_zeros(text: &str) -> String {
    let (number, unit) = text.split_once(' ').map_or((text, ""), |(number, unit)| (number, unit));
    let number =
        if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number };
    if unit.is_empty() { number.to_owned() } else { format!("{number} {unit}") }
}

/// From 0 to the first tick that nothing is above of.
fn linear(most: f64) -> Fitted {
    let rough = most / INTERVALS;
    let decade = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0].into_iter().rev().find(|&step| step * decade <= rough).unwrap_or(1.0) * decade;
    // A hair less, so that a value on a tick, written with an error of rounding, does not ask for one more.
    let intervals = (most / step - 1e-9).ceil().max(1.0) as u32;
    let ticks: Vec<f64> = (0..=intervals).map(|tick| f64::from(tick) * step).collect();
    Fitted { range: 0.0..f64::from(intervals) * step, ticks }
}

fn seconds(most: f64) -> Fitted {
    let step = SECONDS.into_iter().find(|step| most / step <= MOST_SECONDS).unwrap_or_else(|| {
        let hours = (most / MOST_SECONDS / 3_600.0).ceil();
        hours * 3_600.0
    });
    Fitted {
        range: 0.0..most,
        ticks: (0..=(most / step) as u32).map(|tick| f64::from(tick) * step).collect(),
    }
}

fn nines(most: f64) -> Fitted {
    let half = 2_f64.log10();
    let whole = (1..=most.floor() as u32).map(f64::from);
    Fitted { range: 0.0..most, ticks: std::iter::once(half).chain(whole).collect() }
}

/// From 1, 2 or 5 of a decade to 1, 2 or 5 of another.
fn logarithmic(least: f64, most: f64) -> Fitted {
    let (first, last) = (least.floor() as i32, most.ceil() as i32 + 1);
    let parts: &[f64] = if most - least > MANY_DECADES { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let all: Vec<f64> = (first..=last)
        .flat_map(|decade| parts.iter().map(move |part| f64::from(decade) + part.log10()))
        .collect();
    // The first tick is a whole decade at or below the least, the last one above the most: both are found.
    let begin = all.iter().rposition(|&tick| tick <= least + 1e-9).unwrap_or(0);
    let end = all.iter().position(|&tick| tick >= most - 1e-9).unwrap_or(all.len() - 1).max(begin + 1);
    Fitted { range: all[begin]..all[end], ticks: all[begin..=end].to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: Scale, unit: Unit, values: &[f64]) -> String {
        let axis = Axis { label: "", scale, unit };
        let fitted = axis.fit(values.iter().copied());
        assert!(fitted.range.start < fitted.range.end);
        fitted.ticks.iter().map(|&tick| axis.tick(tick)).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn linear_axes_begin_at_zero_and_hold_the_greatest() {
        let labels = |values| labels(Scale::Linear, Unit::Number, values);
        assert_eq!(labels(&[4_200.0, 1.0]), "0|500|1,000|1,500|2,000|2,500|3,000|3,500|4,000|4,500");
        assert_eq!(labels(&[1.0]), "0|0.2|0.4|0.6|0.8|1");
        assert_eq!(labels(&[0.9]), "0|0.1|0.2|0.3|0.4|0.5|0.6|0.7|0.8|0.9");
        assert_eq!(labels(&[2.0]), "0|0.2|0.4|0.6|0.8|1|1.2|1.4|1.6|1.8|2");
        assert_eq!(labels(&[]), "0|0.2|0.4|0.6|0.8|1");
        assert_eq!(labels(&[0.0, f64::NAN]), "0|0.2|0.4|0.6|0.8|1");
    }

    #[test]
    fn logarithmic_axes_have_three_ticks_a_decade_unless_they_are_many() {
        let labels = |values| labels(Scale::Log, Unit::Micros, values);
        assert_eq!(labels(&[300.0, 12_000.0]), "200 µs|500 µs|1 ms|2 ms|5 ms|10 ms|20 ms");
        assert_eq!(labels(&[30.0, 4e6]), "10 µs|100 µs|1 ms|10 ms|100 ms|1 s|10 s");
        assert_eq!(labels(&[100.0, 100.0]), "100 µs|200 µs");
        assert_eq!(labels(&[0.0, -1.0]), "1 µs|2 µs|5 µs|10 µs");
    }

    #[test]
    fn time_has_round_steps_and_ends_with_the_run() {
        let labels = |values| labels(Scale::Linear, Unit::Seconds, values);
        assert_eq!(labels(&[1.0, 60.3]), "0|10|20|30|40|50|60");
        assert_eq!(labels(&[1_800.0]), "0|300|600|900|1,200|1,500|1,800");
        assert_eq!(labels(&[86_400.0]).split('|').count(), 13);
        assert_eq!(labels(&[]), "0|1");
    }

    #[test]
    fn nines_are_written_as_percentiles() {
        assert_eq!(labels(Scale::Linear, Unit::Nines, &[4.2]), "50 %|90 %|99 %|99.9 %|99.99 %");
        assert_eq!(labels(Scale::Linear, Unit::Nines, &[0.0]), "50 %|90 %");
    }
}
