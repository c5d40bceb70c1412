//! The connection below WebSocket and gRPC: TCP, with or without TLS.

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::Endpoint;
use crate::error::Error;

/// Bytes both ways.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection of either kind; what it costs to call it this way is nothing beside a system call.
pub(crate) type Stream = Box<dyn Duplex>;

/// Connects. Cancel: safe.
pub(crate) async fn open(endpoint: &Endpoint) -> Result<Stream, Error> {
    let unreachable = |error: std::io::Error| Error::Unreachable {
        address: endpoint.address.clone(),
        reason: reason(&error),
    };
    let tcp = TcpStream::connect(&endpoint.address).await.map_err(unreachable)?;
    tcp.set_nodelay(true).map_err(unreachable)?;
    match &endpoint.tls {
        None => Ok(Box::new(tcp)),
        Some(tls) => Ok(Box::new(tls.connect(&endpoint.address, tcp).await?)),
    }
}

/// Without the operating system's error number.
pub(super) fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        _ => error.to_string(),
    }
}
