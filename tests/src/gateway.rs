//! A node in this process.

use std::{net::SocketAddr, time::Duration};

use streamgate::{
    config::{Config, Override, assemble},
    node::{Node, NodeBuilder},
};

use crate::{redis_server::RedisServer, scrape, within};

/// Where a gateway listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addrs {
    /// WebSocket and client HTTP.
    pub websocket: SocketAddr,
    /// gRPC.
    pub grpc: SocketAddr,
    /// Metrics and health.
    pub admin: SocketAddr,
}

impl Addrs {
    /// Waits until the node says that it is ready: one on Redis starts before it has reached it.
    pub async fn ready(self) {
        let asking = async {
            while scrape::get(self.admin, "/health/ready").await.status != 200 {
                // Readiness has no event to wait for.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        within("the node is ready", asking).await;
    }
}

/// The configuration of a node on this Redis; `more` is further keys of the top level, in block style.
#[must_use]
pub fn on_redis(redis: &RedisServer, more: &str) -> String {
    format!("broker: {{type: redis, redis: {{addr: '{}'}}}}\n{more}\n", redis.addr())
}

/// A node in this process, on the memory broker unless its configuration says otherwise. All its listeners are on
/// 127.0.0.1, on ports that the system chose. Dropping it ends it without a drain.
///
/// Nodes of one process share their metrics: to look at those, start a [`GatewayProcess`](crate::process::GatewayProcess).
pub struct TestNode {
    node: Node,
}

impl TestNode {
    /// A node with this configuration, in the words of the configuration file; "" is the defaults.
    pub async fn start(yaml: &str) -> Self {
        Self::start_with(yaml, |builder| builder).await
    }

    /// As [`Self::start`], with changes to the builder, as a handler or a broker of one's own.
    pub async fn start_with(yaml: &str, change: impl FnOnce(NodeBuilder) -> NodeBuilder) -> Self {
        let node = change(Node::builder(config(yaml))).start().await.expect("the node starts");
        Self { node }
    }

    /// Where it listens.
    #[must_use]
    pub fn addrs(&self) -> Addrs {
        Addrs {
            websocket: self.node.websocket_addr(),
            grpc: self.node.grpc_addr(),
            admin: self.node.admin_addr(),
        }
    }

    /// Takes over another configuration's policies and limits, as SIGHUP does.
    pub fn reload(&mut self, yaml: &str) {
        self.node.reload(&config(yaml));
    }

    /// Drains and ends the node.
    pub async fn shutdown(self) {
        self.node.shutdown().await;
    }

    /// The node itself.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }
}

/// The configuration that `yaml` says, with two shards and listeners on ports that the system chooses.
///
/// # Panics
/// `yaml` is not a valid configuration.
#[must_use]
pub fn config(yaml: &str) -> Config {
    let harness = [
        ("transport.websocket.addr", "127.0.0.1:0"),
        ("transport.grpc.addr", "127.0.0.1:0"),
        ("server.http.addr", "127.0.0.1:0"),
        ("shards", "2"),
    ];
    let harness = harness.map(|(key, value)| Override::flag("harness", key, value));
    assemble("test", yaml, &harness).unwrap_or_else(|error| panic!("{error}")).0
}
