//! The result of a run as one HTML file that needs nothing else: no scripts, no fonts, no network.

mod axis;
mod distribution;
mod plot;
mod plots;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use super::{
    result::RunResult,
    section::{self, Section, Tone},
    table,
};
use plot::{Line, Plot};

/// Looks in light and dark.
const STYLE: &str = include_str!("style.css");

/// Options of `report`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Result of a run, JSON
    result: PathBuf,
    /// Write a page with plots to this file
    #[arg(long)]
    html: Option<PathBuf>,
}

/// Prints the table of a result, and writes its page if asked to.
///
/// # Errors
/// The result cannot be read, or the page not be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let result = super::read(&args.result)?;
    print!("{}", table::render(&result));
    if let Some(path) = &args.html {
        write(path, &result)?;
        println!("\npage: {}", path.display());
    }
    Ok(())
}

/// Writes the page.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, result: &RunResult) -> anyhow::Result<()> {
    fs::write(path, render(result)?).with_context(|| format!("cannot write {}", path.display()))
}

/// The page.
///
/// # Errors
/// A plot cannot be drawn, which no result is known to cause.
pub fn render(result: &RunResult) -> anyhow::Result<String> {
    let title = escaped(&format!("{} {}", result.scenario, result.started));
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
    );
    header(&mut page, result);
    table_of(&mut page, &section::figures(result));
    let phases = section::phases(result);
    for phase in &phases {
        if let Some(heading) = section::heading(phase) {
            let _ = writeln!(page, "<h2 class=\"phase\">{}</h2>", escaped(&heading));
        }
        table_of(&mut page, &section::latencies(phase));
        // A floor of Redis has neither: five empty plots would say nothing.
        if !phase.series.is_empty() || !phase.latencies.is_empty() {
            for plot in plots::of(phase) {
                figure(&mut page, &plot)?;
            }
        }
        table_of(&mut page, &section::processes(phase));
    }
    for phase in phases.iter().rev() {
        let mut counters = section::counters(phase);
        if let [_, _] = phases.as_slice() {
            let which = if phase.saturated.is_some() { "both runs" } else { &phase.phase };
            counters.title = format!("{}, {which}", counters.title);
        }
        table_of(&mut page, &counters);
    }
    let json = escaped(&serde_json::to_string_pretty(result)?);
    let _ = write!(
        page,
        "<details><summary>Raw result, JSON</summary><pre>{json}</pre></details>\n</body>\n</html>\n"
    );
    Ok(page)
}

/// What ran, whether it was correct, and what to know of it.
fn header(page: &mut String, result: &RunResult) {
    let _ = write!(page, "<h1>{}</h1>\n<dl>\n", escaped(&result.scenario));
    for (name, text) in section::facts(result) {
        let _ = writeln!(page, "<dt>{name}</dt><dd>{}</dd>", escaped(&text));
    }
    page.push_str("</dl>\n");
    for (run, prefix) in section::runs(result) {
        let class = if run.correctness.fault() { "bad" } else { "good" };
        let (prefix, verdict) = (escaped(&prefix), section::verdict(&run.correctness));
        let _ = writeln!(page, "<p class=\"verdict {class}\">{prefix}{verdict}</p>");
    }
    for (run, prefix) in section::phases(result).iter().flat_map(|phase| section::runs(phase)) {
        for note in &run.notes {
            let _ = writeln!(page, "<p class=\"note\">{}{}</p>", escaped(&prefix), escaped(note));
        }
    }
}

fn table_of(page: &mut String, table: &Section) {
    if table.rows.is_empty() {
        return;
    }
    let _ = write!(page, "<h2>{}</h2>\n<div class=\"scroll\"><table>\n<tr>", escaped(&table.title));
    let shown = table.shown();
    for &column in &shown {
        let _ = write!(page, "<th>{}</th>", escaped(&table.columns[column]));
    }
    page.push_str("</tr>\n");
    for row in &table.rows {
        page.push_str("<tr>");
        for cell in shown.iter().filter_map(|&column| row.get(column)) {
            let class = match cell.tone {
                Tone::Plain => "",
                Tone::Good => " class=\"good\"",
                Tone::Bad => " class=\"bad\"",
            };
            let _ = write!(page, "<td{class}>{}</td>", escaped(&cell.text));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table></div>\n");
}

/// A plot with its legend above it, where no line can be hidden by it.
fn figure(page: &mut String, plot: &Plot) -> anyhow::Result<()> {
    let svg = plot.draw().with_context(|| format!("cannot draw {}", plot.title))?;
    let _ = write!(page, "<figure>\n<figcaption><h2>{}</h2>", escaped(&plot.title));
    for (index, Line { name, dashed, .. }) in plot.lines.iter().enumerate() {
        let style = if *dashed { "dashed" } else { "solid" };
        let color = plot::color(index);
        let (red, green, blue) = (color.0, color.1, color.2);
        let key = format!("<i style=\"border-top: 3px {style} rgb({red} {green} {blue})\"></i>");
        let _ = write!(page, "<span class=\"key\">{key}{}</span>", escaped(name));
    }
    let _ = write!(page, "</figcaption>\n{svg}\n</figure>\n");
    Ok(())
}

/// Text that means itself, in an element or an attribute.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            _ => safe.push(character),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn plots(page: &str) -> usize {
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
        page.matches("<svg").count()
    }

    #[test]
    fn a_page_has_all_parts_and_needs_nothing_else() {
        let page = render(&sample::fanout()).unwrap();
        assert_eq!(plots(&page), 5);
        for part in
            ["912,346 1/s", "MISSED", "0.83 x", "99.99 %", "gateway 1", "floor-write: deliver", "<details>"]
        {
            assert!(page.contains(part), "no {part}");
        }
        assert!(page.contains("<p class=\"verdict good\">correct: 120,000 deliveries"));
        for foreign in ["<script", "<link", "src=", "href=", "@import", "url("] {
            assert!(!page.contains(foreign), "{foreign}");
        }
    }

    #[test]
    fn the_saturated_run_has_plots_and_counters_of_its_own() {
        let page = render(&sample::saturated()).unwrap();
        assert_eq!(plots(&page), 10);
        assert!(page.contains("<h2 class=\"phase\">as much as goes: "));
        assert!(page.contains("correctness, as much as goes") && page.contains("correctness, both runs"));
        assert!(page.contains("<td>777</td>"));
    }

    #[test]
    fn text_of_a_result_is_never_markup() {
        let evil = "<script>alert('x' & \"y\")</script>".to_owned();
        let mut result = sample::fanout();
        result.scenario.clone_from(&evil);
        result.target.server.clone_from(&evil);
        result.figures[0].name.clone_from(&evil);
        result.figures[1].unit.clone_from(&evil);
        result.latencies[0].name.clone_from(&evil);
        result.processes[0].name.clone_from(&evil);
        result.options.insert(evil.clone(), evil.clone().into());
        result.notes.push(evil.clone());
        result.beside[0].scenario = evil;
        let page = render(&result).unwrap();
        assert!(!page.contains("<script"));
        assert!(page.contains("&lt;script&gt;alert(&#39;x&#39; &amp; &quot;y&quot;)"));
    }

    #[test]
    fn a_fault_is_bad_in_the_page() {
        let mut result = sample::fanout();
        result.correctness.reordered = 5;
        let page = render(&result).unwrap();
        assert!(page.contains("<p class=\"verdict bad\">FAILED: 0 lost, 0 duplicated, 5 reordered"));
    }

    #[test]
    fn series_of_any_length_are_drawn() {
        for seconds in [0, 1, 2, 3_600] {
            let mut result = sample::fanout();
            let second = result.series[0].clone();
            result.series = (1..=seconds)
                .map(|at| super::super::result::Second { at: f64::from(at), ..second.clone() })
                .collect();
            assert_eq!(plots(&render(&result).unwrap()), 5, "{seconds} seconds");
        }
    }

    #[test]
    fn a_result_without_times_has_no_plots() {
        let result = RunResult { figures: sample::fanout().figures, ..RunResult::default() };
        let page = render(&result).unwrap();
        assert!(plots(&page) == 0 && page.contains("912,346 1/s"));
    }

    #[test]
    fn what_is_missing_or_odd_leaves_the_rest() {
        let mut result = sample::fanout();
        result.latencies[0].histogram = "no histogram".to_owned();
        result.latencies[1].histogram.clear();
        result.beside.clear();
        for second in &mut result.series {
            (second.p50, second.p99, second.max) = (None, Some(0.0), Some(f64::INFINITY));
            (second.cpu, second.at) = (Vec::new(), 5.0);
            second.rss.fill(0);
        }
        let page = render(&result).unwrap();
        assert_eq!(plots(&page), 5);
        assert!(page.contains("no data"));
    }
}
