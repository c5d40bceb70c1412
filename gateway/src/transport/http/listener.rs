//! Sockets of the client listener, and the table of its paths.

use std::{convert::Infallible, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, AUTHORIZATION, HeaderValue, ORIGIN},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use percent_encoding::percent_decode_str;
use tokio::net::TcpStream;

use super::{CorsPolicy, Patience, Refusal, Reply, RequestBody, cors::is_preflight};
use crate::{
    auth::Token,
    channel::Channel,
    client_headers::WantedHeaders,
    error::{ClientError, ErrorCode},
    session::Arrival,
    shard::{Serve, Shard},
    transport::{
        Accepted, TrustedProxies, cloudevents,
        sse::{self, EventBody},
        ws::{self, OriginPolicy, Socket},
    },
};

/// Time for the head of an HTTP request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const SSE: &str = "/sse";

/// What the client listener offers.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// Path of the WebSocket endpoint, `/ws` by default.
    pub path: String,
    /// Which pages may connect by WebSocket.
    pub origins: OriginPolicy,
    /// Which pages may make other requests.
    pub cors: CorsPolicy,
    /// Who is believed about the address of a client.
    pub proxies: TrustedProxies,
    /// Headers of clients that backends want.
    pub wanted: WantedHeaders,
}

/// An answer that is there as a whole, or a stream.
type Answer = Response<Either<Full<Bytes>, EventBody>>;

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
    let patience = Rc::new(Patience::default());
    let service = service_fn(|request| {
        let (shard, config, patience) = (shard.clone(), config.clone(), patience.clone());
        async move {
            patience.rest_comes_later();
            let answer = respond(&shard, &config, peer, &patience, request).await;
            if matches!(answer.body(), Either::Left(_)) {
                patience.rest_is_there();
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    tokio::select! {
        ended = connection => ended?,
        () = patience.ends() => tracing::debug!(%peer, "a client does not take its answer"),
    }
    Ok(())
}

/// What a path is for.
enum Door {
    WebSocket,
    Sse,
    /// The channel as the path names it.
    Events(String),
}

async fn respond(
    shard: &Shard,
    config: &HttpConfig,
    peer: SocketAddr,
    patience: &Rc<Patience>,
    request: Request<Incoming>,
) -> Answer {
    let Some(door) = door(request.uri().path(), &config.path) else {
        return not_found(&config.path).map(Either::Left);
    };
    let arrival = arrival(config, peer, &request);
    if let Door::WebSocket = door {
        return ws::upgrade(shard, arrival, request, &config.origins).map(Either::Left);
    }
    if !config.cors.permits(request.headers()) {
        let text = "this origin may not ask: see transport.websocket.cors";
        let refusal = Refusal::from(ClientError::new(ErrorCode::AclError, text));
        return refusal.response().map(Either::Left);
    }
    if request.method() == Method::OPTIONS && is_preflight(request.headers()) {
        return config.cors.preflight(request.headers()).map(Either::Left);
    }
    let mut asked = HeaderMap::new();
    asked.extend(request.headers().get(ORIGIN).map(|origin| (ORIGIN, origin.clone())));
    // Boxed: their state would make every connection that becomes a WebSocket larger.
    let mut answer =
        Box::pin(carried_out(shard, door, arrival, patience, request)).await.unwrap_or_else(|refusal| {
            tracing::debug!(%peer, status = refusal.status().as_u16(), "a request is refused");
            refusal.response().map(Either::Left)
        });
    config.cors.allow(&asked, &mut answer);
    answer
}

fn door(path: &str, websocket: &str) -> Option<Door> {
    if path == websocket {
        return Some(Door::WebSocket);
    }
    if path == SSE {
        return Some(Door::Sse);
    }
    let name = path.strip_prefix("/channels/")?.strip_suffix("/events")?;
    (!name.contains('/')).then(|| Door::Events(name.to_owned()))
}

fn arrival(config: &HttpConfig, peer: SocketAddr, request: &Request<Incoming>) -> Arrival {
    let headers = request.headers();
    let in_header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let in_query = || request.uri().query().and_then(Token::of_query);
    Arrival {
        token: in_header.and_then(Token::of_header).or_else(in_query),
        address: Some(config.proxies.client(peer.ip(), headers)),
        headers: config.wanted.of(headers),
        ..Arrival::default()
    }
}

async fn carried_out(
    shard: &Shard,
    door: Door,
    arrival: Arrival,
    patience: &Rc<Patience>,
    request: Request<Incoming>,
) -> Result<Answer, Refusal> {
    let (head, body) = request.into_parts();
    let query = head.uri.query();
    match (door, head.method) {
        (Door::Sse, Method::GET) => {
            Ok(sse::serve(shard, arrival, patience, query, &head.headers).await?.map(Either::Right))
        }
        (Door::Sse, _) => Ok(not_allowed("GET")),
        (Door::Events(name), method @ (Method::GET | Method::POST)) => {
            let name = percent_decode_str(&name).decode_utf8();
            let name = name.map_err(|_| ClientError::bad_request("the channel's name is not UTF-8"))?;
            let channel = Channel::parse(&name).map_err(ClientError::from)?;
            let reply = if method == Method::GET {
                cloudevents::page(shard, arrival, &channel, query).await?
            } else {
                cloudevents::post(shard, arrival, &channel, &head.headers, RequestBody(body)).await?
            };
            Ok(reply.map(Either::Left))
        }
        // It never comes here.
        (Door::Events(_) | Door::WebSocket, _) => Ok(not_allowed("GET, POST")),
    }
}

fn not_allowed(allowed: &'static str) -> Answer {
    let text = format!("only {allowed} is offered here");
    let mut response = Refusal::of(StatusCode::METHOD_NOT_ALLOWED, &text).response();
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response.map(Either::Left)
}

fn not_found(websocket: &str) -> Reply {
    let mut response = Response::new(Full::from(format!(
        "not found: clients connect by WebSocket at {websocket}, listen at {SSE}?channel=..., and publish at \
         /channels/.../events\n"
    )));
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}
