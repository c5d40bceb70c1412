//! The HTTP side of the client listener: the one path that upgrades to WebSocket.

use std::{convert::Infallible, future::ready, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::{OriginPolicy, accept, connection};
use crate::shard::{Serve, Shard};

/// Time for the head of an HTTP request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// What the client listener offers.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// Path of the WebSocket endpoint, `/ws` by default.
    pub path: String,
    /// Which pages may connect.
    pub origins: OriginPolicy,
}

/// How shards serve the sockets of the client listener.
#[must_use]
pub fn serve(config: HttpConfig) -> Serve {
    let config = Arc::new(config);
    Arc::new(move |shard, stream, peer| {
        let (shard, config) = (shard.clone(), config.clone());
        tokio::task::spawn_local(async move {
            if let Err(error) = serve_socket(shard, config, stream).await {
                tracing::debug!(%peer, %error, "a client connection ended before its upgrade");
            }
        });
    })
}

async fn serve_socket(
    shard: Shard,
    config: Arc<HttpConfig>,
    stream: std::net::TcpStream,
) -> Result<(), Box<dyn std::error::Error>> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    let stream = TcpStream::from_std(stream)?;
    let service = service_fn(|request| ready(Ok::<_, Infallible>(respond(&shard, &config, request))));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await?;
    Ok(())
}

fn respond(shard: &Shard, config: &HttpConfig, request: Request<Incoming>) -> Response<Full<Bytes>> {
    if request.uri().path() != config.path {
        let mut response = Response::new(Full::from(format!(
            "not found: clients connect by WebSocket at {}\n",
            config.path
        )));
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    }
    let handshake = match accept(request, &config.origins) {
        Ok(handshake) => handshake,
        Err(refusal) => return refusal.response(),
    };
    let shard = shard.clone();
    let (upgrade, chosen, presented) = (handshake.upgrade, handshake.subprotocol, handshake.presented);
    tokio::task::spawn_local(async move {
        match upgrade.stream::<TcpStream>().await {
            // A task of its own, so that the state of the upgrade is freed.
            Ok((stream, first)) => {
                drop(tokio::task::spawn_local(connection::serve(shard, stream, first, chosen, presented)))
            }
            Err(error) => tracing::debug!(%error, "an upgrade failed"),
        }
    });
    handshake.response
}
