//! Building the CloudEvents that are published.

use bytes::Bytes;
use streamgate_proto::cloudevents::{Attr, CloudEvent, CloudEventAttributeValue, Data};

use crate::error::Error;

/// Builds a [`CloudEvent`]: id and source have defaults, the type is given, everything else is optional.
///
/// ```
/// use streamgate_client::CloudEventBuilder;
///
/// let event = CloudEventBuilder::new("note.added").source("/phone/7").text("hello").build();
/// assert_eq!((event.r#type.as_str(), event.source.as_str()), ("note.added", "/phone/7"));
/// ```
#[derive(Debug, Clone)]
pub struct CloudEventBuilder(CloudEvent);

impl CloudEventBuilder {
    /// An event of type `kind`, with a random id and the source `/streamgate-client`.
    #[must_use]
    pub fn new(kind: impl Into<String>) -> Self {
        Self(CloudEvent {
            id: uuid::Uuid::new_v4().to_string(),
            source: "/streamgate-client".to_owned(),
            spec_version: "1.0".to_owned(),
            r#type: kind.into(),
            ..CloudEvent::default()
        })
    }

    /// Identifies the event within its source.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.0.id = id.into();
        self
    }

    /// The context in which the event happened: a URI reference.
    #[must_use]
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.0.source = source.into();
        self
    }

    /// Sets an attribute with a text value; names are lower-case letters and digits.
    #[must_use]
    pub fn attribute(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let value = CloudEventAttributeValue { attr: Some(Attr::CeString(value.into())) };
        self.0.attributes.insert(name.into(), value);
        self
    }

    /// Media type of the data: attribute `datacontenttype`.
    #[must_use]
    pub fn content_type(self, media_type: impl Into<String>) -> Self {
        self.attribute("datacontenttype", media_type)
    }

    /// Text as data; its media type is left alone.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.0.data = Some(Data::TextData(text.into()));
        self
    }

    /// Bytes as data; their media type is left alone.
    #[must_use]
    pub fn binary(mut self, data: impl Into<Bytes>) -> Self {
        self.0.data = Some(Data::BinaryData(data.into()));
        self
    }

    /// A JSON value as data, with its media type.
    #[must_use]
    pub fn json(self, value: &serde_json::Value) -> Self {
        self.content_type("application/json").text(value.to_string())
    }

    /// The event; the server checks it when it is published.
    #[must_use]
    pub fn build(self) -> CloudEvent {
        self.0
    }

    /// The event, if it keeps the rules of CloudEvents 1.0.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the rule.
    pub fn checked(self) -> Result<CloudEvent, Error> {
        streamgate_proto::cloudevent::validate(&self.0).map_err(|error| Error::Invalid(error.to_string()))?;
        Ok(self.0)
    }
}
