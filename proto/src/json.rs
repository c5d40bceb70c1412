//! Proto3 JSON of every message type in this crate.
//!
//! Output is canonical proto3 JSON with proto field names: defaults omitted, 64-bit integers as
//! strings, bytes as base64, timestamps in UTC with `Z`. Input accepts proto names and camelCase,
//! numbers as numbers or strings, standard and URL-safe base64 with or without padding, `null` for
//! any unset field, and ignores unknown fields. Source: protobuf.dev, "ProtoJSON Format".
//!
//! A `proto_data` payload has no JSON form without its schema: see
//! [`cloudevent::binary_form`](crate::cloudevent::binary_form).

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::codec::{DecodeError, EncodeError};
use crate::depth::deeper_than;

/// Deepest nesting of arrays and objects that [`decode`] takes, inside unknown fields too.
pub const MAX_DEPTH: usize = 64;

/// Longest parser message passed on, in bytes: parsers quote their input, which may be large.
const MAX_REASON: usize = 200;

/// Decodes one message from JSON text in UTF-8.
///
/// # Errors
/// [`DecodeError::TooDeep`] past [`MAX_DEPTH`], [`DecodeError::Json`] for anything that is not
/// this message.
pub fn decode<M: DeserializeOwned>(text: &[u8]) -> Result<M, DecodeError> {
    if deeper_than(MAX_DEPTH, text) {
        return Err(DecodeError::TooDeep { limit: MAX_DEPTH });
    }
    serde_json::from_slice(text)
        .or_else(|error| decode_without_nulls(text).ok_or(error))
        .map_err(|error| DecodeError::Json { reason: shortened(error.to_string()) })
}

/// Whether arrays and objects nest deeper than [`MAX_DEPTH`] anywhere in `text`.
#[must_use]
pub fn is_too_deep(text: &[u8]) -> bool {
    deeper_than(MAX_DEPTH, text)
}

/// Encodes one message as JSON text.
///
/// # Errors
/// See [`encode_into`].
pub fn encode<M: Serialize>(message: &M) -> Result<Bytes, EncodeError> {
    let mut buffer = Vec::with_capacity(256);
    encode_into(message, &mut buffer)?;
    Ok(buffer.into())
}

/// Appends one message as JSON text to `buffer`; on error `buffer` is as it was.
///
/// # Errors
/// [`EncodeError::Json`] for values that JSON cannot carry: a timestamp outside the years 1 to
/// 9999, a number that is not finite.
pub fn encode_into<M: Serialize>(message: &M, buffer: &mut Vec<u8>) -> Result<(), EncodeError> {
    let start = buffer.len();
    serde_json::to_writer(&mut *buffer, message).map_err(|error| {
        buffer.truncate(start);
        EncodeError::Json { reason: shortened(error.to_string()) }
    })
}

/// Proto3 JSON takes `null` for any unset field; the generated code does so for messages but not
/// for scalars. The rare text that needs this pays for a second parse, all others nothing.
fn decode_without_nulls<M: DeserializeOwned>(text: &[u8]) -> Option<M> {
    if !text.windows(4).any(|window| window == b"null") {
        return None;
    }
    let mut value: Value = serde_json::from_slice(text).ok()?;
    remove_nulls(&mut value);
    serde_json::from_value(value).ok()
}

/// Removes null members, except inside `metadata`: a `Struct`, where null is a value.
fn remove_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.iter_mut().filter(|(name, _)| *name != "metadata").for_each(|(_, m)| remove_nulls(m));
        }
        Value::Array(items) => items.iter_mut().for_each(remove_nulls),
        _ => {}
    }
}

fn shortened(mut reason: String) -> String {
    if reason.len() > MAX_REASON {
        let end = (0..=MAX_REASON).rev().find(|&at| reason.is_char_boundary(at)).unwrap_or(0);
        reason.truncate(end);
        reason.push_str("...");
    }
    reason
}
