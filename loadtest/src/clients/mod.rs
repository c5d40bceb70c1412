//! Many cheap clients on one thread.
//!
//! Owns connections ([`swarm`]), what is said on them ([`dialect`], [`frames`]) and who may send ([`links`]). A client here
//! does only what costs the server what a real one costs it: no reconnecting, no keeping of messages.
//!
//! Invariants:
//! - one thread, no locks: a [`swarm::Crowd`] is called by one connection at a time;
//! - an idle connection has no buffer of its own; all read into one;
//! - everything that comes is told, in order; a frame that is not understood ends the connection, which the crowd counts.

pub mod dialect;
pub mod endpoint;
mod frames;
mod grpc;
pub mod links;
mod ports;
pub mod swarm;
