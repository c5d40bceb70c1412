//! Where clients reach a node.

use std::net::SocketAddr;

use anyhow::{Context as _, bail, ensure};
use streamgate_e2e::gateway::Addrs;

use super::address;

/// Where a node is. One that was started here has both addresses, one that was given by URL the one that the URL says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `gateway 1` and so on.
    pub name: String,
    /// Host and port as they were given, for the `Host` header of a WebSocket handshake.
    pub host: String,
    /// WebSocket listener.
    pub websocket: Option<SocketAddr>,
    /// Path of the WebSocket upgrade, with its slash.
    pub path: String,
    /// gRPC listener.
    pub grpc: Option<SocketAddr>,
}

impl Node {
    /// The WebSocket listener.
    ///
    /// # Errors
    /// Only the gRPC one is known.
    pub fn websocket(&self) -> anyhow::Result<SocketAddr> {
        self.websocket.with_context(|| format!("{}: WebSocket needs --url ws://HOST:PORT/PATH", self.name))
    }

    /// The gRPC listener.
    ///
    /// # Errors
    /// Only the WebSocket one is known.
    pub fn grpc(&self) -> anyhow::Result<SocketAddr> {
        self.grpc.with_context(|| format!("{}: gRPC needs --url http://HOST:PORT", self.name))
    }

    pub(super) fn of_node(name: String, addrs: Addrs, path: &str) -> Self {
        Self {
            name,
            host: addrs.websocket.to_string(),
            websocket: Some(addrs.websocket),
            path: path.to_owned(),
            grpc: Some(addrs.grpc),
        }
    }

    pub(super) async fn resolve(name: String, url: &str) -> anyhow::Result<Self> {
        let Url { grpc, host, path } = parse(url)?;
        let addr = address(&host).await?;
        let (websocket, grpc) = if grpc { (None, Some(addr)) } else { (Some(addr), None) };
        Ok(Self { name, host, websocket, path, grpc })
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Url {
    grpc: bool,
    host: String,
    path: String,
}

/// The port must be there: a load generator that quietly takes port 80 helps nobody.
fn parse(url: &str) -> anyhow::Result<Url> {
    let Some((scheme, rest)) = url.split_once("://") else {
        bail!("--url {url}: ws://HOST:PORT/PATH or http://HOST:PORT is expected")
    };
    let grpc = match scheme {
        "ws" => false,
        "http" => true,
        "wss" | "https" | "grpcs" => bail!("--url {url}: the load generator does not speak TLS"),
        _ => bail!("--url {url}: {scheme} is neither ws nor http (gRPC)"),
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, if grpc { "" } else { "ws" }));
    let port = host.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    ensure!(port.is_some(), "--url {url}: the port is missing");
    ensure!(!host.contains('@'), "--url {url}: the load generator has no credentials");
    ensure!(!grpc || path.is_empty(), "--url {url}: gRPC has no path");
    Ok(Url { grpc, host: host.to_owned(), path: format!("/{path}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_say_transport_address_and_path() {
        let parsed = |url| parse(url).map(|Url { grpc, host, path }| (grpc, host, path)).unwrap();
        assert_eq!(parsed("ws://a:9080"), (false, "a:9080".into(), "/ws".into()));
        assert_eq!(parsed("ws://a:9080/"), (false, "a:9080".into(), "/".into()));
        assert_eq!(parsed("ws://[::1]:80/x/y?z=1"), (false, "[::1]:80".into(), "/x/y?z=1".into()));
        assert_eq!(parsed("http://127.0.0.1:9090/"), (true, "127.0.0.1:9090".into(), "/".into()));
    }

    #[test]
    fn what_cannot_be_loaded_is_refused_with_the_reason() {
        for (url, reason) in [
            ("127.0.0.1:9080", "is expected"),
            ("wss://a:1/ws", "TLS"),
            ("tcp://a:1", "tcp is neither"),
            ("ws://a/ws", "port is missing"),
            ("ws://[::1]/ws", "port is missing"),
            ("ws://u:p@a:1/ws", "credentials"),
            ("http://a:1/ws", "no path"),
        ] {
            let error = parse(url).unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains(url), "{error}");
        }
    }

    #[tokio::test]
    async fn the_other_transport_is_missed_by_name() {
        let node = Node::resolve("gateway 2".into(), "ws://127.0.0.1:9/ws").await.unwrap();
        assert_eq!(node.websocket().unwrap().port(), 9);
        let error = node.grpc().unwrap_err().to_string();
        assert!(error.contains("gateway 2") && error.contains("http://"), "{error}");
    }
}
