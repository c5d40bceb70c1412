//! What rules leave to a backend.

use std::fmt;

use futures_util::future::BoxFuture;
use streamgate_proto::cloudevents::CloudEvent;

use super::Action;
use crate::{client_headers::ClientHeaders, error::ClientError};

/// Backends that decide what the table leaves to them. Their time is theirs to bound; the node gives up after
/// `server.rpc_timeout` in any case.
pub trait Arbiter: Send + Sync + 'static {
    /// Whether it is to be asked about `name`, a channel or a pattern, though no rule names the action, which everybody might do
    /// else.
    fn decides(&self, action: Action, name: &str) -> bool {
        let _ = (action, name);
        false
    }

    /// Whether `asked` is allowed: any action but a publish. Errors reach the client as they are; only
    /// [`AclError`](crate::error::ErrorCode::AclError) is a no, everything else is no answer.
    fn subscribe(&self, asked: Asked) -> BoxFuture<'static, Result<(), ClientError>>;

    /// The same for a publish; may answer another event in the place of the one given.
    fn publish(&self, asked: Asked, event: CloudEvent)
    -> BoxFuture<'static, Result<CloudEvent, ClientError>>;
}

impl fmt::Debug for dyn Arbiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Arbiter(..)")
    }
}

/// A question for an [`Arbiter`]. `Debug` does not show the token.
#[derive(Clone, PartialEq, Eq)]
pub struct Asked {
    /// What the client wants to do.
    pub action: Action,
    /// The channel; for a subscription the pattern, if it is one.
    pub channel: String,
    /// `Subscription.token` as the client sent it; empty if there is none.
    pub token: String,
    /// Who asks: the session,
    pub session_id: String,
    /// the authenticated user, empty if anonymous,
    pub user_id: String,
    /// and what the client says of itself.
    pub client_id: String,
    /// Headers that it came with, as far as a backend wants them.
    pub headers: ClientHeaders,
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked")
            .field("action", &self.action)
            .field("channel", &self.channel)
            .field("session_id", &self.session_id)
            .field("user_id", &self.user_id)
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}
