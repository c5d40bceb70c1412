//! What brings a session back on any node.

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
