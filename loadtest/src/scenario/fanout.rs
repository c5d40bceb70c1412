//! Scenario `fanout`: one publisher, N subscribers of its channel; beside the bare writer, which is the floor.

use std::sync::Arc;

use anyhow::ensure;
use serde_json::{Value, json};

use crate::{
    clients::{dialect::Subscription, endpoint::Transport},
    load::{
        options::Options,
        probe::{self, Probe},
        run::Outcome,
        topology::{Receivers, Topology},
    },
    report::result::{self as reports, Figure, RunResult},
    servers::Servers,
};

/// Options of `fanout`.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    pub options: Options,
    #[command(flatten)]
    load: probe::Args,
    /// How many subscribers
    #[arg(long, default_value_t = 1_000, help_heading = "Load")]
    subscribers: usize,
    /// Leaves out the bare writer
    #[arg(long, help_heading = "Load")]
    no_floor: bool,
}

const SHARE_OF_FLOOR: f64 = 0.8;
const TIMES_OF_FLOOR: f64 = 2.0;

/// Runs it.
///
/// # Errors
/// Servers or clients do not start.
pub async fn run(args: &Args) -> anyhow::Result<RunResult> {
    let options = &args.options;
    let topology = Arc::new(topology(args.subscribers));
    let servers = Servers::start(&options.servers, "").await?;
    let target = options.target(&servers)?;
    if args.no_floor || options.transport == Transport::Grpc || options.adapter.is_some() {
        let probe = args.load.probe(options, &servers, &topology).await?;
        let figures = figures("gateway", &probe);
        return options.probed("fanout", target, own(args), probe, figures);
    }
    let writer = Servers::bare_writer().await?;
    let [gateway, floor] = args.load.compare(options, [&servers, &writer], &topology).await?;
    let mut all = figures("gateway", &gateway);
    all.extend(ratios(&gateway, &floor));
    let mut result = options.probed("fanout", target, own(args), gateway, all)?;
    result.floors.push(floor_result(args, options.target(&writer)?, floor)?);
    Ok(result)
}

/// Runs the bare writer alone.
///
/// # Errors
/// It or the clients do not start.
pub async fn floor(args: &Args) -> anyhow::Result<RunResult> {
    let writer = Servers::bare_writer().await?;
    ensure!(args.options.transport == Transport::Ws, "the bare writer speaks WebSocket only");
    let topology = Arc::new(topology(args.subscribers));
    let probe = args.load.probe(&args.options, &writer, &topology).await?;
    floor_result(args, args.options.target(&writer)?, probe)
}

fn floor_result(args: &Args, target: reports::Target, floor: Probe) -> anyhow::Result<RunResult> {
    let figures = figures("floor", &floor);
    args.options.probed("floor-write", target, own(args), floor, figures)
}

fn own(args: &Args) -> Value {
    json!({ "subscribers": args.subscribers })
}

/// The publisher is the first client.
fn topology(subscribers: usize) -> Topology {
    let mut topology = Topology::default();
    let channel = topology.channel("fanout");
    let publisher = topology.client(Vec::new());
    for _ in 0..subscribers {
        topology.client(vec![Subscription::live(&channel)]);
    }
    topology.stream(publisher, &channel, Receivers::of(1..subscribers + 1));
    topology
}

fn figures(server: &str, probe: &Probe) -> Vec<Figure> {
    let last = probe.timed.latency("last delivery");
    vec![
        Figure::higher("deliveries per CPU second", efficiency(server, probe.busiest()), "1/s"),
        Figure::higher(
            "deliveries per CPU second at half of the most",
            efficiency(server, &probe.timed),
            "1/s",
        ),
        Figure::higher("deliveries", Some(probe.busiest().delivered_a_second()), "1/s"),
        Figure::fact("publications at which times are measured", Some(probe.rate), "1/s"),
        Figure::lower("publish to last delivery, p99", last.map(|last| last.p99), "us"),
    ]
}

fn ratios(gateway: &Probe, floor: &Probe) -> [Figure; 3] {
    let ratio = |ours: Option<f64>, floor: Option<f64>| ours.zip(floor).map(|(ours, floor)| ours / floor);
    let work = |ours, floors| ratio(efficiency("gateway", ours), efficiency("floor", floors));
    let last = |probe: &Probe| probe.timed.latency("last delivery").map(|last| last.p99);
    [
        Figure::higher(
            "of the floor's deliveries per CPU second",
            work(gateway.busiest(), floor.busiest()),
            "",
        )
        .goal(SHARE_OF_FLOOR),
        Figure::higher("the same at half of the most", work(&gateway.timed, &floor.timed), "")
            .goal(SHARE_OF_FLOOR),
        Figure::lower(
            "publish to last delivery, p99, times the floor's",
            ratio(last(gateway), last(floor)),
            "",
        )
        .goal(TIMES_OF_FLOOR),
    ]
}

fn efficiency(server: &str, run: &Outcome) -> Option<f64> {
    run.cpu(server).filter(|&cpu| cpu > 0.0).map(|cpu| run.counts.2 as f64 / cpu)
}
