//! The contents of a report, for whoever lays them out: the table of the terminal and the page show the same cells.

use std::borrow::Cow;

use super::{
    number::{count, memory, micros, quotient, ratio, seconds, value, with_unit},
    result::{Better, Correctness, Figure, Latency, RunResult, Second},
};

/// How a cell wants to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// A value.
    Plain,
    /// Something to be glad of.
    Good,
    /// Something to look at.
    Bad,
}

/// One cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// What it says.
    pub text: String,
    /// How it is seen.
    pub tone: Tone,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), tone: Tone::Plain }
    }
}

impl Cell {
    /// A cell with a verdict: `None` is neither good nor bad.
    pub fn verdict(text: impl Into<String>, good: Option<bool>) -> Self {
        let tone = match good {
            Some(true) => Tone::Good,
            Some(false) => Tone::Bad,
            None => Tone::Plain,
        };
        Self { text: text.into(), tone }
    }
}

/// A titled table. A column that is empty throughout is not shown. The first column is text, the others are figures and belong to the right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// What the rows are.
    pub title: String,
    /// One heading for each column.
    pub columns: Vec<String>,
    /// Rows of as many cells as there are columns.
    pub rows: Vec<Vec<Cell>>,
}

impl Section {
    /// A table without rows yet.
    pub fn new(title: &str, columns: &[&str]) -> Self {
        Self {
            title: title.to_owned(),
            columns: columns.iter().map(|&name| name.to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// The columns that have something in them.
    pub fn shown(&self) -> Vec<usize> {
        let says = |column: &usize| {
            self.rows.iter().any(|row| row.get(*column).is_some_and(|cell| !cell.text.is_empty()))
        };
        (0..self.columns.len()).filter(says).collect()
    }
}

/// What ran, where and with what, by name.
pub fn facts(result: &RunResult) -> Vec<(&'static str, String)> {
    let (target, machine) = (&result.target, &result.machine);
    let (nodes, cores) = (amount(target.nodes, "node"), amount(machine.cores, "core"));
    let broker = if target.broker.is_empty() { String::new() } else { format!("broker {}", target.broker) };
    let kernel = if machine.kernel.is_empty() { String::new() } else { format!("kernel {}", machine.kernel) };
    let mut facts = vec![
        ("target", listed(&[&target.server, &nodes, &broker, &target.transport, &target.encoding])),
        ("options", result.options.iter().filter_map(option).collect::<Vec<_>>().join(" ")),
        ("machine", listed(&[cores, machine.processor.clone(), kernel])),
        ("started", result.started.clone()),
        (
            "measured",
            result.series.last().map_or_else(String::new, |second| format!("{} s", value(second.at))),
        ),
        ("loadtest", result.version.clone()),
    ];
    facts.retain(|(_, text)| !text.is_empty());
    facts
}

/// `1 node`, `2 nodes`; empty for none, which is not known.
fn amount(number: usize, what: &str) -> String {
    match number {
        0 => String::new(),
        1 => format!("1 {what}"),
        _ => format!("{} {what}s", count(number as u64)),
    }
}

/// An option with its value, or `None` if it says nothing: a switch that is off, a value that was not given.
fn option((name, value): (&String, &serde_json::Value)) -> Option<String> {
    match value {
        serde_json::Value::Null | serde_json::Value::Bool(false) => None,
        serde_json::Value::Bool(true) => Some(name.clone()),
        _ => Some(format!("{name}={}", option_value(value))).filter(|text| !text.ends_with('=')),
    }
}

/// The value of an option.
pub fn option_value(given: &serde_json::Value) -> String {
    match given {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Number(number) => number.as_f64().map_or_else(|| number.to_string(), value),
        serde_json::Value::Array(items) => items.iter().map(option_value).collect::<Vec<_>>().join(","),
        _ => given.to_string(),
    }
}

fn listed(parts: &[impl AsRef<str>]) -> String {
    parts.iter().map(AsRef::as_ref).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
}

/// One line on what was sent against what arrived.
pub fn verdict(correctness: &Correctness) -> String {
    let Correctness { expected, delivered, lost, duplicated, reordered, misrouted, .. } = *correctness;
    let Correctness { gaps, disconnected, refused, unanswered, .. } = *correctness;
    let faults =
        format!("{} lost, {} duplicated, {} reordered", count(lost), count(duplicated), count(reordered));
    if correctness.fault() {
        format!(
            "FAILED: {faults}, {} misrouted, {} gaps, {} disconnected, {} refused, {} unanswered; {} of {} \
             deliveries came",
            count(misrouted),
            count(gaps),
            count(disconnected),
            count(refused),
            count(unanswered),
            count(delivered),
            count(expected)
        )
    } else if expected + delivered == 0 {
        "nothing was to be delivered".to_owned()
    } else {
        format!("correct: {} deliveries, {faults}", count(delivered))
    }
}

/// One line on what became of the publications.
pub fn publications(correctness: &Correctness) -> String {
    let Correctness { published, acked, refused, unanswered, .. } = *correctness;
    format!(
        "published {}, acked {}, refused {}, unanswered {}",
        count(published),
        count(acked),
        count(refused),
        count(unanswered)
    )
}

/// The figures with their goals, and beside them those beside it.
pub fn figures(result: &RunResult) -> Section {
    let mut section = Section::new("figures", &["figure", "value", "range", "goal", ""]);
    for other in &result.beside {
        section.columns.extend([other.name_beside(result), "ratio".to_owned()]);
    }
    for figure in &result.figures {
        let mut row = vec![figure.name.as_str().into(), with_unit(figure.value, &figure.unit).into()];
        let range = figure.range.map(|[least, most]| format!("{} to {}", value(least), value(most)));
        row.push(range.unwrap_or_default().into());
        row.extend(goal(figure));
        for other in &result.beside {
            row.extend(beside(Some(figure), other.figures.iter().find(|other| other.name == figure.name)));
        }
        section.rows.push(row);
    }
    let mut alone: Vec<&str> = Vec::new();
    for figure in result.beside.iter().flat_map(|other| &other.figures) {
        let name = figure.name.as_str();
        if alone.contains(&name) || result.figures.iter().any(|own| own.name == name) {
            continue;
        }
        alone.push(name);
        let mut row = vec![name.into(), "".into(), "".into(), "".into(), "".into()];
        for other in &result.beside {
            row.extend(beside(None, other.figures.iter().find(|other| other.name == name)));
        }
        section.rows.push(row);
    }
    section
}

/// The goal of a figure and whether it is met.
fn goal(figure: &Figure) -> [Cell; 2] {
    let Some(goal) = figure.goal else { return ["".into(), "".into()] };
    let bound = match figure.better {
        Better::Lower => "<= ",
        Better::Higher => ">= ",
        Better::Neither => "",
    };
    let said = match figure.met() {
        Some(true) => "met",
        Some(false) => "MISSED",
        None => "unknown",
    };
    [format!("{bound}{}", with_unit(Some(goal), &figure.unit)).into(), Cell::verdict(said, figure.met())]
}

/// The figure of a other and what the run's own is of it.
fn beside(own: Option<&Figure>, other: Option<&Figure>) -> [Cell; 2] {
    let Some(other) = other else { return ["".into(), "".into()] };
    let quotient = own.and_then(|own| quotient(own.value, other.value));
    let ratio = if own.is_some() { ratio(quotient) } else { String::new() };
    [with_unit(other.value, &other.unit).into(), ratio.into()]
}

/// The latencies, those beside it of the same name below with the ratio.
pub fn latencies(result: &RunResult) -> Section {
    let mut section =
        Section::new("latencies", &["latency", "count", "p50", "p90", "p99", "p99.9", "max", "mean"]);
    for latency in &result.latencies {
        section.rows.push(times(&latency.name, latency));
        for (other, same) in of_others(result).filter(|(_, same)| same.name == latency.name) {
            section.rows.push(times(&format!("  {}", other.name_beside(result)), same));
            let ratios = percentiles(latency).into_iter().zip(percentiles(same));
            let mut row: Vec<Cell> = vec!["  ratio".into(), "".into()];
            row.extend(ratios.map(|((_, own), (_, other))| ratio(quotient(Some(own), Some(other))).into()));
            section.rows.push(row);
        }
    }
    for (other, alone) in
        of_others(result).filter(|(_, other)| result.latencies.iter().all(|own| own.name != other.name))
    {
        section.rows.push(times(&format!("{} {}", other.name_beside(result), alone.name), alone));
    }
    section
}

fn of_others(result: &RunResult) -> impl Iterator<Item = (&RunResult, &Latency)> {
    result.beside.iter().flat_map(|other| other.latencies.iter().map(move |latency| (other, latency)))
}

/// What is shown of a distribution, by name, in microseconds.
pub fn percentiles(latency: &Latency) -> [(&'static str, f64); 6] {
    let Latency { p50, p90, p99, p999, max, mean, .. } = *latency;
    [("p50", p50), ("p90", p90), ("p99", p99), ("p99.9", p999), ("max", max), ("mean", mean)]
}

fn times(name: &str, latency: &Latency) -> Vec<Cell> {
    let mut row = vec![name.into(), count(latency.count).into()];
    row.extend(
        percentiles(latency)
            .map(|(_, time)| if latency.count == 0 { "-".into() } else { micros(time).into() }),
    );
    row
}

/// What each process spent, those beside it too.
pub fn processes(result: &RunResult) -> Section {
    let mut section =
        Section::new("processes", &["process", "CPU", "cores", "RSS before", "RSS after", "RSS peak"]);
    for (run, prefix) in runs(result) {
        let length = run.series.last().map(|second| second.at);
        for process in &run.processes {
            section.rows.push(vec![
                format!("{prefix}{}", process.name).into(),
                seconds(process.cpu_seconds).into(),
                quotient(Some(process.cpu_seconds), length)
                    .map_or("-".to_owned(), |cores| format!("{cores:.2}"))
                    .into(),
                memory(process.rss_before).into(),
                memory(process.rss_after).into(),
                memory(process.rss_peak).into(),
            ]);
        }
    }
    section
}

/// All counters, by name.
fn counted(correctness: &Correctness) -> [(&'static str, u64); 12] {
    [
        ("published", correctness.published),
        ("acked", correctness.acked),
        ("refused", correctness.refused),
        ("unanswered", correctness.unanswered),
        ("deliveries expected", correctness.expected),
        ("delivered", correctness.delivered),
        ("lost", correctness.lost),
        ("duplicated", correctness.duplicated),
        ("reordered", correctness.reordered),
        ("misrouted", correctness.misrouted),
        ("gaps announced", correctness.gaps),
        ("disconnected", correctness.disconnected),
    ]
}

/// What was sent against what arrived, and of the runs beside it.
pub fn counters(result: &RunResult) -> Section {
    let mut section = Section::new("correctness", &["counted", "number"]);
    section.columns.extend(result.beside.iter().map(|other| other.name_beside(result)));
    let counts: Vec<_> = runs(result).map(|(run, _)| counted(&run.correctness)).collect();
    for (row, (name, _)) in counted(&result.correctness).into_iter().enumerate() {
        let numbers = counts.iter().map(|run| count(run[row].1).into());
        section.rows.push(std::iter::once(name.into()).chain(numbers).collect());
    }
    section
}

/// The runs that a result is of, each with what it has of figures by itself: the saturated one, if there was one, is last.
pub fn phases(result: &RunResult) -> Vec<Cow<'_, RunResult>> {
    std::iter::once(Cow::Borrowed(result)).chain(result.as_saturated().map(Cow::Owned)).collect()
}

/// What such a run is called and how much it has done; none if the result is of one run.
pub fn heading(phase: &RunResult) -> Option<String> {
    let mut sum = Second::default();
    for second in &phase.series {
        sum.at = second.at;
        sum.acked += second.acked;
        sum.delivered += second.delivered;
    }
    let [acked, delivered] = [sum.acked, sum.delivered].map(count);
    let done = format!("{acked} acked and {delivered} deliveries in {} s", value(sum.at));
    (!phase.phase.is_empty()).then(|| format!("{}: {done}", phase.phase))
}

/// The run and those beside it, each with what its names begin with.
pub fn runs(result: &RunResult) -> impl Iterator<Item = (&RunResult, String)> {
    let beside = result.beside.iter().map(|other| (other, format!("{}: ", other.name_beside(result))));
    std::iter::once((result, String::new())).chain(beside)
}
