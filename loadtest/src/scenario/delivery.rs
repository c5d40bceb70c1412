//! What scenarios have in common that only publish and deliver.

use std::sync::Arc;

use serde_json::Value;

use crate::{
    load::{
        options::Options,
        probe::{self, Probe},
        topology::Topology,
    },
    report::result::{Figure, RunResult},
    servers::Servers,
};

/// Publishes to all streams of the topology, with the figures that every server has.
///
/// # Errors
/// Those of [`probe::Args::probe`].
pub async fn run(
    scenario: &str,
    options: &Options,
    load: &probe::Args,
    servers: &Servers,
    topology: Arc<Topology>,
    own: Value,
) -> anyhow::Result<RunResult> {
    let target = options.target(servers)?;
    let probe = load.probe(options, servers, &topology).await?;
    let figures = figures(&probe);
    options.probed(scenario, target, own, probe, figures)
}

/// Rates, work and times.
pub fn figures(probe: &Probe) -> Vec<Figure> {
    let run = probe.busiest();
    let (_, acked, delivered) = run.counts;
    let a_cpu_second = |name| run.cpu(name).filter(|&cpu| cpu > 0.0).map(|cpu| delivered as f64 / cpu);
    let deliver = probe.timed.latency("deliver");
    let mut figures = vec![
        Figure::higher("publications", Some(acked as f64 / run.seconds), "1/s"),
        Figure::higher("deliveries", Some(run.delivered_a_second()), "1/s"),
        Figure::higher("deliveries per gateway CPU second", a_cpu_second("gateway"), "1/s"),
    ];
    if let Some(redis) = run.cpu("redis") {
        let each = redis * 1e6 / acked.max(1) as f64;
        figures.push(Figure::lower("Redis CPU for a publish, reading included", Some(each), "us"));
    }
    figures.extend([
        Figure::fact("publications at which times are measured", Some(probe.rate), "1/s"),
        Figure::lower("publish to deliver, p50", deliver.map(|times| times.p50), "us"),
        Figure::lower("publish to deliver, p99", deliver.map(|times| times.p99), "us"),
    ]);
    figures
}
