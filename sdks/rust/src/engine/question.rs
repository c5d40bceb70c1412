//! What others ask this client, and the frames that answer it.

use std::time::Instant;

use streamgate_proto::{
    cloudevents::CloudEvent,
    shared,
    v1::{self, InboundMessage, inbound_message::Envelope, rpc_result},
};

use super::frame;

/// What is to be answered, as the server names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Question {
    Call(String),
    Survey(String),
}

/// An answer as it goes over the wire.
pub(crate) type Outcome = Result<CloudEvent, shared::Error>;

/// A call or survey for a handler.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) question: Question,
    /// Empty for a survey.
    pub(crate) channel: String,
    /// Empty for a survey.
    pub(crate) method: String,
    pub(crate) event: CloudEvent,
    /// Nobody waits for an answer any longer than this.
    pub(crate) deadline: Instant,
}

/// An error of this client's as it goes over the wire.
pub(crate) fn wire_error(code: &str, kind: &str, message: String) -> shared::Error {
    shared::Error { code: code.to_owned(), r#type: kind.to_owned(), message, metadata: None }
}

/// The frame that answers a question.
pub(crate) fn answer_frame(id: u64, question: Question, outcome: Outcome) -> InboundMessage {
    let envelope = match question {
        Question::Call(request_id) => Envelope::RpcResult(v1::RpcResult {
            request_id,
            outcome: Some(match outcome {
                Ok(event) => rpc_result::Outcome::Payload(event),
                Err(error) => rpc_result::Outcome::Error(error),
            }),
        }),
        Question::Survey(request_id) => {
            let (payload, error) = match outcome {
                Ok(event) => (Some(event), None),
                Err(error) => (None, Some(error)),
            };
            Envelope::SurveyResponse(v1::SurveyResponse { request_id, payload, error })
        }
    };
    frame(id, envelope)
}
