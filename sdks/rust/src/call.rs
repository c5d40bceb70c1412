//! Asking others: calls, and surveys of a channel.

use std::time::Duration;

use streamgate_proto::{
    cloudevents::CloudEvent,
    v1::{self, InboundMessage, inbound_message as inbound, outbound_message::Envelope},
};

use crate::{
    client::{Client, unexpected},
    engine::Retry,
    error::Error,
};

/// What the channel of a call to one session starts with; its id follows.
const TO_SESSION: &str = "$session.";

/// How much longer than the server this side waits: it is the server that says that time is up, and what there is then.
const GRACE: Duration = Duration::from_secs(1);

/// How to call.
#[derive(Debug, Clone, Default)]
pub struct CallOptions {
    /// How long to wait for the answer (default: the builder's `request_timeout`). The server's `server.rpc_timeout` ends
    /// it, too.
    pub timeout: Option<Duration>,
}

/// What a survey found out.
#[derive(Debug, Clone, PartialEq)]
pub struct SurveyResult {
    /// Of those who answered in time, each once, in no order.
    pub answers: Vec<SurveyAnswer>,
    /// There were more than the server passes on.
    pub truncated: bool,
}

/// What one subscriber answered.
#[derive(Debug, Clone, PartialEq)]
pub struct SurveyAnswer {
    /// Who.
    pub session_id: String,
    /// The answer, or the error that was answered.
    pub outcome: Result<CloudEvent, Error>,
}

impl Client {
    /// Calls `method` on `channel`: a backend or a client that serves it answers, one of them, on whichever node. Sent once:
    /// it is for whoever calls to know whether it may be carried out twice.
    ///
    /// ```no_run
    /// # async fn example(client: streamgate_client::Client) -> Result<(), streamgate_client::Error> {
    /// use streamgate_client::{CallOptions, CloudEventBuilder, Error};
    /// let question = CloudEventBuilder::new("sum").text("[1, 2]").build();
    /// match client.call("shop.7", "math.sum", question, CallOptions::default()).await {
    ///     Ok(answer) => println!("{:?}", answer.data),
    ///     // Nobody serves it, or who does says so.
    ///     Err(Error::Server { code, message, .. }) => println!("{code}: {message}"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Server`]: what who answers says, as it is; or the gateway's `NO_PROXY` (nobody serves that), `PROXY_ERROR` (who
    /// was asked vanished), `RPC_TIMEOUT`, `ACL_ERROR`. [`Error::OutcomeUnknown`] and [`Error::Timeout`]: it may have been
    /// carried out.
    pub async fn call(
        &self,
        channel: impl Into<String>,
        method: impl Into<String>,
        event: CloudEvent,
        options: CallOptions,
    ) -> Result<CloudEvent, Error> {
        let timeout = options.timeout.unwrap_or(self.defaults().request_timeout);
        let frame = InboundMessage {
            channel: channel.into(),
            method: method.into(),
            envelope: Some(inbound::Envelope::RpcRequest(self.carried(event))),
            ..InboundMessage::default()
        };
        match self.ask_others(frame, timeout, "call").await? {
            Envelope::RpcReply(event) => Ok(event),
            other => Err(unexpected("call", &other)),
        }
    }

    /// Calls `method` of one session, that of another client or this one, by its [id](Self::session_id). It answers what it
    /// [serves](Self::serve).
    ///
    /// # Errors
    /// As for [`call`](Self::call); `NOT_FOUND` if there is no such session (any more).
    pub async fn call_session(
        &self,
        session_id: &str,
        method: impl Into<String>,
        event: CloudEvent,
        options: CallOptions,
    ) -> Result<CloudEvent, Error> {
        self.call(format!("{TO_SESSION}{session_id}"), method, event, options).await
    }

    /// Asks everybody who is subscribed to `channel`, by its name or a pattern, and waits until all have answered, or for
    /// `timeout`. This client is one of them, if it is subscribed. Asked once, as a call is.
    ///
    /// ```no_run
    /// # async fn example(client: streamgate_client::Client) -> Result<(), streamgate_client::Error> {
    /// use std::time::Duration;
    /// use streamgate_client::CloudEventBuilder;
    /// let question = CloudEventBuilder::new("version?").build();
    /// let result = client.survey("room.blue", question, Duration::from_secs(2)).await?;
    /// for answer in result.answers {
    ///     println!("{}: {:?}", answer.session_id, answer.outcome);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Server`]: `NOT_FOUND` if nobody is subscribed, `ACL_ERROR` without the right. [`Error::OutcomeUnknown`] and
    /// [`Error::Timeout`]: they may have been asked.
    pub async fn survey(
        &self,
        channel: impl Into<String>,
        event: CloudEvent,
        timeout: Duration,
    ) -> Result<SurveyResult, Error> {
        let request = v1::SurveyRequest {
            request_id: uuid::Uuid::new_v4().to_string(),
            payload: Some(self.carried(event)),
        };
        let frame = InboundMessage {
            channel: channel.into(),
            envelope: Some(inbound::Envelope::SurveyRequest(request)),
            ..InboundMessage::default()
        };
        match self.ask_others(frame, timeout, "survey").await? {
            Envelope::SurveyResult(result) => Ok(SurveyResult {
                answers: result.results.into_iter().map(SurveyAnswer::from).collect(),
                truncated: result.truncated,
            }),
            other => Err(unexpected("survey", &other)),
        }
    }

    async fn ask_others(
        &self,
        mut frame: InboundMessage,
        timeout: Duration,
        what: &'static str,
    ) -> Result<Envelope, Error> {
        let mut patience = timeout;
        if self.defaults().extended {
            frame.timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).max(1);
            patience = timeout.saturating_add(GRACE);
        }
        self.send(frame, Retry::UnlessSent, patience, what).await
    }
}

impl From<v1::SurveyAnswer> for SurveyAnswer {
    fn from(wire: v1::SurveyAnswer) -> Self {
        let outcome = match wire.error {
            Some(error) => Err(Error::from_wire(error)),
            None => Ok(wire.payload.unwrap_or_default()),
        };
        Self { session_id: wire.session_id, outcome }
    }
}
