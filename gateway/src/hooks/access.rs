//! Backends that decide who may do what on a channel.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use streamgate_proto::{
    cloudevents::CloudEvent,
    proxy::{PublishAclRequest, SubscribeAclRequest},
    shared,
};

use super::{HookError, Hooks, PUBLISH, SUBSCRIBE, routes::Routes};
use crate::{
    error::{ClientError, ErrorCode},
    policy::rights::{Action, Arbiter, Asked},
};

/// The route's own timeout holds: nobody but the backend's settings limits these questions.
const NO_LIMIT: Duration = Duration::MAX;

impl Hooks {
    /// What decides on the rights of clients; none if no route names a hook that does.
    #[must_use]
    pub fn arbiter(&self) -> Option<Arc<dyn Arbiter>> {
        self.backend(Routes::decides_anything).map(|_| Arc::new(self.clone()) as Arc<dyn Arbiter>)
    }
}

impl Arbiter for Hooks {
    fn decides(&self, action: Action, name: &str) -> bool {
        let method = match action {
            // Who may not subscribe may not look at what was published, or who is there, either.
            Action::Subscribe | Action::History | Action::Presence => SUBSCRIBE,
            Action::Publish => PUBLISH,
            _ => return false,
        };
        self.backend(|routes| routes.decides(method, name)).is_some()
    }

    /// `SubscribeAcl`; `ACL_ERROR` also if nobody can be asked.
    fn subscribe(&self, asked: Asked) -> BoxFuture<'static, Result<(), ClientError>> {
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
                action: asked.action.as_str().to_owned(),
            };
            let answer = backend
                .ask(&question, &asked.headers, NO_LIMIT)
                .await
                .map_err(|error| refusal(&error, &channel))?;
            answer.error.map_or(Ok(()), |error| Err(no(&error, &channel)))
        })
    }

    /// `PublishAcl`.
    fn publish(
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
            let answer = backend
                .ask(&question, &asked.headers, NO_LIMIT)
                .await
                .map_err(|error| refusal(&error, &channel))?;
            match answer.error {
                Some(error) => Err(no(&error, &channel)),
                None => Ok(answer.payload.unwrap_or(event)),
            }
        })
    }
}

/// The error of a client that is not allowed: whatever code the backend gave, its answer is a verdict.
fn no(error: &shared::Error, channel: &str) -> ClientError {
    let text = match error.message.as_str() {
        "" => format!("{channel:?} is refused: {}", error.code),
        message => message.to_owned(),
    };
    ClientError::new(ErrorCode::AclError, text)
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
    let text = format!("no backend decides on {} of {:?}", asked.action.as_str(), asked.channel);
    Box::pin(async move { Err(ClientError::new(ErrorCode::AclError, text)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_backend_is_a_verdict_whatever_its_code() {
        for (code, message, told) in [
            ("ACL_ERROR", "not you", "not you"),
            ("BANNED", "you again", "you again"),
            ("RPC_TIMEOUT", "", "\"a.b\" is refused: RPC_TIMEOUT"),
        ] {
            let error =
                shared::Error { code: code.into(), message: message.into(), ..shared::Error::default() };
            let error = no(&error, "a.b").to_wire();
            assert_eq!((error.code.as_str(), error.message.as_str()), ("ACL_ERROR", told));
        }
    }
}
