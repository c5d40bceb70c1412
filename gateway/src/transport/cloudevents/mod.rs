//! CloudEvents 1.0 for clients without an SDK of ours: over WebSocket, server-sent events and plain HTTP.
//!
//! Owns: the JSON format both ways ([`json`], [`parse`]), the HTTP binding ([`post`]), pages of history ([`page`]), the
//! subprotocol `cloudevents.json` ([`socket`]), what an address asks for ([`Asked`]), and what the server says as events
//! ([`Notice`]). Requests are made by a session of the requesting client ([`client`]), so rights, hooks and limits are those
//! of every client.
//!
//! Never does: decide who may what, or keep anything of a client beyond its requests.
//!
//! Invariants:
//! - Nothing of a batch is published unless all of it is sound and allowed.
//! - The gateway's attributes (`sg...`) are never taken from a client into an event.
//! - A published event carries `sgchannel`; nothing that the server says itself does.

mod address;
mod client;
mod headers;
mod json;
mod notice;
mod page;
mod parse;
mod post;
mod socket;

pub(super) use address::Asked;
pub(super) use notice::Notice;
pub(super) use page::page;
pub(super) use post::post;
pub(super) use socket::{read, write, write_message};
