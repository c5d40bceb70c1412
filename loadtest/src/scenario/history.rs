//! Scenario `history`: clients ask for pages of history at a rate, and every page is looked through.

use std::{rc::Rc, sync::Arc};

use anyhow::ensure;
use serde::Serialize;
use tokio::{select, task::JoinSet};

use super::{Findings, Scenario, in_turn};
use crate::{
    clients::dialect::{Detail, Event, Request},
    load::{
        clock,
        options::Options,
        pace::Pace,
        run::Outcome,
        stamp::Stamp,
        subject::Subject,
        topology::{Receivers, Topology},
        worker::{Load, Worker},
    },
    report::result::Figure,
};

/// Options of `history`.
#[derive(Debug, Clone, clap::Args, Serialize)]
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    #[serde(flatten)]
    options: Options,
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

impl Scenario for Args {
    const NAME: &'static str = "history";

    fn options(&self) -> &Options {
        &self.options
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(self.clients > 0 && self.channels > 0, "there must be clients, and channels to ask for");
        ensure!(self.rate > 0.0, "--rate {}: nobody would ask", self.rate);
        Ok(())
    }

    async fn measure(&self, subjects: Vec<Subject>) -> anyhow::Result<Vec<Findings>> {
        in_turn(&subjects, async |subject| {
            let args = self.clone();
            let script = async move |worker: &Worker| ask(worker, &args).await;
            let what = (Load::Silence, Detail::Stamps);
            let outcome = subject.run(Arc::new(topology(self)), what, script).await?;
            Ok(Findings { figures: figures(&outcome), probe: outcome.into() })
        })
        .await
    }
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
    worker.traffic.borrow_mut().counted().1.asked(clock::now());
    let answer = worker.links().ask(client, &request).await?;
    let now = clock::now();
    let expected = args.page.min(args.messages) as u64;
    let mut traffic = worker.traffic.borrow_mut();
    match &answer {
        Some(Event::Page { stamps, .. }) => {
            let right = in_order(stamps, worker.plan.run, channel).min(expected);
            let (ledger, tally) = traffic.counted();
            ledger.other(expected, right, 0);
            ledger.misrouted(stamps.len() as u64 - right);
            tally.told(PAGE, now, due, right);
        }
        other => {
            traffic.counted().0.other(expected, 0, 0);
            let why = match other {
                Some(Event::Refused { code, .. }) => code.clone(),
                other => format!("{other:?}"),
            };
            traffic.note(format!("no page: {why}"));
        }
    }
    Ok(())
}

/// How many messages, from the first on, are those of the channel without a hole. A page begins with the oldest: nothing
/// has been trimmed, or it could not be told from what got lost.
fn in_order(stamps: &[Stamp], run: u32, channel: usize) -> u64 {
    let whole = stamps.iter().zip(0..).take_while(|(stamp, sequence)| {
        stamp.run == run && stamp.stream as usize == channel && stamp.sequence == *sequence
    });
    whole.count() as u64
}

fn figures(outcome: &Outcome) -> Vec<Figure> {
    let page = outcome.latency(PAGE);
    // Answered while it was measured, whenever it was asked for.
    let pages = outcome.counts.1 as f64;
    let each = |cpu: Option<f64>| cpu.map(|cpu| cpu * 1e6 / pages.max(1.0));
    let mut figures = vec![
        Figure::higher("pages", Some(pages / outcome.seconds), "1/s"),
        Figure::lower("page, p50", page.map(|page| page.p50), "us"),
        Figure::lower("page, p99", page.map(|page| page.p99), "us"),
        Figure::lower("gateway CPU for a page", each(outcome.cpu_of_nodes()), "us"),
    ];
    if let Some(redis) = each(outcome.cpu_of_redis()) {
        figures.push(Figure::lower("Redis CPU for a page", Some(redis), "us"));
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_right_up_to_the_first_hole_stranger_or_other_run() {
        let stamp = |run, stream, sequence| Stamp { run, stream, sequence, due: 0 };
        let right = [stamp(1, 7, 0), stamp(1, 7, 1)];
        assert_eq!(in_order(&right, 1, 7), 2);
        for wrong in [stamp(1, 7, 3), stamp(1, 7, 1), stamp(1, 8, 2), stamp(2, 7, 2)] {
            assert_eq!(in_order(&[&right[..], &[wrong]].concat(), 1, 7), 2, "{wrong:?}");
        }
        assert_eq!(in_order(&right[1..], 1, 7), 0);
    }
}
