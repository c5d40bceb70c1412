//! Asking clients: `call` and `survey`.

use std::time::Duration;

use streamgate_proto::{
    cloudevent,
    cloudevents::CloudEvent,
    server::{CallRequest, CallResponse, SurveyRequest, SurveyResponse, SurveyResult},
};

use super::{Operations, missing, who};
use crate::{
    channel::{Channel, MAX_BYTES},
    error::{ClientError, ErrorCode},
    session::check_event,
};

/// Beyond the timeout, for the way from another node: whoever asks there tells of the timeout itself.
const GRACE: Duration = Duration::from_secs(1);

impl Operations {
    /// Calls a method of a client.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] if nobody is there, [`ErrorCode::RpcTimeout`], or what the client says.
    pub async fn call(&self, request: CallRequest) -> Result<CallResponse, ClientError> {
        let who = who(request.session_id, request.user_id)?;
        if !(1..=MAX_BYTES).contains(&request.method.len()) {
            let text = format!("method has {} bytes, 1 to {MAX_BYTES} are allowed", request.method.len());
            return Err(ClientError::bad_request(text));
        }
        let event = request.payload.ok_or_else(|| missing("payload"))?;
        cloudevent::validate(&event).map_err(|error| ClientError::bad_request(error.to_string()))?;
        let timeout = self.timeout(u64::from(request.timeout_ms));
        let answer = self.control()?.call(who, request.method, event, timeout);
        let payload: CloudEvent = in_time(timeout, answer).await?;
        Ok(CallResponse { payload: Some(payload) })
    }

    /// Asks every subscriber of a channel.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] if the channel has none; what single ones say is in the results.
    pub async fn survey(&self, request: SurveyRequest) -> Result<SurveyResponse, ClientError> {
        let channel = Channel::parse(&request.channel)?;
        let event = request.payload.ok_or_else(|| missing("payload"))?;
        check_event(&self.settings.policies, channel.as_str(), &event)?;
        let timeout = u64::try_from(request.timeout_ms).map_err(|_| {
            ClientError::bad_request(format!("timeout_ms is {}: it cannot be negative", request.timeout_ms))
        })?;
        let timeout = self.timeout(timeout);
        let outcome = in_time(timeout, self.control()?.survey(channel, event, timeout)).await?;
        let results = outcome.answers.into_iter().map(|answer| SurveyResult {
            session_id: answer.session_id,
            payload: answer.payload,
            error: answer.error,
        });
        Ok(SurveyResponse {
            request_id: request.request_id,
            results: results.collect(),
            asked: outcome.asked,
            truncated: outcome.truncated,
        })
    }

    /// 0, or more than `server.rpc_timeout`, is that.
    fn timeout(&self, timeout_ms: u64) -> Duration {
        match timeout_ms {
            0 => self.rpc_timeout,
            timeout_ms => self.rpc_timeout.min(Duration::from_millis(timeout_ms)),
        }
    }
}

async fn in_time<T>(
    timeout: Duration,
    answer: impl Future<Output = Result<T, ClientError>> + Send,
) -> Result<T, ClientError> {
    let late = |_| ClientError::new(ErrorCode::RpcTimeout, format!("no answer within {timeout:?}"));
    tokio::time::timeout(timeout + GRACE, answer).await.map_err(late)?
}
