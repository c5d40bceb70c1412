//! The service: one stream is one session of a shard.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, future::BoxFuture};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, oneshot, watch},
};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codegen::{Service, http},
    server::{Grpc, NamedService, StreamingService},
    transport::Server,
};

use super::{
    codec::BytesCodec,
    incoming::incoming,
    outlet::{self, Parts, ReadState, Rest},
};
use crate::{
    auth::Token,
    client_headers::WantedHeaders,
    error::CloseCode,
    session::{Arrival, Settings},
    shard::{ConnId, Mail, Mailbox},
    tls::Acceptor,
    transport::TrustedProxies,
};

/// Frames of one client that may wait for its shard.
const FRAMES_WAITING: usize = 64;
/// How long a client may take to read what is left when its session has ended.
const LINGER: Duration = Duration::from_secs(30);
const METHOD: &str = "/messageloop.v1.MessagingService/MessageLoop";

/// What the listener works with.
#[derive(Clone)]
pub struct GrpcConfig {
    /// The shards; streams are dealt out in turn.
    pub shards: Vec<Mailbox>,
    /// For the limits.
    pub settings: Settings,
    /// Who is believed about the address of a client.
    pub proxies: TrustedProxies,
    /// With it the listener speaks TLS only.
    pub tls: Option<Acceptor>,
    /// Headers (metadata) of clients that backends want.
    pub wanted: WantedHeaders,
}

/// Serves `listener` until `shutdown`, which closes it, and all streams have ended.
///
/// # Errors
/// The listener failed.
pub async fn serve(
    listener: TcpListener,
    config: GrpcConfig,
    shutdown: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let tls = config.tls.clone();
    let service = Messaging { config: Arc::new(config), next: Arc::new(AtomicUsize::new(0)) };
    Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .add_service(service)
        // tonic would keep the listener open until the last stream ends, and clients would hang on it. When the
        // listener itself ends, tonic sends GOAWAY: no new streams, the open ones live on.
        .serve_with_incoming_shutdown(incoming(listener, tls, shutdown), std::future::pending())
        .await
}

/// `messageloop.v1.MessagingService`, written by hand because generated code would decode and encode every
/// envelope for every stream.
#[derive(Clone)]
struct Messaging {
    config: Arc<GrpcConfig>,
    next: Arc<AtomicUsize>,
}

impl NamedService for Messaging {
    const NAME: &'static str = "messageloop.v1.MessagingService";
}

impl Service<http::Request<Body>> for Messaging {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != METHOD {
            return Box::pin(async { Ok(Status::unimplemented("no such method").into_http()) });
        }
        let service = self.clone();
        let limit = self.config.settings.limits.load().frame_bytes;
        Box::pin(async move {
            let mut grpc = Grpc::new(BytesCodec).apply_max_message_size_config(Some(limit), None);
            Ok(grpc.streaming(service, request).await)
        })
    }
}

impl StreamingService<Bytes> for Messaging {
    type Response = Bytes;
    type ResponseStream = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let mailbox = self.config.shards[turn % self.config.shards.len()].clone();
        let limit = self.config.settings.limits.load().write_queue_bytes;
        let header = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let token = header.and_then(Token::of_header);
        let address = request
            .remote_addr()
            .map(|peer| self.config.proxies.client(peer.ip(), request.metadata().as_ref()));
        let headers = self.config.wanted.of(request.metadata().as_ref());
        let arrival = Arrival { token, address, headers, ..Arrival::default() };
        Box::pin(async move {
            let (known, id) = watch::channel(None);
            let Parts { outlet, frames, state, rest } = outlet::channel(limit, mailbox.clone(), id);
            let opener = mailbox.clone();
            let (reply, opened) = oneshot::channel();
            mailbox.send(Mail::Open(Box::new(outlet), arrival, reply));
            // Apart from this future, which the client may cancel at any time: then the shard must hear of it.
            let (told, id) = oneshot::channel();
            tokio::spawn(async move {
                let Ok(id) = opened.await else { return };
                known.send_replace(Some(id));
                if told.send(id).is_err() {
                    opener.send(Mail::Gone(id));
                }
            });
            let id = id.await.map_err(|_| Status::unavailable("the node is shutting down"))?;
            tokio::spawn(Reading { id, mailbox, state, rest }.run(request.into_inner()));
            Ok(Response::new(Box::pin(frames) as Self::ResponseStream))
        })
    }
}

/// The client's side of a stream.
struct Reading {
    id: ConnId,
    mailbox: Mailbox,
    /// What the shard wants; closed when it has dropped the session.
    state: watch::Receiver<ReadState>,
    rest: Rest,
}

impl Reading {
    /// Hands the client's frames on, a few at a time; the end of the stream, or a frame that tonic refuses, ends the
    /// session. A session that ends is gone when the client has read what is left for it, or does not do so in time.
    async fn run(self, mut stream: Streaming<Bytes>) {
        let waiting = Arc::new(Semaphore::new(FRAMES_WAITING));
        let mut closing = self.state.clone();
        let closing = async move { closing.wait_for(|state| *state == ReadState::Closing).await.is_ok() };
        tokio::pin!(closing);
        loop {
            let mut state = self.state.clone();
            let permit = async {
                state.wait_for(|state| *state != ReadState::Paused).await.ok()?;
                waiting.clone().acquire_owned().await.ok()
            };
            let frame = async { (permit.await, stream.next().await) };
            let (permit, frame) = tokio::select! {
                biased;
                closed = &mut closing => {
                    if closed {
                        self.rest.linger(LINGER).await;
                        self.mailbox.send(Mail::Gone(self.id));
                    }
                    return;
                }
                frame = frame => frame,
            };
            let mail = match (permit, frame) {
                (Some(permit), Some(Ok(frame))) => Mail::Frame(self.id, frame, permit),
                (_, Some(Err(status))) if status.code() == tonic::Code::OutOfRange => {
                    Mail::Failed(self.id, CloseCode::TooBig, status.message().to_owned())
                }
                _ => Mail::Gone(self.id),
            };
            let last = !matches!(mail, Mail::Frame(..));
            if !self.mailbox.send(mail) {
                return;
            }
            if last {
                self.rest.linger(LINGER).await;
                // Unless that was the news already.
                self.mailbox.send(Mail::Gone(self.id));
                return;
            }
        }
    }
}
