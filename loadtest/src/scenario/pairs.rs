//! Scenario `pairs`: N publishers, each with a channel and one subscriber of its own; with Redis beside the publish script
//! called directly, which is the floor.

use std::sync::Arc;

use prost::Message as _;
use serde::Serialize;
use streamgate_proto::v1::inbound_message::Envelope;

use super::{Findings, Scenario};
use crate::{
    clients::dialect::{Request, Subscription, streamgate},
    floor::redis::{ScriptCost, script_cost},
    load::{
        options::Options,
        probe::{self, Probe},
        stamp::Stamp,
        subject::{Role, Subject},
        topology::{Receivers, Topology},
    },
    report::result::Figure,
};

/// Options of `pairs`.
#[derive(Debug, Clone, clap::Args, Serialize)]
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    #[serde(flatten)]
    options: Options,
    #[command(flatten)]
    #[serde(flatten)]
    load: probe::Args,
    /// How many publishers, and as many subscribers
    #[arg(long, default_value_t = 100, help_heading = "Load")]
    pairs: usize,
    /// Leaves out the script called directly
    #[arg(long, help_heading = "Load")]
    #[serde(skip)]
    no_floor: bool,
}

const SHARE_OF_SCRIPT: f64 = 0.8;
const GATEWAY_US: f64 = 15.0;
/// Publishes of the floor: enough for steady figures, few enough for some seconds.
const FLOOR_PUBLISHES: usize = 100_000;
/// Bytes that are stored beside the event of a publication without publisher.
const STORED_BESIDES: usize = 21;
/// At most so many publishes to a call of the floor.
const GREATEST_BATCH: usize = 256;

impl Scenario for Args {
    const NAME: &'static str = "pairs";

    fn options(&self) -> &Options {
        &self.options
    }

    fn check(&self) -> anyhow::Result<()> {
        self.load.check()
    }

    async fn measure(&self, subjects: Vec<Subject>) -> anyhow::Result<Vec<Findings>> {
        let probes = self.load.probe(&subjects, &Arc::new(topology(self.pairs))).await?;
        let roles: Vec<Role> = subjects.iter().map(|subject| subject.role).collect();
        // Its processors are the floor's now.
        drop(subjects);
        let mut all = Vec::with_capacity(probes.len());
        for (role, probe) in roles.into_iter().zip(probes) {
            let batch = batch(&probe);
            let floor = match batch {
                Some(batch) if role == Role::Main && self.has_floor() => {
                    let batch = (batch.round() as usize).clamp(1, GREATEST_BATCH);
                    Some(script_cost(batch, stored(self.options.clients.size), FLOOR_PUBLISHES).await?)
                }
                _ => None,
            };
            all.push(Findings { figures: figures(&probe, batch, floor.as_ref()), probe });
        }
        Ok(all)
    }
}

impl Args {
    fn has_floor(&self) -> bool {
        !self.no_floor && self.options.servers.url.is_empty()
    }
}

/// Publishes to a call of the script, of the saturated run alone, whose Redis CPU is compared.
fn batch(probe: &Probe) -> Option<f64> {
    let most = probe.most.as_ref()?;
    Some(most.correctness.published as f64 / most.script_calls?.max(1) as f64)
}

/// The subscriber of a pair follows its publisher.
fn topology(pairs: usize) -> Topology {
    let mut topology = Topology::default();
    for pair in 0..pairs {
        let channel = topology.channel(format_args!("pairs.{pair}"));
        let publisher = topology.client(Vec::new());
        let subscriber = topology.client(vec![Subscription::live(&channel)]);
        topology.stream(publisher, &channel, Receivers::of(subscriber..subscriber + 1));
    }
    topology
}

/// Bytes that are stored of a publication with a payload of this size.
fn stored(size: usize) -> usize {
    let stamp = Stamp { run: 0, stream: 0, sequence: 0, due: 0 };
    let request = streamgate::request(1, &Request::Publish { channel: "", stamp, size });
    let Some(Envelope::Publish(event)) = request.envelope else { return size };
    event.encoded_len() + STORED_BESIDES
}

fn figures(probe: &Probe, batch: Option<f64>, floor: Option<&ScriptCost>) -> Vec<Figure> {
    let run = probe.busiest();
    let each = |cpu: Option<f64>| cpu.map(|cpu| cpu * 1e6 / run.counts.1.max(1) as f64);
    let (gateway, redis) = (each(run.cpu_of_nodes()), each(run.cpu_of_redis()));
    let deliver = probe.timed.latency("deliver");
    // The goal is one for as much as goes: at a low rate each publication wakes everybody for itself.
    let cost = Figure::lower("gateway CPU for a publish and its delivery", gateway, "us");
    let mut figures = vec![
        Figure::higher("publications", Some(run.acked_a_second()), "1/s"),
        if probe.most.is_some() { cost.goal(GATEWAY_US) } else { cost },
        Figure::fact("publications at which times are measured", probe.rate, "1/s"),
        Figure::fact("the same, of its own most", probe.part_of_own_most(), ""),
        Figure::lower("publish to deliver, p50", deliver.map(|times| times.p50), "us"),
        Figure::lower("publish to deliver, p99", deliver.map(|times| times.p99), "us"),
    ];
    if let Some(redis) = redis {
        figures.push(Figure::lower("Redis CPU for a publish, reading included", Some(redis), "us"));
        figures.push(Figure::fact("publishes to a call of Redis, at the most", batch, ""));
    }
    if let Some((redis, floor)) = redis.zip(floor) {
        let script = floor.redis_cpu_us_per_publish;
        figures.extend([
            Figure::fact("Redis CPU of the script called directly, reading included", Some(script), "us"),
            Figure::fact("of it the script", Some(floor.script_us), "us"),
            Figure::fact("of it the reading", Some(floor.reading_us), "us"),
            Figure::fact("Redis CPU of plain XADD", Some(floor.xadd_us), "us"),
        ]);
        figures.push(
            Figure::higher("publishes per Redis CPU second, of the script's", Some(script / redis), "")
                .goal(SHARE_OF_SCRIPT),
        );
    }
    figures
}
