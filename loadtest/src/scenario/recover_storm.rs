//! Scenario `recover-storm`: N clients lose their connections, miss G messages each, and come back within S seconds, each
//! with a cursor.

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::ensure;
use futures_util::future::join_all;
use serde::Serialize;
use tokio::{task::JoinSet, time::sleep};

use super::{Findings, Scenario, in_turn};
use crate::{
    clients::dialect::{Detail, Subscription},
    load::{
        clock,
        options::Options,
        pace::Pace,
        run::Outcome,
        subject::Subject,
        topology::{Receivers, Topology},
        worker::{Load, Worker},
    },
    report::result::Figure,
};

/// Options of `recover-storm`.
#[derive(Debug, Clone, clap::Args, Serialize)]
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    #[serde(flatten)]
    options: Options,
    /// How many clients
    #[arg(long, default_value_t = 10_000, help_heading = "Load")]
    clients: usize,
    /// Channels that they are spread over
    #[arg(long, default_value_t = 100, help_heading = "Load")]
    channels: usize,
    /// Messages that each misses
    #[arg(long, default_value_t = 20, help_heading = "Load")]
    missed: usize,
    /// Seconds within which they come back
    #[arg(long, default_value_t = 5.0, help_heading = "Load")]
    within: f64,
}

const CAUGHT_UP_WITHIN: f64 = 3.0;
const MEMORY_AFTER: f64 = 1.2;
/// Seconds after the storm from which on memory is judged; the goal is one for 60.
const CALM: f64 = 30.0;
const CATCH_UP: &str = "connect to caught up";
const LAST_DUE: &str = "last due";
const CONNECTED: &str = "last connected";
const CAUGHT_UP: &str = "last caught up";
/// How often a thread looks who has caught up.
const LOOK: Duration = Duration::from_millis(2);
/// How long clients may take to catch up before the storm counts as failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// The time that is measured begins with the loss of the connections.
impl Scenario for Args {
    const NAME: &'static str = "recover-storm";

    fn options(&self) -> &Options {
        &self.options
    }

    fn check(&self) -> anyhow::Result<()> {
        let sense = self.channels > 0 && self.within > 0.0;
        ensure!(sense, "there must be channels, and some time to come back in");
        self.options.must_recover(self.missed as u64 + 1)
    }

    async fn measure(&self, subjects: Vec<Subject>) -> anyhow::Result<Vec<Findings>> {
        in_turn(&subjects, async |subject| {
            let args = self.clone();
            let script = async move |worker: &Worker| storm(worker, &args).await;
            let what = (Load::Silence, Detail::Positions);
            let outcome = subject.run(Arc::new(topology(self)), what, script).await?;
            Ok(Findings { figures: figures(&outcome), probe: outcome.into() })
        })
        .await
    }
}

/// The publishers, one for each channel, come first.
fn topology(args: &Args) -> Topology {
    let mut topology = Topology::default();
    for channel in 0..args.channels {
        let publisher = topology.client(Vec::new());
        let count = (channel..args.clients).step_by(args.channels).count();
        let receivers = Receivers { first: args.channels + channel, count, step: args.channels };
        let name = topology.channel(format_args!("storm.{channel}"));
        topology.stream(publisher, &name, receivers);
    }
    for client in 0..args.clients {
        let name = topology.channel(format_args!("storm.{}", client % args.channels));
        topology.client(vec![Subscription::live(name)]);
    }
    topology
}

async fn storm(worker: &Worker, args: &Args) -> anyhow::Result<()> {
    worker.connect_all().await?;
    worker.together().await;
    worker.take_positions().await?;
    let window = worker.meet().await;
    worker.wait_until(window.start).await;
    let clients: Vec<usize> = worker.clients().filter(|client| *client >= args.channels).collect();
    join_all(clients.iter().map(|&client| worker.disconnect(client))).await;
    worker.together().await;
    worker.publish_burst(args.missed).await;
    worker.together().await;
    come_back(worker, &clients, args.within).await?;
    worker.settle().await;
    ensure!(
        clock::now() < window.end,
        "the storm lasted longer than --seconds, so its costs were not measured whole"
    );
    worker.wait_until(window.end).await;
    worker.done().await;
    Ok(())
}

/// Connects the clients at an even rate, whatever becomes of those before, and waits until all have caught up.
async fn come_back(worker: &Worker, clients: &[usize], within: f64) -> anyhow::Result<()> {
    let mut storm = Storm::default();
    // What connected before has caught up, too.
    worker.traffic.borrow_mut().take_recovered();
    let mut opening = JoinSet::new();
    let mut pace = Pace::new(clients.len().max(1) as f64 / within, 0.0)?;
    let mut left = clients.iter().copied().peekable();
    while left.peek().is_some() {
        let due = pace.due().await;
        for (due, client) in due.zip(left.by_ref()) {
            storm.begun.insert(client, due);
            worker.traffic.borrow_mut().counted().1.mark(LAST_DUE, due);
            let worker = worker.clone();
            opening.spawn_local(async move {
                worker.connect(client, &worker.with_cursors(client)).await?;
                worker.traffic.borrow_mut().counted().1.mark(CONNECTED, clock::now());
                anyhow::Ok(())
            });
        }
        storm.look(worker);
    }
    while let Some(opened) = opening.join_next().await {
        opened??;
    }
    let start = clock::now();
    while storm.look(worker) < clients.len() {
        let waited = Duration::from_nanos(clock::now() - start);
        ensure!(waited < PATIENCE, "clients do not catch up within {PATIENCE:?}");
        sleep(LOOK).await;
    }
    Ok(())
}

/// Who has come back, and who has caught up.
#[derive(Debug, Default)]
struct Storm {
    /// When each client was to connect.
    begun: HashMap<usize, u64>,
    caught_up: usize,
}

impl Storm {
    /// How many have caught up, each with one channel.
    fn look(&mut self, worker: &Worker) -> usize {
        let mut traffic = worker.traffic.borrow_mut();
        for (client, at) in traffic.take_recovered() {
            // Once: what a client is told of a second time is no other client's.
            if let Some(begun) = self.begun.remove(&client) {
                self.caught_up += 1;
                let tally = traffic.counted().1;
                tally.time(CATCH_UP, at.saturating_sub(begun));
                tally.mark(CAUGHT_UP, at);
            }
        }
        self.caught_up
    }
}

fn figures(outcome: &Outcome) -> Vec<Figure> {
    let marked = |what| outcome.tally.marked(what);
    let after = |what| Some((marked(what)? - marked(LAST_DUE)?).max(0.0));
    let nodes = || outcome.nodes();
    let (before, end): (u64, u64) =
        nodes().fold((0, 0), |(before, end), node| (before + node.rss_before, end + node.rss_after));
    let peak: u64 = nodes().map(|node| node.rss_peak).sum();
    let times = |rss: u64| (before > 0).then(|| rss as f64 / before as f64);
    let each = outcome.latency(CATCH_UP);
    let calm = marked(CAUGHT_UP).map(|caught_up| (outcome.seconds - caught_up).max(0.0));
    let remembered = Figure::lower("RSS of the nodes at the end, of before the storm", times(end), "");
    // What is freed is given back to the system after some time only.
    let remembered =
        if calm.is_some_and(|calm| calm >= CALM) { remembered.goal(MEMORY_AFTER) } else { remembered };
    vec![
        // Stricter than after the last has connected: slow connecting counts.
        Figure::lower("all caught up, after the last was to connect", after(CAUGHT_UP), "s")
            .goal(CAUGHT_UP_WITHIN),
        Figure::lower("all connected, after the last was to connect", after(CONNECTED), "s"),
        Figure::lower("connect to caught up, p50", each.map(|each| each.p50), "us"),
        Figure::lower("connect to caught up, p99", each.map(|each| each.p99), "us"),
        remembered,
        Figure::fact("from the storm's end to that", calm, "s"),
        Figure::fact("RSS of the nodes at its highest, of before the storm", times(peak), ""),
        Figure::lower("gateway CPU", outcome.cpu_of_nodes(), "s"),
    ]
}
