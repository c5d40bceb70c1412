//! What was measured, as a result.

use serde::Serialize;

use super::{
    AIMS, FLAT, Measured, Point,
    spent::{Spent, median, ratio},
};
use crate::{
    measure::machine,
    report::result::{Better, Figure, ProcessCost, RunResult, Target},
};

/// The result of the rows of one server.
///
/// # Errors
/// The options cannot be written as JSON.
pub fn of_rows(measured: &Measured, scenario: &str, options: &impl Serialize) -> anyhow::Result<RunResult> {
    let spent = &measured.points[0].spent;
    let mut figures = Vec::new();
    for (row, rounds) in measured.rows.0.iter().zip(spent) {
        let name = row.name;
        let us = median(rounds.iter().map(Spent::total));
        figures.push(figure(format!("redis us per publish, {name}"), us, "us", None));
        if row.reads_apart() {
            let reading = median(rounds.iter().map(|round| round.reading));
            figures.push(figure(format!("redis us per publish for reading, {name}"), reading, "us", None));
        }
        let goal = AIMS.iter().find(|(batch, _)| row.is_script(*batch)).map(|(_, aim)| *aim);
        figures.push(figure(format!("times plain XADD, {name}"), ratio(rounds, &spent[0]), "", goal));
    }
    result(measured, scenario, options, figures)
}

/// The result of several servers.
///
/// # Errors
/// As [`of_rows`].
pub fn of_sweep(measured: &Measured, scenario: &str, options: &impl Serialize) -> anyhow::Result<RunResult> {
    let mut figures = Vec::new();
    let first = &measured.points[0];
    for point in &measured.points {
        let place = place(point);
        for (at, row) in measured.rows.0.iter().enumerate() {
            let rounds = &point.spent[at];
            let us = median(rounds.iter().map(Spent::total));
            figures.push(figure(format!("redis us per publish, {}, {place}", row.name), us, "us", None));
            // The goal is for the script; the plain commands say what no script could do better.
            let goal = AIMS.iter().any(|(batch, _)| row.is_script(*batch)).then_some(FLAT);
            let times = ratio(rounds, &first.spent[at]);
            figures.push(figure(format!("times the first, {}, {place}", row.name), times, "", goal));
        }
        let memory = point.after.memory as f64 / f64::from(1 << 20);
        figures.push(Figure {
            better: Better::Neither,
            ..figure(format!("redis memory, {place}"), memory, "MiB", None)
        });
    }
    result(measured, scenario, options, figures)
}

fn place(point: &Point) -> String {
    format!("{} channels, {} nodes", point.size.channels, point.size.nodes)
}

fn figure(name: String, value: f64, unit: &str, goal: Option<f64>) -> Figure {
    let value = value.is_finite().then_some(value);
    Figure { goal, ..Figure::lower(name, value, unit) }
}

fn result(
    measured: &Measured,
    scenario: &str,
    options: &impl Serialize,
    figures: Vec<Figure>,
) -> anyhow::Result<RunResult> {
    let options = serde_json::to_value(options)?.as_object().cloned().unwrap_or_default();
    let processes = measured.points.iter().map(|point| {
        let name =
            if measured.points.len() == 1 { "redis".to_owned() } else { format!("redis, {}", place(point)) };
        ProcessCost {
            name,
            cpu_seconds: point.after.cpu - point.before.cpu,
            rss_before: point.before.rss,
            rss_after: point.after.rss,
            rss_peak: point.before.rss.max(point.after.rss),
        }
    });
    Ok(RunResult {
        scenario: scenario.to_owned(),
        started: machine::rfc3339(measured.started),
        machine: machine::machine(),
        target: Target {
            server: format!("redis {}", measured.redis_version),
            broker: "redis".to_owned(),
            nodes: measured.points[0].size.nodes,
            ..Target::default()
        },
        options,
        figures,
        processes: processes.collect(),
        notes: vec![format!(
            "{} rounds of {} publishes for each row; CPU is that of the main thread of Redis; medians over the rounds",
            measured.rounds, measured.publishes
        )],
        ..RunResult::default()
    })
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::floor::redis::{Footprint, bench::Size, rows::Rows};

    fn measured(rows: Rows, channels: &[usize]) -> Measured {
        let points = channels.iter().map(|&channels| {
            let node_bytes = "512".to_owned();
            let size = Size { channels, active: channels, nodes: 1, payload: 9, in_flight: 1, node_bytes };
            let spent = (1..=rows.0.len()).map(|us| vec![Spent { writing: us as f64, reading: 1.0 }; 3]);
            Point { size, spent: spent.collect(), before: Footprint::default(), after: Footprint::default() }
        });
        let points = points.collect();
        Measured {
            started: UNIX_EPOCH,
            redis_version: "7".to_owned(),
            rows,
            rounds: 3,
            publishes: 32,
            points,
        }
    }

    fn named<'a>(result: &'a RunResult, name: &str) -> &'a Figure {
        result.figures.iter().find(|figure| figure.name == name).unwrap()
    }

    fn distinct(result: &RunResult) -> bool {
        let names: std::collections::HashSet<_> = result.figures.iter().map(|figure| &figure.name).collect();
        names.len() == result.figures.len()
    }

    #[test]
    fn rows_become_figures_with_the_aims_as_goals() {
        let result = of_rows(&measured(Rows::all(), &[100]), "redis-publish", &()).unwrap();
        assert_eq!(result.started, "1970-01-01T00:00:00Z");
        // The fifth row.
        assert_eq!(named(&result, "redis us per publish, 8 to a call").value, Some(6.0));
        let times = named(&result, "times plain XADD, 8 to a call");
        assert_eq!((times.value, times.goal), (Some(3.0), Some(4.0)));
        assert_eq!(named(&result, "times plain XADD, 32 to a call").goal, Some(3.4));
        assert_eq!(named(&result, "times plain XADD, 32 to a call, with keys").goal, None);
        assert!(distinct(&result));
    }

    #[test]
    fn a_sweep_compares_with_its_first_server() {
        let result = of_sweep(&measured(Rows::sweep(), &[1_000, 10_000]), "floor-script", &()).unwrap();
        let times = named(&result, "times the first, 32 to a call, 10000 channels, 1 nodes");
        assert_eq!((times.value, times.goal), (Some(1.0), Some(FLAT)));
        assert_eq!(result.processes.len(), 2);
        assert!(distinct(&result));
    }
}
