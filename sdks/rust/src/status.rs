//! What the connection does, for whoever watches.

use std::time::Duration;

use crate::error::Error;

/// State of a client's connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// On the way to a gateway.
    Connecting {
        /// `host:port`.
        address: String,
    },
    /// The session is established.
    Connected {
        /// `host:port`.
        address: String,
        /// Public name of the session.
        session_id: String,
        /// The server found the session of before.
        resumed: bool,
    },
    /// No connection; another attempt follows.
    Disconnected {
        /// Why: [`Error::Closed`] carries the code and reason that the server gave.
        error: Error,
        /// When.
        retry_in: Duration,
    },
    /// The end: closed by this side ([`Error::ClientClosed`]), or by the server for good.
    Closed {
        /// Why.
        error: Error,
    },
}
