//! The service: one stream is one session of a shard.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, future::BoxFuture};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, oneshot, watch},
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codegen::{Service, http},
    server::{Grpc, NamedService, StreamingService},
    transport::Server,
};

use super::{codec::BytesCodec, outlet};
use crate::{
    error::CloseCode,
    session::Settings,
    shard::{ConnId, Mail, Mailbox},
};

/// Frames of one client that may wait for its shard.
const FRAMES_WAITING: usize = 64;
const METHOD: &str = "/messageloop.v1.MessagingService/MessageLoop";

/// What the listener works with.
#[derive(Clone)]
pub struct GrpcConfig {
    /// The shards; streams are dealt out in turn.
    pub shards: Vec<Mailbox>,
    /// For the limits.
    pub settings: Settings,
}

/// Serves `listener` until `shutdown` resolves and all streams have ended.
///
/// # Errors
/// The listener failed.
pub async fn serve(
    listener: TcpListener,
    config: GrpcConfig,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let service = Messaging { config: Arc::new(config), next: Arc::new(AtomicUsize::new(0)) };
    let incoming = TcpListenerStream::new(listener).inspect(|accepted| {
        if let Ok(socket) = accepted
            && let Err(error) = socket.set_nodelay(true)
        {
            tracing::debug!(%error, "TCP_NODELAY is refused");
        }
    });
    Server::builder()
        .http2_keepalive_interval(Some(std::time::Duration::from_secs(30)))
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, shutdown)
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
        Box::pin(async move {
            let (known, id) = watch::channel(None);
            let (outlet, frames, paused) = outlet::channel(limit, mailbox.clone(), id);
            let (reply, opened) = oneshot::channel();
            mailbox.send(Mail::Open(Box::new(outlet), reply));
            let id = opened.await.map_err(|_| Status::unavailable("the node is shutting down"))?;
            known.send_replace(Some(id));
            tokio::spawn(Reading { id, mailbox, paused }.run(request.into_inner()));
            Ok(Response::new(Box::pin(frames) as Self::ResponseStream))
        })
    }
}

/// The client's side of a stream.
struct Reading {
    id: ConnId,
    mailbox: Mailbox,
    /// Whether the shard wants no more for now; closed when it has dropped the session.
    paused: watch::Receiver<bool>,
}

impl Reading {
    /// Hands the client's frames on, a few at a time; the end of the stream, or a frame that tonic refuses, ends the
    /// session.
    async fn run(mut self, mut stream: Streaming<Bytes>) {
        let waiting = Arc::new(Semaphore::new(FRAMES_WAITING));
        let mut dropped = self.paused.clone();
        let dropped = async move { while dropped.changed().await.is_ok() {} };
        tokio::pin!(dropped);
        while self.paused.wait_for(|paused| !paused).await.is_ok() {
            let Ok(permit) = waiting.clone().acquire_owned().await else { return };
            let frame = tokio::select! {
                frame = stream.next() => frame,
                () = &mut dropped => return,
            };
            let mail = match frame {
                Some(Ok(frame)) => Mail::Frame(self.id, frame, permit),
                Some(Err(status)) if status.code() == tonic::Code::OutOfRange => {
                    Mail::Failed(self.id, CloseCode::TooBig, status.message().to_owned())
                }
                Some(Err(_)) | None => Mail::Gone(self.id),
            };
            let last = !matches!(mail, Mail::Frame(..));
            if !self.mailbox.send(mail) || last {
                return;
            }
        }
    }
}
