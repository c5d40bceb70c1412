//! What `pub` publishes: DATA, once or again and again, or the lines of standard input; not faster than it should.

use std::time::Duration;

use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Split, Stdin},
    time::{Instant, sleep_until},
};

use crate::cli::{Failure, template::Template};

/// Where the data comes from.
pub(super) enum Source {
    /// The template, so many times.
    Repeated(Template, u64),
    /// Lines, each a template if that is wanted.
    Lines { lines: Split<BufReader<Stdin>>, templates: bool },
}

/// The next data, with its number from 1.
pub(super) struct Supply {
    source: Source,
    made: u64,
    pace: Option<Pace>,
}

/// So many a second, evenly: who was late catches up.
struct Pace {
    start: Instant,
    every: Duration,
}

impl Supply {
    pub(super) fn new(source: Source, rate: Option<f64>) -> Self {
        let pace =
            rate.map(|rate| Pace { start: Instant::now(), every: Duration::from_secs_f64(1.0 / rate) });
        Self { source, made: 0, pace }
    }

    /// Lines of standard input.
    pub(super) fn lines(templates: bool) -> Source {
        Source::Lines { lines: BufReader::new(tokio::io::stdin()).split(b'\n'), templates }
    }

    /// How many there will be, if that is known.
    pub(super) fn total(&self) -> Option<u64> {
        match &self.source {
            Source::Repeated(_, count) => Some(*count),
            Source::Lines { .. } => None,
        }
    }

    /// The next one, when it is time; `None` at the end. Safe to cancel: a line is kept until it is whole, and its time does
    /// not begin anew.
    pub(super) async fn next(&mut self) -> Result<Option<(u64, Vec<u8>)>, Failure> {
        if self.total() == Some(self.made) {
            return Ok(None);
        }
        if let Some(pace) = &self.pace {
            sleep_until(pace.time_of(self.made)).await;
        }
        let number = self.made + 1;
        let data = match &mut self.source {
            Source::Repeated(template, _) => template.fill(number).into_bytes(),
            Source::Lines { lines, templates } => {
                let Some(line) = lines.next_segment().await? else { return Ok(None) };
                let line = line.strip_suffix(b"\r").unwrap_or(&line);
                match std::str::from_utf8(line).ok().filter(|_| *templates) {
                    Some(text) => Template::parse(text).map_err(Failure::Failed)?.fill(number).into_bytes(),
                    None => line.to_vec(),
                }
            }
        };
        self.made = number;
        Ok(Some((number, data)))
    }
}

impl Pace {
    /// When the one after so many may go.
    fn time_of(&self, made: u64) -> Instant {
        let nanos = self.every.as_nanos().saturating_mul(u128::from(made));
        let after = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.start.checked_add(after).unwrap_or(self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rate_spreads_them_evenly_and_who_is_late_catches_up() {
        let source = Source::Repeated(Template::parse("n{{count}}").unwrap(), 5);
        let (start, mut supply) = (Instant::now(), Supply::new(source, Some(10.0)));
        let mut seen = Vec::new();
        while let Some((number, data)) = supply.next().await.unwrap() {
            seen.push((number, String::from_utf8(data).unwrap(), start.elapsed().as_millis()));
            if number == 2 {
                tokio::time::sleep(Duration::from_millis(150)).await;
            }
        }
        let expected = [(1, 0), (2, 100), (3, 250), (4, 300), (5, 400)];
        let expected: Vec<_> = expected.into_iter().map(|(n, ms)| (n, format!("n{n}"), ms)).collect();
        assert_eq!(seen, expected);
    }
}
