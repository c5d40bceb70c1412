//! Events as clients send them: one or several in the JSON format, or one in the headers and body of a request.
//!
//! The CloudEvents SDK says what an event's attributes may be. Data does not pass through it: it would be kept as a value,
//! which loses the order of members and digits of numbers; and it takes what the specification does not allow, as an empty
//! `id`, which is checked afterwards.

use std::collections::BTreeMap;

use ::cloudevents::{
    AttributesReader as _, Event,
    event::{AttributeValue, SpecVersion},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize as _;
use serde_json::{Map, Value, value::RawValue};
use streamgate_proto::{
    cloudevent,
    cloudevents::{Attr, CloudEvent, CloudEventAttributeValue, Data},
    json as proto_json, wkt,
};

use super::json::{CONTENT_TYPE, OWN_ATTRIBUTES, is_json};
use crate::error::ClientError;

/// Events of one batch at most.
pub(super) const MOST_EVENTS: usize = 1_000;

/// An event of which the gateway's own attributes were taken out.
#[derive(Debug, PartialEq)]
pub(super) struct Sent {
    pub event: CloudEvent,
    /// By name: `sgchannel` and the like.
    pub own: BTreeMap<String, String>,
}

/// Reads one event in the JSON format (structured mode).
///
/// # Errors
/// `BAD_REQUEST`, naming what is wrong.
pub(super) fn structured(text: &[u8]) -> Result<Sent, ClientError> {
    shallow(text)?;
    one(serde_json::from_slice(text).map_err(not_json)?)
}

/// Reads a batch of events; the error of one of them tells its number.
///
/// # Errors
/// `BAD_REQUEST`, naming what is wrong.
pub(super) fn batch(text: &[u8]) -> Result<Vec<Sent>, ClientError> {
    shallow(text)?;
    let members: Vec<&RawValue> = serde_json::from_slice(text)
        .map_err(|error| ClientError::bad_request(format!("a batch is a JSON array of events: {error}")))?;
    if members.len() > MOST_EVENTS {
        let text = format!("the batch has {} events, at most {MOST_EVENTS} are allowed", members.len());
        return Err(ClientError::bad_request(text));
    }
    let events = members.into_iter().zip(0..).map(|(member, index)| {
        let event = serde_json::from_str(member.get()).map_err(not_json).and_then(one);
        event.map_err(|error| error.at(index))
    });
    events.collect()
}

/// Makes an event of its attributes, all of them text, and a body (binary mode).
///
/// # Errors
/// `BAD_REQUEST`, naming what is wrong.
pub(super) fn binary(attributes: BTreeMap<String, String>, body: &[u8]) -> Result<Sent, ClientError> {
    let kind = attributes.get(CONTENT_TYPE).map(String::as_str).unwrap_or_default();
    let data = (!body.is_empty()).then(|| match std::str::from_utf8(body) {
        Ok(text) if is_text(kind) => Data::TextData(text.to_owned()),
        _ => Data::BinaryData(body.to_vec().into()),
    });
    event(attributes.into_iter().map(|(name, value)| (name, Value::String(value))).collect(), data)
}

/// Whether a media type is one of text in UTF-8, which is kept as such.
fn is_text(kind: &str) -> bool {
    let (kind, parameters) = kind.split_once(';').unwrap_or((kind, ""));
    let charset = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
    });
    let is_utf8 = charset.is_none_or(|charset| {
        charset.eq_ignore_ascii_case("utf-8") || charset.eq_ignore_ascii_case("us-ascii")
    });
    is_utf8 && (is_json(kind) || kind.trim_start().to_ascii_lowercase().starts_with("text/"))
}

fn shallow(text: &[u8]) -> Result<(), ClientError> {
    if proto_json::is_too_deep(text) {
        let text = format!("JSON nested deeper than {} levels", proto_json::MAX_DEPTH);
        return Err(ClientError::bad_request(text));
    }
    Ok(())
}

fn not_json(error: serde_json::Error) -> ClientError {
    ClientError::bad_request(format!("an event is a JSON object: {error}"))
}

fn one(mut members: BTreeMap<String, &RawValue>) -> Result<Sent, ClientError> {
    let text = members.remove("data");
    let bytes = members.remove("data_base64").filter(|value| value.get() != "null");
    let mut attributes = Map::new();
    for (name, value) in members {
        let value: Value = serde_json::from_str(value.get()).map_err(not_json)?;
        if !value.is_null() {
            attributes.insert(name, value);
        }
    }
    let data = match (text, bytes) {
        (None, None) => None,
        (Some(text), None) => Some(text_data(text, &mut attributes)?),
        (None, Some(bytes)) => Some(base64_data(bytes)?),
        (Some(_), Some(_)) => {
            return Err(ClientError::bad_request("an event has `data` or `data_base64`, not both"));
        }
    };
    event(attributes, data)
}

/// Without a content type `data` is JSON (JSON format, section 3.1.1), which the event says from then on: in other formats
/// that is not so. With one that is not JSON it is a string.
fn text_data(text: &RawValue, attributes: &mut Map<String, Value>) -> Result<Data, ClientError> {
    let kind = attributes.entry(CONTENT_TYPE).or_insert_with(|| Value::from("application/json"));
    if kind.as_str().is_none_or(is_json) {
        return Ok(Data::TextData(text.get().to_owned()));
    }
    let text = serde_json::from_str(text.get()).map_err(|_| {
        ClientError::bad_request(format!(
            "`data` is a string where {CONTENT_TYPE} is {kind}, which is not JSON"
        ))
    })?;
    Ok(Data::TextData(text))
}

fn base64_data(bytes: &RawValue) -> Result<Data, ClientError> {
    let text: String = serde_json::from_str(bytes.get())
        .map_err(|_| ClientError::bad_request("`data_base64` is not a string"))?;
    let bytes = STANDARD.decode(text);
    let bytes =
        bytes.map_err(|error| ClientError::bad_request(format!("`data_base64` is not base64: {error}")))?;
    Ok(Data::BinaryData(bytes.into()))
}

fn event(mut attributes: Map<String, Value>, data: Option<Data>) -> Result<Sent, ClientError> {
    let mut own = BTreeMap::new();
    for name in OWN_ATTRIBUTES {
        match attributes.remove(name) {
            None => {}
            Some(Value::String(value)) => _ = own.insert(name.to_owned(), value),
            Some(_) => return Err(ClientError::bad_request(format!("the attribute `{name}` is a string"))),
        }
    }
    // As it was written: the SDK keeps a URL, which may look otherwise.
    let schema = attributes.get("dataschema").and_then(Value::as_str).map(str::to_owned);
    let checked = Event::deserialize(Value::Object(attributes))
        .map_err(|error| ClientError::bad_request(format!("not a CloudEvent: {error}")))?;
    if checked.specversion() != SpecVersion::V10 {
        let text = format!("the event's specversion is {}, only 1.0 is supported", checked.specversion());
        return Err(ClientError::bad_request(text));
    }
    let mut event = CloudEvent {
        id: checked.id().to_owned(),
        source: checked.source().clone(),
        spec_version: cloudevent::SPEC_VERSION.to_owned(),
        r#type: checked.ty().to_owned(),
        attributes: BTreeMap::new(),
        data,
    };
    for (name, value) in checked.iter() {
        if !matches!(name, "specversion" | "id" | "source" | "type") {
            let attr = attribute(name, &value)?;
            event.attributes.insert(name.to_owned(), CloudEventAttributeValue { attr: Some(attr) });
        }
    }
    if let (Some(schema), Some(value)) = (schema, event.attributes.get_mut("dataschema")) {
        value.attr = Some(Attr::CeUri(schema));
    }
    cloudevent::validate(&event).map_err(|error| ClientError::bad_request(error.to_string()))?;
    Ok(Sent { event, own })
}

fn attribute(name: &str, value: &AttributeValue<'_>) -> Result<Attr, ClientError> {
    Ok(match value {
        AttributeValue::Boolean(value) => Attr::CeBoolean(**value),
        AttributeValue::Integer(value) => Attr::CeInteger(i32::try_from(**value).map_err(|_| {
            ClientError::bad_request(format!("the attribute `{name}` is {value}, which is no 32-bit integer"))
        })?),
        AttributeValue::String(text) => Attr::CeString((*text).to_owned()),
        AttributeValue::Binary(bytes) => Attr::CeBytes(bytes.to_vec().into()),
        AttributeValue::URI(uri) => Attr::CeUri(uri.to_string()),
        AttributeValue::URIRef(text) => Attr::CeUriRef((*text).clone()),
        AttributeValue::Time(time) => Attr::CeTimestamp(wkt::Timestamp {
            seconds: time.timestamp(),
            nanos: i32::try_from(time.timestamp_subsec_nanos()).unwrap_or(i32::MAX),
        }),
        AttributeValue::SpecVersion(version) => Attr::CeString(version.to_string()),
    })
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
