//! Connections to a gateway: bytes to frames and back, nothing else. What the frames mean is the engine's business.

mod endpoint;
mod grpc;
mod stream;
mod tls;
mod ws;

use streamgate_proto::{
    EncodeError,
    v1::{InboundMessage, OutboundMessage},
};

pub(crate) use endpoint::{Endpoint, Kind};
#[cfg(feature = "server")]
pub(crate) use stream::{Stream, open};
pub use streamgate_proto::Encoding;
pub(crate) use tls::{Tls, TlsOptions};

use crate::error::Error;

/// An open connection. Frames leave in the order of [`send`](Self::send).
pub(crate) enum Transport {
    /// WebSocket; text or binary frames.
    WebSocket(ws::WebSocket),
    /// One bidirectional gRPC stream.
    Grpc(grpc::Grpc),
}

/// What comes from a connection.
pub(crate) enum Received {
    /// A frame.
    Frame(Box<OutboundMessage>),
    /// A sign of life of the transport itself.
    Alive,
    /// A frame that this client cannot read; the connection goes on.
    Undecodable(String),
    /// The end.
    Closed(Error),
}

impl Transport {
    /// Connects to `endpoint`.
    pub(crate) async fn connect(endpoint: Endpoint, encoding: Encoding) -> Result<Self, Error> {
        match endpoint.kind {
            Kind::WebSocket => ws::WebSocket::connect(&endpoint, encoding).await.map(Self::WebSocket),
            Kind::Grpc => grpc::Grpc::connect(&endpoint).await.map(Self::Grpc),
        }
    }

    /// Queues a frame. A frame for a connection that has broken is dropped: [`receive`](Self::receive) tells.
    pub(crate) fn send(&self, frame: InboundMessage) -> Result<(), EncodeError> {
        match self {
            Self::WebSocket(socket) => socket.send(&frame),
            Self::Grpc(stream) => {
                stream.send(frame);
                Ok(())
            }
        }
    }

    /// The next frame. Safe to cancel: nothing is read that is not returned.
    pub(crate) async fn receive(&mut self) -> Received {
        match self {
            Self::WebSocket(socket) => socket.receive().await,
            Self::Grpc(stream) => stream.receive().await,
        }
    }

    /// Sends what is queued, says goodbye and ends.
    pub(crate) async fn close(self) {
        match self {
            Self::WebSocket(socket) => socket.close().await,
            Self::Grpc(stream) => stream.close().await,
        }
    }
}
