//! `streamgate sub`.

use std::{
    io::{BufWriter, Write},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::Args;
use futures_util::{
    FutureExt as _, StreamExt as _,
    stream::{self, SelectAll},
};
use streamgate_client::{
    Client, Event, Message, Position, StartAt, Status, SubscribeOptions, is_pattern, matches,
    proto::wkt::Timestamp,
};

use super::{ConnectArgs, Failure, Format, output};

/// Options of `sub`.
#[derive(Debug, Args)]
#[command(after_help = "`*` stands for one segment of a channel, a last `**` for any number of them. What is
missed while the connection is away is fetched from history; reconnects and gaps are told on standard error.

Examples:
  streamgate sub room.blue
  streamgate sub 'room.**' --from start
  streamgate sub room.blue --from 10m --count 5     five messages of the last ten minutes
  streamgate sub room.blue --from 1767225600000:42  go on after this message
  streamgate sub 'orders.*' -o json | jq .event.data")]
pub struct SubscribeArgs {
    /// Channels and patterns
    #[arg(required = true, value_name = "PATTERN")]
    pub patterns: Vec<String>,
    /// Where to begin: `start` of history, the last N messages, after a position EPOCH:OFFSET, at a time
    /// (2026-01-31T12:00:00Z) or so long ago (90s, 10m, 2h) [default: now]
    #[arg(long, value_name = "POINT", value_parser = parse_from)]
    pub from: Option<From>,
    /// End after so many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// How to print
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: Format,
    /// Where the gateway is
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// `--from`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// A point that the server finds.
    Point(StartAt),
    /// After this message.
    After(Position),
}

pub(super) async fn run(args: SubscribeArgs) -> Result<(), Failure> {
    let mut patterns = args.patterns.clone();
    patterns.sort();
    patterns.dedup();
    if matches!(args.from, Some(From::After(_))) && (patterns.len() > 1 || is_pattern(&patterns[0])) {
        return Err(Failure::Usage(
            "a position is one channel's: --from EPOCH:OFFSET takes one channel".to_owned(),
        ));
    }
    let client = args.connect.connect().await?;
    let notes = tokio::spawn(tell_connection(client.status()));
    let outcome = tokio::select! {
        outcome = print_all(&client, &args, &patterns) => outcome,
        // Also when there is nothing to write that would tell.
        () = output::closed() => Err(Failure::OutputClosed),
    };
    // Its end is this side's own doing, and no news.
    notes.abort();
    client.close().await;
    outcome
}

async fn print_all(client: &Client, args: &SubscribeArgs, patterns: &[String]) -> Result<(), Failure> {
    let mut events = SelectAll::new();
    for (index, pattern) in patterns.iter().enumerate() {
        let mut options = SubscribeOptions::new(pattern);
        match &args.from {
            None => {}
            Some(From::Point(point)) => options = options.start_at(*point),
            Some(From::After(position)) => options = options.cursor(position.clone()),
        }
        let subscription = client.subscribe(options).await?;
        events.push(stream::repeat(index).zip(subscription));
    }
    let mut out = BufWriter::new(std::io::stdout());
    let mut left = args.count;
    while left != Some(0) {
        // Flush when there is nothing more to write at once.
        let event = match events.next().now_or_never() {
            Some(event) => event,
            None => {
                out.flush()?;
                events.next().await
            }
        };
        let Some((index, event)) = event else { break };
        match event {
            Event::Message(message) if is_first_match(patterns, index, &message) => {
                writeln!(out, "{}", output::message(args.output, &message))?;
                left = left.map(|left| left - 1);
            }
            Event::Message(_) => {}
            Event::Closed(error) => {
                out.flush()?;
                return Err(error.into());
            }
            other => note(&other),
        }
    }
    Ok(out.flush()?)
}

/// Overlapping patterns each get the message; it is printed once.
fn is_first_match(patterns: &[String], index: usize, message: &Message) -> bool {
    patterns.iter().position(|pattern| matches(pattern, &message.channel)) == Some(index)
}

/// What is not data goes to standard error.
fn note(event: &Event) {
    match event {
        Event::Gap(gap) => eprintln!("gap: messages of {} may be missing: {}", gap.channel, gap.reason),
        Event::Recovered(recovered) => {
            if let Some(reason) = &recovered.gap {
                eprintln!("gap: messages of {} are missing: {reason}", recovered.target);
            } else if recovered.truncated {
                eprintln!(
                    "gap: messages of {} are missing: more than the server sends at once",
                    recovered.target
                );
            }
            if let Some(error) = &recovered.error {
                eprintln!("gap: {} could not be recovered: {error}", recovered.target);
            }
        }
        _ => {}
    }
}

/// Tells of reconnects.
pub(super) async fn tell_connection(mut status: tokio::sync::watch::Receiver<Status>) {
    // The first connection is what everybody expects.
    let mut away = !matches!(*status.borrow_and_update(), Status::Connected { .. });
    while status.changed().await.is_ok() {
        let now = status.borrow_and_update().clone();
        match now {
            Status::Disconnected { error, .. } if !away => {
                away = true;
                eprintln!("disconnected: {error}; reconnecting");
            }
            Status::Connected { address, .. } => {
                away = false;
                eprintln!("connected to {address}");
            }
            _ => {}
        }
    }
}

fn parse_from(text: &str) -> Result<From, String> {
    if text == "start" {
        return Ok(From::Point(StartAt::Start));
    }
    if let Ok(count) = text.parse() {
        return Ok(From::Point(StartAt::Last(count)));
    }
    if let Some(ago) = duration(text) {
        let since = SystemTime::now().checked_sub(ago).and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let millis = since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        return Ok(From::Point(StartAt::TimeMs(millis)));
    }
    // A time has several colons.
    if text.matches(':').count() == 1
        && let Ok(position) = text.parse()
    {
        return Ok(From::After(position));
    }
    let time: Result<Timestamp, _> = serde_json::from_value(text.into());
    let millis = time.ok().and_then(|time| {
        let whole = u64::try_from(time.seconds).ok()?.checked_mul(1000)?;
        whole.checked_add(u64::try_from(time.nanos).ok()? / 1_000_000)
    });
    millis.map(|millis| From::Point(StartAt::TimeMs(millis))).ok_or_else(|| {
        "expected `start`, a number, EPOCH:OFFSET, a time like 2026-01-31T12:00:00Z, or 90s, 10m, 2h"
            .to_owned()
    })
}

/// `90s`, `10m`, `2h` or `1d`.
fn duration(text: &str) -> Option<Duration> {
    let unit = match text.as_bytes().last()? {
        b's' => 1,
        b'm' => 60,
        b'h' => 3600,
        b'd' => 86_400,
        _ => return None,
    };
    let number: u64 = text.get(..text.len() - 1)?.parse().ok()?;
    number.checked_mul(unit).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_point_is_understood() {
        assert_eq!(parse_from("start"), Ok(From::Point(StartAt::Start)));
        assert_eq!(parse_from("5"), Ok(From::Point(StartAt::Last(5))));
        assert_eq!(parse_from("17:4"), Ok(From::After("17:4".parse().unwrap())));
        assert_eq!(parse_from("2026-01-01T00:00:00.5Z"), Ok(From::Point(StartAt::TimeMs(1_767_225_600_500))));
        let Ok(From::Point(StartAt::TimeMs(at))) = parse_from("10m") else { panic!() };
        let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
        assert!((600_000..660_000).contains(&(now - at)));
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in
            ["", "now", "-1", "17:", ":4", "2026-01-01", "2026-01-01T00:00:00", "5x", "s", "99999999999"]
        {
            assert!(parse_from(bad).is_err(), "{bad:?}: {:?}", parse_from(bad));
        }
    }
}
