//! Where the server is that a link must lead to.
//!
//! A [`Link`](super::Link) knows how to keep one connection open, and nothing of deployments: before each attempt it
//! asks its [`Locate`], tells it what it found out, and leaves a server when it is told that another one is the
//! master now.

use std::{fmt, fmt::Debug};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt, pending, ready};

use super::error::ConnectError;

/// Host and port of a server; never credentials.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// Host name or address, an IPv6 address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl Address {
    /// The address of `host` and `port`.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Knows where a link's server is. Shared by the links that it answers the same.
pub trait Locate: Send + Sync + Debug {
    /// Where the master is now; asked before each attempt to connect. May wait while that is being found out, for a
    /// bounded time. Safe to cancel.
    ///
    /// # Errors
    /// Nobody who knows it can be reached, or there is none at present.
    fn locate(&self) -> BoxFuture<'_, Result<Address, ConnectError>>;

    /// Resolves when a link that is connected to `address` must leave it, because the master is elsewhere now; never
    /// for a fixed server. Safe to cancel.
    fn moved_from<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, ()>;

    /// A connection to `address` could not be opened, was lost, or showed that this is not the master (READONLY,
    /// UNBLOCKED) or not the owner (MOVED) any more: what was known before must be looked up again. Called once for
    /// each end of a connection and each failed attempt, whatever the reason.
    fn suspect(&self, address: &Address);

    /// A key that the server must own (Redis Cluster): a connection is handed out only if the server, asked on this
    /// connection, does.
    fn owned_key(&self) -> Option<Bytes> {
        None
    }
}

/// A server that stays where it is.
#[derive(Debug, Clone)]
pub struct Fixed(pub Address);

impl Locate for Fixed {
    fn locate(&self) -> BoxFuture<'_, Result<Address, ConnectError>> {
        ready(Ok(self.0.clone())).boxed()
    }

    fn moved_from<'a>(&'a self, _address: &'a Address) -> BoxFuture<'a, ()> {
        pending().boxed()
    }

    fn suspect(&self, _address: &Address) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_as_they_are_written() {
        assert_eq!(Address::new("redis.example", 7000).to_string(), "redis.example:7000");
        assert_eq!(Address::new("::1", 7000).to_string(), "[::1]:7000");
    }

    #[tokio::test]
    async fn a_fixed_server_is_never_left() {
        let fixed = Fixed(Address::new("h", 1));
        let address = fixed.locate().await.unwrap();
        fixed.suspect(&address);
        assert_eq!(fixed.locate().await.unwrap(), address);
        assert!(fixed.moved_from(&address).now_or_never().is_none());
    }
}
