//! Scenario `connect`: clients come with a token and go again, as often as goes; beside clients without one on a node that
//! asks for none. What verifying costs is the difference.

mod keys;

use std::{
    cell::Cell,
    fmt,
    rc::Rc,
    sync::{Arc, OnceLock},
};

use anyhow::ensure;
use serde::Serialize;
use tokio::task::JoinSet;

use super::{Findings, Scenario, in_turn};
use crate::{
    clients::dialect::Detail,
    load::{
        clock,
        options::Options,
        probe::Probe,
        run::Outcome,
        subject::{Role, Subject},
        topology::Topology,
        worker::{Load, Worker},
    },
    report::result::Figure,
    servers::Servers,
};
use keys::{Algorithm, Keys};

/// Options of `connect`.
#[derive(Debug, Clone, clap::Args, Serialize)]
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    #[serde(flatten)]
    options: Options,
    /// Clients that come and go at the same time
    #[arg(long, default_value_t = 32, help_heading = "Load")]
    clients: usize,
    /// How their tokens are signed
    #[arg(long, value_enum, default_value_t = Algorithm::Hs256, help_heading = "Load")]
    algorithm: Algorithm,
    /// Different tokens, each of another user, that they show in turn
    #[arg(long, default_value_t = 1_000, help_heading = "Load")]
    tokens: usize,
    /// Made for the first run, and the same for all.
    #[arg(skip)]
    #[serde(skip)]
    keys: Made,
}

/// Keys, once they are made.
#[derive(Clone, Default)]
struct Made(Arc<OnceLock<Keys>>);

impl fmt::Debug for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("keys")
    }
}

const FLOOR: &str = "connect without a token";
const CONNECT: &str = "connect";

impl Scenario for Args {
    const NAME: &'static str = "connect";
    const UNIT: &'static str = "connects";

    fn options(&self) -> &Options {
        &self.options
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(self.clients > 0 && self.tokens > 0, "somebody must connect, with some token");
        let started = self.options.servers.url.is_empty() && self.options.beside.url.is_empty();
        ensure!(
            started,
            "the keys are made here: only nodes that are started here know them, not those of a URL"
        );
        Ok(())
    }

    async fn subjects(&self) -> anyhow::Result<Vec<Subject>> {
        let mut subjects = Subject::all_with(&self.options, self.keys()?.settings()).await?;
        let open = Servers::start(&self.options.servers, "").await?;
        let transport = self.options.speech.transport;
        subjects.push(Subject::of(open, transport, &self.options.clients, Role::Floor(FLOOR))?);
        Ok(subjects)
    }

    async fn measure(&self, subjects: Vec<Subject>) -> anyhow::Result<Vec<Findings>> {
        let tokens: Arc<[String]> = self.keys()?.tokens(self.tokens)?.into();
        let nobody: Arc<[String]> = Arc::new([String::new()]);
        in_turn(&subjects, async |subject| {
            let shown = if matches!(subject.role, Role::Floor(_)) { &nobody } else { &tokens };
            let (shown, clients) = (shown.clone(), self.clients);
            let script = async move |worker: &Worker| come_and_go(worker, &shown).await;
            let topology = Arc::new(topology(clients));
            let outcome = subject.run(topology, (Load::Silence, Detail::Stamps), script).await?;
            Ok(Findings { figures: figures(&outcome), probe: outcome.into() })
        })
        .await
    }

    fn of_floor(&self, own: &Probe, floor: &Probe) -> Vec<Figure> {
        let cost = |probe: &Probe| each(&probe.timed, probe.timed.cpu_of_nodes());
        let pair = cost(own).zip(cost(floor));
        vec![
            Figure::lower("gateway CPU for a token", pair.map(|(own, floor)| own - floor), "us"),
            Figure::lower("connect, times without a token", pair.map(|(own, floor)| own / floor), ""),
        ]
    }
}

impl Args {
    /// The same for all runs.
    fn keys(&self) -> anyhow::Result<&Keys> {
        if let Some(keys) = self.keys.0.get() {
            return Ok(keys);
        }
        let keys = Keys::make(self.algorithm)?;
        Ok(self.keys.0.get_or_init(|| keys))
    }
}

fn topology(clients: usize) -> Topology {
    let mut topology = Topology::default();
    for _ in 0..clients {
        topology.client(Vec::new());
    }
    topology
}

/// Each client of this thread connects, goes, and connects again, until the time is over.
async fn come_and_go(worker: &Worker, tokens: &Arc<[String]>) -> anyhow::Result<()> {
    let window = worker.meet().await;
    let (mut clients, turn) = (JoinSet::new(), Rc::new(Cell::new(worker.index)));
    for client in worker.clients() {
        let (worker, tokens, turn) = (worker.clone(), tokens.clone(), turn.clone());
        clients.spawn_local(async move {
            while clock::now() < window.end {
                let begun = clock::now();
                let token = &tokens[turn.replace(turn.get() + worker.plan.threads) % tokens.len()];
                worker.traffic.borrow_mut().counted().1.asked(begun);
                worker.connect_as(client, token, &[]).await?;
                worker.traffic.borrow_mut().counted().1.told(CONNECT, clock::now(), begun, 0);
                worker.traffic.borrow_mut().counted().0.other(1, 1, 0);
                worker.disconnect(client).await;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = clients.join_next().await {
        done??;
    }
    worker.done().await;
    Ok(())
}

fn each(run: &Outcome, cpu: Option<f64>) -> Option<f64> {
    cpu.map(|cpu| cpu * 1e6 / run.counts.1.max(1) as f64)
}

fn figures(run: &Outcome) -> Vec<Figure> {
    let times = run.latency(CONNECT);
    let mut figures = vec![
        Figure::higher("connects", Some(run.acked_a_second()), "1/s"),
        Figure::lower("connect, p50", times.map(|times| times.p50), "us"),
        Figure::lower("connect, p99", times.map(|times| times.p99), "us"),
        Figure::lower("gateway CPU for a connect", each(run, run.cpu_of_nodes()), "us"),
    ];
    if let Some(redis) = each(run, run.cpu_of_redis()) {
        figures.push(Figure::lower("Redis CPU for a connect", Some(redis), "us"));
    }
    figures
}
