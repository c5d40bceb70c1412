//! Presence: who is on a channel, and who is told of joins and leaves.

use std::sync::Arc;

use crate::channel::Channel;

/// One session on a channel; also its stored form.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Member {
    /// Public name of the session.
    #[prost(string, tag = "1")]
    pub session_id: String,
    /// Authenticated user, empty if anonymous.
    #[prost(string, tag = "2")]
    pub user_id: String,
    /// What the client calls itself.
    #[prost(string, tag = "3")]
    pub client_id: String,
    /// Milliseconds since the Unix epoch.
    #[prost(uint64, tag = "4")]
    pub connected_at: u64,
}

/// Names one connection of this node, and so one stay of a session: given once and never again by one broker's user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner(pub u64);

/// What happened to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PresenceAction {
    /// It came.
    Join,
    /// It went, or its node died.
    Leave,
}

impl PresenceAction {
    /// The wire form (PROTOCOL part B, "Presence").
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Leave => "leave",
        }
    }
}

/// A join or leave, for those who watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceEvent {
    /// Where.
    pub channel: Channel,
    /// Which of the two.
    pub action: PresenceAction,
    /// Who. Shared by everyone it is told to.
    pub member: Arc<Member>,
}

/// Who is on a channel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PresencePage {
    /// The members, or some of them, in no order.
    pub members: Vec<Arc<Member>>,
    /// How many there are.
    pub count: u64,
}
