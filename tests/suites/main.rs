//! The end-to-end suites, one module for each promise or part.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "in a test the panic is the report")]

mod redis_broker;
mod redis_conformance;
mod redis_cost;
mod redis_link;
mod redis_scripts;
mod v1_clients;
mod v1_gateway;
mod v1_wire;
