//! The admin listener: doors for operators and for backends.
//!
//! Owns: health and metrics; the server API, with one implementation of its [`operations`] behind two doors, JSON and
//! gRPC. Never does: carry client traffic.
//!
//! Invariants:
//! - What is served without a token shows no channel, user or session.
//! - Both doors let in the same requests: whoever may use one may use the other, for the same operations.
//! - Every request is bounded: its head, its body, its time, and how many there are at once.

mod access;
pub mod admin;
mod bodies;
pub mod control;
mod door;
mod grpc;
mod http;
mod observability;
mod openapi;
pub mod operations;
mod reply;
mod router;
mod schema;
#[cfg(test)]
mod tests;

pub use access::{Access, ApiToken, Scope};
pub use door::Door;
pub use observability::{Observability, Readiness};
pub use router::Router;
