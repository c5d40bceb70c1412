//! Which plots a result has: five, always the same, in the same order.

use super::{
    axis::{Axis, Scale, Unit},
    distribution,
    plot::{Line, Plot},
};
use crate::report::{
    result::{ProcessCost, RunResult, Second},
    section,
};

/// A latency whose values differ by more than that is drawn on a logarithmic axis.
const WIDE: f64 = 20.0;

/// Points of a line over time at most: seconds of a longer run share a point, or they hide each other.
const POINTS: usize = 300;

/// All plots of a result.
pub fn of(result: &RunResult) -> Vec<Plot> {
    vec![latency(result), throughput(result), cpu(result), memory(result), distribution(result)]
}

fn latency(result: &RunResult) -> Plot {
    let line = |name: &str, of: fn(&Second) -> Option<f64>| Line {
        name: name.to_owned(),
        dashed: false,
        points: over_time(&result.series, |second, _| of(second), greatest),
    };
    let lines = vec![
        line("max", |second| second.max),
        line("p99", |second| second.p99),
        line("p50", |second| second.p50),
    ];
    let y = Axis { label: "latency", scale: wide_or_linear(&lines), unit: Unit::Micros };
    Plot { title: title("Latency over time", &result.series, "greatest"), x: Axis::TIME, y, lines }
}

fn throughput(result: &RunResult) -> Plot {
    let line = |name: &str, of: fn(&Second) -> u64| Line {
        name: name.to_owned(),
        // In a healthy run it covers what was published: both are to be seen.
        dashed: name == "acked",
        points: over_time(&result.series, |second, length| Some(of(second) as f64 / length), mean),
    };
    let lines = vec![
        line("published", |second| second.published),
        line("acked", |second| second.acked),
        line("delivered", |second| second.delivered),
    ];
    let y = Axis { label: "messages per second", scale: Scale::Linear, unit: Unit::Number };
    Plot { title: title("Throughput over time", &result.series, "means"), x: Axis::TIME, y, lines }
}

fn cpu(result: &RunResult) -> Plot {
    let lines = processes(result, |second, length, process| Some(second.cpu.get(process)? / length));
    let y = Axis { label: "cores", scale: Scale::Linear, unit: Unit::Number };
    Plot { title: title("CPU of each process over time", &result.series, "means"), x: Axis::TIME, y, lines }
}

fn memory(result: &RunResult) -> Plot {
    let lines = processes(result, |second, _, process| {
        second.rss.get(process).filter(|&&kib| kib > 0).map(|&kib| kib as f64 / 1024.0)
    });
    let y = Axis { label: "RSS, MiB", scale: Scale::Linear, unit: Unit::Number };
    Plot {
        title: title("Memory of each process over time", &result.series, "means"),
        x: Axis::TIME,
        y,
        lines,
    }
}

/// One line for each latency, and dashed for each of the runs beside it.
fn distribution(result: &RunResult) -> Plot {
    let mut lines = Vec::new();
    for (run, prefix) in section::runs(result) {
        for latency in &run.latencies {
            let dashed = !prefix.is_empty();
            let points = distribution::points(&latency.histogram);
            lines.push(Line { name: format!("{prefix}{}", latency.name), dashed, points });
        }
    }
    let x = Axis { label: "percentile", scale: Scale::Linear, unit: Unit::Nines };
    let y = Axis { label: "latency", scale: wide_or_linear(&lines), unit: Unit::Micros };
    Plot { title: "Distribution of latencies".to_owned(), x, y, lines }
}

/// A line for each process of the run itself.
fn processes(result: &RunResult, of: impl Fn(&Second, f64, usize) -> Option<f64>) -> Vec<Line> {
    let line = |(index, process): (usize, &ProcessCost)| Line {
        name: process.name.clone(),
        dashed: false,
        points: over_time(&result.series, |second, length| of(second, length, index), mean),
    };
    result.processes.iter().enumerate().map(line).collect()
}

/// Seconds that share a point.
fn shared(series: &[Second]) -> usize {
    series.len().div_ceil(POINTS).max(1)
}

/// A title that says so if seconds share points.
fn title(what: &str, series: &[Second], how: &str) -> String {
    match shared(series) {
        1 => what.to_owned(),
        seconds => format!("{what}, {how} of {seconds} s"),
    }
}

/// A point for each second, from it and its length, or for as many as share one; none where nothing was measured.
fn over_time(
    series: &[Second],
    of: impl Fn(&Second, f64) -> Option<f64>,
    join: fn(&[f64]) -> f64,
) -> Vec<Option<(f64, f64)>> {
    let mut begin = 0.0;
    let mut point = |seconds: &[Second]| {
        let mut values = Vec::with_capacity(seconds.len());
        for second in seconds {
            let length = second.at - begin;
            begin = second.at;
            if length > 0.0 {
                values.extend(of(second, length));
            }
        }
        if values.is_empty() { None } else { Some((begin, join(&values))) }
    };
    series.chunks(shared(series)).map(&mut point).collect()
}

fn greatest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn wide_or_linear(lines: &[Line]) -> Scale {
    let values = lines.iter().flat_map(|line| line.points.iter().flatten()).map(|&(_, y)| y);
    let (least, most) = values
        .filter(|y| y.is_finite() && *y > 0.0)
        .fold((f64::INFINITY, 0.0_f64), |(least, most), y| (least.min(y), most.max(y)));
    if most > least * WIDE { Scale::Log } else { Scale::Linear }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(number: u32) -> Vec<Second> {
        (1..=number)
            .map(|at| Second { at: f64::from(at), acked: u64::from(at), ..Second::default() })
            .collect()
    }

    #[test]
    fn a_second_that_is_late_counts_for_its_length() {
        let series = [1.0, 3.0, 3.0].map(|at| Second { at, acked: 10, ..Second::default() });
        let rates = over_time(&series, |second, length| Some(second.acked as f64 / length), mean);
        assert_eq!(rates, [Some((1.0, 10.0)), Some((3.0, 5.0)), None]);
    }

    #[test]
    fn seconds_of_a_long_run_share_points() {
        let of = |second: &Second, _| (second.acked > 4).then_some(second.acked as f64);
        let series = seconds(1_200);
        let (means, greatest) = (over_time(&series, of, mean), over_time(&series, of, greatest));
        assert_eq!((means.len(), means[0], means[1]), (300, None, Some((8.0, 6.5))));
        assert_eq!(greatest[1], Some((8.0, 8.0)));
        assert_eq!(title("CPU", &series, "means"), "CPU, means of 4 s");
        assert_eq!(title("CPU", &seconds(300), "means"), "CPU");
    }
}
