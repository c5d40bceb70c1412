//! The quick paths: what a frame is and which stamps it carries, without decoding it.
//!
//! They rely on how servers write: JSON without white space, `id`, `metadata` and `time` before the envelope, names as
//! in the schema, no field twice. What looks different at its beginning is not judged here (`None`) and decoded whole.

use std::sync::LazyLock;

use memchr::{memchr, memmem};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::events::request_id;
use crate::load::stamp::Stamp;

/// A frame at first sight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Glance<'a> {
    /// The ack of a publish.
    Ack {
        /// Of the request.
        id: u64,
    },
    /// A publication: its text, from the first brace to the end of the frame.
    JsonPublication(&'a [u8]),
    /// A publication: the encoded `Publication`.
    ProtobufPublication(&'a [u8]),
}

/// Looks at a JSON frame: walks its members up to the envelope, so that no text in them can deceive.
pub(super) fn json(frame: &[u8]) -> Option<Glance<'_>> {
    // The envelope is the last member.
    let mut rest = frame.ends_with(b"}}").then(|| frame.strip_prefix(b"{"))??;
    let mut id = None;
    loop {
        let (name, value) = json_text(rest)?;
        let value = value.strip_prefix(b":")?;
        match name {
            b"publication" => return value.starts_with(b"{").then_some(Glance::JsonPublication(value)),
            b"publish_ack" => return id.filter(|_| value.starts_with(b"{")).map(|id| Glance::Ack { id }),
            b"id" | b"time" => {
                let (text, after) = json_text(value)?;
                if name == b"id" {
                    id = Some(request_id(text));
                }
                rest = after.strip_prefix(b",")?;
            }
            // Metadata, too: load clients send none, so no answer has any.
            _ => return None,
        }
    }
}

/// A string without escapes at the beginning of `rest`, and what follows it.
fn json_text(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = rest.strip_prefix(b"\"")?;
    let (text, after) = rest.split_at(memchr(b'"', rest)?);
    (memchr(b'\\', text).is_none()).then_some((text, &after[1..]))
}

/// Tells the stamps of a publication in JSON.
pub(super) fn json_stamps(text: &[u8], mut tell: impl FnMut(Stamp)) {
    // Inside a string its quotes would be escaped: this is a member's name wherever it stands, and no attribute has
    // such a name. So a stamp in a channel or an attribute is not counted.
    const PAYLOAD: &[u8] = br#""text_data":""#;
    static FINDER: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(PAYLOAD));
    let mut rest = text;
    while let Some(at) = FINDER.find(rest) {
        rest = &rest[at + PAYLOAD.len()..];
        if let Some(stamp) = Stamp::parse(rest) {
            tell(stamp);
        }
    }
}

/// Looks at a protobuf frame: fields 1 (id), 17 (publish_ack) and 18 (publication) of `OutboundMessage`.
pub(super) fn protobuf(frame: &[u8]) -> Option<Glance<'_>> {
    let (mut id, mut seen) = (0, None);
    let mut rest = frame;
    while !rest.is_empty() {
        match protobuf_field(&mut rest)? {
            (1, Some(text)) => id = request_id(text),
            // Metadata and time.
            (2 | 3, _) => {}
            (number @ (17 | 18), Some(body)) if seen.is_none() => seen = Some((number, body)),
            _ => return None,
        }
    }
    // The id may have come after the envelope.
    seen.map(|(number, body)| match number {
        17 => Glance::Ack { id },
        _ => Glance::ProtobufPublication(body),
    })
}

/// Tells the stamps of a publication in protobuf; `None` if it is malformed, and stamps before that were told.
///
/// Down the fields `messages` (3) of `Publication`, `payload` (4) of `Message` and `text_data` (7) of `CloudEvent`.
pub(super) fn protobuf_stamps(mut publication: &[u8], mut tell: impl FnMut(Stamp)) -> Option<()> {
    while !publication.is_empty() {
        let (3, Some(mut message)) = protobuf_field(&mut publication)? else { continue };
        while !message.is_empty() {
            let (4, Some(mut event)) = protobuf_field(&mut message)? else { continue };
            while !event.is_empty() {
                if let (7, Some(text)) = protobuf_field(&mut event)?
                    && let Some(stamp) = Stamp::parse(text)
                {
                    tell(stamp);
                }
            }
        }
    }
    Some(())
}

/// Takes the next field off `rest`: its number, and its bytes if it is of the kind that has a length.
fn protobuf_field<'a>(rest: &mut &'a [u8]) -> Option<(u32, Option<&'a [u8]>)> {
    let (number, kind) = decode_key(rest).ok()?;
    if kind != WireType::LengthDelimited {
        skip_field(kind, number, rest, DecodeContext::default()).ok()?;
        return Some((number, None));
    }
    let length = usize::try_from(decode_varint(rest).ok()?).ok()?;
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some((number, Some(bytes)))
}
