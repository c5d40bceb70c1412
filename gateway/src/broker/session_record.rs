//! What brings a session back on any node, and which of its connections has it.

use super::NodeId;

/// Kept by the broker under the session's id; the resume token's secret is stored only as a hash.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SessionRecord {
    /// SHA-256 of the resume token's secret.
    #[prost(bytes = "vec", tag = "1")]
    pub secret_hash: Vec<u8>,
    /// The user that the token is bound to, empty if anonymous.
    #[prost(string, tag = "2")]
    pub user_id: String,
    /// Names of the channels and patterns that were subscribed, without cursors: those come from the client.
    #[prost(string, repeated, tag = "3")]
    pub subscriptions: Vec<String>,
    /// Those of `subscriptions` that do not appear in presence.
    #[prost(string, repeated, tag = "4")]
    pub ephemeral: Vec<String>,
    /// Those of `subscriptions` that are told of joins and leaves.
    #[prost(string, repeated, tag = "5")]
    pub watching: Vec<String>,
}

/// A session that is about to be resumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedSession {
    /// What was kept of it.
    pub record: SessionRecord,
    /// Numbers the connection that resumes it: later than all that were numbered before.
    pub tenure: u32,
}

/// Whether a session's record was kept for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It was: no later connection has the session.
    Held {
        /// The node of the connection that had it before, if there was one. The same at every save of one tenure, so that an
        /// answer that is lost is no loss.
        former: Option<NodeId>,
    },
    /// It was not: a later connection has the session.
    Lost,
}
