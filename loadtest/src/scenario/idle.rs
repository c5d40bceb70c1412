//! Scenario `idle`: N connections with one subscription each, and what one costs the node.

use std::sync::Arc;

use anyhow::ensure;
use serde::Serialize;

use super::{Findings, Scenario, in_turn};
use crate::{
    clients::dialect::{Detail, Subscription},
    load::{
        options::Options,
        run::Outcome,
        subject::Subject,
        topology::Topology,
        worker::{Load, connect_and_publish},
    },
    measure::process::Process,
    report::result::Figure,
    servers::{REDIS, Servers},
};

/// Options of `idle`.
#[derive(Debug, Clone, clap::Args, Serialize)]
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    #[serde(flatten)]
    options: Options,
    /// How many connections
    #[arg(long, default_value_t = 10_000, help_heading = "Load")]
    connections: usize,
    /// Subscribe all to one channel instead of one channel each
    #[arg(long, help_heading = "Load")]
    one_channel: bool,
    /// Not to be seen in presence
    #[arg(long, help_heading = "Load")]
    ephemeral: bool,
}

const KIB_EACH: f64 = 4.0;

impl Scenario for Args {
    const NAME: &'static str = "idle";

    fn options(&self) -> &Options {
        &self.options
    }

    fn check(&self) -> anyhow::Result<()> {
        let running = !self.options.servers.url.is_empty() || !self.options.beside.url.is_empty();
        ensure!(
            self.options.output.repeat < 2 || !running,
            "--repeat measures what connections cost a server that is started for it: one that runs already still holds memory \
             of the run before"
        );
        Ok(())
    }

    async fn measure(&self, subjects: Vec<Subject>) -> anyhow::Result<Vec<Findings>> {
        in_turn(&subjects, async |subject| {
            let before = resident(&subject.servers)?;
            let what = (Load::Silence, Detail::Stamps);
            let outcome = subject.run(Arc::new(topology(self)), what, connect_and_publish).await?;
            let figures = figures(self.connections, before, &outcome);
            Ok(Findings { figures, probe: outcome.into() })
        })
        .await
    }
}

fn topology(args: &Args) -> Topology {
    let mut topology = Topology::default();
    for number in 0..args.connections {
        let number = if args.one_channel { 0 } else { number };
        let channel = topology.channel(format_args!("idle.{number}"));
        topology.client(vec![Subscription { ephemeral: args.ephemeral, ..Subscription::live(channel) }]);
    }
    topology
}

/// Resident memory of all nodes that are known, KiB.
fn resident(servers: &Servers) -> anyhow::Result<u64> {
    let nodes = servers.processes.iter().filter(|(name, _)| name != REDIS);
    nodes.map(|(_, pid)| Ok(Process::open(*pid)?.usage()?.rss_kib)).sum()
}

fn figures(connections: usize, before: u64, outcome: &Outcome) -> Vec<Figure> {
    let nodes = outcome.nodes();
    let after: u64 = nodes.map(|process| process.rss_after).sum();
    let known = after > 0;
    let count = connections.max(1) as f64;
    let each = known.then(|| (after as f64 - before as f64) / count);
    let cpu = outcome.cpu_of_nodes().map(|cpu| cpu / outcome.seconds * 1e3);
    vec![
        Figure::lower("RSS of the nodes for each connection", each, "KiB").goal(KIB_EACH),
        Figure::fact("RSS of the nodes before", known.then_some(before as f64 / 1024.0), "MiB"),
        Figure::fact("RSS of the nodes after", known.then_some(after as f64 / 1024.0), "MiB"),
        Figure::higher("connected a second", Some(count / outcome.connecting), "1/s"),
        Figure::lower("CPU of the nodes while idle", cpu, "ms/s"),
    ]
}
