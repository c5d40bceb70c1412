//! Who a client turned out to be, and why not.

use super::{Grants, Stamp};

/// Who a client is. The default is anonymous.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user; empty if anonymous.
    pub user_id: String,
    /// When this ends, milliseconds since the Unix epoch.
    pub expires_unix_ms: Option<u64>,
    /// Channels and patterns that the client is subscribed to without asking.
    pub channels: Vec<String>,
    /// What it may do by its token, and what rules look at.
    pub grants: Grants,
    /// By what its token can be revoked.
    pub stamp: Stamp,
}

/// Why a token is not good. The text is fit for the client and for logs: nothing of the token is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// None was shown.
    #[error("a token is needed")]
    Missing,
    /// Nobody writes that long ones.
    #[error("the token is too long")]
    TooLong,
    /// Not three parts, no JSON, no algorithm that exists, or an extension that must be understood.
    #[error("the token is not a JWT, or signed in a way that is not known here")]
    Malformed,
    /// No key that is named, or not named, as the token says has its algorithm.
    #[error("no key is configured for the token's key id and algorithm")]
    NoKey,
    /// The same, and the set that could have it is not here.
    #[error("no key for the token is known, and the key set cannot be fetched at present")]
    KeysAway,
    /// Not made with any of the keys that it could be.
    #[error("the token's signature is wrong")]
    Signature,
    /// `exp` is over.
    #[error("the token has expired")]
    Expired,
    /// `nbf` is to come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `iss` is another.
    #[error("the token is of another issuer")]
    Issuer,
    /// `aud` is another.
    #[error("the token is for another audience")]
    Audience,
    /// Needed and not there, or of another type or size.
    #[error("the token's claim `{0}` is missing or malformed")]
    Claim(&'static str),
    /// It is on the list of revocations.
    #[error("the token is revoked")]
    Revoked,
    /// Of another user than the session.
    #[error("the token is of another user")]
    OtherUser,
    /// The backend that checks tokens says no.
    #[error("the backend does not accept the token")]
    Backend,
    /// The backend that checks tokens could not be asked, or said nothing that can be used.
    #[error("the token cannot be checked at present")]
    NoVerdict,
    /// Good for one subscription, not for a connection.
    #[error("the token is for a subscription")]
    ForSubscription,
    /// Good for a connection, not for a subscription.
    #[error("the token is for a connection, not for a subscription")]
    ForConnection,
    /// For a subscription to something else.
    #[error("the token is for another channel")]
    OtherChannel,
    /// The node ends.
    #[error("the node is shutting down")]
    Stopped,
}
