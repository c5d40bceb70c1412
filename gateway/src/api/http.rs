//! The JSON door: `POST /api/v1/<operation>` with the operation's request as proto3 JSON, and the document that
//! describes it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::{
    HeaderMap, Method, Request, StatusCode,
    body::{Body, Incoming},
    header::{ALLOW, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    door::Door,
    openapi,
    operations::Operation,
    reply::{JSON, Reply, TEXT, refusal, reply, status_of},
};
use crate::error::{ClientError, ErrorCode};

/// What every path of this door starts with.
pub(super) const PREFIX: &str = "/api/v1/";
const DESCRIPTION: &str = "openapi.json";

/// Time for a request's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// KiB that the bodies of all requests may take while they are read and decoded.
const BODIES_KIB: usize = 64 * 1024;

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

/// Answers requests in JSON. Cheap to clone.
#[derive(Clone)]
pub(super) struct JsonDoor {
    door: Door,
    bodies: Arc<Semaphore>,
}

impl JsonDoor {
    pub fn new(door: Door) -> Self {
        Self { door, bodies: Arc::new(Semaphore::new(BODIES_KIB)) }
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
        let _running = self.door.enter()?;
        let (body, permit) = self.read(body).await?;
        let work = self.door.operations().run(operation, &body);
        let answer = work.await;
        drop((body, permit));
        Ok(answer?)
    }

    /// The whole body, and its place among those of other requests.
    async fn read(&self, body: Incoming) -> Result<(Bytes, OwnedSemaphorePermit), Refusal> {
        let limit = self.door.max_request_bytes();
        let too_large = |size: &str| {
            let text = format!("the request has {size} bytes, at most {limit} are allowed");
            ClientError::new(ErrorCode::TooLarge, text)
        };
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if announced > limit {
            return Err(too_large(&announced.to_string()).into());
        }
        // Without a length it may be as long as is allowed.
        let most = body.size_hint().upper().and_then(|upper| usize::try_from(upper).ok()).unwrap_or(limit);
        let kib = u32::try_from(most.min(limit).div_ceil(1024)).unwrap_or(u32::MAX);
        let reading = async {
            let permit = self.bodies.clone().acquire_many_owned(kib).await;
            (permit, Limited::new(body, limit).collect().await)
        };
        let Ok((permit, read)) = tokio::time::timeout(BODY_TIMEOUT, reading).await else {
            let error = ClientError::bad_request(format!("the request did not come within {BODY_TIMEOUT:?}"));
            return Err(Refusal { status: StatusCode::REQUEST_TIMEOUT, error });
        };
        // Nobody closes it.
        let permit = permit.map_err(|error| ClientError::new(ErrorCode::Internal, error.to_string()))?;
        match read {
            Ok(body) => Ok((body.to_bytes(), permit)),
            Err(error) if error.is::<LengthLimitError>() => Err(too_large("more").into()),
            Err(error) => Err(ClientError::bad_request(format!("the request breaks off: {error}")).into()),
        }
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
