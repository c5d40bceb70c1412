//! Clients' calls that backends answer.

use std::time::Duration;

use futures_util::future::BoxFuture;
use streamgate_proto::{
    cloudevents::CloudEvent,
    proxy::{RpcRequest as Question, RpcResponse as Answer},
};

use super::{Hooks, backend::Backend};
use crate::{
    error::{ClientError, ErrorCode},
    session::RpcRequest,
};

impl Hooks {
    /// Has the first backend with a route for it answer a call, within `limit`.
    ///
    /// # Errors
    /// The request itself, if there is no such route.
    pub fn rpc(
        &self,
        request: RpcRequest,
        limit: Duration,
    ) -> Result<BoxFuture<'static, Result<CloudEvent, ClientError>>, RpcRequest> {
        match self.backend(|routes| routes.rpc(&request.channel, &request.method)) {
            Some(backend) => Ok(self.run(async move { call(&backend, request, limit).await })),
            None => Err(request),
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
    let answer: Answer = backend.ask(&question, limit).await.map_err(|error| error.to_client())?;
    match (answer.error, answer.payload) {
        (Some(error), _) => Err(ClientError::from_wire(error)),
        (None, Some(payload)) => Ok(payload),
        (None, None) => Err(ClientError::new(
            ErrorCode::ProxyError,
            "the backend's answer has neither a payload nor an error",
        )),
    }
}
