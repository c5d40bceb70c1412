//! How much and how fast, within the time that is measured.

use std::collections::BTreeMap;

use crate::{
    measure::histogram::{Coarse, Histogram},
    report::result::{Latency, Second},
};

/// The time that is measured, [`crate::load::clock::now`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Window {
    /// First nanosecond.
    pub start: u64,
    /// First nanosecond after it.
    pub end: u64,
}

impl Window {
    /// True within the time.
    pub fn contains(self, time: u64) -> bool {
        (self.start..self.end).contains(&time)
    }

    /// Its length in seconds.
    pub fn seconds(self) -> f64 {
        self.end.saturating_sub(self.start) as f64 / 1e9
    }
}

/// What one thread counted. Times belong to the window if the publication was due in it, counts if the event was.
#[derive(Debug, Default)]
pub struct Tally {
    window: Window,
    /// From due to each delivery.
    deliver: Histogram,
    /// From due to the last delivery of a publication.
    last: Histogram,
    /// From due to the ack.
    ack: Histogram,
    /// From due to sent: how far this side was behind.
    lag: Histogram,
    /// What a scenario times besides, whenever it happened.
    own: BTreeMap<&'static str, Histogram>,
    /// The latest moments that a scenario wants to know.
    marks: BTreeMap<&'static str, u64>,
    seconds: Vec<Bucket>,
}

/// One second.
#[derive(Debug, Default)]
struct Bucket {
    published: u64,
    acked: u64,
    delivered: u64,
    deliver: Coarse,
}

impl Tally {
    /// Nothing yet.
    pub fn new(window: Window) -> Self {
        Self { window, ..Self::default() }
    }

    /// A publication that was due then has been sent.
    pub fn published(&mut self, now: u64, due: u64) {
        if self.window.contains(due) {
            self.lag.record(now.saturating_sub(due));
        }
        self.at(now, |second| second.published += 1);
    }

    /// It was accepted.
    pub fn acked(&mut self, now: u64, due: u64) {
        if self.window.contains(due) {
            self.ack.record(now.saturating_sub(due));
        }
        self.at(now, |second| second.acked += 1);
    }

    /// It has reached one client.
    pub fn delivered(&mut self, now: u64, due: u64) {
        let time = now.saturating_sub(due);
        let measured = self.window.contains(due);
        if measured {
            self.deliver.record(time);
        }
        self.at(now, |second| {
            second.delivered += 1;
            if measured {
                second.deliver.record(time);
            }
        });
    }

    /// It has reached every client.
    pub fn complete(&mut self, now: u64, due: u64) {
        if self.window.contains(due) {
            self.last.record(now.saturating_sub(due));
        }
    }

    /// A time of the scenario's own, nanoseconds.
    pub fn time(&mut self, what: &'static str, ns: u64) {
        self.own.entry(what).or_default().record(ns);
    }

    /// A request of the scenario's own is sent: it counts as a publication.
    pub fn asked(&mut self, now: u64) {
        self.at(now, |second| second.published += 1);
    }

    /// Its answer has come, with so many messages: it counts as an ack and that many deliveries, and is timed as `what`.
    pub fn told(&mut self, what: &'static str, now: u64, due: u64, messages: u64) {
        let time = now.saturating_sub(due);
        let measured = self.window.contains(due);
        if measured {
            self.time(what, time);
        }
        self.at(now, |second| {
            second.acked += 1;
            second.delivered += messages;
            if measured {
                second.deliver.record(time);
            }
        });
    }

    /// A moment of the scenario's own; the latest of each name is kept.
    pub fn mark(&mut self, what: &'static str, now: u64) {
        let latest = self.marks.entry(what).or_default();
        *latest = now.max(*latest);
    }

    /// The latest moment of this name, seconds after the start of the window; none if it never came.
    pub fn marked(&self, what: &str) -> Option<f64> {
        self.marks.get(what).map(|&time| time.saturating_sub(self.window.start) as f64 / 1e9)
    }

    /// Takes over another thread's.
    pub fn merge(&mut self, other: &Self) {
        self.window = if self.window == Window::default() { other.window } else { self.window };
        self.deliver.merge(&other.deliver);
        self.last.merge(&other.last);
        self.ack.merge(&other.ack);
        self.lag.merge(&other.lag);
        for (what, times) in &other.own {
            self.own.entry(what).or_default().merge(times);
        }
        for (what, &now) in &other.marks {
            self.mark(what, now);
        }
        if self.seconds.len() < other.seconds.len() {
            self.seconds.resize_with(other.seconds.len(), Bucket::default);
        }
        for (mine, other) in self.seconds.iter_mut().zip(&other.seconds) {
            mine.published += other.published;
            mine.acked += other.acked;
            mine.delivered += other.delivered;
            mine.deliver.merge(&other.deliver);
        }
    }

    /// Publications sent, acked, and deliveries, within the window.
    pub fn counts(&self) -> (u64, u64, u64) {
        self.seconds.iter().fold((0, 0, 0), |(published, acked, delivered), second| {
            (published + second.published, acked + second.acked, delivered + second.delivered)
        })
    }

    /// The distributions that have values: `deliver`, `last delivery`, `ack`, `send lag`, and the scenario's own.
    ///
    /// # Errors
    /// One cannot be serialised.
    pub fn latencies(&self) -> anyhow::Result<Vec<Latency>> {
        let all = [
            ("deliver", &self.deliver),
            ("last delivery", &self.last),
            ("ack", &self.ack),
            ("send lag", &self.lag),
        ];
        let own = self.own.iter().map(|(name, histogram)| (*name, histogram));
        all.into_iter()
            .chain(own)
            .filter(|(_, histogram)| histogram.count() > 0)
            .map(|(name, histogram)| histogram.to_latency(name))
            .collect()
    }

    /// The seconds, without what others know of them (connections, processes).
    pub fn series(&self) -> Vec<Second> {
        let second = |(at, bucket): (usize, &Bucket)| Second {
            at: (at + 1) as f64,
            published: bucket.published,
            acked: bucket.acked,
            delivered: bucket.delivered,
            p50: bucket.deliver.quantile_us(0.5),
            p99: bucket.deliver.quantile_us(0.99),
            max: bucket.deliver.max_us(),
            ..Second::default()
        };
        self.seconds.iter().enumerate().map(second).collect()
    }

    fn at(&mut self, now: u64, change: impl FnOnce(&mut Bucket)) {
        if !self.window.contains(now) {
            return;
        }
        let second = ((now - self.window.start) / 1_000_000_000) as usize;
        if self.seconds.len() <= second {
            self.seconds.resize_with(second + 1, Bucket::default);
        }
        change(&mut self.seconds[second]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn only_what_was_due_in_the_window_is_timed() {
        let mut tally = Tally::new(Window { start: 10 * SECOND, end: 12 * SECOND });
        tally.delivered(10 * SECOND, 9 * SECOND);
        tally.delivered(13 * SECOND, 11 * SECOND);
        let latencies = tally.latencies().unwrap();
        assert_eq!(latencies.len(), 1);
        assert_eq!((latencies[0].name.as_str(), latencies[0].count), ("deliver", 1));
        assert!((latencies[0].max - 2e6).abs() < 2e4, "{}", latencies[0].max);
        assert_eq!(tally.counts(), (0, 0, 1), "the first came within the window");
    }

    #[test]
    fn what_is_answered_after_the_window_is_timed_and_not_counted() {
        let mut tally = Tally::new(Window { start: 0, end: SECOND });
        tally.told("page", SECOND / 2, 0, 50);
        tally.told("page", 2 * SECOND, SECOND / 2, 50);
        assert_eq!(tally.counts(), (0, 1, 50));
        assert_eq!(tally.latencies().unwrap()[0].count, 2);
    }

    #[test]
    fn threads_add_up_second_by_second() {
        let window = Window { start: 0, end: 3 * SECOND };
        let (mut one, mut two) = (Tally::new(window), Tally::new(window));
        one.published(0, 0);
        two.published(SECOND, SECOND);
        two.acked(SECOND, SECOND);
        one.merge(&two);
        let series = one.series();
        assert_eq!((series[0].published, series[1].published, series[1].acked), (1, 1, 1));
    }
}
