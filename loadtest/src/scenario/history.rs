//! Scenario `history`: clients ask for pages of history at a rate, and every page is looked through.

use std::{rc::Rc, sync::Arc};

use anyhow::ensure;
use serde_json::json;
use tokio::{select, task::JoinSet};

use crate::{
    clients::dialect::{Detail, Event, Request},
    load::{
        clock,
        options::Options,
        pace::Pace,
        run::Outcome,
        stamp::Stamp,
        topology::{Receivers, Topology},
        worker::{Load, Worker},
    },
    report::result::{Figure, RunResult},
    servers::Servers,
};

/// Options of `history`.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    pub options: Options,
    /// How many clients ask
    #[arg(long, default_value_t = 100, help_heading = "Load")]
    clients: usize,
    /// Channels that have a history
    #[arg(long, default_value_t = 100, help_heading = "Load")]
    channels: usize,
    /// Messages in each; not more than the policy keeps
    #[arg(long, default_value_t = 200, help_heading = "Load")]
    messages: usize,
    /// Messages of a page
    #[arg(long, default_value_t = 50, help_heading = "Load")]
    page: usize,
    /// Pages a second
    #[arg(long, default_value_t = 1_000.0, help_heading = "Load")]
    rate: f64,
}

const PAGE: &str = "page";

/// Runs it.
///
/// # Errors
/// Servers or clients do not start.
pub async fn run(args: &Args) -> anyhow::Result<RunResult> {
    let (options, settings) = (&args.options, args.clone());
    ensure!(args.clients > 0 && args.channels > 0, "there must be clients, and channels to ask for");
    ensure!(args.rate > 0.0, "--rate {}: nobody would ask", args.rate);
    let servers = Servers::start(&options.servers, "").await?;
    let target = options.target(&servers)?;
    let what = (Load::Silence, Detail::Stamps);
    let script = async move |worker: &Worker| ask(worker, &settings).await;
    let outcome = options.run(&servers, Arc::new(topology(args)), what, script).await?;
    let own = json!({
        "clients": args.clients, "channels": args.channels, "messages": args.messages, "page": args.page,
        "rate": args.rate,
    });
    let figures = figures(&outcome);
    options.result("history", target, own, outcome, figures)
}

/// The publishers come first; those who ask subscribe to nothing.
fn topology(args: &Args) -> Topology {
    let mut topology = Topology::default();
    for channel in 0..args.channels {
        let publisher = topology.client(Vec::new());
        let name = topology.channel(format_args!("history.{channel}"));
        topology.stream(publisher, &name, Receivers::default());
    }
    for _ in 0..args.clients {
        topology.client(Vec::new());
    }
    topology
}

async fn ask(worker: &Worker, args: &Args) -> anyhow::Result<()> {
    worker.connect_all().await?;
    worker.publish_burst(args.messages).await;
    let window = worker.meet().await;
    worker.wait_until(window.start).await;
    let clients: Vec<usize> = worker.clients().filter(|client| *client >= args.channels).collect();
    let share = clients.len() as f64 / args.clients as f64;
    let mut asked = JoinSet::new();
    if !clients.is_empty() {
        let mut pace = Pace::new(args.rate * share, worker.index as f64 / worker.plan.threads as f64)?;
        let (mut turn, args) = (0, Rc::new(args.clone()));
        loop {
            let due = select! {
                due = pace.due() => due,
                () = worker.wait_until(window.end) => break,
            };
            for due in due {
                let (worker, args, client) = (worker.clone(), args.clone(), clients[turn % clients.len()]);
                let channel = turn % args.channels;
                asked.spawn_local(async move { one_page(&worker, &args, client, channel, due).await });
                turn += 1;
            }
            while let Some(done) = asked.try_join_next() {
                done??;
            }
        }
    }
    while let Some(done) = asked.join_next().await {
        done??;
    }
    worker.done().await;
    Ok(())
}

async fn one_page(
    worker: &Worker,
    args: &Args,
    client: usize,
    channel: usize,
    due: u64,
) -> anyhow::Result<()> {
    let limit = i32::try_from(args.page)?;
    // The channels' streams come in the same order.
    let name = worker.plan.topology.streams[channel].channel.clone();
    let request = Request::History { channel: &name, since: None, limit };
    let answer = worker.links().ask(client, &request).await?;
    let mut traffic = worker.traffic.borrow_mut();
    let (ledger, tally) = traffic.counted();
    let due_messages = args.page.min(args.messages) as u64;
    let come = match &answer {
        Some(Event::Page { stamps, .. }) => in_order(stamps, worker.plan.run, channel),
        _ => 0,
    };
    ledger.other(due_messages, come.min(due_messages), come.saturating_sub(due_messages));
    tally.time(PAGE, clock::now().saturating_sub(due));
    Ok(())
}

/// How many messages, from the first on, are those of the channel without a hole.
fn in_order(stamps: &[Stamp], run: u32, channel: usize) -> u64 {
    let whole = stamps.iter().zip(0..).take_while(|(stamp, sequence)| {
        stamp.run == run && stamp.stream as usize == channel && stamp.sequence == *sequence
    });
    whole.count() as u64
}

fn figures(outcome: &Outcome) -> Vec<Figure> {
    let page = outcome.latency(PAGE);
    let pages = page.map_or(0.0, |page| page.count as f64);
    let each = |name| outcome.cpu(name).map(|cpu| cpu * 1e6 / pages.max(1.0));
    let mut figures = vec![
        Figure::higher("pages", Some(pages / outcome.seconds), "1/s"),
        Figure::lower("page, p50", page.map(|page| page.p50), "us"),
        Figure::lower("page, p99", page.map(|page| page.p99), "us"),
        Figure::lower("gateway CPU for a page", each("gateway"), "us"),
    ];
    if let Some(redis) = each("redis") {
        figures.push(Figure::lower("Redis CPU for a page", Some(redis), "us"));
    }
    figures
}
