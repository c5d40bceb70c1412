//! Scenario `patterns`: subscribers of patterns, publishers to the channels that match them.

use serde::Serialize;

use super::{Findings, Scenario, delivery};
use crate::{
    clients::dialect::Subscription,
    load::{
        options::Options,
        probe,
        subject::Subject,
        topology::{Receivers, Topology},
    },
};

/// Options of `patterns`.
#[derive(Debug, Clone, clap::Args, Serialize)]
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    #[serde(flatten)]
    options: Options,
    #[command(flatten)]
    #[serde(flatten)]
    load: probe::Args,
    /// Groups of channels, each with a pattern and a publisher
    #[arg(long, default_value_t = 50, help_heading = "Load")]
    groups: usize,
    /// Channels of each group
    #[arg(long, default_value_t = 20, help_heading = "Load")]
    channels: usize,
    /// Subscribers of each pattern
    #[arg(long, default_value_t = 10, help_heading = "Load")]
    subscribers: usize,
}

impl Scenario for Args {
    const NAME: &'static str = "patterns";

    fn options(&self) -> &Options {
        &self.options
    }

    fn check(&self) -> anyhow::Result<()> {
        self.load.check()
    }

    async fn measure(&self, subjects: Vec<Subject>) -> anyhow::Result<Vec<Findings>> {
        delivery::measure(&self.load, &subjects, topology(self)).await
    }
}

fn topology(args: &Args) -> Topology {
    let mut topology = Topology::default();
    for group in 0..args.groups {
        let publisher = topology.client(Vec::new());
        for subscriber in 0..args.subscribers {
            // Both kinds of wildcard.
            let rest = if subscriber % 2 == 0 { "*.tick" } else { "**" };
            let pattern = topology.channel(format_args!("patterns.{group}.{rest}"));
            topology.client(vec![Subscription::live(pattern)]);
        }
        for channel in 0..args.channels {
            let channel = topology.channel(format_args!("patterns.{group}.{channel}.tick"));
            topology.stream(
                publisher,
                &channel,
                Receivers::of(publisher + 1..publisher + 1 + args.subscribers),
            );
        }
    }
    topology
}
