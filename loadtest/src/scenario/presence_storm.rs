//! Scenario `presence-storm`: N members come within S seconds and leave within S seconds, watched all the time.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::ensure;
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
        topology::Topology,
        worker::{Load, Worker},
    },
    report::result::Figure,
};

/// Options of `presence-storm`.
#[derive(Debug, Clone, clap::Args, Serialize)]
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    #[serde(flatten)]
    options: Options,
    /// How many members
    #[arg(long, default_value_t = 2_000, help_heading = "Load")]
    members: usize,
    /// Channels that they are spread over
    #[arg(long, default_value_t = 20, help_heading = "Load")]
    channels: usize,
    /// Watchers of each channel
    #[arg(long, default_value_t = 10, help_heading = "Load")]
    watchers: usize,
    /// Seconds in which all come, and in which all leave
    #[arg(long, default_value_t = 3.0, help_heading = "Load")]
    within: f64,
}

const JOIN: &str = "connect to join seen";
const LEAVE: &str = "leave to leave seen";
const LOOK: Duration = Duration::from_millis(2);
/// Nothing more seen for so long: the rest will not come.
const PATIENCE: Duration = Duration::from_secs(10);

/// The time that is measured begins with the first member, and must last until the last has left.
impl Scenario for Args {
    const NAME: &'static str = "presence-storm";

    fn options(&self) -> &Options {
        &self.options
    }

    fn check(&self) -> anyhow::Result<()> {
        let sense = self.channels > 0 && self.within > 0.0;
        ensure!(sense, "there must be channels, and some time to come in");
        Ok(())
    }

    async fn measure(&self, subjects: Vec<Subject>) -> anyhow::Result<Vec<Findings>> {
        in_turn(&subjects, async |subject| {
            let (args, begun) = (self.clone(), Arc::<Begun>::default());
            let script = async move |worker: &Worker| storm(worker, &args, &begun).await;
            let what = (Load::Silence, Detail::Stamps);
            let outcome = subject.run(Arc::new(topology(self)), what, script).await?;
            Ok(Findings { figures: figures(self, &outcome), probe: outcome.into() })
        })
        .await
    }
}

/// The watchers come first; they are no members themselves.
fn topology(args: &Args) -> Topology {
    let mut topology = Topology::default();
    for channel in 0..args.channels {
        for _ in 0..args.watchers {
            let name = topology.channel(format_args!("presence.{channel}"));
            topology.client(vec![Subscription {
                presence: true,
                ephemeral: true,
                ..Subscription::live(name)
            }]);
        }
    }
    for member in 0..args.members {
        let name = topology.channel(format_args!("presence.{}", member % args.channels));
        topology.client(vec![Subscription::live(name)]);
    }
    topology
}

/// When each member was to come and to leave, and its channel, for the watchers of all threads.
type Begun = Mutex<HashMap<(String, bool), (u64, usize)>>;

async fn storm(worker: &Worker, args: &Args, begun: &Arc<Begun>) -> anyhow::Result<()> {
    let (watchers, members): (Vec<usize>, Vec<usize>) =
        worker.clients().partition(|client| *client < args.all_watchers());
    worker.connect_those(watchers.iter().copied()).await?;
    let window = worker.meet().await;
    worker.wait_until(window.start).await;
    let due = watchers.iter().map(|watcher| args.members_of(watcher / args.watchers)).sum();
    let mut seen = Seen { begun: begun.clone(), ..Seen::default() };
    for joined in [true, false] {
        change(worker, args, &members, joined, &mut seen).await?;
        seen.all(worker, args, due).await;
        worker.together().await;
        ask_for_members(worker, args, &watchers, joined).await?;
        // Nobody leaves before all have asked.
        worker.together().await;
    }
    ensure!(
        clock::now() < window.end,
        "the storm lasted longer than --seconds, so its costs were not measured whole"
    );
    worker.wait_until(window.end).await;
    worker.done().await;
    Ok(())
}

/// These members come or leave at an even rate, whatever becomes of those before.
async fn change(
    worker: &Worker,
    args: &Args,
    members: &[usize],
    joined: bool,
    seen: &mut Seen,
) -> anyhow::Result<()> {
    let mut changing = JoinSet::new();
    let offset = worker.index as f64 / worker.plan.threads as f64;
    let mut pace = Pace::new(members.len().max(1) as f64 / args.within, offset)?;
    let mut left = members.iter().copied().peekable();
    while left.peek().is_some() {
        let due = pace.due().await;
        for (due, member) in due.zip(left.by_ref()) {
            let channel = (member - args.all_watchers()) % args.channels;
            seen.begun().insert((format!("load-{member}"), joined), (due, channel));
            let worker = worker.clone();
            changing.spawn_local(async move {
                if joined {
                    return worker.connect(member, &worker.plan.topology.clients[member]).await;
                }
                worker.disconnect(member).await;
                Ok(())
            });
        }
        seen.look(worker, args);
    }
    while let Some(changed) = changing.join_next().await {
        changed??;
    }
    Ok(())
}

/// That all or none are members of each channel, as its first watcher is told when it asks.
async fn ask_for_members(
    worker: &Worker,
    args: &Args,
    watchers: &[usize],
    joined: bool,
) -> anyhow::Result<()> {
    for &watcher in watchers.iter().filter(|watcher| *watcher % args.watchers == 0) {
        let channel = watcher / args.watchers;
        let name = worker.plan.topology.channel(format_args!("presence.{channel}"));
        let count = worker.members(watcher, &name).await?;
        let due = if joined { args.members_of(channel) } else { 0 };
        let come = count.min(due);
        worker.traffic.borrow_mut().counted().0.other(due, come, count - come);
    }
    Ok(())
}

/// What the watchers of a thread have seen.
#[derive(Debug, Default)]
struct Seen {
    begun: Arc<Begun>,
    /// Watcher, member, join or leave.
    told: HashSet<(usize, String, bool)>,
    repeated: u64,
    /// Of somebody in another channel.
    strange: u64,
    /// Of the present phase.
    come: u64,
}

impl Seen {
    fn begun(&self) -> MutexGuard<'_, HashMap<(String, bool), (u64, usize)>> {
        // A thread that panicked has ended the run already.
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks until each watcher has seen each of its channel, or nothing more comes; counts what has.
    async fn all(&mut self, worker: &Worker, args: &Args, due: u64) {
        let mut since = clock::now();
        while self.come < due && u128::from(clock::now() - since) < PATIENCE.as_nanos() {
            let before = self.come;
            self.look(worker, args);
            if self.come > before {
                since = clock::now();
            }
            sleep(LOOK).await;
        }
        let [come, repeated, strange] =
            [&mut self.come, &mut self.repeated, &mut self.strange].map(std::mem::take);
        let mut traffic = worker.traffic.borrow_mut();
        traffic.counted().0.other(due, come, repeated);
        traffic.counted().0.misrouted(strange);
    }

    fn look(&mut self, worker: &Worker, args: &Args) {
        let mut traffic = worker.traffic.borrow_mut();
        for sighting in traffic.take_sightings() {
            let what = (sighting.client, sighting.joined);
            let Some((begun, channel)) = self.begun().get(&what).copied() else { continue };
            if channel != sighting.watcher / args.watchers {
                self.strange += 1;
            } else if self.told.insert((sighting.watcher, what.0, what.1)) {
                self.come += 1;
                let name = if what.1 { JOIN } else { LEAVE };
                traffic.counted().1.time(name, sighting.at.saturating_sub(begun));
            } else {
                self.repeated += 1;
            }
        }
    }
}

impl Args {
    fn all_watchers(&self) -> usize {
        self.watchers * self.channels
    }

    /// How many members come to a channel.
    fn members_of(&self, channel: usize) -> u64 {
        (channel..self.members).step_by(self.channels).count() as u64
    }
}

fn figures(args: &Args, outcome: &Outcome) -> Vec<Figure> {
    let p99 = |name| outcome.latency(name).map(|times| times.p99);
    let changes = (2 * args.members).max(1) as f64;
    let each = |cpu: Option<f64>| cpu.map(|cpu| cpu * 1e6 / changes);
    let mut figures = vec![
        Figure::fact("joins and leaves", Some(args.members as f64 / args.within), "1/s"),
        Figure::lower("connect to join seen, p99", p99(JOIN), "us"),
        Figure::lower("leave to leave seen, p99", p99(LEAVE), "us"),
        Figure::lower(
            "gateway CPU for a join or leave, connection included",
            each(outcome.cpu_of_nodes()),
            "us",
        ),
    ];
    if let Some(redis) = each(outcome.cpu_of_redis()) {
        figures.push(Figure::lower("Redis CPU for a join or leave", Some(redis), "us"));
    }
    figures
}
