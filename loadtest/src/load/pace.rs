//! When publications are due: an even rate, whatever the server does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use anyhow::Context as _;
use tokio::sync::Notify;

use super::clock;

/// More often than this nothing is sent: what is due by then goes together.
const SHORTEST_TICK: Duration = Duration::from_micros(200);

/// The times at which something is due, evenly spaced.
#[derive(Debug)]
pub struct Pace {
    start: u64,
    /// Each second.
    rate: f64,
    given: u64,
    ticker: Ticker,
}

impl Pace {
    /// `rate` a second, the first after `offset` of an interval (0 to 1), so that several paces do not coincide.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn new(rate: f64, offset: f64) -> anyhow::Result<Self> {
        let start = clock::now() + (offset / rate * 1e9) as u64;
        let interval = Duration::from_secs_f64(1.0 / rate);
        Ok(Self { start, rate, given: 0, ticker: Ticker::start(start, interval.max(SHORTEST_TICK))? })
    }

    /// Waits until something is due; the times of all that is, [`clock::now`]. Safe to cancel: nothing is given twice or
    /// forgotten.
    pub async fn due(&mut self) -> impl Iterator<Item = u64> {
        loop {
            let (now, next) = (clock::now(), self.time(self.given));
            if next <= now {
                let first = self.given;
                let elapsed = (now - self.start) as f64 / 1e9;
                // At least one; rounding must not make it none.
                self.given = ((elapsed * self.rate) as u64 + 1).max(first + 1);
                let (start, rate) = (self.start, self.rate);
                return (first..self.given).map(move |number| time(start, rate, number));
            }
            self.ticker.tick.notified().await;
        }
    }

    fn time(&self, number: u64) -> u64 {
        time(self.start, self.rate, number)
    }
}

fn time(start: u64, rate: f64, number: u64) -> u64 {
    start + (number as f64 / rate * 1e9) as u64
}

/// A thread that tells when time has passed: the runtime's own timers are no finer than a millisecond.
#[derive(Debug)]
struct Ticker {
    tick: Arc<Notify>,
    ended: Arc<AtomicBool>,
}

impl Ticker {
    fn start(start: u64, interval: Duration) -> anyhow::Result<Self> {
        let ticker = Self { tick: Arc::default(), ended: Arc::default() };
        let (tick, ended) = (ticker.tick.clone(), ticker.ended.clone());
        let interval = u64::try_from(interval.as_nanos())?;
        let run = move || {
            let mut next = start;
            while !ended.load(Relaxed) {
                let now = clock::now();
                thread::sleep(Duration::from_nanos(next.saturating_sub(now)));
                tick.notify_one();
                // After a stall there is nothing to catch up with: all that is due is given at once.
                next = next.max(now.saturating_sub(interval)) + interval;
            }
        };
        thread::Builder::new().name("pace".to_owned()).spawn(run).context("no thread for a pace")?;
        Ok(ticker)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.ended.store(true, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everything_is_due_once_and_evenly() {
        let mut pace = Pace::new(10_000.0, 0.5).unwrap();
        let mut times = Vec::new();
        while times.len() < 500 {
            let now_due: Vec<u64> = pace.due().await.collect();
            assert!(now_due.iter().all(|&time| time <= clock::now()));
            times.extend(now_due);
        }
        let steps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(steps.iter().all(|step| (99_990..=100_010).contains(step)), "{steps:?}");
    }

    #[tokio::test]
    async fn a_stall_is_made_up_for() {
        let mut pace = Pace::new(1_000.0, 0.0).unwrap();
        let first: Vec<u64> = pace.due().await.collect();
        std::thread::sleep(Duration::from_millis(50));
        let next: Vec<u64> = pace.due().await.collect();
        assert!(first.len() + next.len() >= 50, "{} and {}", first.len(), next.len());
    }
}
