//! `POST /channels/{channel}/events`: the HTTP protocol binding of CloudEvents, in its three modes.

use hyper::{
    HeaderMap, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName},
};
use serde_json::{Value, json};
use streamgate_proto::{
    cloudevents::CloudEvent,
    shared,
    v1::{
        InboundMessage, OutboundMessage, PublishOptions, inbound_message::Envelope as In,
        outbound_message::Envelope as Out,
    },
};

use super::{
    client::{Requester, client},
    headers::{PREFIX, attributes},
    parse::{Sent, batch, binary, structured},
};
use crate::{
    channel::Channel,
    error::{ClientError, ErrorCode},
    session::Arrival,
    shard::Shard,
    transport::http::{JSON, Refusal, Reply, RequestBody, reply},
};

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// A batch may be as long as so many frames of other transports.
const BATCH_FRAMES: usize = 16;

/// How the events of a request are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Binary,
    Structured,
    Batch,
}

/// Publishes what the request holds, and answers where it stands.
///
/// Cancel: what was handed on is published.
///
/// # Errors
/// Nothing of it is published, but for what the error of a batch says (`metadata.results`).
pub(in crate::transport) async fn post(
    shard: &Shard,
    arrival: Arrival,
    channel: &Channel,
    headers: &HeaderMap,
    body: RequestBody,
) -> Result<Reply, Refusal> {
    let mode = mode(headers)?;
    let key = key(headers)?;
    let client = client(shard, arrival).await?;
    let frame = shard.settings().limits.load().frame_bytes;
    let limit = if mode == Mode::Batch { frame.saturating_mul(BATCH_FRAMES) } else { frame };
    let body = body.whole(limit).await?;
    match mode {
        Mode::Batch => several(&client, channel, batch(&body)?, &key).await,
        Mode::Structured => one(&client, channel, structured(&body)?, key).await,
        Mode::Binary => one(&client, channel, binary(attributes(headers)?, &body)?, key).await,
    }
}

fn mode(headers: &HeaderMap) -> Result<Mode, Refusal> {
    let unsupported = |text: &str| Err(Refusal::of(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return unsupported("Content-Encoding is not understood: send the body as it is");
    }
    if headers.get_all(CONTENT_TYPE).iter().count() > 1 {
        return unsupported("Content-Type is there twice");
    }
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let (kind, parameters) = kind.split_once(';').unwrap_or((kind, ""));
    let kind = kind.trim().to_ascii_lowercase();
    let mode = match &*kind {
        "application/cloudevents+json" => Mode::Structured,
        "application/cloudevents-batch+json" => Mode::Batch,
        other if other.starts_with("application/cloudevents") => {
            return unsupported("of the formats of CloudEvents, JSON alone is understood");
        }
        _ if headers.keys().any(|name| name.as_str().starts_with(PREFIX)) => return Ok(Mode::Binary),
        _ => {
            return unsupported(
                "Content-Type is application/cloudevents+json or application/cloudevents-batch+json, \
                 or the event's attributes are headers: ce-id, ce-source, ce-type, ce-specversion",
            );
        }
    };
    let charset =
        parameters.split(';').filter_map(|parameter| parameter.split_once('=')).find_map(|(name, value)| {
            name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
        });
    if charset.is_some_and(|charset| !charset.eq_ignore_ascii_case("utf-8")) {
        return unsupported("JSON is in UTF-8");
    }
    Ok(mode)
}

fn key(headers: &HeaderMap) -> Result<String, ClientError> {
    let text = headers.get(KEY).map(|key| key.to_str()).transpose();
    let text = text.map_err(|_| ClientError::bad_request("Idempotency-Key is not ASCII"))?;
    Ok(text.unwrap_or_default().to_owned())
}

/// The event's own key, else the request's.
fn split(sent: Sent, key: impl FnOnce() -> String) -> (CloudEvent, String) {
    let Sent { event, mut own } = sent;
    (event, own.remove("sgidempotencykey").unwrap_or_else(key))
}

async fn one(client: &Requester, channel: &Channel, sent: Sent, key: String) -> Result<Reply, Refusal> {
    let (event, idempotency_key) = split(sent, || key);
    let id = event.id.clone();
    let frame = InboundMessage {
        channel: channel.as_str().to_owned(),
        publish_options: Some(PublishOptions { idempotency_key, ..PublishOptions::default() }),
        envelope: Some(In::Publish(event)),
        ..InboundMessage::default()
    };
    let result = outcome(client.ask(frame).await?).map_err(ClientError::from_wire)?;
    Ok(answer(StatusCode::OK, &with_id(&id, result)))
}

async fn several(
    client: &Requester,
    channel: &Channel,
    events: Vec<Sent>,
    key: &str,
) -> Result<Reply, Refusal> {
    let numbered = events.into_iter().enumerate();
    let of_event = |at| if key.is_empty() { String::new() } else { format!("{key}/{at}") };
    let events: Vec<_> = numbered.map(|(at, sent)| split(sent, || of_event(at))).collect();
    let ids: Vec<_> = events.iter().map(|(event, _)| event.id.clone()).collect();
    let answers = client.publish(channel.as_str(), events).await?;
    batch_answer(&ids, answers.into_iter().map(outcome).collect())
}

/// What became of a batch: where only part of it is stored, the error of the first that is not, and what became of each.
fn batch_answer(ids: &[String], outcomes: Vec<Result<Value, shared::Error>>) -> Result<Reply, Refusal> {
    let failed = outcomes.iter().find_map(|outcome| outcome.as_ref().err()).cloned();
    let none = outcomes.iter().all(Result::is_err);
    let results = ids.iter().zip(outcomes).map(|(id, outcome)| with_id(id, outcome.unwrap_or_else(told)));
    let results: Vec<_> = results.collect();
    match failed {
        None => Ok(answer(StatusCode::OK, &json!({"results": results}))),
        // Refused as a whole: the error says why.
        Some(error) if none => Err(ClientError::from_wire(error).into()),
        Some(error) => {
            let status = Refusal::from(ClientError::from_wire(error.clone())).status();
            let mut body = told(error)["error"].take();
            body["metadata"]["results"] = Value::Array(results);
            Ok(answer(status, &body))
        }
    }
}

/// What became of one event.
fn outcome(answer: OutboundMessage) -> Result<Value, shared::Error> {
    match answer.envelope {
        Some(Out::PublishAck(ack)) => {
            let position = ack.position.map(|at| json!({"epoch": at.epoch, "offset": at.offset.to_string()}));
            Ok(json!({"position": position, "duplicate": ack.duplicate}))
        }
        Some(Out::Error(error)) => Err(error),
        _ => Err(ClientError::new(ErrorCode::Internal, "the publish was not answered").to_wire()),
    }
}

fn told(error: shared::Error) -> Value {
    json!({"error": serde_json::to_value(error).unwrap_or_default()})
}

fn with_id(id: &str, mut result: Value) -> Value {
    result["id"] = Value::from(id);
    result
}

fn answer(status: StatusCode, body: &Value) -> Reply {
    reply(status, JSON, body.to_string())
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    async fn told_of(outcomes: Vec<Result<Value, shared::Error>>) -> (u16, Value) {
        let ids: Vec<_> = (1..=outcomes.len()).map(|id| id.to_string()).collect();
        let reply = batch_answer(&ids, outcomes).unwrap_or_else(|refusal| refusal.response());
        let status = reply.status().as_u16();
        let Ok(body) = reply.into_body().collect().await;
        (status, serde_json::from_slice(&body.to_bytes()).unwrap())
    }

    fn stored(offset: &str) -> Result<Value, shared::Error> {
        Ok(json!({"position": {"epoch": "17", "offset": offset}, "duplicate": false}))
    }

    fn away() -> Result<Value, shared::Error> {
        Err(ClientError::new(ErrorCode::NotAvailable, "storage is away").to_wire())
    }

    #[tokio::test]
    async fn where_storage_fails_in_the_middle_the_answer_tells_which_events_are_in() {
        let (status, body) = told_of(vec![stored("1"), away(), stored("2")]).await;
        assert_eq!(
            (status, &body["code"], &body["message"]),
            (503, &json!("NOT_AVAILABLE"), &json!("storage is away"))
        );
        let results = &body["metadata"]["results"];
        assert_eq!((&results[0]["id"], &results[0]["position"]["offset"]), (&json!("1"), &json!("1")));
        assert_eq!((&results[1]["id"], &results[1]["error"]["code"]), (&json!("2"), &json!("NOT_AVAILABLE")));
        assert_eq!((&results[2]["id"], &results[2]["position"]["offset"]), (&json!("3"), &json!("2")));
    }

    #[tokio::test]
    async fn what_is_in_or_out_as_a_whole_says_so_in_one_word() {
        let (status, body) = told_of(vec![stored("1"), stored("2")]).await;
        assert_eq!((status, body["results"].as_array().map(Vec::len)), (200, Some(2)));
        assert_eq!(told_of(Vec::new()).await, (200, json!({"results": []})));
        let (status, body) = told_of(vec![away(), away()]).await;
        assert_eq!((status, &body["code"], body.get("metadata")), (503, &json!("NOT_AVAILABLE"), None));
    }

    #[test]
    fn the_mode_is_that_of_the_content_type_or_of_the_headers() {
        let of = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, hyper::header::HeaderValue::from_static(value));
            }
            mode(&headers).map_err(|refusal| refusal.status().as_u16())
        };
        let json = ("content-type", "Application/CloudEvents+JSON; charset=UTF-8");
        assert_eq!(of(&[json]), Ok(Mode::Structured));
        // Attributes in headers beside an event in the body: the body counts (HTTP binding, section 3).
        assert_eq!(of(&[json, ("ce-id", "1")]), Ok(Mode::Structured));
        assert_eq!(of(&[("content-type", "application/cloudevents-batch+json")]), Ok(Mode::Batch));
        assert_eq!(of(&[("ce-id", "1")]), Ok(Mode::Binary));
        assert_eq!(of(&[("ce-id", "1"), ("content-type", "text/plain; charset=latin1")]), Ok(Mode::Binary));
        for refused in [vec![], vec![("content-type", "application/json")], vec![json, json]] {
            assert_eq!(of(&refused), Err(415), "{refused:?}");
        }
    }
}
