//! The JSON door: `POST /api/v1/<operation>` with the operation's request as proto3 JSON, and the document that
//! describes it.

use bytes::Bytes;
use hyper::{
    HeaderMap, Method, Request, StatusCode,
    body::Incoming,
    header::{ALLOW, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE},
};

use super::{
    bodies::NoBody,
    door::Door,
    openapi,
    operations::Operation,
    reply::{JSON, Reply, TEXT, refusal, reply, status_of},
};
use crate::error::{ClientError, ErrorCode};

/// What every path of this door starts with.
pub(super) const PREFIX: &str = "/api/v1/";
const DESCRIPTION: &str = "openapi.json";

/// Why a request is not carried out: with which status, and what to say.
struct Refusal {
    status: StatusCode,
    error: ClientError,
}

impl From<ClientError> for Refusal {
    fn from(error: ClientError) -> Self {
        Self { status: status_of(error.code), error }
    }
}

impl From<NoBody> for Refusal {
    fn from(error: NoBody) -> Self {
        match error {
            NoBody::Late(error) => Self { status: StatusCode::REQUEST_TIMEOUT, error },
            NoBody::Unfit(error) => error.into(),
        }
    }
}

/// Answers requests in JSON. Cheap to clone.
#[derive(Clone)]
pub(super) struct JsonDoor {
    door: Door,
}

impl JsonDoor {
    pub fn new(door: Door) -> Self {
        Self { door }
    }

    /// The answer to a request whose path starts with [`PREFIX`]. Cancel: what was started is not undone.
    pub async fn answer(&self, request: Request<Incoming>) -> Reply {
        let name = request.uri().path().strip_prefix(PREFIX).unwrap_or_default();
        if name == DESCRIPTION {
            return described(request.method());
        }
        let Some(operation) = Operation::of_name(name) else {
            let text = "no such operation: see /api/v1/openapi.json";
            return refusal(StatusCode::NOT_FOUND, &ClientError::new(ErrorCode::NotFound, text));
        };
        if request.method() != Method::POST {
            return not_allowed("POST", "an operation is called with POST");
        }
        let shown = request.headers().contains_key(AUTHORIZATION);
        let outcome = self.carried_out(operation, request).await;
        self.door.count("json", operation, outcome.as_ref().err().map(|refusal| refusal.error.code));
        match outcome {
            Ok(body) => reply(StatusCode::OK, JSON, body),
            Err(Refusal { status, error }) => {
                let mut response = refusal(status, &error);
                if status == StatusCode::UNAUTHORIZED {
                    response.headers_mut().insert(WWW_AUTHENTICATE, challenge(shown));
                }
                response
            }
        }
    }

    async fn carried_out(&self, operation: Operation, request: Request<Incoming>) -> Result<Bytes, Refusal> {
        let (parts, body) = request.into_parts();
        self.door.access().check(&parts.uri, &parts.headers, operation.scope())?;
        check_content(&parts.headers)?;
        let body = self.door.bodies().read(body, self.door.max_request_bytes(), |_| None).await?;
        let _running = self.door.enter()?;
        Ok(self.door.operations().run(operation, &body.bytes).await?)
    }
}

/// Only what a page of another site cannot send without asking first.
fn check_content(headers: &HeaderMap) -> Result<(), Refusal> {
    let unsupported = |text: &str| {
        Err(Refusal { status: StatusCode::UNSUPPORTED_MEDIA_TYPE, error: ClientError::bad_request(text) })
    };
    if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return unsupported("Content-Encoding is not understood: send the JSON as it is");
    }
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let mut parts = kind.split(';').map(str::trim);
    let is_json = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"));
    let is_utf8 = |part: &str| match part.split_once('=') {
        Some((name, value)) if name.eq_ignore_ascii_case("charset") => {
            value.trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    };
    if is_json && parts.all(is_utf8) {
        Ok(())
    } else {
        unsupported("Content-Type must be application/json, in UTF-8")
    }
}

/// RFC 6750 section 3.
fn challenge(shown: bool) -> HeaderValue {
    if shown {
        HeaderValue::from_static(r#"Bearer realm="streamgate", error="invalid_token""#)
    } else {
        HeaderValue::from_static(r#"Bearer realm="streamgate""#)
    }
}

fn described(method: &Method) -> Reply {
    if matches!(*method, Method::GET | Method::HEAD) {
        return reply(StatusCode::OK, JSON, openapi::document());
    }
    not_allowed("GET, HEAD", "the description is read with GET")
}

fn not_allowed(allowed: &'static str, text: &str) -> Reply {
    let mut response = refusal(StatusCode::METHOD_NOT_ALLOWED, &ClientError::bad_request(text));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

/// What paths outside of this door, and of the others, are answered with.
pub(super) fn not_found() -> Reply {
    let text = "try /metrics, /health/live, /health/ready, /api/v1/openapi.json\n";
    reply(StatusCode::NOT_FOUND, TEXT, text)
}
