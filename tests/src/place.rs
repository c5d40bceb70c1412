//! Where the nodes of a test keep what outlives them: one server, or a Cluster. For scenarios that must end alike on both.

use std::sync::Arc;

use crate::{
    cluster,
    process::GatewayProcess,
    redis_cluster::{RedisCluster, blocking},
    redis_server::RedisServer,
};

/// A Redis of its own. Dropping it ends it: after its nodes.
pub enum Place {
    /// One server.
    Server(Box<RedisServer>),
    /// Three masters with a replica each.
    Cluster(Arc<RedisCluster>),
}

impl Place {
    /// One server.
    #[must_use]
    pub fn server() -> Self {
        Self::Server(Box::new(cluster::redis()))
    }

    /// Three masters with a replica each, joined and working.
    pub async fn cluster() -> Self {
        Self::Cluster(Arc::new(blocking(|| RedisCluster::start(3)).await))
    }

    /// The broker's settings of a node here.
    #[must_use]
    pub fn yaml(&self) -> String {
        match self {
            Self::Server(server) => {
                format!("broker: {{type: redis, redis: {{addr: '{}'}}}}\n", server.addr())
            }
            Self::Cluster(servers) => servers.yaml(),
        }
    }

    /// A node as a process, with these settings besides the broker's, ready.
    pub async fn node(&self, yaml: &str) -> GatewayProcess {
        let node = GatewayProcess::start(&format!("{}{yaml}\n", self.yaml())).await;
        node.addrs().ready().await;
        node
    }

    /// Stops every server from running: connections stay open and nothing answers.
    pub fn pause(&self) {
        match self {
            Self::Server(server) => server.pause(),
            Self::Cluster(servers) => servers.pause_all(),
        }
    }

    /// Lets every server go on.
    pub fn resume(&self) {
        match self {
            Self::Server(server) => server.resume(),
            Self::Cluster(servers) => servers.resume_all(),
        }
    }

    /// Waits until the servers of a Cluster agree: some may have been elected.
    pub async fn settled(&self) {
        if let Self::Cluster(servers) = self {
            let servers = servers.clone();
            blocking(move || servers.agreed()).await;
        }
    }
}
