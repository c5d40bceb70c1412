//! The connections of the listener, as tonic takes them.

use std::{io, time::Duration};

use futures_util::{Stream, stream};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::tls::{Acceptor, MaybeTls};

/// Pause after a failed accept: usually no file descriptors are left, and it would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections that may wait for tonic.
const WAITING: usize = 64;

impl Connected for MaybeTls {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.tcp().connect_info()
    }
}

/// The connections of `listener`, their TLS handshakes done; closed on `shutdown`, and the listener with it.
pub(super) fn incoming(
    listener: TcpListener,
    tls: Option<Acceptor>,
    shutdown: CancellationToken,
) -> impl Stream<Item = io::Result<MaybeTls>> {
    let (ready, accepted) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        shutdown.run_until_cancelled(accept(listener, tls, ready, &shutdown)).await;
    });
    stream::unfold(accepted, |mut accepted| async { Some((Ok(accepted.recv().await?), accepted)) })
}

async fn accept(
    listener: TcpListener,
    tls: Option<Acceptor>,
    ready: mpsc::Sender<MaybeTls>,
    shutdown: &CancellationToken,
) {
    loop {
        if let Err(error) = accept_one(&listener, tls.as_ref(), &ready, shutdown).await {
            tracing::warn!(%error, "a connection cannot be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }
}

/// Accepts a connection when there is room for its handshake, and leaves that to a task of its own.
async fn accept_one(
    listener: &TcpListener,
    tls: Option<&Acceptor>,
    ready: &mpsc::Sender<MaybeTls>,
    shutdown: &CancellationToken,
) -> io::Result<()> {
    let Some(tls) = tls.cloned() else {
        let (socket, _) = listener.accept().await?;
        set_nodelay(&socket);
        // An error means that tonic has ended, and this is about to be.
        let _ = ready.send(MaybeTls::Plain(socket)).await;
        return Ok(());
    };
    let room = tls.room().await?;
    let (socket, peer) = listener.accept().await?;
    set_nodelay(&socket);
    let (ready, shutdown) = (ready.clone(), shutdown.clone());
    tokio::spawn(async move {
        let _room = room;
        if let Some(Some(stream)) = shutdown.run_until_cancelled(tls.handshake(socket, peer)).await {
            let _ = ready.send(MaybeTls::Tls(Box::new(stream))).await;
        }
    });
    Ok(())
}

fn set_nodelay(socket: &tokio::net::TcpStream) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY is refused");
    }
}
