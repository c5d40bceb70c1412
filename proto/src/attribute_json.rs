//! JSON of [`CloudEventAttributeValue`], by hand along with the event that it is nested in.

use bytes::Bytes;
use pbjson::private::{BytesDeserialize, NumberDeserialize, base64};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::cloudevents::{Attr, CloudEventAttributeValue};
use crate::wkt::Timestamp;

impl Serialize for CloudEventAttributeValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(usize::from(self.attr.is_some())))?;
        match &self.attr {
            None => {}
            Some(Attr::CeBoolean(value)) => map.serialize_entry("ce_boolean", value)?,
            Some(Attr::CeInteger(value)) => map.serialize_entry("ce_integer", value)?,
            Some(Attr::CeString(value)) => map.serialize_entry("ce_string", value)?,
            Some(Attr::CeBytes(value)) => {
                use base64::Engine as _;
                let text = base64::engine::general_purpose::STANDARD.encode(value);
                map.serialize_entry("ce_bytes", &text)?;
            }
            Some(Attr::CeUri(value)) => map.serialize_entry("ce_uri", value)?,
            Some(Attr::CeUriRef(value)) => map.serialize_entry("ce_uri_ref", value)?,
            Some(Attr::CeTimestamp(value)) => map.serialize_entry("ce_timestamp", value)?,
        }
        map.end()
    }
}

/// The members of a value as they come; `null` counts as absent.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Members {
    #[serde(alias = "ceBoolean")]
    ce_boolean: Option<bool>,
    #[serde(alias = "ceInteger")]
    ce_integer: Option<NumberDeserialize<i32>>,
    #[serde(alias = "ceString")]
    ce_string: Option<String>,
    #[serde(alias = "ceBytes")]
    ce_bytes: Option<BytesDeserialize<Bytes>>,
    #[serde(alias = "ceUri")]
    ce_uri: Option<String>,
    #[serde(alias = "ceUriRef")]
    ce_uri_ref: Option<String>,
    #[serde(alias = "ceTimestamp")]
    ce_timestamp: Option<Timestamp>,
}

impl<'de> Deserialize<'de> for CloudEventAttributeValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = CloudEventAttributeValue;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("an attribute value, like {\"ce_string\": \"...\"}")
    }

    // Through a map, because a derived struct would take an array too.
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<CloudEventAttributeValue, A::Error> {
        let members = Members::deserialize(MapAccessDeserializer::new(map))?;
        let mut set = [
            members.ce_boolean.map(Attr::CeBoolean),
            members.ce_integer.map(|value| Attr::CeInteger(value.0)),
            members.ce_string.map(Attr::CeString),
            members.ce_bytes.map(|value| Attr::CeBytes(value.0)),
            members.ce_uri.map(Attr::CeUri),
            members.ce_uri_ref.map(Attr::CeUriRef),
            members.ce_timestamp.map(Attr::CeTimestamp),
        ]
        .into_iter()
        .flatten();
        let attr = set.next();
        if set.next().is_some() {
            return Err(A::Error::custom("an attribute has one value only"));
        }
        Ok(CloudEventAttributeValue { attr })
    }
}
