//! How a client came, before it said anything.

use std::net::IpAddr;

use crate::{auth::Token, client_headers::ClientHeaders};

/// What the connection itself tells of a client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arrival {
    /// The token that came with the upgrade request or the call.
    pub token: Option<Token>,
    /// Where the client is, beyond proxies that are trusted. `None`: not known.
    pub address: Option<IpAddr>,
    /// Headers that it came with, as far as a backend wants them.
    pub headers: ClientHeaders,
}
