//! Scenario `patterns`: subscribers of patterns, publishers to the channels that match them.

use std::sync::Arc;

use serde_json::json;

use crate::{
    clients::dialect::Subscription,
    load::{
        options::Options,
        probe,
        topology::{Receivers, Topology},
    },
    report::result::RunResult,
    scenario::delivery,
    servers::Servers,
};

/// Options of `patterns`.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    pub options: Options,
    #[command(flatten)]
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

/// Runs it.
///
/// # Errors
/// Servers or clients do not start.
pub async fn run(args: &Args) -> anyhow::Result<RunResult> {
    let servers = Servers::start(&args.options.servers, "").await?;
    let own = json!({ "groups": args.groups, "channels": args.channels, "subscribers": args.subscribers });
    delivery::run("patterns", &args.options, &args.load, &servers, Arc::new(topology(args)), own).await
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
