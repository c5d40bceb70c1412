//! Clients' calls that backends answer.

use std::time::Duration;

use futures_util::future::BoxFuture;
use streamgate_proto::{
    cloudevent,
    cloudevents::CloudEvent,
    proxy::{RpcRequest as Question, RpcResponse as Answer},
};

use super::{Hooks, backend::Backend};
use crate::{
    error::{ClientError, ErrorCode},
    session::RpcRequest,
};

impl Hooks {
    /// Whether there is a backend with a route for such calls.
    #[must_use]
    pub fn serves(&self, channel: &str, method: &str) -> bool {
        self.backend(|routes| routes.rpc(channel, method)).is_some()
    }

    /// Has the first backend with a route for it answer a call, within `limit`.
    ///
    /// # Errors
    /// `NO_PROXY` if there is none, the backend's own error, `RPC_TIMEOUT` or `PROXY_ERROR`.
    pub fn rpc(
        &self,
        request: RpcRequest,
        limit: Duration,
    ) -> BoxFuture<'static, Result<CloudEvent, ClientError>> {
        match self.backend(|routes| routes.rpc(&request.channel, &request.method)) {
            Some(backend) => self.run(async move { call(&backend, request, limit).await }),
            None => {
                let text = format!("nothing serves method {:?} on {:?}", request.method, request.channel);
                Box::pin(async move { Err(ClientError::new(ErrorCode::NoProxy, text)) })
            }
        }
    }
}

async fn call(backend: &Backend, request: RpcRequest, limit: Duration) -> Result<CloudEvent, ClientError> {
    let question = Question {
        id: uuid::Uuid::new_v4().to_string(),
        channel: request.channel,
        method: request.method,
        payload: Some(request.event),
        session_id: request.session_id,
        user_id: request.user_id,
        client_id: request.client_id,
    };
    let answer: Answer =
        backend.ask(&question, &request.headers, limit).await.map_err(|error| error.to_client())?;
    match (answer.error, answer.payload) {
        (Some(error), _) => Err(ClientError::from_wire(error)),
        (None, Some(payload)) => match cloudevent::encodable(&payload) {
            Ok(()) => Ok(payload),
            Err(error) => {
                let text = format!("the backend's answer cannot be passed on: {error}");
                Err(ClientError::new(ErrorCode::ProxyError, text))
            }
        },
        (None, None) => Err(ClientError::new(
            ErrorCode::ProxyError,
            "the backend's answer has neither a payload nor an error",
        )),
    }
}
