//! Nodes of one deployment on a Redis Cluster, and clients for them.

use std::sync::{Arc, Mutex};

use streamgate::broker::redis::keys::{Keys, slot_of};
use streamgate_client::Client;

use crate::{
    audience::{Audience, Listener},
    cluster::connect,
    gateway::TestNode,
    raw::Via,
    redis_cluster::{RedisCluster, blocking},
};

/// More history than any of these tests needs, and no limit that retries could meet.
const SETTINGS: &str =
    "channels: [{pattern: \"**\", history_size: 20000}]\nlimits: {publishes_per_second: 1000000}\n";

/// Three masters with a replica each, and nodes in this process. Dropping it ends all of them.
pub struct Clustered {
    /// The nodes; each is a different gateway for its clients.
    pub nodes: Vec<TestNode>,
    /// Declared last: it outlives the nodes.
    redis: Arc<Mutex<RedisCluster>>,
}

impl Clustered {
    /// So many nodes, ready.
    pub async fn start(nodes: usize) -> Self {
        Self::start_with(nodes, &[]).await
    }

    /// As [`Self::start`], with further arguments of `redis-server`.
    pub async fn start_with(nodes: usize, args: &'static [&'static str]) -> Self {
        let redis = blocking(move || RedisCluster::start_with(3, args)).await;
        let yaml = format!("{}{SETTINGS}", redis.yaml());
        let mut started = Vec::with_capacity(nodes);
        for _ in 0..nodes {
            started.push(TestNode::start(&yaml).await);
        }
        for node in &started {
            node.addrs().ready().await;
        }
        Self { nodes: started, redis: Arc::new(Mutex::new(redis)) }
    }

    /// Does something to the servers, beside everything else.
    pub async fn redis<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut RedisCluster) -> T + Send + 'static,
    ) -> T {
        let redis = self.redis.clone();
        blocking(move || work(&mut redis.lock().expect("nobody panics with it"))).await
    }

    /// A client of one node, connected.
    pub async fn client(&self, node: usize, via: Via) -> Client {
        connect(&[self.nodes[node].addrs()], via).await
    }

    /// A listener of all these channels on each node.
    pub async fn audience(&self, channels: &[String]) -> Audience {
        let targets: Vec<&str> = channels.iter().map(String::as_str).collect();
        let mut listeners = Vec::new();
        for node in 0..self.nodes.len() {
            let client = self.client(node, Via::WsProto).await;
            listeners.push(Listener::start(format!("on {node}"), client, &targets).await);
        }
        Audience(listeners)
    }
}

/// The slot of a channel's partition, with the settings of these nodes.
#[must_use]
pub fn slot(channel: &str) -> u16 {
    let keys = Keys::new("streamgate", 16).expect("valid settings");
    slot_of(&keys.base(keys.partition_of(channel)))
}

/// The first channels `room.<n>` of whose slot `wanted` is true.
pub fn channels(count: usize, wanted: impl Fn(u16) -> bool) -> Vec<String> {
    (0..).map(|n| format!("room.{n}")).filter(|channel| wanted(slot(channel))).take(count).collect()
}
