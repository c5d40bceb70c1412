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

impl Publication {
    /// Whether its time is over at `now_ms` by the broker's clock: then nobody gets it any more.
    #[must_use]
    pub fn is_over(&self, now_ms: u64) -> bool {
        self.stored.ttl_ms > 0 && now_ms >= self.time_ms.saturating_add(self.stored.ttl_ms)
    }
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
    /// Worthless after so many milliseconds from when the broker took it; 0: never. Nodes that do not know it deliver
    /// the message all the same.
    #[prost(uint64, tag = "5")]
    pub ttl_ms: u64,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publication_is_over_when_its_time_to_live_has_passed_since_the_broker_took_it() {
        let with = |time_ms, ttl_ms| Publication {
            channel: Channel::parse("a").unwrap(),
            position: None,
            time_ms,
            stored: Stored { ttl_ms, ..Stored::default() },
        };
        assert!(!with(1_000, 50).is_over(1_049) && with(1_000, 50).is_over(1_050));
        assert!(!with(1_000, 0).is_over(u64::MAX), "it has none");
        assert!(!with(1_000, 50).is_over(0) && !with(2, u64::MAX).is_over(u64::MAX - 1));
    }

    #[test]
    fn nodes_read_what_a_version_without_times_to_live_wrote_and_the_other_way_round() {
        /// As it was before.
        #[derive(Clone, PartialEq, prost::Message)]
        struct Former {
            #[prost(bytes = "bytes", tag = "1")]
            id: Bytes,
            #[prost(bytes = "bytes", tag = "2")]
            event: Bytes,
        }
        let (id, event) = (Bytes::from_static(b"id"), Bytes::from_static(b"event"));
        let former = Former { id: id.clone(), event: event.clone() };
        let stored = Stored { id, event, ttl_ms: 7, ..Stored::default() };
        assert_eq!(Former::decode(stored.to_bytes()).unwrap(), former);
        let read = Stored::from_bytes(former.encode_to_vec().into()).unwrap();
        assert_eq!(read, Stored { ttl_ms: 0, ..stored });
    }
}
