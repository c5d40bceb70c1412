//! Events in the JSON format of CloudEvents 1.0.2, as clients get them.
//!
//! Data that the event declares to be JSON becomes a JSON value, exactly as its text is: members in their order, digits as
//! they were. Other text is a string, anything else base64 (`data_base64`).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{
    Serialize, Serializer,
    ser::{Error as _, SerializeMap as _},
};
use serde_json::value::RawValue;
use streamgate_proto::{
    EncodeError,
    cloudevent::binary_form,
    cloudevents::{Attr, CloudEvent, CloudEventAttributeValue, Data},
    json,
};

/// The attribute that tells what data is.
pub(super) const CONTENT_TYPE: &str = "datacontenttype";

/// What the gateway adds to events, and takes off those that come back.
pub(super) const OWN_ATTRIBUTES: [&str; 4] = ["sgchannel", "sgepoch", "sgoffset", "sgidempotencykey"];

/// Appends an event as one JSON object. `own` are attributes of the gateway's: they stand in place of those of the event.
///
/// # Errors
/// The event has a value that JSON cannot carry, as a time of the year 0.
pub(super) fn write_event(
    event: &CloudEvent,
    own: &[(&str, &str)],
    buffer: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    json::encode_into(&EventJson { event: &binary_form(event), own }, buffer)
}

struct EventJson<'a> {
    event: &'a CloudEvent,
    own: &'a [(&'a str, &'a str)],
}

impl Serialize for EventJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let event = self.event;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("specversion", &event.spec_version)?;
        map.serialize_entry("id", &event.id)?;
        map.serialize_entry("source", &event.source)?;
        map.serialize_entry("type", &event.r#type)?;
        for (name, value) in &event.attributes {
            if !OWN_ATTRIBUTES.contains(&name.as_str()) {
                write_attribute(&mut map, name, value)?;
            }
        }
        for (name, value) in self.own {
            map.serialize_entry(name, value)?;
        }
        match &event.data {
            None => {}
            Some(Data::TextData(text)) if declares_json(event) => match as_json(text) {
                Some(value) => map.serialize_entry("data", value)?,
                // It is not what it says: as bytes it reaches the reader as it is.
                None => map.serialize_entry("data_base64", &STANDARD.encode(text))?,
            },
            Some(Data::TextData(text)) => map.serialize_entry("data", text)?,
            Some(Data::BinaryData(bytes)) => map.serialize_entry("data_base64", &STANDARD.encode(bytes))?,
            // Not in the binary form.
            Some(Data::ProtoData(_)) => return Err(S::Error::custom("a packed message has no JSON form")),
        }
        map.end()
    }
}

fn write_attribute<M: serde::ser::SerializeMap>(
    map: &mut M,
    name: &str,
    value: &CloudEventAttributeValue,
) -> Result<(), M::Error> {
    match &value.attr {
        None => Ok(()),
        Some(Attr::CeBoolean(value)) => map.serialize_entry(name, value),
        Some(Attr::CeInteger(value)) => map.serialize_entry(name, value),
        Some(Attr::CeString(text) | Attr::CeUri(text) | Attr::CeUriRef(text)) => {
            map.serialize_entry(name, text)
        }
        Some(Attr::CeBytes(bytes)) => map.serialize_entry(name, &STANDARD.encode(bytes)),
        Some(Attr::CeTimestamp(time)) => map.serialize_entry(name, time),
    }
}

/// Whether the event says that its data is JSON. One that says nothing has text that is just text: in the form in which it
/// was published there is no other default.
fn declares_json(event: &CloudEvent) -> bool {
    match event.attributes.get(CONTENT_TYPE).and_then(|value| value.attr.as_ref()) {
        Some(Attr::CeString(kind)) => is_json(kind),
        _ => false,
    }
}

/// Whether a media type is one of JSON: `application/json`, `text/json`, any `+json` (RFC 6839 section 3.1).
pub(super) fn is_json(kind: &str) -> bool {
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.split_once('/').is_some_and(|(_, subtype)| {
        let subtype = subtype.to_ascii_lowercase();
        subtype == "json" || subtype.ends_with("+json")
    })
}

/// The text as a value that any reader can take.
fn as_json(text: &str) -> Option<&RawValue> {
    if json::is_too_deep(text.as_bytes()) {
        return None;
    }
    serde_json::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};
    use streamgate_proto::wkt::{Any, Timestamp};

    use super::*;

    fn event(attributes: &[(&str, Attr)], data: Option<Data>) -> CloudEvent {
        let value = |attr: &Attr| CloudEventAttributeValue { attr: Some(attr.clone()) };
        let attributes: BTreeMap<_, _> =
            attributes.iter().map(|(name, attr)| ((*name).to_owned(), value(attr))).collect();
        CloudEvent {
            id: "1".into(),
            source: "/s".into(),
            spec_version: "1.0".into(),
            r#type: "t".into(),
            attributes,
            data,
        }
    }

    fn text(event: &CloudEvent, own: &[(&str, &str)]) -> String {
        let mut buffer = Vec::new();
        write_event(event, own, &mut buffer).unwrap();
        String::from_utf8(buffer).unwrap()
    }

    fn value(event: &CloudEvent) -> Value {
        serde_json::from_str(&text(event, &[])).unwrap()
    }

    fn string(text: &str) -> Attr {
        Attr::CeString(text.to_owned())
    }

    #[test]
    fn json_data_is_a_value_with_its_text_as_it_is() {
        for kind in ["application/json", "text/JSON; charset=utf-8", "application/vnd.x+json"] {
            let raw = "{\"z\": 1.10, \"a\": 123456789012345678901234567890}";
            let event = event(&[(CONTENT_TYPE, string(kind))], Some(Data::TextData(raw.into())));
            assert!(text(&event, &[]).ends_with(&format!("\"data\":{raw}}}")), "{}", text(&event, &[]));
        }
    }

    #[test]
    fn other_text_is_a_string_and_bytes_are_base64() {
        let plain = [(CONTENT_TYPE, string("text/plain"))];
        assert_eq!(value(&event(&plain, Some(Data::TextData("{}".into()))))["data"], "{}");
        assert_eq!(value(&event(&[], Some(Data::TextData("{}".into()))))["data"], "{}");
        let bytes = value(&event(&[], Some(Data::BinaryData(vec![0, 255].into()))));
        assert_eq!((&bytes["data_base64"], bytes.get("data")), (&json!("AP8="), None));
    }

    #[test]
    fn data_that_is_not_the_json_that_it_says_goes_as_bytes() {
        let deep = "[".repeat(100) + &"]".repeat(100);
        for broken in ["{", "nope", "1 2", "", &deep] {
            let kind = [(CONTENT_TYPE, string("application/json"))];
            let value = value(&event(&kind, Some(Data::TextData(broken.into()))));
            assert_eq!(value["data_base64"], STANDARD.encode(broken), "{broken}");
        }
    }

    #[test]
    fn attributes_have_their_json_types_and_the_gateways_stand_in_front() {
        let event = event(
            &[
                ("aint", Attr::CeInteger(-7)),
                ("abool", Attr::CeBoolean(true)),
                ("abytes", Attr::CeBytes(vec![1].into())),
                ("time", Attr::CeTimestamp(Timestamp { seconds: 0, nanos: 500_000_000 })),
                ("sgoffset", string("999")),
                ("sgepoch", string("forged")),
            ],
            None,
        );
        let value: Value = serde_json::from_str(&text(&event, &[("sgoffset", "5")])).unwrap();
        let expected = json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "aint": -7, "abool": true,
            "abytes": "AQ==", "time": "1970-01-01T00:00:00.500Z", "sgoffset": "5"});
        assert_eq!(value, expected);
    }

    #[test]
    fn a_packed_message_is_bytes_with_its_schema() {
        let any = Any { type_url: "type.googleapis.com/x.Y".into(), value: vec![1, 2].into() };
        let value = value(&event(&[], Some(Data::ProtoData(any))));
        assert_eq!(
            (&value["data_base64"], &value["dataschema"]),
            (&json!("AQI="), &json!("type.googleapis.com/x.Y"))
        );
    }
}
