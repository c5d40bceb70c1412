//! Addresses to listen on.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _},
};

/// A checked address to listen on. Port 0 lets the system choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddr {
    text: String,
    addrs: Vec<SocketAddr>,
}

impl ListenAddr {
    /// Reads `host:port`, `[v6]:port` or `:port` (all interfaces, as in Go). A host name is resolved here and now,
    /// blocking.
    ///
    /// # Errors
    /// A text fit for an operator: not an address, or the name does not resolve.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not an address: write host:port, [IPv6]:port or :port");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port: u16 = port.parse().map_err(|_| wrong())?;
        let addrs = if host.is_empty() {
            // The first that binds is used: where there is no IPv6, that is the second.
            vec![
                SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port),
                SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port),
            ]
        } else if let Ok(addr) = text.parse() {
            vec![addr]
        } else if host.contains([':', '[', ']', '/']) || host.contains(char::is_whitespace) {
            return Err(wrong());
        } else {
            (host, port)
                .to_socket_addrs()
                .map_err(|error| format!("`{host}` does not resolve: {error}"))?
                .collect()
        };
        if addrs.is_empty() {
            return Err(format!("`{host}` resolves to no address"));
        }
        Ok(Self { text: text.to_owned(), addrs })
    }

    /// What to bind, in this order: the first that binds is enough.
    #[must_use]
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// Whether only this machine can connect, whichever of the addresses is bound.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.addrs.iter().all(|addr| addr.ip().to_canonical().is_loopback())
    }
}

impl From<SocketAddr> for ListenAddr {
    fn from(addr: SocketAddr) -> Self {
        Self { text: addr.to_string(), addrs: vec![addr] }
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_loopback() {
        for (text, expected) in [
            ("127.0.0.1:9080", true),
            ("127.8.8.8:0", true),
            ("[::1]:9080", true),
            ("[::ffff:127.0.0.1]:9080", true),
            ("localhost:9080", true),
            (":9080", false),
            ("0.0.0.0:9080", false),
            ("[::]:9080", false),
            ("10.0.0.7:9080", false),
        ] {
            assert_eq!(ListenAddr::parse(text).unwrap().is_loopback(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in
            ["", "9080", "127.0.0.1", "127.0.0.1:", "127.0.0.1:99999", "::1:9080", "a b:1", "http://a:1"]
        {
            assert!(ListenAddr::parse(text).is_err(), "{text}");
        }
    }
}
