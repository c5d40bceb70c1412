//! Server-sent events (WHATWG HTML, "Server-sent events"): `GET /sse?channel=...`, one event of CloudEvents each.
//!
//! Owns: the stream's text ([`frame`]), the ids that bring a client back to where it was ([`ids`]), the way from a shard to the
//! response's body ([`outlet`]), and the answer to the request. The session is the same as everywhere: it is opened by the
//! request, and the stream begins when it is connected; what ends it before is the status of the answer.
//!
//! Never does: read from the client. What it wants stands in its request.
//!
//! Invariants:
//! - The id of an event tells everything that was sent before it, or says that it does not (`~`).
//! - What waits for a client is bounded by the same limit as on WebSocket; beyond it the stream ends.
//! - An id has at most [`ids::MOST_BYTES`].

mod body;
mod frame;
mod ids;
mod outlet;
mod serve;

pub use body::EventBody;
pub(super) use frame::frame;
pub(super) use serve::serve;
