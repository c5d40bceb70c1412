//! JSON of [`CloudEvent`], by hand, because its `proto_data` (an `Any`) has no JSON form without
//! the schema of what it holds. Written events carry it as
//! [`binary_form`](crate::cloudevent::binary_form) says; read events may not have it.

use std::collections::BTreeMap;

use bytes::Bytes;
use pbjson::private::{BytesDeserialize, base64};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::cloudevent::binary_form;
use crate::cloudevents::{CloudEvent, CloudEventAttributeValue, Data};

impl Serialize for CloudEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let event = binary_form(self);
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in [
            ("id", &event.id),
            ("source", &event.source),
            ("spec_version", &event.spec_version),
            ("type", &event.r#type),
        ] {
            if !value.is_empty() {
                map.serialize_entry(name, value)?;
            }
        }
        if !event.attributes.is_empty() {
            map.serialize_entry("attributes", &event.attributes)?;
        }
        match &event.data {
            Some(Data::BinaryData(bytes)) => {
                use base64::Engine as _;
                let text = base64::engine::general_purpose::STANDARD.encode(bytes);
                map.serialize_entry("binary_data", &text)?;
            }
            Some(Data::TextData(text)) => map.serialize_entry("text_data", text)?,
            // `binary_form` leaves no `proto_data`.
            Some(Data::ProtoData(_)) | None => {}
        }
        map.end()
    }
}

/// The members of an event as they come; `null` counts as absent.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Members {
    id: Option<String>,
    source: Option<String>,
    #[serde(alias = "specVersion")]
    spec_version: Option<String>,
    r#type: Option<String>,
    attributes: Option<BTreeMap<String, CloudEventAttributeValue>>,
    #[serde(alias = "binaryData")]
    binary_data: Option<BytesDeserialize<Bytes>>,
    #[serde(alias = "textData")]
    text_data: Option<String>,
    #[serde(alias = "protoData")]
    proto_data: Option<IgnoredAny>,
}

impl<'de> Deserialize<'de> for CloudEvent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EventVisitor)
    }
}

struct EventVisitor;

impl<'de> Visitor<'de> for EventVisitor {
    type Value = CloudEvent;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("io.cloudevents.v1.CloudEvent")
    }

    // Through a map, because a derived struct would take an array too.
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<CloudEvent, A::Error> {
        let members = Members::deserialize(MapAccessDeserializer::new(map))?;
        let data = match (members.binary_data, members.text_data, members.proto_data) {
            (None, None, None) => None,
            (Some(bytes), None, None) => Some(Data::BinaryData(bytes.0)),
            (None, Some(text), None) => Some(Data::TextData(text)),
            (None, None, Some(_)) => {
                return Err(A::Error::custom(
                    "proto_data has no JSON form here: send binary_data, with its type in the attribute dataschema",
                ));
            }
            _ => return Err(A::Error::custom("an event has one of binary_data, text_data and proto_data")),
        };
        Ok(CloudEvent {
            id: members.id.unwrap_or_default(),
            source: members.source.unwrap_or_default(),
            spec_version: members.spec_version.unwrap_or_default(),
            r#type: members.r#type.unwrap_or_default(),
            attributes: members.attributes.unwrap_or_default(),
            data,
        })
    }
}
