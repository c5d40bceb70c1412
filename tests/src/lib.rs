//! What the end-to-end suites share: real servers, raw clients, and what watches them.
//!
//! - [`gateway::TestNode`]: a node in this process; [`process::GatewayProcess`]: the real binary, for signals, crashes,
//!   logs and metrics. Both answer [`gateway::Addrs`].
//! - [`raw::RawClient`]: a client that shows every frame, over any transport ([`raw::Via`]).
//! - [`web`]: clients that know HTTP and CloudEvents alone: requests, streams, sockets.
//! - [`api`]: requests to the server API. [`events`]: events and requests in few words. [`scrape`]: HTTP and `/metrics`.
//! - [`redis_server::RedisServer`]: a real Redis; [`redis_cluster::RedisCluster`]: a Cluster of them.
//!   [`cluster::Cluster`]: nodes on one, [`clustered::Clustered`]: nodes on a Cluster; and clients of the library for them.
//! - [`place::Place`]: one server or a Cluster, for what must end alike on both.
//! - [`swallowing_proxy::SwallowingProxy`]: the network between a node and Redis. [`audience`]: listeners and publishers
//!   for the whole of a test.
//! - [`backend::HttpBackend`], [`backend::GrpcBackend`]: backends that hooks are asked of, good ones and bad ones.
//! - [`certificates::Authority`]: certificates for TLS to Redis.
//! - [`sentinel::Watched`]: a master with replicas under Sentinels.
//! - [`failover::Audience`]: clients through a failover, and the histories that are left.
//! - [`listening`]: what such clients receive. [`history::History`]: what was acked against what was seen.
//! - [`crowd::Crowd`]: members of channels; [`watchers::Watchers`]: who is told of them.
//! - [`responder::Responder`]: a client that answers calls and surveys.
//! - [`faults`]: a random schedule of faults, and the load that it disturbs.
//!
//! ```ignore
//! let node = TestNode::start("limits: {publishes_per_second: 10}").await;
//! let mut alice = RawClient::connect(node.addrs(), Via::WsJson).await;
//! alice.subscribe_to("room.blue").await;
//! let ack = alice.publish("room.blue", text("e1", "hello")).await;
//! assert_eq!(alice.message().await.offset, ack.offset);
//! ```
//!
//! Everything panics when something is wrong or does not come within [`DEADLINE`]: the panic is the test's report.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "in a test harness the panic is the report")]

pub mod api;
pub mod audience;
pub mod backend;
pub mod certificates;
pub mod cluster;
pub mod clustered;
pub mod crowd;
pub mod events;
pub mod failover;

pub mod faults;
pub mod gateway;
pub mod history;
pub mod key_server;
pub mod listening;
pub mod place;
pub mod process;
pub mod raw;
pub mod redis_cluster;
pub mod redis_server;
pub mod responder;
pub mod rights;
pub mod scrape;
pub mod sentinel;
pub mod swallowing_proxy;
pub mod tls_client;
pub mod watchers;
pub mod web;

/// How long anything may take that is expected to happen. Long: the machine may be busy.
pub const DEADLINE: std::time::Duration = std::time::Duration::from_secs(20);

/// Waits for `event`, at most [`DEADLINE`].
///
/// # Panics
/// It did not happen; the text says `what`.
pub async fn within<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, event).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {DEADLINE:?}"),
    }
}
