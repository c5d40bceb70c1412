//! TLS of the listeners (RFC 8446 and RFC 5246), by rustls.
//!
//! Owns: the files that a listener shows and trusts ([`TlsFiles`]), handshakes and their bounds ([`Acceptor`]), the
//! reading of files that have changed, and how long a certificate still lasts. [`pem`] reads what is in files, also for TLS
//! to others. Never does: say who a client is. A client's certificate opens the door, it names no user.
//!
//! Invariants:
//! - A listener that is configured with TLS never speaks plain text, apart from one answer that says so.
//! - Files that cannot be used never replace what is in use.
//! - Handshakes under way are bounded in number and in time, and run apart from accepted connections.

mod acceptor;
mod expiry;
mod files;
pub mod pem;
mod stream;

pub use acceptor::Acceptor;
pub use files::{ClientAuth, TlsFiles};
pub use stream::MaybeTls;

/// What a listener agrees to speak inside of TLS (ALPN, RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// `http/1.1`; WebSocket has no name of its own there.
    Http1,
    /// `h2`, which gRPC needs.
    Http2,
    /// Either, `h2` first: for the admin listener, where the server API speaks both.
    Both,
}

impl Speaks {
    fn alpn(self) -> Vec<Vec<u8>> {
        let (http1, http2) = (b"http/1.1".to_vec(), b"h2".to_vec());
        match self {
            Self::Http1 => vec![http1],
            Self::Http2 => vec![http2],
            Self::Both => vec![http2, http1],
        }
    }
}
