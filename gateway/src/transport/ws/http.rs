//! The HTTP side of the client listener: the one path that upgrades to WebSocket.

use std::{convert::Infallible, future::ready, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::{OriginPolicy, accept, connection, socket::Socket};
use crate::{
    client_headers::WantedHeaders,
    session::Arrival,
    shard::{Serve, Shard},
    transport::{Accepted, TrustedProxies},
};

/// Time for the head of an HTTP request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// What the client listener offers.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// Path of the WebSocket endpoint, `/ws` by default.
    pub path: String,
    /// Which pages may connect.
    pub origins: OriginPolicy,
    /// Who is believed about the address of a client.
    pub proxies: TrustedProxies,
    /// Headers of clients that backends want.
    pub wanted: WantedHeaders,
}

/// How shards serve the sockets of the client listener.
#[must_use]
pub fn serve(config: HttpConfig) -> Serve {
    let config = Arc::new(config);
    Arc::new(move |shard, accepted| {
        let (shard, config) = (shard.clone(), config.clone());
        tokio::task::spawn_local(async move {
            let peer = accepted.peer;
            if let Err(error) = serve_socket(shard, config, accepted).await {
                tracing::debug!(%peer, %error, "a client connection ended before its upgrade");
            }
        });
    })
}

async fn serve_socket(
    shard: Shard,
    config: Arc<HttpConfig>,
    Accepted { stream, peer, tls }: Accepted,
) -> Result<(), Box<dyn std::error::Error>> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    let socket = Socket::new(TcpStream::from_std(stream)?, tls);
    let service = service_fn(|request| ready(Ok::<_, Infallible>(respond(&shard, &config, peer, request))));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades()
        .await?;
    Ok(())
}

fn respond(
    shard: &Shard,
    config: &HttpConfig,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    if request.uri().path() != config.path {
        let mut response = Response::new(Full::from(format!(
            "not found: clients connect by WebSocket at {}\n",
            config.path
        )));
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    }
    let address = config.proxies.client(peer.ip(), request.headers());
    let headers = config.wanted.of(request.headers());
    let handshake = match accept(request, &config.origins) {
        Ok(handshake) => handshake,
        Err(refusal) => {
            tracing::debug!(%address, %refusal, "a WebSocket handshake is refused");
            return refusal.response();
        }
    };
    let shard = shard.clone();
    let (upgrade, chosen) = (handshake.upgrade, handshake.subprotocol);
    let arrival = Arrival { token: handshake.presented, address: Some(address), headers };
    tokio::task::spawn_local(async move {
        match upgrade.stream::<Socket>().await {
            // A task of its own, so that the state of the upgrade is freed.
            Ok((socket, first)) => {
                drop(tokio::task::spawn_local(connection::serve(shard, socket, first, chosen, arrival)))
            }
            Err(error) => tracing::debug!(%error, "an upgrade failed"),
        }
    });
    handshake.response
}
