//! The way out of a shard: what every transport offers to write to its client.

use std::cell::RefCell;

use bytes::Bytes;
use streamgate_proto::{EncodeError, Encoding, encode_outbound_into, v1::OutboundMessage};

use super::{
    cloudevents, sse,
    ws::{OpCode, encode_frame},
};
use crate::error::CloseCode;

/// What the scratch of a thread keeps for its next frame.
const SCRATCH_BYTES: usize = 64 * 1024;

thread_local! {
    /// Envelopes are encoded here first, so that a frame is one allocation of its own size.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::default();
}

/// How envelopes look on a connection; one encoding of a publication serves all connections with the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wire {
    /// WebSocket text frames with JSON.
    WsJson,
    /// WebSocket binary frames with protobuf.
    WsProto,
    /// Messages of a gRPC stream, protobuf.
    Grpc,
    /// WebSocket text frames, each an event in the JSON format of CloudEvents.
    WsEvents,
    /// Server-sent events, as `sse::frame` packs them for their outlet.
    Sse,
    /// Answers to single requests: envelopes for the part of this process that makes HTTP of them, protobuf.
    Http,
}

impl Wire {
    /// How many there are; [`Self::index`] is below.
    pub const COUNT: usize = 6;

    /// The place of this form in a table of all.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// The encoding of envelopes, also where they do not leave the process.
    #[must_use]
    pub fn encoding(self) -> Encoding {
        match self {
            Self::WsJson => Encoding::Json,
            Self::WsProto | Self::Grpc | Self::WsEvents | Self::Sse | Self::Http => Encoding::Protobuf,
        }
    }

    /// Encodes an envelope as a frame of the transport; empty if there is nothing to say of it there.
    ///
    /// # Errors
    /// [`EncodeError`], if the encoding cannot carry it.
    pub fn frame(self, message: &OutboundMessage) -> Result<Bytes, EncodeError> {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.clear();
            match self {
                Self::WsEvents => cloudevents::write(message, scratch)?,
                Self::Sse => sse::frame(message, scratch)?,
                _ => encode_outbound_into(self.encoding(), message, scratch)?,
            }
            let frame = match self {
                Self::WsEvents if scratch.is_empty() => Bytes::new(),
                Self::WsJson | Self::WsEvents => encode_frame(OpCode::Text, scratch),
                Self::WsProto => encode_frame(OpCode::Binary, scratch),
                Self::Grpc | Self::Sse | Self::Http => Bytes::copy_from_slice(scratch),
            };
            if scratch.capacity() > SCRATCH_BYTES {
                *scratch = Vec::new();
            }
            Ok(frame)
        })
    }

    /// Value of the metrics label `transport`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::WsJson => "ws_json",
            Self::WsProto => "ws_proto",
            Self::Grpc => "grpc",
            Self::WsEvents => "ws_cloudevents",
            Self::Sse => "sse",
            Self::Http => "http",
        }
    }
}

/// The frame does not fit into the write queue: the client reads too slowly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow;

/// Writes to one client. Owned by the shard; nothing here waits.
pub trait Outlet {
    /// The form of this connection.
    fn wire(&self) -> Wire;

    /// Queues a frame made by [`Wire::frame`].
    ///
    /// # Errors
    /// [`Overflow`]; the queue is unchanged.
    fn push(&mut self, frame: Bytes) -> Result<(), Overflow>;

    /// Bytes that wait to be written.
    fn queued_bytes(&self) -> usize;

    /// Bytes that were taken out of the queue so far, on their way to the client. It tells whether the client reads.
    fn taken_bytes(&self) -> u64;

    /// Bytes that may wait.
    fn limit(&self) -> usize;

    /// Writes what can be written now; the transport itself sees to the rest.
    fn flush(&mut self);

    /// Pings below the protocol, if there is such a thing.
    fn ping(&mut self);

    /// Drops what is not yet written, says why, and closes. Nothing is pushed afterwards.
    fn close(&mut self, code: CloseCode, reason: &str);

    /// Stops or resumes reading from the client.
    fn pause_reading(&mut self, paused: bool);
}
