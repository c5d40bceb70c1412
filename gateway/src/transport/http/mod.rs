//! The HTTP side of the client listener: which path is whose, and who may ask from a web page.
//!
//! Owns: the connection until it is a WebSocket, the table of paths (`listener`), requests of other origins ([`CorsPolicy`]), the
//! reading of bodies and the form of answers. Never does: look into an event, or know what a client may.
//!
//! Invariants: a body is bounded, in bytes and time; a client that does not take its answer is dropped; the query, which may hold a token, is never logged.

mod body;
mod cors;
mod listener;
mod patience;
mod reply;

pub use cors::CorsPolicy;
pub use listener::{HttpConfig, serve};

pub(super) use body::RequestBody;
pub(super) use patience::Patience;
pub(super) use reply::{JSON, Refusal, Reply, reply};
