//! A node on the memory broker for the suites of MessageLoop v1.

use std::time::Duration;

use streamgate::{config::Config, error::ClientError, node::Node, session::RpcRequest};

/// How long anything may take before the test has failed.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Starts a node that tells everything there is to tell: publishers, history, RPC replies.
pub async fn start(ping_interval: Duration) -> Node {
    let mut config = Config::default();
    let any = "127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap();
    config.websocket.addr = any.into();
    config.grpc = any.into();
    config.admin = any.into();
    config.shards = 2;
    config.drain.duration = Duration::from_secs(1);
    config.policies.fallback.publisher_identity = true;
    config.limits.ping_interval = ping_interval;
    let echo = |request: RpcRequest| async move { Ok::<_, ClientError>(request.event) };
    Node::builder(config).handler("echo.**", "*", echo).start().await.unwrap()
}

/// The URL of its WebSocket.
pub fn websocket_url(node: &Node) -> String {
    format!("ws://{}{}", node.websocket_addr(), node.config().websocket.path)
}
