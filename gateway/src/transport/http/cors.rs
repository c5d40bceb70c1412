//! Requests of web pages (WHATWG Fetch, "CORS protocol"): which origins may make them, and with what.
//!
//! A page of another origin that is not listed gets 403, not only an answer that it cannot read: a request that is carried
//! out though its answer is hidden would still have been carried out.

use std::time::Duration;

use hyper::{
    HeaderMap, Response, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
        ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderName, HeaderValue, ORIGIN, VARY,
    },
};

use super::{Reply, reply};
use crate::transport::ws::OriginPolicy;

/// Headers that pages may always send: what the doors look at. Those of an event (`ce-...`) belong to them.
const HEADERS: [&str; 7] = [
    "authorization",
    "cache-control",
    "content-type",
    "idempotency-key",
    "last-event-id",
    "traceparent",
    "tracestate",
];
/// What pages may read of answers besides the body.
const EXPOSED: HeaderValue = HeaderValue::from_static("link, retry-after, sg-position, sg-truncated");
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST");

/// Which pages may ask, and how. The default: those of the listener's own origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorsPolicy {
    origins: OriginPolicy,
    headers: Vec<HeaderName>,
    credentials: bool,
    max_age: Duration,
}

impl Default for CorsPolicy {
    fn default() -> Self {
        Self::new(OriginPolicy::default(), Vec::new(), false, Duration::from_secs(600))
    }
}

impl CorsPolicy {
    /// Pages of these origins may ask, with these headers besides those that the doors look at; with cookies and
    /// certificates of the browser if `credentials`. Browsers may remember it for `max_age`.
    #[must_use]
    pub fn new(
        origins: OriginPolicy,
        headers: Vec<HeaderName>,
        credentials: bool,
        max_age: Duration,
    ) -> Self {
        Self { origins, headers, credentials, max_age }
    }

    /// Whether a request with these headers may be made.
    #[must_use]
    pub fn permits(&self, headers: &HeaderMap) -> bool {
        self.origins.permits(headers)
    }

    /// Tells the browser that the page may read the answer. Only for a request that [`Self::permits`].
    pub fn allow<B>(&self, asked: &HeaderMap, response: &mut Response<B>) {
        let headers = response.headers_mut();
        // Whatever stores answers must not give one page that of another.
        headers.append(VARY, HeaderValue::from_static("Origin"));
        let Some(origin) = asked.get(ORIGIN) else { return };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        if self.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }

    /// The answer to a browser that asks before it makes a request; only for what [`Self::permits`]. A header that is not
    /// allowed is not in it, and the browser makes no request then.
    #[must_use]
    pub fn preflight(&self, asked: &HeaderMap) -> Reply {
        let mut response = reply(StatusCode::NO_CONTENT, HeaderValue::from_static("text/plain"), "");
        let wanted =
            asked.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter().filter_map(|value| value.to_str().ok());
        let allowed: Vec<&str> = wanted
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .filter(|name| self.takes(name))
            .collect();
        let headers = response.headers_mut();
        headers.remove(hyper::header::CONTENT_TYPE);
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        if let Ok(allowed) = HeaderValue::from_str(&allowed.join(", "))
            && !allowed.is_empty()
        {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        }
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(self.max_age.as_secs()));
        headers.append(VARY, HeaderValue::from_static("Access-Control-Request-Headers"));
        self.allow(asked, &mut response);
        response
    }

    fn takes(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        HEADERS.contains(&name.as_str())
            || name.starts_with("ce-")
            || self.headers.iter().any(|header| header.as_str() == name)
    }
}

/// Whether a browser asks before it makes a request.
pub(super) fn is_preflight(headers: &HeaderMap) -> bool {
    headers.contains_key(ORIGIN) && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn policy(credentials: bool) -> CorsPolicy {
        let origins = OriginPolicy::new(["https://app.example"]);
        CorsPolicy::new(
            origins,
            vec![HeaderName::from_static("x-mine")],
            credentials,
            Duration::from_secs(60),
        )
    }

    fn of(response: &Reply, name: HeaderName) -> Option<&str> {
        response.headers().get(name).map(|value| value.to_str().unwrap())
    }

    #[test]
    fn by_default_only_the_own_origin_may_ask() {
        let default = CorsPolicy::default();
        let host = ("host", "gw.example");
        assert!(
            default.permits(&headers(&[host]))
                && default.permits(&headers(&[host, ("origin", "http://gw.example")]))
        );
        assert!(!default.permits(&headers(&[host, ("origin", "https://app.example")])));
        assert!(policy(false).permits(&headers(&[host, ("origin", "https://app.example")])));
    }

    #[test]
    fn a_preflight_allows_what_is_known_and_listed_and_nothing_else() {
        let asked = headers(&[
            ("origin", "https://app.example"),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "Ce-Id, content-type,x-mine , x-other, Authorization"),
        ]);
        assert!(is_preflight(&asked));
        let answer = policy(true).preflight(&asked);
        assert_eq!(answer.status(), 204);
        assert_eq!(
            of(&answer, ACCESS_CONTROL_ALLOW_HEADERS),
            Some("Ce-Id, content-type, x-mine, Authorization")
        );
        assert_eq!(of(&answer, ACCESS_CONTROL_ALLOW_ORIGIN), Some("https://app.example"));
        assert_eq!(of(&answer, ACCESS_CONTROL_ALLOW_CREDENTIALS), Some("true"));
        assert_eq!(of(&answer, ACCESS_CONTROL_MAX_AGE), Some("60"));
    }

    #[test]
    fn credentials_are_allowed_only_where_configured() {
        let asked = headers(&[("origin", "https://app.example")]);
        let mut answer = reply(StatusCode::OK, HeaderValue::from_static("text/plain"), "");
        policy(false).allow(&asked, &mut answer);
        assert_eq!(of(&answer, ACCESS_CONTROL_ALLOW_CREDENTIALS), None);
        assert_eq!(of(&answer, VARY), Some("Origin"));
    }
}
