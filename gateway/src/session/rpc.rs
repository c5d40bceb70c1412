//! Calls and surveys: what a client asks of others, and what others ask of it.

use streamgate_proto::{
    cloudevent,
    cloudevents::CloudEvent,
    v1::{
        OutboundMessage, RpcCall, RpcResult, SurveyAnswer, SurveyRequest, SurveyResponse, SurveyResult,
        outbound_message as out, rpc_result::Outcome,
    },
};

use prost::Message as _;

use super::{
    Effect, Effects, Now, ReplyTo, RpcRequest, Session, Settings, Survey, publish_rules::check_event,
    render::fresh, rights::Then,
};
use crate::{
    channel::{MAX_BYTES, Target},
    error::{ClientError, ErrorCode},
    peers::{CallAsk, SurveyAnswers},
    policy::rights::Action,
};

/// Patterns that one client may offer to answer.
const MOST_METHODS: usize = 100;

impl Session {
    pub(super) fn rpc_request(
        &mut self,
        now: Now,
        reply: ReplyTo,
        (channel, method): (String, String),
        event: CloudEvent,
        timeout_ms: u32,
        fx: &mut Effects,
    ) {
        let request = RpcRequest {
            channel: if channel.is_empty() { event.source.clone() } else { channel },
            method: if method.is_empty() { event.r#type.clone() } else { method },
            event,
            timeout_ms: u64::from(timeout_ms),
            session_id: self.id.clone(),
            client_id: self.client_id.clone(),
            user_id: self.user_id.clone(),
            headers: self.headers.clone(),
        };
        if let Err(error) = carriable(&request.event) {
            return self.fail(now, reply, &error, fx);
        }
        if request.channel.len().max(request.method.len()) > MAX_BYTES {
            let text = format!("a call's channel and method have at most {MAX_BYTES} bytes each");
            return self.fail(now, reply, &ClientError::bad_request(text), fx);
        }
        if let Err(error) = self.take_call(now) {
            return self.fail(now, reply, &error, fx);
        }
        let channel = request.channel.clone();
        self.permit(now, (Action::Rpc, &channel), Then::Rpc(reply, Box::new(request)), fx);
    }

    /// Answers an RPC.
    pub fn rpc_done(
        &mut self,
        now: Now,
        reply: ReplyTo,
        result: Result<CloudEvent, ClientError>,
        fx: &mut Effects,
    ) {
        match result.and_then(|event| self.sized(event)) {
            Ok(event) => self.answer(now, reply, out::Envelope::RpcReply(event), fx),
            Err(error) => self.fail(now, reply, &error, fx),
        }
    }

    pub(super) fn rpc_serve(&mut self, now: Now, reply: ReplyTo, methods: Vec<String>, fx: &mut Effects) {
        if let Err(error) = self.take_call(now).and_then(|()| self.servable(&methods)) {
            return self.fail(now, reply, &error, fx);
        }
        let names: Vec<_> = methods.iter().map(String::as_str).collect();
        self.permit_all(now, (Action::Serve, &names), Then::Serve(reply, methods.clone()), fx);
    }

    fn servable(&self, methods: &[String]) -> Result<(), ClientError> {
        if methods.len() > MOST_METHODS {
            let text = format!("{} methods are offered, at most {MOST_METHODS} can be", methods.len());
            return Err(ClientError::bad_request(text));
        }
        for method in methods {
            Target::parse(method).map_err(|error| {
                ClientError::bad_request(format!("a method is named like a channel, but {error}"))
            })?;
        }
        Ok(())
    }

    /// Answers whether calls come now.
    pub fn serving(&mut self, now: Now, reply: ReplyTo, result: Result<(), ClientError>, fx: &mut Effects) {
        match result {
            Ok(()) => self.answer(now, reply, out::Envelope::Ok(Default::default()), fx),
            Err(error) => self.fail(now, reply, &error, fx),
        }
    }

    /// The frame that gives the client a call to answer.
    ///
    /// # Errors
    /// The client cannot answer calls, or the request is too large for it.
    pub fn call(
        &self,
        now: Now,
        request_id: &str,
        call: CallAsk,
        timeout_ms: u64,
    ) -> Result<OutboundMessage, ClientError> {
        if !self.extended || !self.takes_questions() {
            let text = "the client speaks v1 or events alone, and takes no calls";
            return Err(ClientError::new(ErrorCode::NotSupported, text));
        }
        let call = RpcCall {
            request_id: request_id.to_owned(),
            channel: call.channel,
            method: call.method,
            payload: Some(self.sized(call.event.unwrap_or_default())?),
            deadline: now.unix_ms.saturating_add(timeout_ms),
        };
        Ok(fresh(now, out::Envelope::RpcCall(call)))
    }

    pub(super) fn rpc_result(&mut self, now: Now, reply: ReplyTo, result: RpcResult, fx: &mut Effects) {
        let outcome = match result.outcome {
            Some(Outcome::Payload(event)) => match carriable(&event) {
                Ok(()) => Ok(event),
                // It is an answer all the same: who waits must not wait longer.
                Err(error) => {
                    self.fail(now, reply, &error, fx);
                    Err(unusable(&error))
                }
            },
            Some(Outcome::Error(error)) => Err(ClientError::from_wire(error)),
            None => {
                let error = ClientError::bad_request("an rpc_result has a payload or an error");
                return self.fail(now, reply, &error, fx);
            }
        };
        fx.push(Effect::RpcResult { request_id: result.request_id, outcome });
    }

    pub(super) fn survey(
        &mut self,
        now: Now,
        reply: ReplyTo,
        channel: &str,
        request: SurveyRequest,
        timeout_ms: u32,
        fx: &mut Effects,
    ) {
        let event = request.payload.unwrap_or_default();
        let channel = match check_event(&self.settings.policies, channel, &event) {
            Ok((channel, _)) => channel,
            Err(error) => return self.fail(now, reply, &error, fx),
        };
        if let Err(error) = self.take_call(now) {
            return self.fail(now, reply, &error, fx);
        }
        let survey = Survey {
            reply,
            request_id: request.request_id,
            channel: channel.clone(),
            event,
            timeout_ms: u64::from(timeout_ms),
        };
        self.permit(now, (Action::Survey, channel.as_str()), Then::Survey(Box::new(survey)), fx);
    }

    /// Answers a survey. What the client's write queue has no room for is left out, and the answer says so.
    pub fn survey_done(
        &mut self,
        now: Now,
        reply: ReplyTo,
        request_id: String,
        result: Result<SurveyAnswers, ClientError>,
        fx: &mut Effects,
    ) {
        let answers = match result {
            Ok(answers) => answers,
            Err(error) => return self.fail(now, reply, &error, fx),
        };
        let mut room = self.largest();
        let mut result = SurveyResult { request_id, truncated: answers.truncated, ..SurveyResult::default() };
        for outcome in answers.outcomes {
            let answer =
                SurveyAnswer { session_id: outcome.session_id, payload: outcome.event, error: outcome.error };
            let Some(left) = room.checked_sub(answer.encoded_len() + 128) else {
                result.truncated = true;
                break;
            };
            room = left;
            result.results.push(answer);
        }
        self.answer(now, reply, out::Envelope::SurveyResult(result), fx);
    }

    /// Bytes of an event, in protobuf, that are sent to the client at most: a quarter of its write queue, as JSON may take
    /// a multiple, and what is live needs room beside it.
    #[must_use]
    pub fn largest(&self) -> usize {
        largest(&self.settings)
    }

    /// The event, if it is not too large for the client.
    pub(super) fn sized(&self, event: CloudEvent) -> Result<CloudEvent, ClientError> {
        check_size(&self.settings, &event).map(|()| event)
    }
}

fn largest(settings: &Settings) -> usize {
    settings.limits.load().write_queue_bytes / 4
}

fn check_size(settings: &Settings, event: &CloudEvent) -> Result<(), ClientError> {
    let (got, most) = (event.encoded_len(), largest(settings));
    if got <= most {
        return Ok(());
    }
    let text = format!("the event has {got} bytes, at most {most} can be sent to the client");
    Err(ClientError::new(ErrorCode::TooLarge, text))
}

/// The frame that asks clients, of v1 as well, what a survey asks.
///
/// # Errors
/// The event is too large for any client.
pub fn survey_frame(
    settings: &Settings,
    now: Now,
    request_id: &str,
    event: &CloudEvent,
) -> Result<OutboundMessage, ClientError> {
    check_size(settings, event)?;
    let request = SurveyRequest { request_id: request_id.to_owned(), payload: Some(event.clone()) };
    Ok(fresh(now, out::Envelope::SurveyRequest(request)))
}

/// What a client's answer to a survey comes to.
pub(super) fn survey_answer(answer: SurveyResponse) -> Effect {
    let outcome = match answer.error {
        Some(error) => Err(ClientError::from_wire(error)),
        None => {
            let event = answer.payload.unwrap_or_default();
            carriable(&event).map(|()| event).map_err(|error| unusable(&error))
        }
    };
    Effect::SurveyAnswer { request_id: answer.request_id, outcome }
}

/// Checks that whoever gets the event can read it, in whatever encoding.
fn carriable(event: &CloudEvent) -> Result<(), ClientError> {
    cloudevent::encodable(event).map_err(|error| ClientError::bad_request(error.to_string()))
}

/// What who asked is told of an answer that cannot be passed on.
fn unusable(error: &ClientError) -> ClientError {
    ClientError::new(ErrorCode::ProxyError, format!("the answer cannot be passed on: {}", error.message))
}

#[cfg(test)]
mod tests {
    use streamgate_proto::{
        cloudevents::{Attr, CloudEventAttributeValue},
        v1::inbound_message::Envelope as In,
        wkt::Timestamp,
    };

    use super::*;
    use crate::session::tests::{Client, error_code};

    /// An event that protobuf carries and JSON does not.
    fn timeless() -> CloudEvent {
        let time = Timestamp { seconds: i64::MAX, nanos: 0 };
        let value = CloudEventAttributeValue { attr: Some(Attr::CeTimestamp(time)) };
        CloudEvent {
            source: "a".into(),
            attributes: [("when".to_owned(), value)].into(),
            ..CloudEvent::default()
        }
    }

    #[test]
    fn what_some_encoding_cannot_carry_is_neither_asked_nor_answered() {
        let mut client = Client::connected(true);
        assert_eq!(error_code(&client.say("2", In::RpcRequest(timeless()))), "BAD_REQUEST");
        let result = RpcResult { request_id: "r".into(), outcome: Some(Outcome::Payload(timeless())) };
        let mut fx = client.say("3", In::RpcResult(result));
        let Some(Effect::RpcResult { outcome: Err(error), .. }) = fx.pop() else { panic!("{fx:?}") };
        assert_eq!((error.code, error_code(&fx).as_str()), (ErrorCode::ProxyError, "BAD_REQUEST"));
        let answer = SurveyResponse { payload: Some(timeless()), ..SurveyResponse::default() };
        let fx = client.say("4", In::SurveyResponse(answer));
        let [Effect::SurveyAnswer { outcome: Err(error), .. }] = &fx[..] else { panic!("{fx:?}") };
        assert_eq!(error.code, ErrorCode::ProxyError);
    }
}
