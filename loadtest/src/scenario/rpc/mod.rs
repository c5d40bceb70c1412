//! Scenario `rpc`: clients call, and other clients answer, or a backend through a hook; with a hook beside the same backend
//! asked directly, which is the floor.

mod direct;

use std::sync::Arc;

use serde::Serialize;

use super::{Findings, Scenario};
use crate::{
    clients::{dialect::Detail, endpoint::Transport},
    floor::backend,
    load::{
        options::Options,
        probe::{self, Probe},
        run::Outcome,
        subject::{Role, Subject},
        topology::{Receivers, Topology},
        worker::connect_and_publish,
    },
    report::result::{Figure, Latency},
    servers::{self, BACKEND, Servers},
};

/// Options of `rpc`.
#[derive(Debug, Clone, clap::Args, Serialize)]
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    #[serde(flatten)]
    options: Options,
    #[command(flatten)]
    #[serde(flatten)]
    load: probe::Args,
    /// How many clients call
    #[arg(long, default_value_t = 32, help_heading = "Load")]
    callers: usize,
    /// Who answers: for each caller a client of its own, on the next node; or a backend over HTTP that is started, too
    #[arg(long, value_enum, default_value_t = By::Client, help_heading = "Load")]
    by: By,
    /// Leaves out the backend asked directly
    #[arg(long, help_heading = "Load")]
    #[serde(skip)]
    no_floor: bool,
}

/// Who answers calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum By {
    /// Clients that offer methods.
    Client,
    /// A backend, by the hook `RPC`.
    Hook,
}

const FLOOR: &str = "backend asked directly";
/// What nodes that are started must allow.
const OPEN: &str = "permissions: [{channels: ['**'], actions: [serve], who: any}]";

impl Scenario for Args {
    const NAME: &'static str = "rpc";
    const UNIT: &'static str = "calls";

    fn options(&self) -> &Options {
        &self.options
    }

    fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.callers > 0, "--callers 0: nobody would call");
        let adapter = self.options.speech.adapter.is_some() || self.options.beside.adapter.is_some();
        anyhow::ensure!(!adapter, "an --adapter has no words for calls");
        self.load.check()
    }

    async fn subjects(&self) -> anyhow::Result<Vec<Subject>> {
        // Nodes that run already have a backend, or they have none.
        if self.by == By::Client || !self.options.servers.url.is_empty() {
            return Subject::all_with(&self.options, OPEN).await;
        }
        let backend = servers::own(backend::COMMAND).await?;
        let mut subjects = Subject::all_with(&self.options, &hook(&backend.address)).await?;
        if let Some(main) = subjects.first_mut() {
            main.servers.add(BACKEND, backend);
        }
        if !self.no_floor {
            let servers = Servers::own(backend::COMMAND, BACKEND, "backend").await?;
            subjects.push(Subject::of(servers, Transport::Ws, &self.options.clients, Role::Floor(FLOOR))?);
        }
        Ok(subjects)
    }

    async fn measure(&self, subjects: Vec<Subject>) -> anyhow::Result<Vec<Findings>> {
        let topology = Arc::new(topology(self));
        let probes = self.load.probe_by(&subjects, async |subject, load| {
            if matches!(subject.role, Role::Floor(_)) {
                return direct::run(subject, load, self.callers).await;
            }
            subject.run(topology.clone(), (load, Detail::Stamps), connect_and_publish).await
        });
        Ok(probes.await?.into_iter().map(|probe| Findings { figures: figures(&probe), probe }).collect())
    }

    fn of_floor(&self, own: &Probe, floor: &Probe) -> Vec<Figure> {
        let ratio = |of: &dyn Fn(&Probe) -> Option<f64>| {
            of(own).zip(of(floor)).map(|(own, floor)| own / floor).filter(|ratio| ratio.is_finite())
        };
        let more = |of: fn(&Latency) -> f64| {
            call(&own.timed).zip(call(&floor.timed)).map(|(own, floor)| of(own) - of(floor))
        };
        vec![
            Figure::higher(
                "calls, of those asked directly",
                ratio(&|probe| probe.most.as_ref().map(Outcome::acked_a_second)),
                "",
            ),
            Figure::lower("call, p50, more than asked directly", more(|call| call.p50), "us"),
            Figure::lower("call, p99, more than asked directly", more(|call| call.p99), "us"),
        ]
    }
}

/// The backend of all calls.
fn hook(address: &str) -> String {
    format!(
        "proxy: [{{name: load, endpoint: 'http://{address}/{{hook}}', max_concurrent: 1000000, \
         routes: [{{channel: '**', method: '**'}}]}}]"
    )
}

/// The answerer of a call follows its caller, on the next node.
fn topology(args: &Args) -> Topology {
    let mut topology = Topology::default();
    let channel = topology.channel("rpc");
    for number in 0..args.callers {
        let caller = topology.client_at(number);
        let answers = match args.by {
            By::Client => {
                let answerer = topology.client_at(number + 1);
                Receivers::of(answerer..answerer + 1)
            }
            By::Hook => Receivers::default(),
        };
        // A name of this run's own, and one answerer for each: who got a call that was not meant for it would be noticed.
        let method = format!("{channel}.{number}");
        topology.calls(caller, &channel, &method, answers);
    }
    topology
}

/// From due to answered.
fn call(run: &Outcome) -> Option<&Latency> {
    run.latency("ack").or_else(|| run.latency(direct::CALL))
}

fn figures(probe: &Probe) -> Vec<Figure> {
    let run = probe.busiest();
    let each = |cpu: Option<f64>| cpu.map(|cpu| cpu * 1e6 / run.counts.1.max(1) as f64);
    let times = call(&probe.timed);
    let mut figures = vec![
        Figure::higher("calls", Some(run.acked_a_second()), "1/s"),
        Figure::fact("calls at which times are measured", probe.rate, "1/s"),
        Figure::fact("the same, of its own most", probe.part_of_own_most(), ""),
        Figure::lower("call, p50", times.map(|call| call.p50), "us"),
        Figure::lower("call, p99", times.map(|call| call.p99), "us"),
    ];
    let costs = [("gateway", each(run.cpu_of_nodes())), ("Redis", each(run.cpu_of_redis()))];
    figures.extend(
        costs
            .into_iter()
            .filter(|(_, cpu)| cpu.is_some())
            .map(|(who, cpu)| Figure::lower(format!("{who} CPU for a call"), cpu, "us")),
    );
    figures
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(words: &str) -> Args {
        Line::try_parse_from(std::iter::once("rpc").chain(words.split_whitespace())).unwrap().args
    }

    #[test]
    fn each_caller_has_an_answerer_of_its_own_on_another_node() {
        let topology = topology(&args("--callers 3"));
        assert_eq!((topology.clients.len(), topology.streams.len()), (6, 3));
        for stream in &topology.streams {
            let answerers: Vec<usize> = stream.receivers.all().collect();
            let [answerer] = answerers[..] else { panic!("{answerers:?}") };
            for nodes in 2..4 {
                assert_ne!(topology.homes[&stream.publisher] % nodes, topology.homes[&answerer] % nodes);
            }
            assert_eq!(topology.methods_of(answerer), [stream.method.as_deref().unwrap()]);
            assert!(topology.methods_of(stream.publisher).is_empty());
        }
    }

    #[test]
    fn a_backend_answers_all_without_further_clients() {
        let topology = topology(&args("--callers 3 --by hook"));
        assert_eq!((topology.clients.len(), topology.deliveries()), (3, 0));
    }
}
