//! What scenarios have in common that only publish and deliver.

use std::sync::Arc;

use super::Findings;
use crate::{
    load::{
        probe::{self, Probe},
        subject::Subject,
        topology::Topology,
    },
    report::result::Figure,
};

/// Publishes to all streams of the topology, with the figures that every server has.
///
/// # Errors
/// Those of [`probe::Args::probe`].
pub async fn measure(
    load: &probe::Args,
    subjects: &[Subject],
    topology: Topology,
) -> anyhow::Result<Vec<Findings>> {
    let probes = load.probe(subjects, &Arc::new(topology)).await?;
    Ok(probes.into_iter().map(|probe| Findings { figures: figures(&probe), probe }).collect())
}

/// Rates, work and times.
fn figures(probe: &Probe) -> Vec<Figure> {
    let run = probe.busiest();
    let (_, acked, delivered) = run.counts;
    let a_second_of = |cpu: Option<f64>| cpu.filter(|&cpu| cpu > 0.0).map(|cpu| delivered as f64 / cpu);
    let deliver = probe.timed.latency("deliver");
    let mut figures = vec![
        Figure::higher("publications", Some(run.acked_a_second()), "1/s"),
        Figure::higher("deliveries", Some(run.delivered_a_second()), "1/s"),
        Figure::higher("deliveries per gateway CPU second", a_second_of(run.cpu_of_nodes()), "1/s"),
    ];
    if let Some(redis) = run.cpu_of_redis() {
        let each = redis * 1e6 / acked.max(1) as f64;
        figures.extend([
            Figure::higher("deliveries per Redis CPU second", a_second_of(Some(redis)), "1/s"),
            Figure::lower("Redis CPU for a publish, reading included", Some(each), "us"),
        ]);
    }
    figures.extend([
        Figure::fact("publications at which times are measured", probe.rate, "1/s"),
        Figure::fact("the same, of its own most", probe.part_of_own_most(), ""),
        Figure::lower("publish to deliver, p50", deliver.map(|times| times.p50), "us"),
        Figure::lower("publish to deliver, p99", deliver.map(|times| times.p99), "us"),
    ]);
    figures
}
