//! The end-to-end suites, one module for each promise or part.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "in a test the panic is the report")]

mod bad_input;
mod bad_input_transport;
mod cli;
mod grpc_stream;
mod idempotency;
mod limits;
mod node_death;
mod operations;
mod order;
mod patterns;
mod recover_storm;
mod redis_absent;
mod redis_access;
mod redis_broker;
mod redis_conformance;
mod redis_cost;
mod redis_link;
mod redis_scripts;
mod redis_tls;
mod resume;
mod sentinel_failover;
mod serve_process;
mod sessions;
mod sessions_delivery;
mod sessions_history;
mod sessions_recovery;
mod sessions_rpc;
mod slow_consumer;
mod trimmed_history;
mod two_nodes;
mod v1_clients;
mod v1_gateway;
mod v1_wire;
