//! Scenario `idle`: N connections with one subscription each, and what one costs the node.

use std::sync::Arc;

use serde_json::json;

use crate::{
    clients::dialect::{Detail, Subscription},
    load::{
        options::Options,
        run::Outcome,
        topology::Topology,
        worker::{Load, connect_and_publish},
    },
    measure::process::Process,
    report::result::{Figure, RunResult},
    servers::Servers,
};

/// Options of `idle`.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    pub options: Options,
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

/// Runs it.
///
/// # Errors
/// Servers or clients do not start.
pub async fn run(args: &Args) -> anyhow::Result<RunResult> {
    let options = &args.options;
    let servers = Servers::start(&options.servers, "").await?;
    let target = options.target(&servers)?;
    let before = resident(&servers)?;
    let what = (Load::Silence, Detail::Stamps);
    let outcome = options.run(&servers, Arc::new(topology(args)), what, connect_and_publish).await?;
    let figures = figures(args.connections, before, &outcome);
    let own = json!({ "connections": args.connections, "one_channel": args.one_channel });
    options.result("idle", target, own, outcome, figures)
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
    let nodes = servers.processes.iter().filter(|(name, _)| name.starts_with("gateway"));
    nodes.map(|(_, pid)| Ok(Process::open(*pid)?.usage()?.rss_kib)).sum()
}

fn figures(connections: usize, before: u64, outcome: &Outcome) -> Vec<Figure> {
    let nodes = outcome.processes.iter().filter(|process| process.name.starts_with("gateway"));
    let after: u64 = nodes.map(|process| process.rss_after).sum();
    let known = after > 0;
    let count = connections.max(1) as f64;
    let each = known.then(|| (after as f64 - before as f64) / count);
    let cpu = outcome.cpu("gateway").map(|cpu| cpu / outcome.seconds * 1e3);
    vec![
        Figure::lower("RSS of the nodes for each connection", each, "KiB").goal(KIB_EACH),
        Figure::fact("RSS of the nodes before", known.then_some(before as f64 / 1024.0), "MiB"),
        Figure::fact("RSS of the nodes after", known.then_some(after as f64 / 1024.0), "MiB"),
        Figure::higher("connected a second", Some(count / outcome.connecting), "1/s"),
        Figure::lower("CPU of the nodes while idle", cpu, "ms/s"),
    ]
}
