//! Answers that are there as a whole, and errors in the form of the server API.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Response, StatusCode,
    header::{
        CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
    },
};
use streamgate_proto::json;

use crate::error::{ClientError, CloseCode, ErrorCode};

pub(in crate::transport) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An answer that is there as a whole.
pub(in crate::transport) type Reply = Response<Full<Bytes>>;

pub(in crate::transport) fn reply(status: StatusCode, kind: HeaderValue, body: impl Into<Bytes>) -> Reply {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Why a request is not carried out: with which status, and what to say.
#[derive(Debug)]
pub(in crate::transport) struct Refusal {
    status: StatusCode,
    error: ClientError,
}

impl Refusal {
    /// A request that HTTP has a status of its own for.
    pub fn of(status: StatusCode, text: &str) -> Self {
        Self { status, error: ClientError::bad_request(text) }
    }

    /// A session that ended before it answered.
    pub fn of_close(code: CloseCode, reason: &str) -> Self {
        let status = code.http_status();
        let of_status = |error: &ErrorCode| error.http_status() == status;
        let error = ErrorCode::ALL.into_iter().find(of_status).unwrap_or(ErrorCode::NotAvailable);
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        Self { status, error: ClientError::new(error, reason) }
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The answer, an error as `messageloop.shared.v1.Error` in JSON.
    pub fn response(&self) -> Reply {
        // It has no value that JSON cannot carry.
        let mut response = reply(self.status, JSON, json::encode(&self.error.to_wire()).unwrap_or_default());
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            // RFC 6750 section 3.
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"streamgate\""));
        }
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            // Rates are counted by the second.
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<ClientError> for Refusal {
    fn from(error: ClientError) -> Self {
        // Says on streams that they end; there is none here.
        let code = if error.code == ErrorCode::DisconnectError { ErrorCode::Internal } else { error.code };
        let status = StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, error }
    }
}
