//! Hooks over HTTP: one POST each, proto3 JSON of the messages of `ProxyService` both ways.

use std::time::Duration;

use bytes::Bytes;
use hyper::{
    Method, Request, Response, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue},
};
use streamgate_proto::json;

use super::{Hook, HookError, HttpOptions, backend::Question};
use crate::http_client::{CallLimits, HttpClient};

/// Names the hook in each request.
pub const HOOK_HEADER: &str = "streamgate-hook";
/// What stands for the hook's name in an endpoint.
pub const HOOK_IN_URL: &str = "{hook}";
/// Bytes of a backend's own words that are passed on.
const WORDS: usize = 200;

/// A backend that speaks HTTP.
#[derive(Debug)]
pub(super) struct HttpBackend {
    client: HttpClient,
    options: HttpOptions,
}

impl HttpBackend {
    pub fn new(client: HttpClient, options: HttpOptions) -> Self {
        Self { client, options }
    }

    /// Asks once. Cancel: the backend may have got the question.
    pub async fn ask<H: Hook>(
        &self,
        question: &Question<'_, H>,
        limit: Duration,
    ) -> Result<H::Answer, HookError> {
        let request = self.request(question)?;
        let limits = CallLimits { deadline: limit, max_response_bytes: self.options.max_response_bytes };
        let answer = self.client.call(request, limits).await?;
        check_status(&answer)?;
        if H::SILENT {
            return Ok(H::Answer::default());
        }
        check_type(&answer)?;
        // An empty body says as much as an empty object.
        let body: &[u8] = if answer.body().trim_ascii().is_empty() { b"{}" } else { answer.body() };
        json::decode(body).map_err(|error| HookError::Garbage { reason: error.to_string() })
    }

    fn request<H: Hook>(&self, question: &Question<'_, H>) -> Result<Request<Bytes>, HookError> {
        let unsent = |reason: String| HookError::Transport { reason, sent: false, broke: false };
        let body = json::encode(question.request)
            .map_err(|error| HookError::Unsayable { reason: error.to_string() })?;
        let json = HeaderValue::from_static("application/json");
        let mut out = Request::builder()
            .method(Method::POST)
            .uri(self.options.url.replace(HOOK_IN_URL, H::NAME))
            .body(body)
            .map_err(|error| unsent(error.to_string()))?;
        let headers = out.headers_mut();
        headers.insert(ACCEPT, json.clone());
        for (name, value) in &question.headers {
            headers.append(name.clone(), value.clone());
        }
        // What the configuration says is the backend's own goes before what a client says.
        for (name, _) in &self.options.headers {
            headers.remove(name);
        }
        for (name, value) in &self.options.headers {
            headers.append(name.clone(), value.clone());
        }
        headers.insert(CONTENT_TYPE, json);
        headers.insert(HeaderName::from_static(HOOK_HEADER), HeaderValue::from_static(H::NAME));
        Ok(out)
    }
}

fn check_status(answer: &Response<Bytes>) -> Result<(), HookError> {
    let status = answer.status();
    match status {
        _ if status.is_success() => Ok(()),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Err(HookError::Refused { reason: words(answer.body(), status) })
        }
        _ => Err(HookError::Failed {
            status: format!("HTTP status {}", status.as_u16()),
            unwell: status.is_server_error()
                || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS),
        }),
    }
}

/// JSON by whatever name, or none at all; a page for people is no answer.
fn check_type(answer: &Response<Bytes>) -> Result<(), HookError> {
    let Some(value) = answer.headers().get(CONTENT_TYPE) else { return Ok(()) };
    let value = value.to_str().unwrap_or_default().to_ascii_lowercase();
    let essence = value.split(';').next().unwrap_or_default().trim();
    let fits = essence.ends_with("/json")
        || essence.ends_with("+json")
        || matches!(essence, "" | "text/plain" | "application/octet-stream");
    if fits {
        return Ok(());
    }
    Err(HookError::Garbage { reason: "its content type is not JSON".to_owned() })
}

/// What the backend says in plain words, if it is short and shows nothing odd.
fn words(body: &[u8], status: StatusCode) -> String {
    match std::str::from_utf8(body.trim_ascii()) {
        Ok(text) if (1..=WORDS).contains(&text.len()) && !text.contains(char::is_control) => text.to_owned(),
        _ => format!("HTTP status {}", status.as_u16()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, kind: Option<&str>, body: &'static str) -> Response<Bytes> {
        let answer = Response::builder().status(status);
        let answer = match kind {
            Some(kind) => answer.header(CONTENT_TYPE, kind),
            None => answer,
        };
        answer.body(Bytes::from_static(body.as_bytes())).unwrap()
    }

    #[test]
    fn statuses_tell_answers_refusals_and_failures_apart() {
        let status = |status, body| check_status(&answer(status, None, body));
        assert_eq!(status(200, ""), Ok(()));
        assert_eq!(status(204, ""), Ok(()));
        assert_eq!(status(403, "not you"), Err(HookError::Refused { reason: "not you".into() }));
        assert_eq!(status(401, "a\nb"), Err(HookError::Refused { reason: "HTTP status 401".into() }));
        for (code, unwell) in [(400, false), (404, false), (429, true), (500, true), (503, true)] {
            let expected = HookError::Failed { status: format!("HTTP status {code}"), unwell };
            assert_eq!(status(code, "secret"), Err(expected));
        }
    }

    #[test]
    fn anything_that_may_be_json_is_read() {
        for kind in [
            None,
            Some("application/json; charset=utf-8"),
            Some("application/problem+json"),
            Some("text/plain"),
        ] {
            assert_eq!(check_type(&answer(200, kind, "{}")), Ok(()), "{kind:?}");
        }
        assert!(check_type(&answer(200, Some("text/html"), "<html>")).is_err());
    }
}
