//! Where a server is, and the handshake of a WebSocket there.

use std::{
    net::{IpAddr, SocketAddr},
    sync::LazyLock,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rustix::net::sockopt::set_socket_linger;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::ports::Ports;
use crate::servers;

/// Longest answer to the handshake, in bytes.
const GREATEST_ANSWER: usize = 16 * 1024;

/// What to look at if the system does not let connect.
const HINT: &str = "does it run? enough open files, ulimit -n? a source address has some 28,000 ports, those of closed \
                    connections are kept for a minute: --source names more";
/// Where the source address is chosen.
static OURS: LazyLock<Ports> = LazyLock::new(Ports::of_this_machine);

/// One address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// How it is spoken to.
    pub transport: Transport,
    /// Host and port, as in the URL.
    pub host: String,
    /// Path of the WebSocket.
    pub path: String,
    /// Where to connect to.
    pub addr: SocketAddr,
    /// Connections that are dropped, not closed, are reset. Then their ports are free for the next run: after an orderly end
    /// each would be kept for a minute, and with 15,000 of them the second run on the same server finds none. Only for servers
    /// of which it is known that a reset means no more to them than any other end.
    pub reset: bool,
}

/// What carries the frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Transport {
    /// WebSocket, `ws://`
    #[default]
    Ws,
    /// A gRPC stream, `http://`
    Grpc,
}

impl Endpoint {
    /// The address of a node for this transport.
    ///
    /// # Errors
    /// The node has none, as it was given by a URL of the other.
    pub fn of(node: &servers::Node, transport: Transport) -> anyhow::Result<Self> {
        let addr = match transport {
            Transport::Ws => node.websocket()?,
            Transport::Grpc => node.grpc()?,
        };
        Ok(Self { transport, host: node.host.clone(), path: node.path.clone(), addr, reset: true })
    }

    /// The WebSocket, open, with what the server sent right after its answer.
    ///
    /// # Errors
    /// The server cannot be reached or refuses.
    pub async fn open(
        &self,
        subprotocol: Option<&str>,
        source: Option<IpAddr>,
    ) -> anyhow::Result<(TcpStream, Vec<u8>)> {
        let connected = match source {
            Some(source) => OURS.connect(source, self.addr).await,
            None => TcpStream::connect(self.addr).await,
        };
        let mut stream = connected.with_context(|| {
            let from = source.map_or_else(String::new, |source| format!(" from {source}"));
            format!("cannot connect to {}{from} ({HINT})", self.addr)
        })?;
        stream.set_nodelay(true)?;
        if self.reset {
            set_socket_linger(&stream, Some(Duration::ZERO))?;
        }
        let offer = subprotocol.map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n")).unwrap_or_default();
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{offer}\r\n",
            self.path, self.host
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        loop {
            ensure!(
                stream.read_buf(&mut answer).await? > 0,
                "the server closed the connection in the handshake"
            );
            if let Some(end) = memchr::memmem::find(&answer, b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&answer[..end]).into_owned();
                let status = head.lines().next().unwrap_or_default();
                ensure!(head.starts_with("HTTP/1.1 101"), "the server refuses the WebSocket: {status}");
                return Ok((stream, answer.split_off(end + 4)));
            }
            ensure!(answer.len() < GREATEST_ANSWER, "an endless answer to the handshake");
        }
    }
}
