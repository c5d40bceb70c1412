//! How messages are printed: a line each, for people or for programs.

use std::{fmt::Write as _, os::fd::AsFd as _};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use clap::ValueEnum;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};
use streamgate_client::{
    CloudEvent, Message, Position,
    proto::{
        cloudevents::{Attr, Data},
        wkt::Timestamp,
    },
};
use tokio::io::{Interest, unix::AsyncFd};

/// `-o`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A line for people, as `channel epoch:offset data`
    #[default]
    Text,
    /// An object a line; events in the CloudEvents JSON format
    Json,
}

/// The line of a message, without its end.
pub(super) fn message(format: Format, message: &Message) -> String {
    match format {
        Format::Text => {
            format!("{} {} {}", message.channel, place(message.position.as_ref()), data(&message.event))
        }
        Format::Json => {
            let head = json!({
                "channel": message.channel,
                "position": message.position.as_ref().map(Position::to_string),
                "replay": message.replay,
            });
            with_member(&head, "event", &event(&message.event))
        }
    }
}

/// Waits until nobody reads standard output any more; for ever, if that is no pipe or socket.
pub(super) async fn closed() {
    #[expect(
        deprecated,
        reason = "its successor is unsafe, for types that may change or close their descriptor: an OwnedFd does neither"
    )]
    let watched = std::io::stdout()
        .as_fd()
        .try_clone_to_owned()
        .and_then(|output| AsyncFd::with_interest(output, Interest::ERROR));
    // A file cannot be watched, nor does it close.
    match watched {
        Ok(output) if output.ready(Interest::ERROR).await.is_ok() => {}
        _ => std::future::pending().await,
    }
}

/// `epoch:offset`, or a dash without history.
pub(super) fn place(position: Option<&Position>) -> String {
    position.map_or_else(|| "-".to_owned(), Position::to_string)
}

/// A time in milliseconds since the Unix epoch as RFC 3339 has it; null if it is out of range.
pub(super) fn time(unix_ms: u64) -> Value {
    let seconds = i64::try_from(unix_ms / 1_000).unwrap_or(i64::MAX);
    let nanos = i32::try_from(unix_ms % 1_000).unwrap_or_default() * 1_000_000;
    serde_json::to_value(Timestamp { seconds, nanos }).unwrap_or_default()
}

/// The payload on one line, harmless for a terminal: control characters are escaped, bytes are base64.
pub(super) fn data(event: &CloudEvent) -> String {
    match &event.data {
        None => String::new(),
        Some(Data::TextData(text)) => printable(text),
        Some(Data::BinaryData(bytes)) => match std::str::from_utf8(bytes) {
            Ok(text) => printable(text),
            Err(_) => format!("base64:{}", BASE64_STANDARD.encode(bytes)),
        },
        Some(Data::ProtoData(any)) => {
            format!("{} base64:{}", any.type_url, BASE64_STANDARD.encode(&any.value))
        }
    }
}

/// The text without anything that a terminal would act upon.
pub(super) fn printable(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && character != '\t' {
            // Writing to a string cannot fail.
            let _ = write!(line, "{}", character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

/// An event in the CloudEvents JSON format (CNCF, formats/json-format.md).
pub(super) fn event(event: &CloudEvent) -> String {
    // What JSON cannot carry becomes bytes, as for JSON clients.
    let event = streamgate_client::proto::cloudevent::binary_form(event);
    let mut object = Map::new();
    for (name, value) in [
        ("specversion", &event.spec_version),
        ("id", &event.id),
        ("source", &event.source),
        ("type", &event.r#type),
    ] {
        object.insert(name.to_owned(), Value::String(value.clone()));
    }
    for (name, value) in &event.attributes {
        object.insert(name.clone(), value.attr.as_ref().map_or(Value::Null, attribute));
    }
    match &event.data {
        Some(Data::TextData(text)) if is_json(&event) && serde_json::from_str::<IgnoredAny>(text).is_ok() => {
            // As it was sent, digits and all. Line ends in JSON are white space: strings hold none.
            return with_member(&Value::Object(object), "data", &text.replace(['\n', '\r'], " "));
        }
        Some(Data::TextData(text)) => object.insert("data".to_owned(), json!(text)),
        Some(Data::BinaryData(bytes)) => {
            object.insert("data_base64".to_owned(), json!(BASE64_STANDARD.encode(bytes)))
        }
        Some(Data::ProtoData(_)) | None => None,
    };
    Value::Object(object).to_string()
}

fn is_json(event: &CloudEvent) -> bool {
    let content_type = event.attributes.get("datacontenttype").and_then(|value| value.attr.as_ref());
    let Some(Attr::CeString(media_type)) = content_type else { return false };
    let media_type = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media_type.ends_with("/json") || media_type.ends_with("+json")
}

fn attribute(value: &Attr) -> Value {
    match value {
        Attr::CeBoolean(value) => json!(value),
        Attr::CeInteger(value) => json!(value),
        Attr::CeString(text) | Attr::CeUri(text) | Attr::CeUriRef(text) => json!(text),
        Attr::CeBytes(bytes) => json!(BASE64_STANDARD.encode(bytes)),
        // A time out of range has no JSON form; the gateway lets none in.
        Attr::CeTimestamp(time) => serde_json::to_value(time).unwrap_or_default(),
    }
}

/// `object` with one more member whose value is JSON text already.
pub(super) fn with_member(object: &Value, name: &str, json: &str) -> String {
    let mut text = object.to_string();
    text.pop();
    if text.len() > 1 {
        text.push(',');
    }
    let _ = write!(text, "{}:{json}}}", Value::from(name));
    text
}

#[cfg(test)]
mod tests {
    use streamgate_client::CloudEventBuilder;

    use super::*;

    fn received(event: CloudEvent) -> Message {
        Message {
            id: "m".into(),
            channel: "a.b".into(),
            position: Some("17:4".parse().unwrap()),
            offset: 4,
            replay: false,
            publisher: None,
            delivery: None,
            event,
        }
    }

    fn builder() -> CloudEventBuilder {
        CloudEventBuilder::new("t").id("1").source("/s")
    }

    #[test]
    fn text_is_one_harmless_line() {
        let line = message(Format::Text, &received(builder().text("one\ntwo\u{1b}[2J").build()));
        assert_eq!(line, "a.b 17:4 one\\ntwo\\u{1b}[2J");
        let line = message(Format::Text, &received(builder().binary(vec![0xff, 0]).build()));
        assert_eq!(line, "a.b 17:4 base64:/wA=");
    }

    #[test]
    fn json_data_stays_as_it_was_sent() {
        let event = builder()
            .content_type("application/json; charset=utf-8")
            .text("{\"z\":1,\n\"a\":12345678901234567890123}");
        let line = message(Format::Json, &received(event.build()));
        assert!(
            !line.contains('\n') && line.contains("\"data\":{\"z\":1, \"a\":12345678901234567890123}"),
            "{line}"
        );
        let parsed: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&parsed["position"], &parsed["event"]["type"]), (&json!("17:4"), &json!("t")));
    }

    #[test]
    fn other_data_is_a_text_or_base64() {
        let object = |event: CloudEvent| serde_json::from_str::<Value>(&super::event(&event)).unwrap();
        assert_eq!(object(builder().text("{}").build())["data"], json!("{}"));
        assert_eq!(object(builder().content_type("application/json").text("{").build())["data"], json!("{"));
        assert_eq!(object(builder().binary(vec![1]).build())["data_base64"], json!("AQ=="));
        let bare = object(builder().attribute("subject", "x").build());
        assert_eq!(
            bare,
            json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "subject": "x"})
        );
    }
}
