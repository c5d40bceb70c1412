//! A connection on its way from a listener to a shard.

use std::{io, net::SocketAddr};

use rustls::ServerConnection;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// A connection of the WebSocket listener. It may change threads, so it belongs to no runtime.
#[derive(Debug)]
pub struct Accepted {
    /// The socket.
    pub stream: std::net::TcpStream,
    /// Who is at its other end.
    pub peer: SocketAddr,
    /// TLS whose handshake is over; `None`: plain.
    pub tls: Option<Box<ServerConnection>>,
}

impl Accepted {
    /// Without TLS.
    ///
    /// # Errors
    /// The runtime does not let the socket go.
    pub fn plain(stream: TcpStream, peer: SocketAddr) -> io::Result<Self> {
        Ok(Self { stream: stream.into_std()?, peer, tls: None })
    }

    /// With TLS.
    ///
    /// # Errors
    /// The runtime does not let the socket go.
    pub fn tls(stream: TlsStream<TcpStream>, peer: SocketAddr) -> io::Result<Self> {
        let (stream, session) = stream.into_inner();
        Ok(Self { stream: stream.into_std()?, peer, tls: Some(Box::new(session)) })
    }
}
