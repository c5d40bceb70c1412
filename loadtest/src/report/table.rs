//! The result of a run as text for the terminal.

use std::fmt::Write as _;

use super::{
    result::RunResult,
    section::{self, Section},
};

/// Columns of facts and of lines are as wide as that, so that a table fits beside a shell prompt of most people.
const WIDTH: usize = 110;
/// Between two columns.
const GAP: usize = 3;

/// Everything that a reader of the terminal needs of a run: what ran, figures, times, correctness, costs, notes.
pub fn render(result: &RunResult) -> String {
    let mut out = format!("{}\n", result.scenario);
    for (name, text) in section::facts(result) {
        wrapped(&mut out, &format!("  {name:<9}"), &text);
    }
    lay_out(&mut out, &section::figures(result));
    let phases = section::phases(result);
    for phase in &phases {
        if let Some(heading) = section::heading(phase) {
            let _ = writeln!(out, "\n--- {heading} ---");
        }
        lay_out(&mut out, &section::latencies(phase));
        lay_out(&mut out, &section::processes(phase));
    }
    out.push('\n');
    for (run, prefix) in section::runs(result) {
        correctness(&mut out, run, &prefix);
    }
    for (run, prefix) in phases.iter().flat_map(|phase| section::runs(phase)) {
        for note in &run.notes {
            wrapped(&mut out, "note: ", &format!("{prefix}{note}"));
        }
    }
    out
}

/// What was sent against what arrived, impossible to overlook if it is not the same.
pub fn correctness(out: &mut String, run: &RunResult, prefix: &str) {
    let verdict = section::verdict(&run.correctness);
    if run.correctness.fault() {
        let bar = "!".repeat(WIDTH);
        let _ = writeln!(out, "{bar}\n{prefix}{verdict}\n{bar}");
    } else {
        let _ = writeln!(out, "{prefix}{verdict}");
    }
    let _ = writeln!(out, "{prefix}{}", section::publications(&run.correctness));
}

/// Lays a table out in columns; nothing for one without rows.
pub fn lay_out(out: &mut String, table: &Section) {
    if table.rows.is_empty() {
        return;
    }
    let columns =
        |of: &dyn Fn(usize) -> (String, usize)| table.shown().into_iter().map(of).collect::<Vec<_>>();
    let width = |column: usize| {
        let cells = table.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.text.chars().count());
        cells.max().unwrap_or(0).max(table.columns[column].chars().count())
    };
    let _ = writeln!(out, "\n{}", table.title.to_uppercase());
    line(out, &columns(&|column| (table.columns[column].clone(), width(column))));
    for row in &table.rows {
        let text = |column: usize| row.get(column).map_or_else(String::new, |cell| cell.text.clone());
        line(out, &columns(&|column| (text(column), width(column))));
    }
}

/// Cells with their widths; the first is to the left.
fn line(out: &mut String, cells: &[(String, usize)]) {
    let mut line = String::from("  ");
    for (column, (text, width)) in cells.iter().enumerate() {
        if column == 0 {
            let _ = write!(line, "{text:<width$}");
        } else {
            let width = width + GAP;
            let _ = write!(line, "{text:>width$}");
        }
    }
    let _ = writeln!(out, "{}", line.trim_end());
}

/// Text behind a label, broken at spaces; further lines begin below the text.
fn wrapped(out: &mut String, label: &str, text: &str) {
    let indent = label.chars().count();
    let mut line = label.to_owned();
    let mut used = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if used > 0 && indent + used + length > WIDTH {
            let _ = writeln!(out, "{}", line.trim_end());
            (line, used) = (" ".repeat(indent), 0);
        }
        let _ = write!(line, "{word} ");
        used += length + 1;
    }
    let _ = writeln!(out, "{}", line.trim_end());
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn all_parts_are_there() {
        let table = render(&sample::fanout());
        let holds = |parts: &[&str]| {
            let line = table.lines().any(|line| parts.iter().all(|part| line.contains(part)));
            assert!(line, "no line with {parts:?} in\n{table}");
        };
        holds(&["target", "streamgate, 1 node, broker redis, ws, json"]);
        holds(&["options", "connections=1,000", "rate=2,000", "history"]);
        holds(&["machine", "2 cores, Example 3000, kernel 6.1.0"]);
        holds(&[
            "deliveries per gateway",
            "912,346 1/s",
            ">= 1,000,000 1/s",
            "MISSED",
            "1,100,000 1/s",
            "0.83 x",
        ]);
        holds(&["publish to last delivery p99", "2,346 µs", "<= 3,000 µs", "met"]);
        holds(&["Redis CPU per publish", " - ", "unknown"]);
        holds(&["bytes per write", "130 B"]);
        holds(&["deliver", "100,000", "ms"]);
        holds(&["floor-write", "100,000"]);
        holds(&["gateway 1", "42.50 s", "0.71", "87.9 MiB"]);
        holds(&["floor-write: floor"]);
        holds(&["correct: 120,000 deliveries, 0 lost, 0 duplicated, 0 reordered"]);
        holds(&["floor-write: correct: 120,000 deliveries"]);
        holds(&["note: ", "the limit of open files"]);
        assert!(!table.contains("v1") && !table.contains("pid"), "options that say nothing:\n{table}");
        assert!(!table.contains("FAILED"));
    }

    #[test]
    fn both_runs_have_a_heading_and_their_own_times() {
        let table = render(&sample::saturated());
        let (_, both) = table.split_once("--- at 2,000 publications a second: ").unwrap();
        let (timed, saturated) = both.split_once("--- as much as goes: ").unwrap();
        for part in ["LATENCIES", "  floor-write", "PROCESSES", "gateway 1"] {
            assert!(timed.contains(part) && saturated.contains(part), "{table}");
        }
        assert!(timed.contains("ack") && table.contains("note: the queue was full"), "{table}");
        assert!(!render(&sample::fanout()).contains("---"));
    }

    #[test]
    fn a_range_has_a_column_if_there_is_one() {
        let mut result = sample::fanout();
        assert!(!render(&result).contains("range"));
        result.figures[0].range = Some([900_000.0, 1_000_000.0]);
        let table = render(&result);
        assert!(table.contains(" range ") && table.contains(" 900,000 to 1,000,000 "), "{table}");
    }

    #[test]
    fn a_fault_is_loud() {
        let mut result = sample::fanout();
        result.correctness.lost = 1_234;
        let table = render(&result);
        assert!(
            table.contains("\nFAILED: 1,234 lost, 0 duplicated, 0 reordered, 0 misrouted, 0 gaps, 0 disconnected, 0 refused, \
                 0 unanswered;"),
            "{table}"
        );
        assert!(table.contains(&"!".repeat(WIDTH)));
    }

    #[test]
    fn long_text_is_wrapped_below_itself() {
        let mut out = String::new();
        wrapped(&mut out, "  options  ", &["word"; 60].join(" "));
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line.len() <= WIDTH));
        assert!(lines[1].starts_with("           word"));
    }

    #[test]
    fn a_result_without_anything_has_a_table() {
        let mut result = sample::fanout();
        (result.figures, result.latencies, result.processes, result.series) = Default::default();
        (result.beside, result.notes) = Default::default();
        assert!(render(&result).contains("correct: "));
    }
}
