//! Tokens of subscriptions: one user may subscribe to one channel or pattern until then.

use super::{Refusal, Stamp};

/// What a subscription token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionToken {
    /// Whose subscription it is for; empty: of somebody anonymous.
    pub user_id: String,
    /// The channel or pattern, letter for letter.
    pub channel: String,
    /// By what it can be revoked.
    pub stamp: Stamp,
    /// When the subscription ends, milliseconds since the Unix epoch; none: with the connection.
    pub expires_unix_ms: Option<u64>,
}

impl SubscriptionToken {
    /// Whether it is for a subscription of `user_id` to `channel`.
    ///
    /// # Errors
    /// What does not fit.
    pub fn is_for(&self, user_id: &str, channel: &str) -> Result<(), Refusal> {
        if self.user_id != user_id {
            return Err(Refusal::OtherUser);
        }
        if self.channel != channel {
            return Err(Refusal::OtherChannel);
        }
        Ok(())
    }
}
