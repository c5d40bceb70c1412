//! gRPC: the same envelopes on a bidirectional stream (`messageloop.v1.MessagingService/MessageLoop`).
//!
//! Owns: the service and its byte codec. A shard owns the session and its place in the index; tonic owns the socket,
//! so frames travel between the two by messages. Never does: look into an envelope.
//!
//! Invariants: frames are passed as the bytes that the shard encoded, once for all streams; what waits for a client
//! is bounded by the same limit as on WebSocket; a client that is not read from stops sending (HTTP/2 flow control).

mod codec;
mod incoming;
mod outlet;
mod service;

pub use service::{GrpcConfig, serve};
