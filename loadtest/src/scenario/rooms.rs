//! Scenario `rooms`: M rooms of K members; every member publishes, all of its room get it.

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

/// Options of `rooms`.
#[derive(Debug, Clone, clap::Args, Serialize)]
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    #[serde(flatten)]
    options: Options,
    #[command(flatten)]
    #[serde(flatten)]
    load: probe::Args,
    #[command(flatten)]
    #[serde(flatten)]
    rooms: Rooms,
}

/// How many rooms, and how large.
#[derive(Debug, Clone, Copy, clap::Args, Serialize)]
#[command(next_help_heading = "Load")]
pub struct Rooms {
    /// How many rooms
    #[arg(long, default_value_t = 100)]
    pub rooms: usize,
    /// Members of each
    #[arg(long, default_value_t = 20)]
    pub members: usize,
}

impl Scenario for Args {
    const NAME: &'static str = "rooms";

    fn options(&self) -> &Options {
        &self.options
    }

    fn check(&self) -> anyhow::Result<()> {
        self.load.check()
    }

    async fn measure(&self, subjects: Vec<Subject>) -> anyhow::Result<Vec<Findings>> {
        delivery::measure(&self.load, &subjects, self.rooms.topology()).await
    }
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
