//! Which web pages may connect (RFC 6455 section 10.2).
//!
//! A browser sends the page's origin and the user's cookies with the handshake, whatever site the page is
//! from, so the server must choose. Clients that are not browsers send no Origin, or could send any: for
//! them this is no protection and they pass.

use hyper::header::{HOST, HeaderMap, ORIGIN};

/// Policy over the `Origin` header. The default lets pages of the server's own host in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OriginPolicy {
    any: bool,
    allowed: Vec<String>,
}

impl OriginPolicy {
    /// Same origin and the listed ones (`https://app.example.com`, `https://app.example.com:8443`;
    /// compared without regard to case and to a default port). `*` lets every page in, `null` those
    /// without an origin.
    pub fn new<S: AsRef<str>>(allowed: impl IntoIterator<Item = S>) -> Self {
        let mut policy = Self::default();
        for origin in allowed {
            match origin.as_ref().trim() {
                "*" => policy.any = true,
                origin => policy.allowed.push(canonical(origin)),
            }
        }
        policy
    }

    /// Whether a request with these headers may connect.
    #[must_use]
    pub fn permits(&self, headers: &HeaderMap) -> bool {
        let mut origins = headers.get_all(ORIGIN).iter();
        let Some(origin) = origins.next() else { return true };
        if self.any {
            return true;
        }
        let (Ok(origin), None) = (origin.to_str(), origins.next()) else { return false };
        let origin = canonical(origin);
        self.allowed.contains(&origin) || is_same_origin(&origin, headers)
    }
}

/// Whether a canonical origin's host and port are those of the `Host` header. The scheme is not compared:
/// behind a proxy that ends TLS the server cannot know its own.
fn is_same_origin(origin: &str, headers: &HeaderMap) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok()) else { return false };
    matches!(scheme, "http" | "https")
        && canonical(&format!("{scheme}://{host}")) == format!("{scheme}://{authority}")
}

/// Lower case, without the scheme's default port and a trailing slash.
fn canonical(origin: &str) -> String {
    let origin = origin.trim().trim_end_matches('/').to_ascii_lowercase();
    let default_port = match origin.split_once("://") {
        Some(("http", _)) => ":80",
        Some(("https", _)) => ":443",
        _ => return origin,
    };
    origin.strip_suffix(default_port).map(str::to_owned).unwrap_or(origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(policy: &OriginPolicy, host: &str, origins: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        for origin in origins {
            headers.append(ORIGIN, origin.parse().unwrap());
        }
        policy.permits(&headers)
    }

    #[test]
    fn clients_without_origin_pass() {
        assert!(permits(&OriginPolicy::default(), "a.example", &[]));
    }

    #[test]
    fn same_origin_passes_and_others_do_not() {
        let policy = OriginPolicy::default();
        for (host, origin) in [
            ("a.example", "http://a.example"),
            ("a.example", "https://A.Example"),
            ("a.example:443", "https://a.example"),
            ("a.example", "http://a.example:80"),
            ("127.0.0.1:9080", "http://127.0.0.1:9080"),
            ("[::1]:9080", "http://[::1]:9080"),
        ] {
            assert!(permits(&policy, host, &[origin]), "{host} {origin}");
        }
        for (host, origin) in [
            ("a.example", "http://b.example"),
            ("a.example", "http://a.example:8080"),
            ("a.example", "http://a.example.evil"),
            ("a.example", "http://evil.a.example"),
            ("a.example:80", "https://a.example"),
            ("a.example", "null"),
            ("a.example", "file://a.example"),
            ("a.example", ""),
        ] {
            assert!(!permits(&policy, host, &[origin]), "{host} {origin}");
        }
        assert!(!permits(&policy, "a.example", &["http://a.example", "http://b.example"]), "two origins");
    }

    #[test]
    fn listed_origins_pass_beside_the_same_origin() {
        let policy = OriginPolicy::new(["https://App.example:443/", "http://b.example:8080"]);
        for origin in ["https://app.example", "http://b.example:8080", "http://gw.example"] {
            assert!(permits(&policy, "gw.example", &[origin]), "{origin}");
        }
        for origin in ["http://app.example", "http://b.example", "https://x.app.example"] {
            assert!(!permits(&policy, "gw.example", &[origin]), "{origin}");
        }
    }

    #[test]
    fn star_lets_every_page_in() {
        let policy = OriginPolicy::new(["*"]);
        assert!(permits(&policy, "a.example", &["https://evil.example"]));
        assert!(permits(&policy, "a.example", &["null"]));
    }
}
