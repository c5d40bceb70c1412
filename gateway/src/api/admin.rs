//! The admin listener: `/metrics`, `/health/live`, `/health/ready`.

use std::{convert::Infallible, fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::tls::{Acceptor, MaybeTls};

/// Connections served at once; more wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// Time for a request's head, also between the requests of a connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Time that requests under way get at shutdown.
const GRACE: Duration = Duration::from_secs(5);
/// Pause after a failed accept: out of file descriptors, it would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Prometheus text exposition format.
const EXPOSITION: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Whether the node should be sent clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// What `/health/ready` answers: 200 or 503.
    pub ready: bool,
    /// Why not; empty while ready.
    pub reason: String,
    /// The broker's status in a few words.
    pub broker: String,
    /// Whether the node is sending its clients away.
    pub draining: bool,
}

/// What the listener shows. Cheap to clone.
#[derive(Clone)]
pub struct AdminState {
    metrics: PrometheusHandle,
    readiness: Arc<dyn Fn() -> Readiness + Send + Sync>,
}

impl fmt::Debug for AdminState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminState").finish_non_exhaustive()
    }
}

impl AdminState {
    /// `readiness` is asked at each request and must answer at once.
    pub fn new(metrics: PrometheusHandle, readiness: impl Fn() -> Readiness + Send + Sync + 'static) -> Self {
        Self { metrics, readiness: Arc::new(readiness) }
    }

    /// The answer to one request.
    fn answer(&self, method: &Method, path: &str, query: Option<&str>) -> Response<Full<Bytes>> {
        let known = matches!(path, "/metrics" | "/health/live" | "/health/ready");
        if known && !matches!(*method, Method::GET | Method::HEAD) {
            let mut response = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match path {
            "/metrics" => response(StatusCode::OK, EXPOSITION, self.metrics.render()),
            // That it answers is the whole answer: a node must not be restarted because Redis is away.
            "/health/live" => response(StatusCode::OK, TEXT, "live\n"),
            "/health/ready" => self.ready(query.is_some_and(is_verbose)),
            _ => response(StatusCode::NOT_FOUND, TEXT, "try /metrics, /health/live, /health/ready\n"),
        }
    }

    fn ready(&self, verbose: bool) -> Response<Full<Bytes>> {
        let state = (self.readiness)();
        let status = if state.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        if verbose {
            let detail = serde_json::json!({
                "ready": state.ready,
                "reason": state.reason,
                "broker": state.broker,
                "draining": state.draining,
            });
            return response(status, JSON, format!("{detail}\n"));
        }
        let text = if state.ready { "ready\n".to_owned() } else { format!("not ready: {}\n", state.reason) };
        response(status, TEXT, text)
    }
}

fn is_verbose(query: &str) -> bool {
    query.split('&').any(|pair| matches!(pair, "verbose" | "verbose=" | "verbose=1" | "verbose=true"))
}

fn response(status: StatusCode, kind: HeaderValue, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Serves `listener` until `shutdown`, then lets requests under way finish (5 s at most).
///
/// Cancel: dropping the future ends every connection at once.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Acceptor>,
    state: AdminState,
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
                connections.spawn(serve_one(accepted, tls, free, state.clone(), shutdown.clone()));
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
    state: AdminState,
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
        connection(socket, state, shutdown).await;
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

async fn connection(socket: MaybeTls, state: AdminState, shutdown: CancellationToken) {
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let answer = state.answer(request.method(), request.uri().path(), request.uri().query());
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(socket), service);
    tokio::pin!(connection);
    let outcome = tokio::select! {
        outcome = &mut connection => outcome,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection to the admin listener ended with an error");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use http_body_util::BodyExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn state(readiness: Arc<Mutex<Readiness>>) -> AdminState {
        AdminState::new(crate::telemetry::metrics::install().unwrap(), move || {
            readiness.lock().unwrap().clone()
        })
    }

    fn ready() -> Arc<Mutex<Readiness>> {
        Arc::new(Mutex::new(Readiness {
            ready: true,
            reason: String::new(),
            broker: "ready".into(),
            draining: false,
        }))
    }

    async fn get(state: &AdminState, path: &str, query: Option<&str>) -> (StatusCode, String) {
        let response = state.answer(&Method::GET, path, query);
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_follows_the_node_and_liveness_does_not() {
        let readiness = ready();
        let state = state(readiness.clone());
        assert_eq!(get(&state, "/health/ready", None).await, (StatusCode::OK, "ready\n".into()));
        *readiness.lock().unwrap() = Readiness {
            ready: false,
            reason: "waiting for Redis".into(),
            broker: "starting: connection refused".into(),
            draining: false,
        };
        let (status, text) = get(&state, "/health/ready", None).await;
        assert_eq!((status, &*text), (StatusCode::SERVICE_UNAVAILABLE, "not ready: waiting for Redis\n"));
        let (status, text) = get(&state, "/health/ready", Some("verbose")).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let detail: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(detail["broker"], "starting: connection refused");
        assert_eq!(get(&state, "/health/live", None).await, (StatusCode::OK, "live\n".into()));
    }

    #[tokio::test]
    async fn metrics_are_served_and_everything_else_is_refused() {
        let state = state(ready());
        let (status, text) = get(&state, "/metrics", None).await;
        assert_eq!(status, StatusCode::OK);
        assert!(text.contains("streamgate_build_info{version="), "{text}");
        assert_eq!(get(&state, "/", None).await.0, StatusCode::NOT_FOUND);
        let refused = state.answer(&Method::POST, "/metrics", None);
        assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(refused.headers()[ALLOW], "GET, HEAD");
    }

    #[tokio::test]
    async fn the_listener_answers_survives_garbage_and_ends_on_shutdown() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(serve(listener, None, state(ready()), shutdown.clone()));

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
