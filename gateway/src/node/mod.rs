//! A node: broker, shards and listeners, put together.
//!
//! Owns: the order of start and stop. Never does: anything on the way of a message.
//!
//! Invariants: listeners accept only when everything behind them runs; a stop takes no longer than the drain's delay
//! and duration and a few seconds, and ends in the reverse order of the start.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use streamgate::{config::Config, node::Node};
//!
//! let node = Node::builder(Config::default()).start().await?;
//! println!("ws://{}/ws", node.websocket_addr());
//! node.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod broker;
mod builder;
mod control;
mod drain;
mod listen;
mod respond;
mod tls;

use std::{net::SocketAddr, sync::Arc};

use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub(crate) use broker::redis_options;
pub use builder::{NodeBuilder, StartError};

use crate::{
    api::Door,
    broker::{Broker, BrokerStatus},
    config::{Config, Reload},
    hooks::{Hooks, Lifecycle},
    rpc::Router,
    session::Settings,
    shard::ShardHandle,
};

/// A running node. Dropping it ends the node without a drain; call [`Node::shutdown`].
pub struct Node {
    config: Config,
    broker: Arc<dyn Broker>,
    settings: Settings,
    /// The way to the other nodes, and to this one's sessions.
    rpc: Router,
    hooks: Hooks,
    /// Where shards tell backends of sessions.
    lifecycle: Option<Lifecycle>,
    /// Ends that, when all is stored.
    delivering: CancellationToken,
    api: Door,
    shards: Vec<ShardHandle>,
    websocket: SocketAddr,
    grpc: SocketAddr,
    admin: SocketAddr,
    /// Cancelled if a shard failed.
    failed: CancellationToken,
    draining: Arc<watch::Sender<bool>>,
    /// Ends the client listeners.
    accepting: CancellationToken,
    /// Ends everything else.
    running: CancellationToken,
    listeners: Vec<JoinHandle<()>>,
    tls: tls::ListenersTls,
}

impl Node {
    /// A node that is not yet started.
    #[must_use]
    pub fn builder(config: Config) -> NodeBuilder {
        NodeBuilder::new(config)
    }

    /// Where WebSocket clients connect.
    #[must_use]
    pub fn websocket_addr(&self) -> SocketAddr {
        self.websocket
    }

    /// Where gRPC clients connect.
    #[must_use]
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc
    }

    /// Where metrics, health and the server API are served.
    #[must_use]
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin
    }

    /// The configuration that the node runs with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether the broker can take work.
    #[must_use]
    pub fn broker_status(&self) -> watch::Receiver<BrokerStatus> {
        self.broker.status()
    }

    /// Resolves when a part of the node has failed for good: what is left should be drained and ended.
    pub fn failed(&self) -> impl Future<Output = ()> + Send + use<> {
        self.failed.clone().cancelled_owned()
    }

    /// Takes over what may change while running: policies, rights, limits, how clients prove who they are, and the content
    /// of TLS files. The log level is the caller's. Blocks: reads those files.
    pub fn reload(&mut self, new: &Config) -> Reload {
        self.tls.reload();
        let reload = Config::reload(&self.config, new);
        reload.config.policies.install(&self.settings.policies);
        let former = self.settings.authenticator.load_full();
        let authenticator = builder::authenticator(&reload.config, &self.hooks, &former);
        self.settings.authenticator.store(Arc::new(authenticator));
        self.settings.rights.replace(reload.config.permissions.clone());
        self.settings.limits.store(Arc::new(reload.config.limits.clone()));
        self.api.reload(&reload.config.api);
        self.config = reload.config.clone();
        reload
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.accepting.cancel();
        self.running.cancel();
        self.delivering.cancel();
        for shard in self.shards.drain(..) {
            shard.stop();
        }
        for listener in self.listeners.drain(..) {
            listener.abort();
        }
    }
}
