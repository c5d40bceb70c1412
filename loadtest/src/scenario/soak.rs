//! Scenario `soak`: rooms for a long time, while members go and come back, each with its cursors.

use std::{cell::RefCell, collections::HashSet, rc::Rc, sync::Arc, time::Duration};

use anyhow::ensure;
use serde::Serialize;
use tokio::{select, task::JoinSet, time::sleep};

use super::{Findings, Scenario, in_turn, rooms::Rooms};
use crate::{
    clients::dialect::Detail,
    load::{
        options::Options,
        pace::Pace,
        run::Outcome,
        subject::Subject,
        worker::{Load, Worker},
    },
    report::result::{Figure, ProcessCost, Second},
};

/// Options of `soak`.
#[derive(Debug, Clone, clap::Args, Serialize)]
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    #[serde(flatten)]
    options: Options,
    #[command(flatten)]
    #[serde(flatten)]
    rooms: Rooms,
    /// Publications a second, of all members together
    #[arg(long, default_value_t = 500.0, help_heading = "Load")]
    rate: f64,
    /// Members that go and come back, a second
    #[arg(long, default_value_t = 20.0, help_heading = "Load")]
    churn: f64,
    /// Seconds that each stays away
    #[arg(long, default_value_t = 2.0, help_heading = "Load")]
    away: f64,
}

const GROWTH: f64 = 1.05;
/// Seconds from which on growth is judged.
const LONG: f64 = 600.0;

impl Scenario for Args {
    const NAME: &'static str = "soak";

    fn options(&self) -> &Options {
        &self.options
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(self.rate > 0.0 && self.churn > 0.0, "--rate and --churn are more than none");
        self.options.must_recover(1)
    }

    async fn measure(&self, subjects: Vec<Subject>) -> anyhow::Result<Vec<Findings>> {
        in_turn(&subjects, async |subject| {
            let args = self.clone();
            let script = async move |worker: &Worker| soak(worker, &args).await;
            let what = (Load::Rate(self.rate), Detail::Positions);
            let outcome = subject.run(Arc::new(self.rooms.topology()), what, script).await?;
            Ok(Findings { figures: figures(&outcome), probe: outcome.into() })
        })
        .await
    }
}

async fn soak(worker: &Worker, args: &Args) -> anyhow::Result<()> {
    worker.connect_all().await?;
    worker.together().await;
    worker.take_positions().await?;
    let window = worker.meet().await;
    let mut coming = JoinSet::new();
    let churn = churn(worker, args, &mut coming);
    let (published, churned) = select! {
        published = worker.publish_until(window.end) => (published, Ok(())),
        churned = churn => (Ok(()), churned),
    };
    published?;
    churned?;
    while let Some(back) = coming.join_next().await {
        back??;
    }
    worker.together().await;
    worker.settle().await;
    worker.done().await;
    Ok(())
}

/// Lets one client after the other go and come back, for ever.
async fn churn(worker: &Worker, args: &Args, coming: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    let clients: Vec<usize> = worker.clients().collect();
    if clients.is_empty() {
        return std::future::pending().await;
    }
    let mut pace = Pace::new(args.churn / worker.plan.threads as f64, 0.0)?;
    let (time, mut turn) = (Duration::from_secs_f64(args.away), 0);
    let away = Rc::new(RefCell::new(HashSet::new()));
    loop {
        for _ in pace.due().await {
            // In turn: who went is long back when it is due again, unless most are away at any time.
            let client = clients[turn % clients.len()];
            turn += 1;
            if !away.borrow_mut().insert(client) {
                continue;
            }
            let (worker, away) = (worker.clone(), away.clone());
            coming.spawn_local(async move {
                go_and_come_back(&worker, client, turn % 2 == 0, time).await?;
                away.borrow_mut().remove(&client);
                Ok(())
            });
        }
        while let Some(back) = coming.try_join_next() {
            back??;
        }
    }
}

/// With its connection, or only with its subscriptions.
async fn go_and_come_back(worker: &Worker, client: usize, whole: bool, time: Duration) -> anyhow::Result<()> {
    if whole {
        worker.disconnect(client).await;
        sleep(time).await;
        return worker.connect(client, &worker.with_cursors(client)).await;
    }
    worker.unsubscribe(client).await?;
    sleep(time).await;
    worker.subscribe_again(client).await
}

fn figures(outcome: &Outcome) -> Vec<Figure> {
    let deliver = outcome.latency("deliver");
    let grown = Figure::lower(
        "RSS of the node that grew most, at the end, of that after a quarter",
        growth(&outcome.processes, &outcome.series),
        "",
    );
    // Before, buffers are still finding their size.
    let grown = if outcome.seconds >= LONG { grown.goal(GROWTH) } else { grown };
    vec![
        grown,
        Figure::fact("publications", Some(outcome.acked_a_second()), "1/s"),
        Figure::fact("deliveries", Some(outcome.delivered_a_second()), "1/s"),
        Figure::lower("publish to deliver, p50 (replays included)", deliver.map(|times| times.p50), "us"),
        Figure::lower("gateway CPU", outcome.cpu_of_nodes().map(|cpu| cpu / outcome.seconds), "cores"),
    ]
}

/// Of the node that has grown most: another's shrinking makes up for nothing. By the straight line closest to all that was
/// measured after the first quarter, which is warming up: a single moment may be one of many buffers.
fn growth(processes: &[ProcessCost], series: &[Second]) -> Option<f64> {
    let rest = series.get(series.len() / 4..)?;
    let of_node = |node: usize| {
        let memory: Vec<f64> = rest.iter().filter_map(|second| Some(*second.rss.get(node)? as f64)).collect();
        let last = memory.len().checked_sub(1).filter(|last| *last > 0)? as f64;
        let (middle, mean) = (last / 2.0, memory.iter().sum::<f64>() / (last + 1.0));
        let from_middle = || (0..).map(|at| f64::from(at) - middle).zip(&memory);
        let slope = from_middle().map(|(time, rss)| time * (rss - mean)).sum::<f64>()
            / from_middle().map(|(time, _)| time * time).sum::<f64>();
        let [begin, end] = [mean - slope * middle, mean + slope * middle];
        (begin > 0.0).then_some(end / begin)
    };
    let nodes = (0..processes.len()).filter(|&at| processes[at].name.starts_with("gateway"));
    nodes.filter_map(of_node).reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_node_that_grows_is_seen_beside_one_that_shrinks() {
        let process = |name: &str| ProcessCost {
            name: name.to_owned(),
            cpu_seconds: 0.0,
            rss_before: 0,
            rss_after: 0,
            rss_peak: 0,
        };
        let processes = ["gateway 1", "gateway 2", "loadtest"].map(process);
        let second = |at: u64| Second { rss: vec![200 - at, 100 + at, 10 * at], ..Second::default() };
        let series: Vec<Second> = (0..40).map(second).collect();
        let grown = growth(&processes, &series).unwrap();
        assert!((grown - 139.0 / 110.0).abs() < 1e-9, "{grown}");
        assert_eq!(growth(&processes[2..], &series), None);
        assert_eq!(growth(&processes, &series[..1]), None);
    }
}
