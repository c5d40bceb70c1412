//! Scenario `fanout`: one publisher, N subscribers of its channel; beside the bare writer, which is the floor.

use std::sync::Arc;

use serde::Serialize;

use super::{Findings, Scenario};
use crate::{
    clients::{dialect::Subscription, endpoint::Transport},
    load::{
        options::{Clients, Options, Output},
        probe::{self, Probe},
        run::Outcome,
        subject::{Role, Subject},
        topology::{Receivers, Topology},
    },
    report::result::Figure,
};

/// Options of `fanout`.
#[derive(Debug, Clone, clap::Args, Serialize)]
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    #[serde(flatten)]
    options: Options,
    #[command(flatten)]
    #[serde(flatten)]
    load: probe::Args,
    #[command(flatten)]
    #[serde(flatten)]
    size: Size,
    /// Leaves out the bare writer
    #[arg(long, help_heading = "Load")]
    #[serde(skip)]
    no_floor: bool,
}

/// How many they are.
#[derive(Debug, Clone, Copy, clap::Args, Serialize)]
#[command(next_help_heading = "Load")]
struct Size {
    /// How many subscribers
    #[arg(long, default_value_t = 1_000)]
    subscribers: usize,
}

/// Options of `floor-write`, which starts its own server and knows one way to speak to it.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct FloorArgs {
    #[command(flatten)]
    clients: Clients,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    load: probe::Args,
    #[command(flatten)]
    size: Size,
}

/// The bare writer alone.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct Floor(Args);

const FLOOR: &str = "floor-write";
const SHARE_OF_FLOOR: f64 = 0.8;
const TIMES_OF_FLOOR: f64 = 2.0;

impl Scenario for Args {
    const NAME: &'static str = "fanout";

    fn options(&self) -> &Options {
        &self.options
    }

    fn check(&self) -> anyhow::Result<()> {
        self.load.check()
    }

    async fn subjects(&self) -> anyhow::Result<Vec<Subject>> {
        let mut subjects = Subject::all(&self.options).await?;
        let speech = &self.options.speech;
        if !self.no_floor && speech.transport == Transport::Ws && speech.adapter.is_none() {
            subjects.push(Subject::bare_writer(&self.options.clients, Role::Floor(FLOOR)).await?);
        }
        Ok(subjects)
    }

    async fn measure(&self, subjects: Vec<Subject>) -> anyhow::Result<Vec<Findings>> {
        let probes = self.load.probe(&subjects, &Arc::new(self.size.topology())).await?;
        Ok(probes.into_iter().map(|probe| Findings { figures: figures(&probe), probe }).collect())
    }

    fn of_floor(&self, own: &Probe, floor: &Probe) -> Vec<Figure> {
        let ratio = |own: Option<f64>, floor: Option<f64>| own.zip(floor).map(|(own, floor)| own / floor);
        let work = |own, floor| ratio(efficiency(own), efficiency(floor));
        let last = |probe: &Probe| probe.timed.latency("last delivery").map(|last| last.p99);
        let most = work(own.busiest(), floor.busiest());
        vec![
            Figure::higher("of the floor's deliveries per CPU second", most, "").goal(SHARE_OF_FLOOR),
            Figure::higher("the same at half of the most", work(&own.timed, &floor.timed), "")
                .goal(SHARE_OF_FLOOR),
            Figure::lower(
                "publish to last delivery, p99, times the floor's",
                ratio(last(own), last(floor)),
                "",
            )
            .goal(TIMES_OF_FLOOR),
        ]
    }
}

impl From<FloorArgs> for Floor {
    fn from(FloorArgs { clients, output, load, size }: FloorArgs) -> Self {
        let options = Options { clients, output, ..Options::default() };
        Self(Args { options, load, size, no_floor: true })
    }
}

impl Scenario for Floor {
    const NAME: &'static str = FLOOR;

    fn options(&self) -> &Options {
        &self.0.options
    }

    fn check(&self) -> anyhow::Result<()> {
        self.0.check()
    }

    async fn subjects(&self) -> anyhow::Result<Vec<Subject>> {
        Ok(vec![Subject::bare_writer(&self.0.options.clients, Role::Main).await?])
    }

    async fn measure(&self, subjects: Vec<Subject>) -> anyhow::Result<Vec<Findings>> {
        self.0.measure(subjects).await
    }
}

impl Size {
    /// The publisher is the first client.
    fn topology(self) -> Topology {
        let mut topology = Topology::default();
        let channel = topology.channel("fanout");
        let publisher = topology.client(Vec::new());
        for _ in 0..self.subscribers {
            topology.client(vec![Subscription::live(&channel)]);
        }
        topology.stream(publisher, &channel, Receivers::of(1..self.subscribers + 1));
        topology
    }
}

fn figures(probe: &Probe) -> Vec<Figure> {
    // One subscriber's delivery is the last one.
    let last = probe.timed.latency("last delivery").or(probe.timed.latency("deliver"));
    vec![
        Figure::higher("deliveries per CPU second", efficiency(probe.busiest()), "1/s"),
        Figure::higher("deliveries per CPU second at half of the most", efficiency(&probe.timed), "1/s"),
        Figure::higher("deliveries", Some(probe.busiest().delivered_a_second()), "1/s"),
        Figure::fact("publications at which times are measured", probe.rate, "1/s"),
        Figure::fact("the same, of its own most", probe.part_of_own_most(), ""),
        Figure::lower("publish to last delivery, p99", last.map(|last| last.p99), "us"),
    ]
}

fn efficiency(run: &Outcome) -> Option<f64> {
    run.cpu_of_nodes().filter(|&cpu| cpu > 0.0).map(|cpu| run.counts.2 as f64 / cpu)
}
