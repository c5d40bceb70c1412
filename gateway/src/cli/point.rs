//! Points in a history, as people name them: its start, a number of messages back, a position, a time, a time ago.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use streamgate_client::{Position, StartAt, proto::wkt::Timestamp};

use crate::config;

/// A point in a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Point {
    /// One that the server finds.
    Start(StartAt),
    /// After this message.
    After(Position),
}

/// `start`, a number of messages, or what [`since`] takes.
pub(super) fn from(text: &str) -> Result<Point, String> {
    if text == "start" {
        return Ok(Point::Start(StartAt::Start));
    }
    if let Ok(count) = text.parse() {
        return Ok(Point::Start(StartAt::Last(count)));
    }
    since(text).map_err(|_| {
        "expected `start`, a number, EPOCH:OFFSET, a time like 2026-01-31T12:00:00Z, or 90s, 10m, 2h, 3d"
            .to_owned()
    })
}

/// A position, a time or a time ago.
pub(super) fn since(text: &str) -> Result<Point, String> {
    if let Some(ago) = ago(text) {
        let since = SystemTime::now().checked_sub(ago).and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let millis = since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        return Ok(Point::Start(StartAt::TimeMs(millis)));
    }
    // A time has several colons.
    if text.matches(':').count() == 1
        && let Ok(position) = text.parse()
    {
        return Ok(Point::After(position));
    }
    let time: Result<Timestamp, _> = serde_json::from_value(text.into());
    let millis = time.ok().and_then(|time| {
        let whole = u64::try_from(time.seconds).ok()?.checked_mul(1000)?;
        whole.checked_add(u64::try_from(time.nanos).ok()? / 1_000_000)
    });
    millis.map(|millis| Point::Start(StartAt::TimeMs(millis))).ok_or_else(|| {
        "expected EPOCH:OFFSET, a time like 2026-01-31T12:00:00Z, or 90s, 10m, 2h, 3d".to_owned()
    })
}

/// A duration, in days as well.
fn ago(text: &str) -> Option<Duration> {
    let days = || text.strip_suffix('d')?.parse::<u64>().ok()?.checked_mul(86_400).map(Duration::from_secs);
    // A number alone is none.
    let duration =
        || config::duration(text).ok().filter(|_| text.ends_with(|last: char| last.is_alphabetic()));
    days().or_else(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_point_is_understood() {
        assert_eq!(from("start"), Ok(Point::Start(StartAt::Start)));
        assert_eq!(from("5"), Ok(Point::Start(StartAt::Last(5))));
        assert_eq!(from("17:4"), Ok(Point::After("17:4".parse().unwrap())));
        assert_eq!(from("2026-01-01T00:00:00.5Z"), Ok(Point::Start(StartAt::TimeMs(1_767_225_600_500))));
        let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
        for (text, ms) in [("10m", 600_000), ("1m30s", 90_000), ("250ms", 250), ("2d", 172_800_000)] {
            let Ok(Point::Start(StartAt::TimeMs(at))) = since(text) else { panic!("{text}") };
            assert!((ms..ms + 60_000).contains(&(now + 10 - at)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let bad =
            ["", "now", "-1", "17:", ":4", "2026-01-01", "2026-01-01T00:00:00", "5x", "s", "99999999999"];
        for bad in bad {
            assert!(from(bad).is_err(), "{bad:?}: {:?}", from(bad));
        }
        assert!(since("start").is_err() && since("5").is_err() && since("0").is_err());
    }
}
