//! URLs of gateways.

use super::Tls;
use crate::error::Error;

/// How to talk to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    WebSocket,
    Grpc,
}

/// Where a gateway listens.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub(crate) kind: Kind,
    /// `host:port`, for people and for TCP.
    pub(crate) address: String,
    /// Whole URL: `ws[s]://host:port/path` or `http[s]://host:port`.
    pub(crate) url: String,
    /// Whether the URL asks for TLS.
    pub(crate) secure: bool,
    /// How to speak TLS; given once the options are known.
    pub(crate) tls: Option<Tls>,
}

/// Port of the WebSocket listener, if none is named.
const WEBSOCKET_PORT: u16 = 9080;
/// Port of the gRPC listener, if none is named.
const GRPC_PORT: u16 = 9090;
/// Port of the admin listener, which has the server API, if none is named.
#[cfg(feature = "server")]
const API_PORT: u16 = 8080;

impl Endpoint {
    /// Reads `ws://host[:port][/path]`, `grpc://host[:port]` or `host[:port]`, which means WebSocket; with TLS `wss://`,
    /// `grpcs://` or `https://`. The path is `/ws`, if none is given.
    pub(crate) fn parse(url: &str) -> Result<Self, Error> {
        let invalid = |reason: &str| Error::InvalidUrl { url: url.to_owned(), reason: reason.to_owned() };
        let (scheme, rest) = url.split_once("://").unwrap_or(("ws", url));
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let (kind, secure) = match scheme {
            "ws" => (Kind::WebSocket, false),
            "wss" => (Kind::WebSocket, true),
            "grpc" => (Kind::Grpc, false),
            "grpcs" | "https" => (Kind::Grpc, true),
            _ => return Err(invalid("use ws[s]://host:port, grpc[s]://host:port or host:port")),
        };
        if authority.contains('@') {
            return Err(invalid("credentials do not belong in the URL, give a token instead"));
        }
        let port = if kind == Kind::WebSocket { WEBSOCKET_PORT } else { GRPC_PORT };
        let address = with_port(authority, port).ok_or_else(|| invalid("a host and a port are expected"))?;
        let s = if secure { "s" } else { "" };
        let url = match kind {
            Kind::WebSocket if matches!(path, "" | "/") => format!("ws{s}://{address}/ws"),
            Kind::WebSocket => format!("ws{s}://{address}{path}"),
            Kind::Grpc if matches!(path, "" | "/") => format!("http{s}://{address}"),
            Kind::Grpc => return Err(invalid("gRPC takes no path")),
        };
        Ok(Self { kind, address, url, secure, tls: None })
    }

    /// Reads where a server API is: `http[s]://host[:port]`, or `host[:port]`, which means without TLS.
    #[cfg(feature = "server")]
    pub(crate) fn parse_api(url: &str) -> Result<Self, Error> {
        let invalid = |reason: &str| Error::InvalidUrl { url: url.to_owned(), reason: reason.to_owned() };
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        if !matches!(scheme, "http" | "https") {
            return Err(invalid("use http://host:port or https://host:port"));
        }
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '@']) {
            return Err(invalid("a host and a port alone are expected"));
        }
        let address =
            with_port(authority, API_PORT).ok_or_else(|| invalid("a host and a port are expected"))?;
        let url = format!("{scheme}://{address}");
        Ok(Self { kind: Kind::Grpc, address, url, secure: scheme == "https", tls: None })
    }

    /// Uses `tls`, if the URL asks for it.
    pub(crate) fn with_tls(self, tls: Option<&Tls>) -> Self {
        let protocol: &[u8] = if self.kind == Kind::Grpc { b"h2" } else { b"http/1.1" };
        let tls = tls.filter(|_| self.secure).map(|tls| tls.speaking(protocol));
        Self { tls, ..self }
    }
}

/// `host`, `host:port`, `[v6]` or `[v6]:port` with a port; `None` if it is none of these.
fn with_port(authority: &str, default: u16) -> Option<String> {
    // The colons of an IPv6 address are inside the brackets.
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (authority, default),
    };
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let plain = !host.contains([':', '[', ']', ' ', '?', '#']);
    (!host.is_empty() && (bracketed || plain)).then(|| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> String {
        Endpoint::parse(text).unwrap().url
    }

    #[test]
    fn short_forms_mean_websocket_on_its_usual_port_and_path() {
        assert_eq!(url("127.0.0.1:9080"), "ws://127.0.0.1:9080/ws");
        assert_eq!(url("node-2"), "ws://node-2:9080/ws");
        assert_eq!(url("ws://node-2:80/"), "ws://node-2:80/ws");
        assert_eq!(url("ws://node-2:80/realtime?x=1"), "ws://node-2:80/realtime?x=1");
        assert_eq!(url("[::1]:9080"), "ws://[::1]:9080/ws");
        assert_eq!(url("[::1]"), "ws://[::1]:9080/ws");
    }

    #[test]
    fn grpc_has_its_own_port() {
        assert_eq!(url("grpc://node-2"), "http://node-2:9090");
        let endpoint = Endpoint::parse("grpc://node-2:1").unwrap();
        assert_eq!((endpoint.kind, endpoint.address.as_str()), (Kind::Grpc, "node-2:1"));
    }

    #[test]
    fn schemes_ask_for_tls() {
        assert_eq!(url("wss://node-2"), "wss://node-2:9080/ws");
        assert_eq!(url("wss://node-2:443/realtime"), "wss://node-2:443/realtime");
        assert_eq!(url("grpcs://node-2"), "https://node-2:9090");
        assert_eq!(url("https://[::1]:443/"), "https://[::1]:443");
        assert!(Endpoint::parse("wss://a").unwrap().secure && !Endpoint::parse("a").unwrap().secure);
    }

    #[cfg(feature = "server")]
    #[test]
    fn the_server_api_is_on_the_port_of_the_admin_listener() {
        let url = |text| Endpoint::parse_api(text).map(|endpoint| endpoint.url);
        assert_eq!(url("http://node-2").as_deref(), Ok("http://node-2:8080"));
        assert_eq!(url("https://[::1]:1/").as_deref(), Ok("https://[::1]:1"));
        assert_eq!(url("node-2:1").as_deref(), Ok("http://node-2:1"));
        for bad in ["", "ws://a", "http://a/api/v1", "http://u@a", "http://a:b"] {
            assert!(matches!(url(bad), Err(Error::InvalidUrl { .. })), "{bad:?}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_a_reason() {
        for bad in
            ["", "http://a:1", "wss://u@a:1", "ws://a:b", "ws://", "::1", "u@a:1", "grpcs://a:1/x", "a b:1"]
        {
            assert!(matches!(Endpoint::parse(bad), Err(Error::InvalidUrl { .. })), "{bad:?}");
        }
    }
}
