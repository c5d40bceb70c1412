//! The admin listener: its connections, HTTP/1 and HTTP/2, with TLS or without.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{Request, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::router::Router;
use crate::tls::{Acceptor, MaybeTls};

/// Connections served at once; more wait to be accepted.
const MAX_CONNECTIONS: usize = 1_024;
/// Requests at once on one connection of HTTP/2.
const MAX_STREAMS: u32 = 1_024;
/// Greatest head of a request.
const HEAD_BYTES: usize = 16 * 1024;
/// Time for the answer to a ping on a connection of HTTP/2.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Time for a request's head, also between the requests of a connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Time that requests under way get at shutdown.
const GRACE: Duration = Duration::from_secs(5);
/// Pause after a failed accept: out of file descriptors, it would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `listener` until `shutdown`, then lets requests under way finish (5 s at most).
///
/// Cancel: dropping the future ends every connection at once.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Acceptor>,
    router: Router,
    shutdown: CancellationToken,
) {
    let mut connections = JoinSet::new();
    let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accept(&listener, tls.as_ref(), &free) => accepted,
        };
        match accepted {
            Ok(accepted) => {
                let (tls, free) = (tls.clone(), free.clone());
                connections.spawn(serve_one(accepted, tls, free, router.clone(), shutdown.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "the admin listener could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    let finished = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, finished).await.is_err() {
        tracing::debug!("requests to the admin listener were cut off at shutdown");
    }
}

/// A connection, and its place among those of its kind.
type Accepted = (TcpStream, SocketAddr, OwnedSemaphorePermit);

async fn serve_one(
    (socket, peer, permit): Accepted,
    tls: Option<Acceptor>,
    free: Arc<Semaphore>,
    router: Router,
    shutdown: CancellationToken,
) {
    let ready = match tls {
        None => Some((MaybeTls::Plain(socket), permit)),
        Some(tls) => {
            let greeted = shutdown.run_until_cancelled(greet(socket, peer, tls, permit, free));
            greeted.await.flatten()
        }
    };
    if let Some((socket, _permit)) = ready {
        connection(socket, router, shutdown).await;
    }
}

/// The next connection, once there is room for it, or with TLS for its handshake. Cancel: safe, a connection is accepted
/// last.
async fn accept(
    listener: &TcpListener,
    tls: Option<&Acceptor>,
    free: &Arc<Semaphore>,
) -> io::Result<Accepted> {
    let permit = match tls {
        Some(tls) => tls.room().await?,
        None => free.clone().acquire_owned().await.map_err(io::Error::other)?,
    };
    let (socket, peer) = listener.accept().await?;
    Ok((socket, peer, permit))
}

/// Shakes hands, then waits for room: a slow handshake takes none of the few connections. Cancel: ends the connection.
async fn greet(
    socket: TcpStream,
    peer: SocketAddr,
    tls: Acceptor,
    _room: OwnedSemaphorePermit,
    free: Arc<Semaphore>,
) -> Option<(MaybeTls, OwnedSemaphorePermit)> {
    let stream = tls.handshake(socket, peer).await?;
    let permit = free.acquire_owned().await.ok()?;
    Some((MaybeTls::Tls(Box::new(stream)), permit))
}

/// Serves one connection to its end. Cancel: ends it at once.
async fn connection(socket: MaybeTls, router: Router, shutdown: CancellationToken) {
    let begun = Arc::new(Notify::new());
    let first = begun.clone();
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        first.notify_one();
        let router = router.clone();
        async move { Ok::<_, Infallible>(router.answer(request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEAD_BYTES as u32)
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(HEAD_TIMEOUT)
        .keep_alive_timeout(KEEP_ALIVE);
    let connection = builder.serve_connection(TokioIo::new(socket), service);
    tokio::pin!(connection);
    // Nothing else bounds the time of a client that does not say which HTTP it speaks.
    let opening = tokio::time::timeout(HEAD_TIMEOUT, begun.notified());
    tokio::pin!(opening);
    let (mut opened, mut stopping) = (false, false);
    let outcome = loop {
        tokio::select! {
            outcome = &mut connection => break outcome,
            begun = &mut opening, if !opened => match begun {
                Ok(()) => opened = true,
                Err(_) => return tracing::debug!("a connection to the admin listener asked for nothing"),
            },
            () = shutdown.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection to the admin listener ended with an error");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::{
        api::{Observability, Readiness, tests::door},
        config::ApiConfig,
    };

    fn router() -> Router {
        let ready = Readiness { ready: true, reason: String::new(), broker: "ready".into(), draining: false };
        let metrics = crate::telemetry::metrics::install().unwrap();
        let observability = Observability::new(metrics, move || ready.clone());
        Router::new(observability, door(ApiConfig { tokens: Vec::new(), max_request_bytes: 1024 }))
    }

    #[tokio::test]
    async fn the_listener_answers_survives_garbage_and_ends_on_shutdown() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(serve(listener, None, router(), shutdown.clone()));

        let mut garbage = TcpStream::connect(addr).await.unwrap();
        garbage.write_all(b"\x16\x03\x01 no http\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        garbage.read_to_end(&mut answer).await.unwrap();

        let mut client = TcpStream::connect(addr).await.unwrap();
        client.write_all(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut answer = vec![0; 4096];
        let read = client.read(&mut answer).await.unwrap();
        assert!(String::from_utf8_lossy(&answer[..read]).starts_with("HTTP/1.1 200"));

        // The client's connection is idle and kept alive: shutdown ends it.
        shutdown.cancel();
        server.await.unwrap();
        assert_eq!(client.read(&mut answer).await.unwrap(), 0);
    }
}
