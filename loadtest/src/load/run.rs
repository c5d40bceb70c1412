//! One run: the threads of clients, what the servers spend meanwhile, and the result of both.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, anyhow, bail, ensure};
use futures_util::{FutureExt as _, future::select_all};
use tokio::{
    sync::oneshot,
    time::{Instant, interval, sleep, sleep_until},
};

use super::{
    clock,
    tally::{Tally, Window},
    traffic::Counted,
    worker::{Load, Plan, Stage, Worker, work},
};
use crate::{
    measure::{
        limits::make_room_for,
        machine,
        sampler::{Sampler, Samples, Watched},
        vigil::Vigil,
    },
    report::{
        progress::Progress,
        result::{Correctness, Latency, Phase, ProcessCost, Second},
    },
    servers,
};

/// How long a run is.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Load that is not measured.
    pub warmup: Duration,
    /// Load that is.
    pub measure: Duration,
}

/// How long a step may take from when a thread is through with all of them.
const AFTER_THREADS: Duration = Duration::from_secs(10);
/// The share of its time from which on a thread is called busy.
const BUSY: f64 = 0.9;

/// What a run has brought.
#[derive(Debug)]
pub struct Outcome {
    /// When it began.
    pub begun: SystemTime,
    /// What was sent against what arrived.
    pub correctness: Correctness,
    /// Publications sent, acked, and deliveries, in the time that was measured.
    pub counts: (u64, u64, u64),
    /// The time that was measured, seconds.
    pub seconds: f64,
    /// All clients were connected after so many seconds.
    pub connecting: f64,
    /// Distributions of times.
    pub latencies: Vec<Latency>,
    /// What each process spent in that time.
    pub processes: Vec<ProcessCost>,
    /// Second by second.
    pub series: Vec<Second>,
    /// What else the clients counted.
    pub tally: Tally,
    /// Calls of scripts in Redis, from before the first connection to the end, if Redis is known. Those of leases and of
    /// trimming are few beside publishes.
    pub script_calls: Option<u64>,
    /// What the servers have warned of.
    pub warnings: Vec<String>,
}

impl Outcome {
    /// The servers that were under load, without what is behind them.
    pub fn nodes(&self) -> impl Iterator<Item = &ProcessCost> {
        let others = [servers::REDIS, servers::OWN, servers::BACKEND];
        self.processes.iter().filter(move |process| !others.contains(&process.name.as_str()))
    }

    /// What they spent, CPU seconds; none if no process is known.
    pub fn cpu_of_nodes(&self) -> Option<f64> {
        self.nodes().map(|node| node.cpu_seconds).reduce(|one, other| one + other)
    }

    /// Whether this process had hardly a moment left in so many threads of clients.
    pub fn is_busy(&self, threads: usize) -> bool {
        let own = self.processes.iter().find(|process| process.name == servers::OWN);
        own.is_some_and(|own| own.cpu_seconds > BUSY * self.seconds * threads as f64)
    }

    /// What Redis spent, CPU seconds; none if there is none, or none that is known.
    pub fn cpu_of_redis(&self) -> Option<f64> {
        self.processes.iter().find(|process| process.name == servers::REDIS).map(|redis| redis.cpu_seconds)
    }

    /// Publications acked, a second.
    pub fn acked_a_second(&self) -> f64 {
        self.counts.1 as f64 / self.seconds
    }

    /// Deliveries a second.
    pub fn delivered_a_second(&self) -> f64 {
        self.counts.2 as f64 / self.seconds
    }

    /// As one of several runs of a result, under this heading.
    pub fn into_phase(self, phase: String) -> Phase {
        let Self { begun, correctness, latencies, processes, series, warnings, .. } = self;
        let (started, notes) = (machine::rfc3339(begun), warnings);
        Phase { phase, started, latencies, correctness, processes, series, notes }
    }

    /// The distribution of this name.
    pub fn latency(&self, name: &str) -> Option<&Latency> {
        self.latencies.iter().find(|latency| latency.name == name)
    }
}

/// Runs `script` in every thread of the plan while `watched` are measured.
///
/// # Errors
/// A client cannot be connected, or a process that is watched ends.
pub async fn run<F>(plan: Plan, times: Times, watched: Vec<Watched>, script: F) -> anyhow::Result<Outcome>
where
    F: AsyncFn(&Worker) -> anyhow::Result<()> + Clone + Send + 'static,
{
    let stage = Arc::new(Stage::new(plan.threads));
    let plan = Arc::new(plan);
    let clients = plan.topology.clients.len() as u64;
    make_room_for(clients)?;
    let (begun, begun_at) = (Instant::now(), SystemTime::now());
    let mut threads = Threads::start(&plan, &stage, script, Vigil::of(&watched)?);

    let bar = Progress::steps("connecting", clients);
    threads.or(meet(&stage, |stage| bar.set(stage.counters.connected.load(Relaxed)))).await?;
    bar.finish();
    let connecting = begun.elapsed().as_secs_f64();

    let start = clock::now() + u64::try_from(times.warmup.as_nanos())?;
    let window = Window { start, end: start + u64::try_from(times.measure.as_nanos())? };
    stage.window.set(window).map_err(|_| anyhow!("the time to measure is set twice"))?;
    threads.or(meet(&stage, |_| ())).await?;
    let measured = threads.or(measure(&stage, times, watched)).await?;
    let (samples, connected) = measured?;

    let bar = Progress::steps("waiting for the rest", stage.counters.owed.load(Relaxed));
    threads.or(meet(&stage, |stage| bar.set(stage.counters.delivered.load(Relaxed)))).await?;
    bar.finish();
    let Counted { ledger, tally, notes } = threads.end().await?;
    ensure!(
        matches!(plan.load, Load::Silence) || tally.counts().1 > 0,
        "nothing was accepted in the time that was measured: {notes:?}"
    );

    Ok(Outcome {
        begun: begun_at,
        correctness: ledger.judge(&plan.topology.streams),
        counts: tally.counts(),
        seconds: window.seconds(),
        connecting,
        latencies: tally.latencies()?,
        series: series(&tally, &samples, &connected),
        processes: samples.costs,
        tally,
        script_calls: None,
        warnings: notes.into_iter().map(|(what, times)| format!("{times} times {what}")).collect(),
    })
}

/// Meets all threads; tells meanwhile how far they are.
async fn meet(stage: &Stage, mut tell: impl FnMut(&Stage)) {
    let mut ticks = interval(Duration::from_millis(100));
    let meeting = stage.barrier.wait();
    tokio::pin!(meeting);
    loop {
        tokio::select! {
            _ = &mut meeting => return,
            _ = ticks.tick() => tell(stage),
        }
    }
}

/// Waits for the time to be over; what the processes spent in it, and the connections at the end of each second.
async fn measure(stage: &Stage, times: Times, watched: Vec<Watched>) -> anyhow::Result<(Samples, Vec<u64>)> {
    let start = Instant::now() + times.warmup;
    let bar = Progress::time("warming up", times.warmup);
    sleep_until(start).await;
    bar.finish();
    let bar = Progress::time("measuring", times.measure);
    let mut sampler = Sampler::start(watched).await?;
    let mut connected = Vec::new();
    let passing = async {
        for second in 1..=times.measure.as_secs() {
            sleep_until(start + Duration::from_secs(second)).await;
            connected.push(stage.counters.connected.load(Relaxed));
        }
        sleep_until(start + times.measure).await;
    };
    tokio::select! {
        () = passing => {}
        error = sampler.failure() => return Err(error),
    }
    bar.finish();
    Ok((sampler.stop().await?, connected))
}

/// Puts together what the clients counted and what the processes spent.
fn series(tally: &Tally, samples: &Samples, connected: &[u64]) -> Vec<Second> {
    let mut series = tally.series();
    samples.merge_into(&mut series);
    for (second, &connected) in series.iter_mut().zip(connected) {
        second.connected = connected;
    }
    series
}

/// The threads of clients.
struct Threads {
    running: Vec<thread::JoinHandle<()>>,
    results: Vec<oneshot::Receiver<anyhow::Result<Counted>>>,
    /// Of those that are through.
    counted: Vec<Counted>,
    vigil: Vigil,
}

impl Threads {
    fn start<F>(plan: &Arc<Plan>, stage: &Arc<Stage>, script: F, vigil: Vigil) -> Self
    where
        F: AsyncFn(&Worker) -> anyhow::Result<()> + Clone + Send + 'static,
    {
        let (mut running, mut results) = (Vec::new(), Vec::new());
        for index in 0..plan.threads {
            let (plan, stage, script) = (plan.clone(), stage.clone(), script.clone());
            let (sender, receiver) = oneshot::channel();
            running.push(thread::spawn(move || {
                // An error: nobody is interested any more, as another thread has failed.
                let _ = sender.send(work(index, plan, stage, async |worker| script(worker).await));
            }));
            results.push(receiver);
        }
        Self { running, results, counted: Vec::new(), vigil }
    }

    /// Waits for `step`, or for the first thread that fails or process under load that ends.
    async fn or<T>(&mut self, step: impl Future<Output = T>) -> anyhow::Result<T> {
        tokio::pin!(step);
        loop {
            let through = !self.counted.is_empty();
            let ends = self.results.iter_mut().map(|result| result.boxed_local());
            // One that never ends, as there may be no thread left.
            let ends = ends.chain([std::future::pending().boxed_local()]);
            let (ended, at) = tokio::select! {
                biased;
                done = &mut step => return Ok(done),
                broken = self.vigil.broken() => return Err(broken),
                (ended, at, _) = select_all(ends) => (ended, at),
                // Whoever is through has met all others, so the step is about to be done.
                () = sleep(AFTER_THREADS), if through => bail!("a thread of clients ended early"),
            };
            match ended {
                Ok(Ok(counted)) => self.counted.push(counted),
                Ok(Err(error)) => return Err(self.vigil.explain(error).await),
                Err(_) => bail!("a thread of clients panicked"),
            }
            drop(self.results.swap_remove(at));
        }
    }

    async fn end(self) -> anyhow::Result<Counted> {
        let mut all = Counted::default();
        let mut everybody = self.counted;
        for result in self.results {
            everybody.push(result.await.context("a thread of clients panicked")??);
        }
        for counted in everybody {
            all.ledger.merge(counted.ledger);
            all.tally.merge(&counted.tally);
            for (what, times) in counted.notes {
                *all.notes.entry(what).or_default() += times;
            }
        }
        for thread in self.running {
            // Its result is there, so it is at its end.
            let _ = thread.join();
        }
        Ok(all)
    }
}
