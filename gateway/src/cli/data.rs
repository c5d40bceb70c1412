//! Bytes as the data of an event, and back.

use serde::de::IgnoredAny;
use streamgate_client::{CloudEvent, CloudEventBuilder, proto::cloudevents::Data};

/// The event with `data`: a text if it is one. Its media type, if not given, is what the data looks like.
pub(super) fn with(builder: CloudEventBuilder, data: &[u8], content_type: Option<&str>) -> CloudEventBuilder {
    let (builder, found) = match std::str::from_utf8(data) {
        Ok(text) => {
            let is_json = serde_json::from_str::<IgnoredAny>(text).is_ok();
            (builder.text(text), if is_json { "application/json" } else { "text/plain" })
        }
        Err(_) => (builder.binary(data.to_vec()), "application/octet-stream"),
    };
    builder.content_type(content_type.unwrap_or(found))
}

/// The data of an event, as it was sent.
pub(super) fn of(event: &CloudEvent) -> &[u8] {
    match &event.data {
        None => &[],
        Some(Data::TextData(text)) => text.as_bytes(),
        Some(Data::BinaryData(bytes)) => bytes,
        Some(Data::ProtoData(any)) => &any.value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_comes_back_as_it_went_in() {
        for bytes in [&b"{}"[..], b"", b"line\n", b"\xff\0"] {
            let event = with(CloudEventBuilder::new("t"), bytes, None).build();
            assert_eq!(of(&event), bytes);
        }
        assert_eq!(of(&CloudEventBuilder::new("t").build()), b"");
    }
}
