//! What each process spends, second by second, from the start of the measurement to its end.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval_at},
};

use super::{
    process::{Process, Usage},
    redis::Info,
};
use crate::report::result::{ProcessCost, Second};

const SECOND: Duration = Duration::from_secs(1);
/// A rest of the measurement from which on it is an element of its own, in seconds.
const OWN_ELEMENT: f64 = 0.5;

/// A process to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// As in [`ProcessCost::name`].
    pub name: String,
    /// Where to read.
    pub source: Source,
}

/// Where the figures of a process come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// `/proc`, by process id.
    Process(u32),
    /// `INFO` of a Redis that may be on another machine.
    Redis(SocketAddr),
}

/// A running measurement. Dropping it ends it without a result.
#[derive(Debug)]
pub struct Sampler {
    stop: oneshot::Sender<()>,
    task: JoinHandle<anyhow::Result<Samples>>,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Samples {
    /// Of each process, from start to stop, in the order in which they were named.
    pub costs: Vec<ProcessCost>,
    /// One for each second; the last one may be as short as half a second or as long as one and a half.
    pub seconds: Vec<Sample>,
}

/// One second.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its end, seconds since the start.
    pub at: f64,
    /// CPU seconds that each process spent within it.
    pub cpu: Vec<f64>,
    /// Resident memory of each process at its end, KiB.
    pub rss: Vec<u64>,
}

impl Sampler {
    /// Reads all once and begins.
    ///
    /// # Errors
    /// A process does not exist or a Redis does not answer; the text names it.
    pub async fn start(watched: Vec<Watched>) -> anyhow::Result<Self> {
        let mut gauges = Vec::with_capacity(watched.len());
        for Watched { name, source } in watched {
            gauges.push(Gauge::open(name, source).await?);
        }
        let series = Series::new(read_all(&mut gauges).await?);
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(sample(gauges, series, Instant::now(), stopped));
        Ok(Self { stop, task })
    }

    /// Waits until something can no longer be read, if ever: why. Safe to cancel.
    pub async fn failure(&mut self) -> anyhow::Error {
        match (&mut self.task).await {
            Ok(Err(error)) => error,
            Ok(Ok(_)) => anyhow::anyhow!("the sampler ended early"),
            Err(error) => anyhow::Error::new(error).context("the sampler ended"),
        }
    }

    /// Reads all once more and ends.
    ///
    /// # Errors
    /// A process has ended since the start, or a Redis has not answered; the text names it.
    pub async fn stop(self) -> anyhow::Result<Samples> {
        // Nobody there: the task has ended with the error that it is about to tell.
        let _ = self.stop.send(());
        self.task.await.context("the sampler ended")?
    }
}

impl Samples {
    /// Fills in `cpu` and `rss` of a series of the same seconds. It gets more elements if it is shorter; those beyond the
    /// end of the samples get no CPU and the last memory.
    pub fn merge_into(&self, series: &mut Vec<Second>) {
        for sample in self.seconds.iter().skip(series.len()) {
            series.push(Second { at: sample.at, ..Second::default() });
        }
        for (at, second) in series.iter_mut().enumerate() {
            second.cpu = self.seconds.get(at).map_or_else(|| vec![0.0; self.costs.len()], |s| s.cpu.clone());
            second.rss =
                self.seconds.get(at).or(self.seconds.last()).map_or_else(Vec::new, |s| s.rss.clone());
        }
    }
}

/// Samples until it is told to stop, or its owner is gone.
async fn sample(
    mut gauges: Vec<Gauge>,
    mut series: Series,
    start: Instant,
    mut stopped: oneshot::Receiver<()>,
) -> anyhow::Result<Samples> {
    let mut ticks = interval_at(start + SECOND, SECOND);
    // After a stall the next tick is on a full second again.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            biased;
            _ = &mut stopped => break,
            _ = ticks.tick() => series.tick(start.elapsed().as_secs_f64(), &read_all(&mut gauges).await?),
        }
    }
    let usages = read_all(&mut gauges).await?;
    let names = gauges.into_iter().map(|gauge| gauge.name);
    Ok(series.end(start.elapsed().as_secs_f64(), &usages, names))
}

async fn read_all(gauges: &mut [Gauge]) -> anyhow::Result<Vec<Usage>> {
    let mut usages = Vec::with_capacity(gauges.len());
    for gauge in gauges {
        usages.push(gauge.read().await?);
    }
    Ok(usages)
}

/// Something that can be read again and again.
struct Gauge {
    name: String,
    meter: Meter,
}

enum Meter {
    Process(Process),
    Redis(Info),
}

impl Gauge {
    async fn open(name: String, source: Source) -> anyhow::Result<Self> {
        let meter = match source {
            Source::Process(pid) => Process::open(pid).map(Meter::Process),
            Source::Redis(addr) => Info::connect(addr).await.map(Meter::Redis),
        };
        let meter = meter.with_context(|| name.clone())?;
        Ok(Self { name, meter })
    }

    async fn read(&mut self) -> anyhow::Result<Usage> {
        let usage = match &mut self.meter {
            Meter::Process(process) => process.usage(),
            Meter::Redis(info) => {
                info.usage().await.map(|usage| Usage { cpu: usage.cpu, rss_kib: usage.rss_kib })
            }
        };
        usage.with_context(|| self.name.clone())
    }
}

/// Readings on their way to [`Samples`].
struct Series {
    first: Vec<Usage>,
    last: Vec<Usage>,
    peak: Vec<u64>,
    seconds: Vec<Sample>,
}

impl Series {
    fn new(first: Vec<Usage>) -> Self {
        let peak = first.iter().map(|usage| usage.rss_kib).collect();
        Self { last: first.clone(), first, peak, seconds: Vec::new() }
    }

    /// Takes readings `at` seconds after the start. If ticks were missed, what was spent is spread over all seconds since
    /// the one before, so that the element `n` always ends at second `n + 1`.
    fn tick(&mut self, at: f64, now: &[Usage]) {
        let spent = self.take(now);
        // Not negative, and a run is shorter than 2^52 seconds.
        let due = at.round() as usize;
        let count = due.saturating_sub(self.seconds.len()).max(1);
        for _ in 0..count {
            self.seconds.push(Sample {
                at: (self.seconds.len() + 1) as f64,
                cpu: spent.iter().map(|cpu| cpu / count as f64).collect(),
                rss: rss(now),
            });
        }
    }

    /// Takes the last readings; a short rest belongs to the last second.
    fn end(mut self, at: f64, now: &[Usage], names: impl Iterator<Item = String>) -> Samples {
        let spent = self.take(now);
        let rest = at - self.seconds.len() as f64;
        match self.seconds.last_mut() {
            Some(last) if rest < OWN_ELEMENT => {
                last.cpu.iter_mut().zip(&spent).for_each(|(cpu, more)| *cpu += more);
                last.rss = rss(now);
            }
            _ => self.seconds.push(Sample { at, cpu: spent, rss: rss(now) }),
        }
        let costs =
            names.zip(&self.first).zip(now).zip(&self.peak).map(|(((name, first), now), peak)| ProcessCost {
                name,
                cpu_seconds: now.cpu.saturating_sub(first.cpu).as_secs_f64(),
                rss_before: first.rss_kib,
                rss_after: now.rss_kib,
                rss_peak: *peak,
            });
        Samples { costs: costs.collect(), seconds: self.seconds }
    }

    /// CPU seconds of each since the last readings.
    fn take(&mut self, now: &[Usage]) -> Vec<f64> {
        self.peak.iter_mut().zip(now).for_each(|(peak, usage)| *peak = usage.rss_kib.max(*peak));
        let last = std::mem::replace(&mut self.last, now.to_vec());
        last.iter().zip(now).map(|(last, now)| now.cpu.saturating_sub(last.cpu).as_secs_f64()).collect()
    }
}

fn rss(usages: &[Usage]) -> Vec<u64> {
    usages.iter().map(|usage| usage.rss_kib).collect()
}

#[cfg(test)]
#[path = "sampler_tests.rs"]
mod tests;
