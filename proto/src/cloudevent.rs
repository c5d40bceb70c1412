//! CloudEvents 1.0 rules that the schema cannot express, checked where events enter.

use std::borrow::Cow;

use crate::cloudevents::{Attr, CloudEvent, CloudEventAttributeValue, Data};
use crate::wkt::Timestamp;

/// The version of the CloudEvents specification that events declare.
pub const SPEC_VERSION: &str = "1.0";

/// Names that mean a field of the event itself, so no entry of `attributes` may have them.
/// (`data_base64` and `spec_version` already fall to the rule for names.)
const RESERVED: [&str; 5] = ["id", "source", "specversion", "type", "data"];

/// Why an event is refused. The publisher's fault; sending it again cannot help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// A required attribute is missing or empty.
    #[error("the event's attribute `{name}` is required and must not be empty")]
    Missing {
        /// `id`, `source`, `spec_version` or `type`.
        name: &'static str,
    },
    /// Not an event of CloudEvents 1.0.
    #[error("the event's spec_version is `{got}`, but only `1.0` is supported")]
    SpecVersion {
        /// What the event says.
        got: String,
    },
    /// Attribute names consist of lower-case ASCII letters and digits.
    #[error("the attribute name `{name}` is not allowed: use a-z and 0-9 only, and at least one of them")]
    Name {
        /// The name, shortened if long.
        name: String,
    },
    /// The name belongs to a field of the event itself.
    #[error("the attribute name `{name}` is reserved: it is a field of the event itself")]
    Reserved {
        /// The name.
        name: String,
    },
    /// An attribute without a value.
    #[error("the attribute `{name}` has no value")]
    NoValue {
        /// Name of the attribute.
        name: String,
    },
    /// An empty URI or URI reference.
    #[error("the attribute `{name}` is a URI and must not be empty")]
    EmptyUri {
        /// Name of the attribute.
        name: String,
    },
    /// A time outside the years 1 to 9999, or with nanoseconds outside a second.
    #[error("the attribute `{name}` is not a time between the years 1 and 9999")]
    Time {
        /// Name of the attribute.
        name: String,
    },
}

/// Checks an event against CloudEvents 1.0: required attributes, attribute names and values.
///
/// Sizes and channels are not looked at: they are the policy's.
///
/// # Errors
/// The first [`EventError`] found.
pub fn validate(event: &CloudEvent) -> Result<(), EventError> {
    for (name, value) in [
        ("id", &event.id),
        ("source", &event.source),
        ("spec_version", &event.spec_version),
        ("type", &event.r#type),
    ] {
        if value.is_empty() {
            return Err(EventError::Missing { name });
        }
    }
    if event.spec_version != SPEC_VERSION {
        return Err(EventError::SpecVersion { got: shortened(&event.spec_version) });
    }
    for (name, value) in &event.attributes {
        validate_name(name)?;
        validate_value(name, value)?;
    }
    Ok(())
}

/// Checks only that every encoding can carry the event, as for one that need not be complete: a call's, or an answer's.
///
/// # Errors
/// [`EventError::Time`], the one thing that JSON cannot carry and protobuf can.
pub fn encodable(event: &CloudEvent) -> Result<(), EventError> {
    for (name, value) in &event.attributes {
        if let Some(Attr::CeTimestamp(time)) = &value.attr
            && !time.is_in_range()
        {
            return Err(EventError::Time { name: shortened(name) });
        }
    }
    Ok(())
}

fn validate_name(name: &str) -> Result<(), EventError> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if name.is_empty() || !name.bytes().all(allowed) {
        return Err(EventError::Name { name: shortened(name) });
    }
    if RESERVED.contains(&name) {
        return Err(EventError::Reserved { name: name.to_owned() });
    }
    Ok(())
}

fn validate_value(name: &str, value: &CloudEventAttributeValue) -> Result<(), EventError> {
    let name = || shortened(name);
    match &value.attr {
        None => Err(EventError::NoValue { name: name() }),
        Some(Attr::CeUri(uri) | Attr::CeUriRef(uri)) if uri.is_empty() => {
            Err(EventError::EmptyUri { name: name() })
        }
        // Else it could not be delivered to JSON clients.
        Some(Attr::CeTimestamp(time)) if !time.is_in_range() => Err(EventError::Time { name: name() }),
        Some(_) => Ok(()),
    }
}

/// The event as JSON clients get it: `proto_data` becomes `binary_data` (the packed message's bytes)
/// and its type URL, if it names one, the attribute `dataschema`; any other event is borrowed as it is.
#[must_use]
pub fn binary_form(event: &CloudEvent) -> Cow<'_, CloudEvent> {
    let Some(Data::ProtoData(any)) = &event.data else {
        return Cow::Borrowed(event);
    };
    let mut attributes = event.attributes.clone();
    // v1 clients send events whose type URL is empty; their own `dataschema`, if any, then stands.
    if !any.type_url.is_empty() {
        let schema = CloudEventAttributeValue { attr: Some(Attr::CeUri(any.type_url.clone())) };
        attributes.insert("dataschema".to_owned(), schema);
    }
    Cow::Owned(CloudEvent {
        id: event.id.clone(),
        source: event.source.clone(),
        spec_version: event.spec_version.clone(),
        r#type: event.r#type.clone(),
        attributes,
        data: Some(Data::BinaryData(any.value.clone())),
    })
}

/// Names come from outside: an error must not repeat a whole frame.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

impl Timestamp {
    /// Seconds of 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z: what the type may hold.
    const RANGE: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

    /// True if this is a time of the years 1 to 9999 with nanoseconds within a second, as
    /// `google.protobuf.Timestamp` demands; nothing else has a JSON form.
    #[must_use]
    pub fn is_in_range(&self) -> bool {
        Self::RANGE.contains(&self.seconds) && (0..1_000_000_000).contains(&self.nanos)
    }
}
