//! Listening sockets, and handing what they accept to the shards.

use std::{io, net::SocketAddr, time::Duration};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    config::ListenAddr,
    shard::{Mail, Mailbox},
};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// Pause after a failed accept (usually: no file descriptors are left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Binds the first address of `listen` that works.
///
/// # Errors
/// The error of the last address.
pub(super) fn bind(listen: &ListenAddr) -> io::Result<TcpListener> {
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for addr in listen.addrs() {
        match bind_one(*addr) {
            Ok(listener) => return Ok(listener),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn bind_one(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts until cancelled, and deals the connections out in turn.
pub(super) async fn accept(listener: TcpListener, shards: Vec<Mailbox>, stop: CancellationToken) {
    let mut turn = 0;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted.and_then(|(stream, peer)| Ok((stream.into_std()?, peer))),
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let shard: &Mailbox = &shards[turn % shards.len()];
                turn = turn.wrapping_add(1);
                shard.send(Mail::Accepted(stream, peer));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
