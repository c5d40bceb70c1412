//! Backends that decide who may do what on a channel.

use std::time::Duration;

use futures_util::future::BoxFuture;
use streamgate_proto::{
    cloudevents::CloudEvent,
    proxy::{PublishAclRequest, SubscribeAclRequest},
};

use super::{HookError, Hooks, PUBLISH, SUBSCRIBE};
use crate::error::{ClientError, ErrorCode};

/// The route's own timeout holds: nobody but the backend's settings limits these questions.
const NO_LIMIT: Duration = Duration::MAX;

/// What is to be decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// `subscribe`, `publish`, or another action of the table of permissions.
    pub action: String,
    /// Channel or pattern.
    pub channel: String,
    /// The subscription's token, if it has one.
    pub token: String,
    /// Who asks: the session,
    pub session_id: String,
    /// the authenticated user, empty if anonymous,
    pub user_id: String,
    /// and what the client says of itself.
    pub client_id: String,
}

impl Hooks {
    /// Whether there is a backend that decides on subscriptions to this channel or pattern.
    #[must_use]
    pub fn decides_subscribe(&self, channel: &str) -> bool {
        self.backend(|routes| routes.decides(SUBSCRIBE, channel)).is_some()
    }

    /// Whether there is a backend that decides on publishes to this channel.
    #[must_use]
    pub fn decides_publish(&self, channel: &str) -> bool {
        self.backend(|routes| routes.decides(PUBLISH, channel)).is_some()
    }

    /// Asks whether `asked` is allowed (`SubscribeAcl`).
    ///
    /// # Errors
    /// `ACL_ERROR` if not, or if nobody can be asked; the backend's own error; `RPC_TIMEOUT` or `PROXY_ERROR`.
    pub fn subscribe(&self, asked: Asked) -> BoxFuture<'static, Result<(), ClientError>> {
        let Some(backend) = self.backend(|routes| routes.decides(SUBSCRIBE, &asked.channel)) else {
            return nobody(&asked);
        };
        self.run(async move {
            let channel = asked.channel.clone();
            let question = SubscribeAclRequest {
                channel: asked.channel,
                token: asked.token,
                session_id: asked.session_id,
                user_id: asked.user_id,
                client_id: asked.client_id,
                action: asked.action,
            };
            let answer = backend.ask(&question, NO_LIMIT).await.map_err(|error| refusal(&error, &channel))?;
            answer.error.map_or(Ok(()), |error| Err(ClientError::from_wire(error)))
        })
    }

    /// Asks whether `event` may be published (`PublishAcl`); answers the event to publish, which the backend may have
    /// rewritten.
    ///
    /// # Errors
    /// As [`Self::subscribe`].
    pub fn publish(
        &self,
        asked: Asked,
        event: CloudEvent,
    ) -> BoxFuture<'static, Result<CloudEvent, ClientError>> {
        let Some(backend) = self.backend(|routes| routes.decides(PUBLISH, &asked.channel)) else {
            return nobody(&asked);
        };
        self.run(async move {
            let channel = asked.channel.clone();
            let question = PublishAclRequest {
                channel: asked.channel,
                payload: Some(event.clone()),
                session_id: asked.session_id,
                user_id: asked.user_id,
                client_id: asked.client_id,
            };
            let answer = backend.ask(&question, NO_LIMIT).await.map_err(|error| refusal(&error, &channel))?;
            match answer.error {
                Some(error) => Err(ClientError::from_wire(error)),
                None => Ok(answer.payload.unwrap_or(event)),
            }
        })
    }
}

/// The error of a client that is not allowed, or of whom nobody knows.
fn refusal(error: &HookError, channel: &str) -> ClientError {
    match error {
        HookError::Refused { reason } => {
            ClientError::new(ErrorCode::AclError, format!("{channel:?} is refused: {reason}"))
        }
        error => error.to_client(),
    }
}

fn nobody<T: Send + 'static>(asked: &Asked) -> BoxFuture<'static, Result<T, ClientError>> {
    let text = format!("no backend decides on {} of {:?}", asked.action, asked.channel);
    Box::pin(async move { Err(ClientError::new(ErrorCode::AclError, text)) })
}
