//! Two results side by side, with ratios and verdicts.

use std::{borrow::Cow, path::PathBuf};

use serde_json::{Map, Value};

use super::{
    number::{memory, micros, quotient, ratio, seconds, with_unit},
    result::{Better, Figure, RunResult},
    section::{self, Cell, Section},
    table,
};

/// What scenarios call the rate at which times are measured.
const RATE: &str = "publications at which times are measured";
/// A difference of less than that is noise.
const NOISE: f64 = 0.03;

/// Options of `compare`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Result to compare with, JSON
    a: PathBuf,
    /// Result that is judged, JSON
    b: PathBuf,
}

/// Prints the comparison of two files.
///
/// # Errors
/// One of them cannot be read.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let (a, b) = (super::read(&args.a)?, super::read(&args.b)?);
    println!("A  {}\nB  {}\n{}", args.a.display(), args.b.display(), render(&a, &b));
    Ok(())
}

/// Everything that both have, with B / A; faults and differences between the runs first.
pub fn render(a: &RunResult, b: &RunResult) -> String {
    let mut out = String::new();
    table::lay_out(&mut out, &differences(a, b));
    out.push('\n');
    for (name, result) in [("A", a), ("B", b)] {
        for (run, prefix) in section::runs(result) {
            table::correctness(&mut out, run, &format!("{name}: {prefix}"));
        }
    }
    for section in [figures(a, b), latencies(a, b), processes(a, b)] {
        table::lay_out(&mut out, &section);
    }
    out
}

/// In what the runs differ before anything is measured: all that is recorded of what was asked for and where it ran.
/// What was found out in the run, such as the rate at which times were measured, is a figure.
fn differences(a: &RunResult, b: &RunResult) -> Section {
    let mut section = Section::new("the runs are not alike, ratios may come from that", &["what", "A", "B"]);
    let mut differ = |what: String, a: String, b: String| {
        if a != b {
            section.rows.push(vec![what.into(), a.into(), b.into()]);
        }
    };
    differ("scenario".into(), a.scenario.clone(), b.scenario.clone());
    let beside = |run: &RunResult| {
        let names: Vec<String> = run.beside.iter().map(|other| other.name_beside(run)).collect();
        names.join(", ")
    };
    differ("beside it".into(), beside(a), beside(b));
    differ("loadtest".into(), a.version.clone(), b.version.clone());
    let parts = |run: &RunResult| {
        let object = |part| if let Ok(Value::Object(part)) = part { part } else { Map::new() };
        let (target, machine) = (serde_json::to_value(&run.target), serde_json::to_value(&run.machine));
        [("", object(target)), ("option ", run.options.clone()), ("machine: ", object(machine))]
    };
    for ((kind, ours), (_, theirs)) in parts(a).into_iter().zip(parts(b)) {
        for name in union(ours.keys(), theirs.keys()) {
            let of = |part: &Map<String, Value>| match part.get(name) {
                None | Some(Value::Null) => "-".to_owned(),
                Some(value) => Some(section::option_value(value))
                    .filter(|text| !text.is_empty())
                    .unwrap_or("-".to_owned()),
            };
            differ(format!("{kind}{name}"), of(&ours), of(&theirs));
        }
    }
    section
}

/// One thing that was measured, by name.
struct Measured {
    name: String,
    value: Option<f64>,
    /// Least and greatest of several runs.
    range: Option<[f64; 2]>,
    shown: String,
    better: Better,
}

fn figures(a: &RunResult, b: &RunResult) -> Section {
    let of = |result: &RunResult| {
        let figures = section::runs(result).flat_map(|(run, prefix)| {
            run.figures.iter().map(move |figure| {
                let Figure { name, value, range, unit, better, .. } = figure;
                Measured {
                    name: format!("{prefix}{name}"),
                    value: *value,
                    range: *range,
                    shown: with_unit(*value, unit),
                    better: *better,
                }
            })
        });
        figures.collect()
    };
    side_by_side("figures", of(a), of(b))
}

/// Times at different rates are shown and not judged.
fn latencies(a: &RunResult, b: &RunResult) -> Section {
    let better = if same_rate(a, b) { Better::Lower } else { Better::Neither };
    let of = |result: &RunResult| {
        let mut times = Vec::new();
        let phases = section::phases(result);
        for (run, prefix) in all(&phases) {
            for latency in run.latencies.iter().filter(|latency| latency.count > 0) {
                times.extend(section::percentiles(latency).map(|(percentile, time)| Measured {
                    name: format!("{prefix}{} {percentile}", latency.name),
                    value: Some(time),
                    range: None,
                    shown: micros(time),
                    better,
                }));
            }
        }
        times
    };
    side_by_side("latencies", of(a), of(b))
}

/// The timed runs, then the saturated ones, each with what its names begin with.
fn all<'a>(phases: &'a [Cow<'a, RunResult>]) -> impl Iterator<Item = (&'a RunResult, String)> {
    phases.iter().enumerate().flat_map(|(at, phase)| {
        let kind = if at == 0 { "" } else { "saturated: " };
        section::runs(phase).map(move |(run, prefix)| (run, format!("{kind}{prefix}")))
    })
}

fn processes(a: &RunResult, b: &RunResult) -> Section {
    let of = |result: &RunResult| {
        let mut costs = Vec::new();
        let phases = section::phases(result);
        for (run, prefix) in all(&phases) {
            for process in &run.processes {
                let mut cost = |what: &str, value: Option<f64>, shown: String, better| {
                    let name = format!("{prefix}{} {what}", process.name);
                    costs.push(Measured { name, value, range: None, shown, better });
                };
                // Who does more in the same time spends more: work for each CPU second is a figure.
                cost("CPU", Some(process.cpu_seconds), seconds(process.cpu_seconds), Better::Neither);
                for (what, kib) in [("RSS after", process.rss_after), ("RSS peak", process.rss_peak)] {
                    cost(what, (kib > 0).then_some(kib as f64), memory(kib), Better::Lower);
                }
            }
        }
        costs
    };
    side_by_side("processes", of(a), of(b))
}

/// A row for each name of either, in the order of A.
fn side_by_side(title: &str, a: Vec<Measured>, b: Vec<Measured>) -> Section {
    let mut section = Section::new(title, &["what", "A", "B", "B/A", ""]);
    for name in union(a.iter().map(|one| &one.name), b.iter().map(|one| &one.name)) {
        let find = |all: &'_ [Measured]| all.iter().position(|one| one.name == *name);
        let (ours, theirs) = (find(&a).map(|at| &a[at]), find(&b).map(|at| &b[at]));
        let shown = |one: Option<&Measured>| one.map_or("-".to_owned(), |one| one.shown.clone());
        let (before, now) = (ours.and_then(|one| one.value), theirs.and_then(|one| one.value));
        let better = ours.or(theirs).map_or(Better::Neither, |one| one.better);
        let ranges = ours.and_then(|one| one.range).zip(theirs.and_then(|one| one.range));
        let verdict = match before.zip(now) {
            None => "".into(),
            Some(_) if better != Better::Neither && ranges.is_some_and(overlap) => "within the range".into(),
            Some((before, now)) => verdict(before, now, better),
        };
        let ratio = ratio(quotient(now, before));
        section.rows.push(vec![
            name.as_str().into(),
            shown(ours).into(),
            shown(theirs).into(),
            ratio.into(),
            verdict,
        ]);
    }
    section
}

/// Whether runs of one may as well have been runs of the other.
fn overlap((a, b): ([f64; 2], [f64; 2])) -> bool {
    a[0] <= b[1] && b[0] <= a[1]
}

/// Whether times were measured at about the same rate, as far as that is known.
fn same_rate(a: &RunResult, b: &RunResult) -> bool {
    let rate = |run: &RunResult| run.figures.iter().find(|figure| figure.name == RATE)?.value;
    rate(a).zip(rate(b)).is_none_or(|(a, b)| (a - b).abs() <= a.abs() * NOISE)
}

fn verdict(before: f64, now: f64, better: Better) -> Cell {
    let good = match better {
        Better::Neither => return "".into(),
        _ if (now - before).abs() <= before.abs() * NOISE => return "same".into(),
        Better::Lower => now < before,
        Better::Higher => now > before,
    };
    Cell::verdict(if good { "better" } else { "WORSE" }, Some(good))
}

/// The names of A in their order, then those that only B has.
fn union<'a>(a: impl Iterator<Item = &'a String>, b: impl Iterator<Item = &'a String>) -> Vec<&'a String> {
    let mut names: Vec<&String> = a.collect();
    for name in b {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn line<'a>(text: &'a str, name: &str) -> &'a str {
        let found = text.lines().find(|line| line.trim_start().starts_with(name));
        found.unwrap_or_else(|| panic!("no line for {name} in\n{text}"))
    }

    /// The cells after the name, however wide the columns are.
    fn cells(text: &str, name: &str) -> String {
        let rest = line(text, name).trim_start().trim_start_matches(name);
        rest.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn verdicts_follow_the_better_direction() {
        let (better, worse) = (Cell::verdict("better", Some(true)), Cell::verdict("WORSE", Some(false)));
        assert_eq!(verdict(100.0, 90.0, Better::Lower), better);
        assert_eq!(verdict(100.0, 90.0, Better::Higher), worse);
        assert_eq!(verdict(100.0, 110.0, Better::Lower), worse);
        assert_eq!(verdict(100.0, 110.0, Better::Higher), better);
        assert_eq!(verdict(100.0, 102.9, Better::Lower), "same".into());
        assert_eq!(verdict(100.0, 50.0, Better::Neither), "".into());
        assert_eq!(verdict(0.0, 1.0, Better::Lower), worse);
        assert_eq!(verdict(0.0, 0.0, Better::Lower), "same".into());
    }

    #[test]
    fn equal_runs_are_the_same_in_everything() {
        let run = sample::fanout();
        let text = render(&run, &run);
        assert!(!text.contains("NOT ALIKE") && !text.contains("better") && !text.contains("WORSE"), "{text}");
        assert!(cells(&text, "deliver p99.9").ends_with("1.00 x same"));
        assert!(line(&text, "floor-write: deliver p50").ends_with("same"));
        assert!(line(&text, "redis RSS peak").ends_with("same"));
        assert!(line(&text, "A: correct").contains("120,000 deliveries"));
    }

    #[test]
    fn saturated_runs_are_compared_with_each_other() {
        let text = render(&sample::saturated(), &sample::saturated());
        assert!(line(&text, "saturated: deliver p50").ends_with("same"), "{text}");
        assert!(line(&text, "saturated: floor-write: deliver p50").ends_with("same"));
        assert!(line(&text, "saturated: gateway 1 RSS peak").ends_with("same"));
    }

    #[test]
    fn figures_are_compared_by_name() {
        let (a, mut b) = (sample::fanout(), sample::fanout());
        b.figures[0].value = Some(912_345.6 * 1.5);
        b.figures[1].name = "another".into();
        b.processes[0].cpu_seconds *= 2.0;
        let text = render(&a, &b);
        assert!(
            line(&text, "deliveries per").ends_with("912,346 1/s   1,368,518 1/s   1.50 x   better"),
            "{text}"
        );
        assert!(cells(&text, "publish to last").ends_with("2,346 µs - -"), "{text}");
        assert!(line(&text, "another").contains("2,346 µs"));
        // Who does more spends more.
        assert!(cells(&text, "gateway 1 CPU").ends_with("2.00 x"), "{text}");
    }

    #[test]
    fn what_may_be_chance_and_times_at_other_rates_are_not_judged() {
        let (mut a, mut b) = (sample::fanout(), sample::fanout());
        b.figures[0].value = Some(912_345.6 * 1.5);
        (a.figures[0].range, b.figures[0].range) = (Some([8e5, 1.1e6]), Some([1e6, 2e6]));
        b.latencies[0].p50 *= 2.0;
        let text = render(&a, &b);
        assert!(line(&text, "deliveries per").ends_with("within the range"), "{text}");
        assert!(line(&text, "deliver p50").ends_with("WORSE"), "{text}");
        for (run, rate) in [(&mut a, 1_000.0), (&mut b, 2_000.0)] {
            run.figures.push(Figure::fact(RATE, Some(rate), "1/s"));
        }
        assert!(line(&render(&a, &b), "deliver p50").ends_with("2.00 x"));
    }

    #[test]
    fn runs_that_are_not_alike_say_so() {
        let (a, mut b) = (sample::fanout(), sample::fanout());
        b.scenario = "pairs".into();
        b.target.encoding = "protobuf".into();
        b.options.insert("rate".into(), 4_000.into());
        b.options.insert("rooms".into(), 5.into());
        b.options.insert("config".into(), Value::Null);
        b.machine.cores = 64;
        b.beside.clear();
        let text = render(&a, &b);
        assert!(text.contains("NOT ALIKE"));
        assert!(line(&text, "scenario").contains("pairs") && line(&text, "encoding").contains("protobuf"));
        assert!(cells(&text, "option rate") == "2,000 4,000", "{text}");
        assert!(cells(&text, "option rooms") == "- 5", "{text}");
        assert_eq!(cells(&text, "machine: cores"), "2 64");
        assert_eq!(cells(&text, "beside it"), "floor-write");
        assert!(!text.contains("option config"), "{text}");
    }

    #[test]
    fn a_fault_of_either_is_loud() {
        let (a, mut b) = (sample::fanout(), sample::fanout());
        b.correctness.duplicated = 7;
        let text = render(&a, &b);
        assert!(line(&text, "B: FAILED").contains("7 duplicated"), "{text}");
        assert!(text.contains("!!!!"));
    }
}
