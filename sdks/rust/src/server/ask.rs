//! Asking clients: calls and surveys.

use std::time::Duration;

use streamgate_proto::{cloudevents::CloudEvent, server as wire};

use super::{
    api::{ApiClient, millis, outcome, sent_once},
    sessions::Who,
};
use crate::{SurveyAnswer, error::Error};

/// How much longer than the gateway this side waits: it is the gateway that says that time is up, and what there is then.
const GRACE: Duration = Duration::from_secs(1);

/// What a survey found out.
#[derive(Debug, Clone, PartialEq)]
pub struct SurveyResult {
    /// By session, in no order. Who was silent is not among them.
    pub answers: Vec<SurveyAnswer>,
    /// How many were asked.
    pub asked: u32,
    /// There were more answers than the gateway passes on.
    pub truncated: bool,
}

impl ApiClient {
    /// Calls a method of a session, or of one of a user's sessions, by chance. Sent once: it is for whoever calls to know
    /// whether it may be carried out twice. `timeout` is the client's, if there is none; the gateway's `server.rpc_timeout`
    /// ends it, too.
    ///
    /// # Errors
    /// See [`ApiClient`]; `NOT_FOUND`: nobody is there; `RPC_TIMEOUT`: no answer in time; else what the client answered.
    pub async fn call(
        &self,
        who: Who,
        method: &str,
        event: CloudEvent,
        timeout: Option<Duration>,
    ) -> Result<CloudEvent, Error> {
        let timeout = timeout.unwrap_or(self.timeout);
        let (session_id, user_id) = who.into_ids();
        let request = wire::CallRequest {
            session_id,
            user_id,
            method: method.to_owned(),
            payload: Some(event),
            timeout_ms: millis(timeout).max(1),
        };
        let answer: wire::CallResponse = self
            .ask("call", timeout.saturating_add(GRACE), request, |mut api, request| async move {
                api.call(request).await
            })
            .await
            .map_err(|error| sent_once("call", error))?;
        Ok(answer.payload.unwrap_or_default())
    }

    /// Asks every subscriber of a channel, and waits until all have answered or time is up (as of a [`call`](Self::call)).
    ///
    /// # Errors
    /// See [`ApiClient`]; `NOT_FOUND`: nobody is subscribed.
    pub async fn survey(
        &self,
        channel: &str,
        event: CloudEvent,
        timeout: Option<Duration>,
    ) -> Result<SurveyResult, Error> {
        let timeout = timeout.unwrap_or(self.timeout);
        let request = wire::SurveyRequest {
            channel: channel.to_owned(),
            payload: Some(event),
            timeout_ms: i32::try_from(millis(timeout)).unwrap_or(i32::MAX).max(1),
            ..wire::SurveyRequest::default()
        };
        let answer: wire::SurveyResponse = self
            .ask("survey", timeout.saturating_add(GRACE), request, |mut api, request| async move {
                api.survey(request).await
            })
            .await
            .map_err(|error| sent_once("survey", error))?;
        let answers = answer.results.into_iter().map(|result| SurveyAnswer {
            session_id: result.session_id,
            outcome: outcome(result.error, result.payload.unwrap_or_default()),
        });
        Ok(SurveyResult { answers: answers.collect(), asked: answer.asked, truncated: answer.truncated })
    }
}
