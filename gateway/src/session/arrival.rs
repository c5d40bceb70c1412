//! How a client came, before it said anything.

use std::net::IpAddr;

use crate::{auth::Token, client_headers::ClientHeaders};

/// What the connection itself tells of a client.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Arrival {
    /// The token that came with the upgrade request or the call.
    pub token: Option<Token>,
    /// Where the client is, beyond proxies that are trusted. `None`: not known.
    pub address: Option<IpAddr>,
    /// Headers that it came with, as far as a backend wants them.
    pub headers: ClientHeaders,
    /// What the client can be asked.
    pub manner: Manner,
}

/// What kind of client it is, as its transport knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Manner {
    /// Speaks the envelopes of the protocol.
    #[default]
    Envelopes,
    /// Speaks events alone: it answers no pings but the transport's, no calls and no surveys, and has no use for a resume
    /// token, as its cursors are all it brings back.
    Events,
    /// Makes requests of one answer each. It has no subscriptions, so nothing is kept of it, nobody is told of it, and it
    /// is no connection of its user's.
    Requests,
}
