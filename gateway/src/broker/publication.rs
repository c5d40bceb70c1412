//! A publication as it is stored and delivered.

use bytes::Bytes;
use prost::Message as _;

use super::BrokerError;
use crate::{channel::Channel, position::Position};

/// What subscribers get: where, when, and the stored message. Shared by everyone it is delivered to.
#[derive(Debug, Clone, PartialEq)]
pub struct Publication {
    /// The channel it was published to.
    pub channel: Channel,
    /// Unset for transient publications and channels without history.
    pub position: Option<Position>,
    /// When the broker took it, milliseconds since the Unix epoch by the broker's clock.
    pub time_ms: u64,
    /// The message.
    pub stored: Stored,
}

/// The stored form of a message: one protobuf message, whose bytes are the entry in history and inbox.
///
/// The event is kept as the bytes of `io.cloudevents.v1.CloudEvent`, so that it is decoded only by those who need
/// another encoding.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Stored {
    /// Message id, the 16 bytes of a UUID.
    #[prost(bytes = "bytes", tag = "1")]
    pub id: Bytes,
    /// Encoded `io.cloudevents.v1.CloudEvent`, valid.
    #[prost(bytes = "bytes", tag = "2")]
    pub event: Bytes,
    /// Session that must not get this message (`exclude_self`); empty: everyone gets it.
    #[prost(string, tag = "3")]
    pub exclude_session: String,
    /// Who published, if the channel's policy shows it.
    #[prost(message, optional, tag = "4")]
    pub publisher: Option<PublisherInfo>,
}

/// Who published, as far as subscribers may know.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PublisherInfo {
    /// What the client says of itself.
    #[prost(string, tag = "1")]
    pub client_id: String,
    /// Authenticated user, empty if anonymous.
    #[prost(string, tag = "2")]
    pub user_id: String,
}

impl Stored {
    /// The bytes to store.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        self.encode_to_vec().into()
    }

    /// Reads what [`Self::to_bytes`] made; the event shares `bytes`.
    ///
    /// # Errors
    /// [`BrokerError::Damaged`] if the bytes are not a stored message.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, BrokerError> {
        Self::decode(bytes).map_err(|error| BrokerError::Damaged(error.to_string()))
    }
}
