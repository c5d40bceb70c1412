//! Answers of the admin listener.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS},
};
use streamgate_proto::json;

use crate::error::{ClientError, ErrorCode};

pub(super) const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An answer that is there as a whole.
pub(super) type Reply = Response<Full<Bytes>>;

pub(super) fn reply(status: StatusCode, kind: HeaderValue, body: impl Into<Bytes>) -> Reply {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The status of an error's row.
pub(super) fn status_of(code: ErrorCode) -> StatusCode {
    // Says on streams that they end; there is none here.
    let code = if code == ErrorCode::DisconnectError { ErrorCode::Internal } else { code };
    StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// An error as `messageloop.shared.v1.Error` in JSON.
pub(super) fn refusal(status: StatusCode, error: &ClientError) -> Reply {
    // It has no value that JSON cannot carry.
    reply(status, JSON, json::encode(&error.to_wire()).unwrap_or_default())
}
