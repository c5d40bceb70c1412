//! Streamgate: a clustered realtime gateway on Redis Streams.
//!
//! Nodes hold connections and nothing else; order, history, interest and idempotency live in the
//! [`broker`]. The layers point down only: transports turn bytes into frames, sessions turn frames into effects,
//! shards carry effects out, brokers keep what must outlive a connection.

pub mod api;
pub mod auth;
pub mod broker;
pub mod channel;
pub mod cli;
pub mod client_headers;
pub mod config;
pub mod error;
pub mod hooks;
pub mod http_client;
pub mod node;
pub mod peers;
pub mod policy;
pub mod position;
pub mod rpc;
pub mod session;
pub mod shard;
pub mod telemetry;
pub mod tls;
pub mod transport;
