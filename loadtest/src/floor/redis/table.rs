//! What was measured, as text.

use std::fmt::Write as _;

use super::{
    AIMS, FLAT, Measured,
    rows::{Row, Work},
    spent::{Spent, median, ratio},
};

/// The rows of one server: cost, ratio to the first row, and whether the aims are met.
pub fn rows(measured: &Measured) -> String {
    let mut out = head(measured);
    // Writing to a String cannot fail.
    let columns = ("us", "x XADD", "writing us", "reading us");
    let _ = writeln!(out, "{:<42} {:>8} {:>8} {:>10} {:>11}", "", columns.0, columns.1, columns.2, columns.3);
    let spent = &measured.points[0].spent;
    for (row, rounds) in measured.rows.0.iter().zip(spent) {
        let us = median(rounds.iter().map(Spent::total));
        let (mut writing, mut reading) = (String::new(), String::new());
        if row.reads_apart() {
            writing = format!("{:.2}", median(rounds.iter().map(|round| round.writing)));
            reading = format!("{:.2}", median(rounds.iter().map(|round| round.reading)));
        }
        let times = ratio(rounds, &spent[0]);
        let _ = writeln!(out, "{:<42} {us:>8.2} {times:>8.2} {writing:>10} {reading:>11}", label(row));
    }
    for (batch, aim) in AIMS {
        let found = measured.rows.0.iter().zip(spent).find(|(row, _)| row.is_script(batch));
        if let Some((_, rounds)) = found {
            let got = ratio(rounds, &spent[0]);
            let verdict = if got <= aim { "met" } else { "missed" };
            let _ = writeln!(
                out,
                "{batch} publishes to a call: {got:.2} x plain XADD, aim at most {aim}: {verdict}"
            );
        }
    }
    out
}

/// A line for each server: cost of each row, and its ratio to that of the first server.
pub fn sweep(measured: &Measured) -> String {
    let mut out = head(measured);
    let _ = write!(out, "{:>9} {:>6} {:>11}", "channels", "nodes", "memory MiB");
    for row in &measured.rows.0 {
        let _ = write!(out, " | {:>width$} {:>8}", row.name, "x first", width = width(row));
    }
    out.push('\n');
    let first = &measured.points[0];
    for point in &measured.points {
        let memory = point.after.memory / (1 << 20);
        let _ = write!(out, "{:>9} {:>6} {memory:>11}", point.size.channels, point.size.nodes);
        for (at, row) in measured.rows.0.iter().enumerate() {
            let us = median(point.spent[at].iter().map(Spent::total));
            let times = ratio(&point.spent[at], &first.spent[at]);
            let _ = write!(out, " | {us:>width$.2} {times:>8.2}", width = width(row));
        }
        out.push('\n');
    }
    let _ = writeln!(
        out,
        "us for each publish, reading included; memory when all was published; goal at most {FLAT} x first"
    );
    out
}

fn width(row: &Row) -> usize {
    row.name.len().max(8)
}

/// What a row is called here.
fn label(row: &Row) -> String {
    match row.work {
        Work::Script(_) => format!("publish script, {}", row.name),
        _ => row.name.to_owned(),
    }
}

fn head(measured: &Measured) -> String {
    let size = &measured.points[0].size;
    let active = if size.active < usize::MAX { format!(" ({} active)", size.active) } else { String::new() };
    format!(
        "CPU of Redis {} (main thread) for each publish of {} B, {} channels{active}, {} nodes, one interested, {} calls, or 32 \
         times as many commands, sent at once, stream-node-max-bytes {}; medians of {} rounds of {} publishes\n",
        measured.redis_version,
        size.payload,
        size.channels,
        size.nodes,
        size.in_flight,
        size.node_bytes,
        measured.rounds,
        measured.publishes
    )
}
