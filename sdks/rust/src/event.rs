//! What a subscription yields.

use streamgate_proto::{
    cloudevents::CloudEvent,
    v1::{self, Member},
};

use crate::{error::Error, position::Position};

/// One item of a [`Subscription`](crate::Subscription).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A published event.
    Message(Message),
    /// Messages are missing here: what came before this and what follows it do not join.
    Gap(Gap),
    /// What history held since the cursor has been delivered; live messages follow. Comes after every recovery: the
    /// first one, if the subscription has a starting point in the past, and those after reconnects.
    Recovered(Recovered),
    /// Someone joined or left the channel.
    Presence(PresenceChange),
    /// The subscription ended for good: nothing follows.
    Closed(Error),
}

/// A published event as it was delivered.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Id of this delivery.
    pub id: String,
    /// Channel it was published to.
    pub channel: String,
    /// Where it stands in the channel's history; `None` without history, and for clients without the extension.
    pub position: Option<Position>,
    /// Offset alone, which clients without the extension get too; 0 without history.
    pub offset: u64,
    /// Comes from history.
    pub replay: bool,
    /// Who published it, if the channel's policy tells.
    pub publisher: Option<Publisher>,
    /// Set on deliveries of a queue.
    pub delivery: Option<v1::Delivery>,
    /// The event, as it was published.
    pub event: CloudEvent,
}

/// Who published a message, as the server knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publisher {
    /// What the client calls itself: proves nothing.
    pub client_id: String,
    /// Authenticated user; empty if anonymous.
    pub user_id: String,
}

/// Continuity was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The channel, or the whole pattern if it is not known in which of its channels.
    pub channel: String,
    /// Where delivery goes on, if known.
    pub position: Option<Position>,
    /// Why.
    pub reason: GapReason,
}

/// Why messages are missing (PROTOCOL part B, "Recovery").
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum GapReason {
    /// History was trimmed past the cursor.
    HeadTrimmed,
    /// The history expired.
    Expired,
    /// Acknowledged messages were lost, or the history is another one than the cursor's.
    EpochReset,
    /// Messages inside the history are missing.
    Middle,
    /// More was missed than the server sends at once.
    Truncated,
    /// Said by this client: it was disconnected, and the subscription cannot recover (no history, or a server or a
    /// subscription without recovery). Messages may be missing.
    NotRecovered,
    /// A reason that this version does not know.
    Other(String),
}

/// A recovery is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Channel or pattern of the subscription.
    pub target: String,
    /// Position reached; for a pattern its opaque mark.
    pub position: Option<Position>,
    /// More was missed than the server sends at once.
    pub truncated: bool,
    /// Why something is missing; `None`: nothing is. Where it is missing among what was replayed, an [`Event::Gap`] came
    /// before.
    pub gap: Option<GapReason>,
    /// Why there was no recovery at all; the subscription is live all the same.
    pub error: Option<Error>,
}

/// Someone joined or left a channel.
#[derive(Debug, Clone, PartialEq)]
pub struct PresenceChange {
    /// The channel.
    pub channel: String,
    /// Join, else leave.
    pub joined: bool,
    /// Who.
    pub member: Member,
}

impl GapReason {
    /// The reason in the words of the protocol.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::HeadTrimmed => "HEAD_TRIMMED",
            Self::Expired => "EXPIRED",
            Self::EpochReset => "EPOCH_RESET",
            Self::Middle => "MIDDLE",
            Self::Truncated => "TRUNCATED",
            Self::NotRecovered => "NOT_RECOVERED",
            Self::Other(reason) => reason,
        }
    }

    pub(crate) fn from_wire(reason: String) -> Self {
        match reason.as_str() {
            "HEAD_TRIMMED" => Self::HeadTrimmed,
            "EXPIRED" => Self::Expired,
            "EPOCH_RESET" => Self::EpochReset,
            "MIDDLE" => Self::Middle,
            "TRUNCATED" => Self::Truncated,
            _ => Self::Other(reason),
        }
    }
}

impl std::fmt::Display for GapReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<v1::Message> for Message {
    fn from(wire: v1::Message) -> Self {
        Self {
            id: wire.id,
            channel: wire.channel,
            position: wire.position.map(Position::from),
            offset: wire.offset,
            replay: wire.replay,
            publisher: wire
                .publisher
                .map(|publisher| Publisher { client_id: publisher.client_id, user_id: publisher.user_id }),
            delivery: wire.delivery,
            event: wire.payload.unwrap_or_default(),
        }
    }
}

impl From<v1::RecoverComplete> for Recovered {
    fn from(wire: v1::RecoverComplete) -> Self {
        let reason = (wire.gap || !wire.gap_reason.is_empty()).then_some(wire.gap_reason);
        Self {
            target: wire.channel,
            position: wire.position.map(Position::from),
            truncated: wire.truncated,
            gap: reason.map(GapReason::from_wire),
            error: wire.error.map(Error::from_wire),
        }
    }
}
