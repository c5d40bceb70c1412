//! WebSocket (RFC 6455), server side.
//!
//! Owns the opening handshake ([`handshake`], [`origin`], [`subprotocol`]), the frame reader ([`reader`])
//! and the batching write queue ([`writer`]). Reader and writer are sans-IO: bytes in, events out; frames
//! in, slices out. Only this folder names the WebSocket crate.
//!
//! `connection` joins them to a `socket`, plain or with TLS, and a shard, after `upgrade`; [`echo`] is what conformance
//! suites are pointed at. Must never look into a message's payload (beyond UTF-8).
//!
//! Invariants:
//! - What the reader reports depends on the bytes alone, never on how they were split.
//! - Memory follows bytes received, never a length that a header claims.
//! - A connection without an unfinished frame, message or write owns no heap memory here.
//! - Frames leave in the order they were queued, whole; after the close frame nothing is queued.
//!
//! No extension is negotiated: permessage-deflate is declined, because its window would cost every idle
//! connection tens of KiB and a broadcast could no longer be encoded once for all.

pub mod close;
mod connection;
pub mod echo;
pub mod frame;
pub mod handshake;
pub mod origin;
pub mod reader;
mod socket;
pub mod subprotocol;
mod upgrade;
pub mod writer;

pub use close::{CloseFrame, ReadError};
pub use fastwebsockets::OpCode;
pub use frame::{encode_close, encode_frame};
pub use handshake::{Handshake, Refusal, Upgrade, UpgradeError, accept};
pub use origin::OriginPolicy;
pub use reader::{DataKinds, Event, Events, FrameReader};
pub(super) use socket::Socket;
pub use subprotocol::Subprotocol;
pub(super) use upgrade::upgrade;
pub use writer::{PushError, WriteQueue};

/// Default limit of an assembled message, in bytes.
pub const DEFAULT_MAX_MESSAGE: u32 = 64 * 1024;
