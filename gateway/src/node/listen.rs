//! Listening sockets, and handing what they accept to the shards.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::OwnedSemaphorePermit,
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::ListenAddr,
    shard::{Mail, Mailbox},
    tls::Acceptor,
    transport::Accepted,
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

/// Accepts until cancelled, and deals the connections out in turn. TLS handshakes run on this runtime: a shard's thread
/// has no time for signatures.
pub(super) async fn accept(
    listener: TcpListener,
    tls: Option<Acceptor>,
    shards: Vec<Mailbox>,
    stop: CancellationToken,
) {
    let mut turn = 0;
    loop {
        let Some(accepted) = stop.run_until_cancelled(accept_one(&listener, tls.as_ref())).await else {
            return;
        };
        let (stream, peer, room) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let shard: Mailbox = shards[turn % shards.len()].clone();
        turn = turn.wrapping_add(1);
        match &tls {
            None => hand_over(&shard, Accepted::plain(stream, peer)),
            Some(tls) => {
                let (tls, stop) = (tls.clone(), stop.clone());
                tokio::spawn(async move {
                    let _room = room;
                    if let Some(Some(stream)) = stop.run_until_cancelled(tls.handshake(stream, peer)).await {
                        hand_over(&shard, Accepted::tls(stream, peer));
                    }
                });
            }
        }
    }
}

/// The next connection, once there is room for its handshake. Cancel: safe, a connection is accepted last.
async fn accept_one(
    listener: &TcpListener,
    tls: Option<&Acceptor>,
) -> io::Result<(TcpStream, SocketAddr, Option<OwnedSemaphorePermit>)> {
    let room = match tls {
        Some(tls) => Some(tls.room().await?),
        None => None,
    };
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, room))
}

fn hand_over(shard: &Mailbox, accepted: io::Result<Accepted>) {
    match accepted {
        // A shard that is gone has told so.
        Ok(accepted) => drop(shard.send(Mail::Accepted(accepted))),
        Err(error) => tracing::warn!(%error, "a connection is lost on its way to its shard"),
    }
}
