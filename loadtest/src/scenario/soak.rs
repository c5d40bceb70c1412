//! Scenario `soak`: rooms for a long time, while members go and come back, each with its cursors.

use std::{cell::RefCell, collections::HashSet, rc::Rc, sync::Arc, time::Duration};

use anyhow::ensure;
use serde_json::json;
use tokio::{select, task::JoinSet, time::sleep};

use crate::{
    clients::dialect::Detail,
    load::{
        options::Options,
        pace::Pace,
        run::Outcome,
        worker::{Load, Worker},
    },
    report::result::{Figure, RunResult, Second},
    scenario::rooms::Rooms,
    servers::Servers,
};

/// Options of `soak`.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    pub options: Options,
    #[command(flatten)]
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

/// Runs it.
///
/// # Errors
/// Servers or clients do not start.
pub async fn run(args: &Args) -> anyhow::Result<RunResult> {
    let (options, settings) = (&args.options, args.clone());
    ensure!(args.rate > 0.0 && args.churn > 0.0, "--rate and --churn are more than none");
    options.must_recover(1)?;
    let servers = Servers::start(&options.servers, "").await?;
    let target = options.target(&servers)?;
    let what = (Load::Rate(args.rate), Detail::Positions);
    let script = async move |worker: &Worker| soak(worker, &settings).await;
    let outcome = options.run(&servers, Arc::new(args.rooms.topology()), what, script).await?;
    let own = json!({
        "rooms": args.rooms.rooms, "members": args.rooms.members, "rate": args.rate, "churn": args.churn,
        "away": args.away,
    });
    let figures = figures(&outcome);
    options.result("soak", target, own, outcome, figures)
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
    vec![
        Figure::lower("RSS of the nodes, last quarter of the second's", growth(outcome), "").goal(GROWTH),
        Figure::fact("publications", Some(outcome.acked_a_second()), "1/s"),
        Figure::fact("deliveries", Some(outcome.delivered_a_second()), "1/s"),
        Figure::lower("publish to deliver, p50 (replays included)", deliver.map(|times| times.p50), "us"),
        Figure::lower("gateway CPU", outcome.cpu("gateway").map(|cpu| cpu / outcome.seconds), "cores"),
    ]
}

/// By means over quarters: a single moment may be one of many buffers. The first quarter is warming up.
fn growth(outcome: &Outcome) -> Option<f64> {
    let nodes: Vec<usize> = outcome
        .processes
        .iter()
        .enumerate()
        .filter(|(_, process)| process.name.starts_with("gateway"))
        .map(|(number, _)| number)
        .collect();
    let quarter = outcome.series.len() / 4;
    let mean = |part: usize| {
        let seconds = outcome.series.get(part * quarter..(part + 1) * quarter)?;
        let resident =
            |second: &Second| nodes.iter().filter_map(|&node| second.rss.get(node)).sum::<u64>() as f64;
        let sum: f64 = seconds.iter().map(resident).sum();
        (sum > 0.0).then_some(sum / quarter as f64)
    };
    mean(3).zip(mean(1)).map(|(last, second)| last / second)
}
