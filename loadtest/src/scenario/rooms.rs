//! Scenario `rooms`: M rooms of K members; every member publishes, all of its room get it.

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

/// Options of `rooms`.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    pub options: Options,
    #[command(flatten)]
    load: probe::Args,
    #[command(flatten)]
    rooms: Rooms,
}

/// How many rooms, and how large.
#[derive(Debug, Clone, Copy, clap::Args)]
#[command(next_help_heading = "Load")]
pub struct Rooms {
    /// How many rooms
    #[arg(long, default_value_t = 100)]
    pub rooms: usize,
    /// Members of each
    #[arg(long, default_value_t = 20)]
    pub members: usize,
}

/// Runs it.
///
/// # Errors
/// Servers or clients do not start.
pub async fn run(args: &Args) -> anyhow::Result<RunResult> {
    let servers = Servers::start(&args.options.servers, "").await?;
    let own = json!({ "rooms": args.rooms.rooms, "members": args.rooms.members });
    delivery::run("rooms", &args.options, &args.load, &servers, Arc::new(args.rooms.topology()), own).await
}

impl Rooms {
    /// Members of a room follow each other; each is a publisher and a subscriber.
    pub fn topology(self) -> Topology {
        let mut topology = Topology::default();
        for room in 0..self.rooms {
            let channel = topology.channel(format_args!("rooms.{room}"));
            let first = topology.clients.len();
            for _ in 0..self.members {
                let member = topology.client(vec![Subscription::live(&channel)]);
                topology.stream(member, &channel, Receivers::of(first..first + self.members));
            }
        }
        topology
    }
}
