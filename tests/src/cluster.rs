//! Nodes of one deployment on a real Redis, and clients for them.

use std::time::Duration;

use streamgate_client::{Builder, Client, Encoding};

use crate::{
    gateway::{Addrs, TestNode, on_redis},
    process::GatewayProcess,
    raw::Via,
    redis_server::{RedisServer, RedisServerOptions},
    within,
};

/// Clients of these suites come back soon: most tests wait for them.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// A Redis of its own and nodes in this process. Dropping it ends all of them.
pub struct Cluster {
    /// The nodes; each is a different gateway for its clients.
    pub nodes: Vec<TestNode>,
    /// The server. Declared last: it outlives the nodes.
    pub redis: RedisServer,
}

impl Cluster {
    /// So many nodes with the default settings, ready.
    pub async fn start(nodes: usize) -> Self {
        Self::start_with(nodes, "").await
    }

    /// So many nodes with these settings besides the broker's, ready.
    pub async fn start_with(nodes: usize, yaml: &str) -> Self {
        let redis = redis();
        let mut started = Vec::with_capacity(nodes);
        for _ in 0..nodes {
            started.push(TestNode::start(&on_redis(&redis, yaml)).await);
        }
        for node in &started {
            node.addrs().ready().await;
        }
        Self { nodes: started, redis }
    }

    /// Where a node listens.
    ///
    /// # Panics
    /// There is no such node.
    #[must_use]
    pub fn addrs(&self, node: usize) -> Addrs {
        self.nodes.get(node).expect("a node of this cluster").addrs()
    }

    /// A client of one node, connected.
    pub async fn client(&self, node: usize, via: Via) -> Client {
        connect(&[self.addrs(node)], via).await
    }

    /// The key of a channel's history in Redis.
    #[must_use]
    pub fn history_key(&self, channel: &str) -> String {
        history_key(&self.redis, channel)
    }
}

/// A server without anything to warn of.
#[must_use]
pub fn redis() -> RedisServer {
    RedisServer::start(RedisServerOptions::default().args(&["--stream-node-max-bytes", "512"]))
}

/// A node as a process, ready.
pub async fn process(redis: &RedisServer, yaml: &str) -> GatewayProcess {
    let node = GatewayProcess::start(&on_redis(redis, yaml)).await;
    node.addrs().ready().await;
    node
}

/// The URL by which a client reaches a node.
#[must_use]
pub fn url(addrs: Addrs, via: Via) -> String {
    match via {
        Via::WsJson | Via::WsProto => format!("ws://{}/ws", addrs.websocket),
        Via::Grpc => format!("grpc://{}", addrs.grpc),
    }
}

/// A client that may use all of these nodes, the first one first.
///
/// # Panics
/// No nodes.
#[must_use]
pub fn builder(nodes: &[Addrs], via: Via) -> Builder {
    let (first, others) = nodes.split_first().expect("at least one node");
    let builder = others.iter().fold(Client::builder(url(*first, via)), |b, addrs| b.node(url(*addrs, via)));
    let encoding = if via == Via::WsJson { Encoding::Json } else { Encoding::Protobuf };
    builder.encoding(encoding).backoff(BACKOFF.0, BACKOFF.1)
}

/// A client of these nodes, connected to the first one.
pub async fn connect(nodes: &[Addrs], via: Via) -> Client {
    within("a connected client", builder(nodes, via).connect()).await.expect("a client connects")
}

/// The key of a channel's history in Redis.
///
/// # Panics
/// There is none, or more than one.
#[must_use]
pub fn history_key(redis: &RedisServer, channel: &str) -> String {
    let keys = redis.cli(&["--scan", "--pattern", &format!("*h:{channel}")]);
    assert!(!keys.is_empty() && !keys.contains('\n'), "one history of {channel} is expected, not {keys:?}");
    keys
}
