//! Headers of clients that backends want to see: those of the WebSocket's upgrade request, or the metadata of the gRPC call.
//!
//! Owns: which names can be passed on, and what is kept of a client's. Kept for as long as the connection, so they are few
//! and bounded; a client without any costs nothing. Values are never shown.

use std::{fmt, sync::Arc};

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

/// Bytes of names and values that are kept of one client; what does not fit is left out.
pub const MOST_BYTES: usize = 8 * 1024;
/// Values that are kept of one client.
pub const MOST_VALUES: usize = 64;

/// Names that belong to one connection or message, and say nothing beyond it (RFC 9110 section 7.6.1), or that a call to
/// a backend has of its own.
const OF_THE_CALL: [&str; 17] = [
    "accept",
    "accept-encoding",
    "connection",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "max-forwards",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];
/// Beginnings of such names.
const BEGINNINGS: [&str; 5] = ["content-", "grpc-", "if-", "sec-websocket-", "streamgate-"];

/// The header of that name, in any case, if it can be passed on.
///
/// # Errors
/// Why not.
pub fn forwardable(name: &str) -> Result<HeaderName, String> {
    let lower = name.to_ascii_lowercase();
    let parsed = lower.parse::<HeaderName>().map_err(|_| format!("`{name}` is not the name of a header"))?;
    if OF_THE_CALL.contains(&lower.as_str()) || BEGINNINGS.iter().any(|start| lower.starts_with(start)) {
        return Err(format!("`{name}` cannot be forwarded: a call to a backend has its own, or none"));
    }
    if lower.ends_with("-bin") {
        return Err(format!("`{name}` cannot be forwarded: it is binary metadata"));
    }
    Ok(parsed)
}

/// The names that some backend wants. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct WantedHeaders(Arc<[HeaderName]>);

impl WantedHeaders {
    /// Those of all backends.
    #[must_use]
    pub fn new<'a>(names: impl IntoIterator<Item = &'a HeaderName>) -> Self {
        let mut wanted: Vec<HeaderName> = Vec::new();
        for name in names {
            if !wanted.contains(name) {
                wanted.push(name.clone());
            }
        }
        Self(wanted.into())
    }

    /// What a client brings of them.
    #[must_use]
    pub fn of(&self, headers: &HeaderMap) -> ClientHeaders {
        let mut kept = Vec::new();
        let mut bytes = 0;
        for name in self.0.iter() {
            for value in headers.get_all(name) {
                let size = name.as_str().len() + value.len();
                if kept.len() >= MOST_VALUES || bytes + size > MOST_BYTES {
                    tracing::debug!(
                        header = name.as_str(),
                        "a client's header is left out: it has too many, or too long ones"
                    );
                    continue;
                }
                bytes += size;
                // A copy: the client's own is a part of its whole request.
                let Ok(mut value) = HeaderValue::from_bytes(value.as_bytes()) else { continue };
                value.set_sensitive(true);
                kept.push((name.clone(), value));
            }
        }
        if kept.is_empty() { ClientHeaders::default() } else { ClientHeaders(Some(Arc::new(kept))) }
    }
}

/// Headers that a client came with. Cheap to clone, small if there are none. `Debug` shows the names only.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct ClientHeaders(Option<Arc<Vec<(HeaderName, HeaderValue)>>>);

impl ClientHeaders {
    /// The values of this name, in their order.
    pub fn get_all<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a HeaderValue> {
        let all = self.0.iter().flat_map(|all| all.iter());
        all.filter(move |(other, _)| other == name).map(|(_, value)| value)
    }
}

impl fmt::Debug for ClientHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.iter().flat_map(|all| all.iter()).map(|(name, _)| name.as_str());
        f.debug_list().entries(names).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    fn wanted(names: &[&'static str]) -> WantedHeaders {
        let names: Vec<_> = names.iter().map(|name| HeaderName::from_static(name)).collect();
        WantedHeaders::new(&names)
    }

    #[test]
    fn what_belongs_to_one_connection_or_call_cannot_be_passed_on() {
        for name in [
            "Host",
            "CONNECTION",
            "upgrade",
            "Content-Length",
            "content-type",
            "Sec-WebSocket-Key",
            "streamgate-hook",
            "grpc-timeout",
            "te",
            "accept-encoding",
            "proxy-authorization",
            "x-data-bin",
        ] {
            let refused = forwardable(name).unwrap_err();
            assert!(refused.contains(name) && refused.contains("cannot be forwarded"), "{refused}");
        }
        assert!(forwardable("a b").unwrap_err().contains("is not the name of a header"));
        assert!(forwardable(":path").is_err());
        for name in
            ["Cookie", "authorization", "X-Request-Id", "accept-language", "origin", "x-forwarded-for"]
        {
            assert_eq!(forwardable(name).unwrap().as_str(), name.to_ascii_lowercase());
        }
    }

    #[test]
    fn only_what_is_wanted_is_kept_every_value_in_its_order() {
        let came = map(&[("cookie", "a"), ("x-tenant", "1"), ("x-tenant", "2"), ("authorization", "s3cret")]);
        let kept = wanted(&["x-tenant", "x-none", "authorization", "x-tenant"]).of(&came);
        let name = |name| HeaderName::from_static(name);
        let (tenant, cookie) = (name("x-tenant"), name("cookie"));
        assert_eq!(kept.get_all(&tenant).map(HeaderValue::as_bytes).collect::<Vec<_>>(), [b"1", b"2"]);
        assert_eq!(kept.get_all(&cookie).count(), 0);
        let shown = format!("{kept:?}");
        assert!(shown.contains("x-tenant") && !shown.contains("s3cret"), "{shown}");
        assert!(kept.get_all(&name("authorization")).all(HeaderValue::is_sensitive));
        assert_eq!(wanted(&["x-none"]).of(&came), ClientHeaders::default());
        assert_eq!(wanted(&[]).of(&came), ClientHeaders::default());
    }

    #[test]
    fn a_client_cannot_have_much_kept_of_it() {
        let long = "x".repeat(MOST_BYTES - 100);
        let came = map(&[("x-a", &long), ("x-a", &long), ("x-b", "fits")]);
        let kept = wanted(&["x-a", "x-b"]).of(&came);
        let name = |name| HeaderName::from_static(name);
        assert_eq!((kept.get_all(&name("x-a")).count(), kept.get_all(&name("x-b")).count()), (1, 1));
        let many: Vec<_> = (0..MOST_VALUES + 5).map(|_| ("x-a", "1")).collect();
        assert_eq!(wanted(&["x-a"]).of(&map(&many)).get_all(&name("x-a")).count(), MOST_VALUES);
    }
}
