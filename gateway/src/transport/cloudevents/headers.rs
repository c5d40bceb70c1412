//! The headers of a request in binary mode (HTTP protocol binding, section 3.1.3).

use std::{borrow::Cow, collections::BTreeMap};

use hyper::{
    HeaderMap,
    header::{CONTENT_TYPE, HeaderValue},
};
use percent_encoding::percent_decode_str;

use super::json;
use crate::error::ClientError;

/// What headers of attributes begin with.
pub(super) const PREFIX: &str = "ce-";

/// The attributes that headers hold.
///
/// # Errors
/// `BAD_REQUEST`: one is there twice, or is no text.
pub(super) fn attributes(headers: &HeaderMap) -> Result<BTreeMap<String, String>, ClientError> {
    let mut attributes = BTreeMap::new();
    for (header, value) in headers {
        let Some(name) = header.as_str().strip_prefix(PREFIX) else { continue };
        // Of these the header would be another one, or the body.
        if matches!(name, json::CONTENT_TYPE | "data" | "data_base64") {
            return Err(ClientError::bad_request(format!("`{header}` is no header of an event")));
        }
        if attributes.insert(name.to_owned(), decoded(header.as_str(), value)?).is_some() {
            return Err(ClientError::bad_request(format!("the header `{header}` is there twice")));
        }
    }
    if let Some(kind) = headers.get(CONTENT_TYPE) {
        let kind = kind.to_str().map_err(|_| ClientError::bad_request("Content-Type is not ASCII"))?;
        attributes.insert(json::CONTENT_TYPE.to_owned(), kind.to_owned());
    }
    Ok(attributes)
}

/// Quotes are taken off first, then what is percent-encoded is decoded, once.
fn decoded(header: &str, value: &HeaderValue) -> Result<String, ClientError> {
    let not_text =
        || ClientError::bad_request(format!("the header `{header}` is not UTF-8, percent-encoded"));
    let text = std::str::from_utf8(value.as_bytes()).map_err(|_| not_text())?;
    let text = unquoted(text.trim());
    percent_decode_str(&text).decode_utf8().map(Cow::into_owned).map_err(|_| not_text())
}

/// RFC 7230 section 3.2.6.
fn unquoted(text: &str) -> Cow<'_, str> {
    let Some(inner) = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) else {
        return Cow::Borrowed(text);
    };
    let mut plain = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        plain.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&'static str, &'static str)]) -> Result<BTreeMap<String, String>, ClientError> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        attributes(&headers)
    }

    #[test]
    fn values_are_unquoted_and_then_decoded_once() {
        for (value, expected) in [
            ("plain", "plain"),
            ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
            ("\"a \\\"b\\\" %25\"", "a \"b\" %"),
            ("%2525", "%25"),
            ("100%", "100%"),
            ("grün", "grün"),
            ("\"", "\""),
        ] {
            assert_eq!(read(&[("ce-x", value)]).unwrap()["x"], expected, "{value}");
        }
    }

    #[test]
    fn what_is_no_attribute_is_told_or_left_alone() {
        let read_well = read(&[("ce-id", "1"), ("x-ce-y", "2"), ("content-type", "text/plain")]).unwrap();
        assert_eq!(read_well.keys().collect::<Vec<_>>(), ["datacontenttype", "id"]);
        for bad in [("ce-x", "%FF"), ("ce-data", "1"), ("ce-datacontenttype", "a/b")] {
            assert!(read(&[bad]).is_err(), "{bad:?}");
        }
        assert!(read(&[("ce-x", "1"), ("ce-x", "2")]).unwrap_err().message.contains("twice"));
    }
}
