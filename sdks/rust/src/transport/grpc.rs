//! The gRPC transport: one bidirectional stream of the same envelopes. Its end carries no code; the server says it in
//! an error before (PROTOCOL part A, "Behaviour").

use std::{
    error::Error as _,
    future::{Ready, ready},
    io,
    task::{Context, Poll},
};

use hyper_util::rt::TokioIo;
use streamgate_proto::v1::{
    InboundMessage, OutboundMessage, messaging_service_client::MessagingServiceClient,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{
    Code, Status, Streaming,
    codegen::{
        Service,
        http::{Uri, uri::InvalidUri},
    },
    transport::Channel,
};

use super::{
    Endpoint, Received,
    stream::{Stream, open, reason},
};
use crate::error::Error;

/// Largest frame taken from a server, in bytes. A page of history is one frame.
const MAX_FRAME: usize = 64 * 1024 * 1024;

pub(crate) struct Grpc {
    outgoing: mpsc::UnboundedSender<InboundMessage>,
    /// The call: its answer comes when the server sends its headers, which may wait for the first frame.
    state: State,
}

enum State {
    Calling(std::pin::Pin<Box<dyn Future<Output = Result<Streaming<OutboundMessage>, Status>> + Send>>),
    Open(Box<Streaming<OutboundMessage>>),
}

impl Grpc {
    pub(super) async fn connect(endpoint: &Endpoint) -> Result<Self, Error> {
        let invalid = |reason: String| Error::InvalidUrl { url: endpoint.url.clone(), reason };
        let uri: Uri = endpoint.url.parse().map_err(|error: InvalidUri| invalid(error.to_string()))?;
        // The connection is made here, TLS included; requests say what it is.
        let channel = Channel::builder(uri);
        let connector = Once(Some(open(endpoint).await?));
        let channel =
            channel.connect_with_connector(connector).await.map_err(|error| match root(&error) {
                Some(reason) => Error::Unreachable { address: endpoint.address.clone(), reason },
                None => invalid(error.to_string()),
            })?;
        let (outgoing, queue) = mpsc::unbounded_channel();
        let mut client = MessagingServiceClient::new(channel).max_decoding_message_size(MAX_FRAME);
        let call = async move {
            let answer = client.message_loop(UnboundedReceiverStream::new(queue)).await?;
            Ok(answer.into_inner())
        };
        Ok(Self { outgoing, state: State::Calling(Box::pin(call)) })
    }

    pub(super) fn send(&self, frame: InboundMessage) {
        // An error means that the call has ended, which `receive` sees too.
        let _ = self.outgoing.send(frame);
    }

    /// Safe to cancel: the call is kept, and a stream's `message` loses nothing.
    pub(super) async fn receive(&mut self) -> Received {
        let stream = match &mut self.state {
            State::Open(stream) => stream,
            State::Calling(call) => match call.await {
                Ok(stream) => {
                    self.state = State::Open(Box::new(stream));
                    return Received::Alive;
                }
                Err(status) => return Received::Closed(ended(&status)),
            },
        };
        match stream.message().await {
            Ok(Some(frame)) => Received::Frame(Box::new(frame)),
            Ok(None) => Received::Closed(Error::ConnectionLost("the stream ended".to_owned())),
            Err(status) => Received::Closed(ended(&status)),
        }
    }

    pub(super) async fn close(self) {
        let Self { outgoing, state } = self;
        // The end of the request stream is the goodbye; the server then ends the answer.
        drop(outgoing);
        if let State::Open(mut stream) = state {
            let rest = async { while let Ok(Some(_)) = stream.message().await {} };
            let _ = tokio::time::timeout(std::time::Duration::from_secs(1), rest).await;
        }
    }
}

/// Hands one connection to tonic. A connection that is lost is not replaced behind the engine's back.
struct Once(Option<Stream>);

impl Service<Uri> for Once {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Ready<io::Result<TokioIo<Stream>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(self.0.take().map(TokioIo::new).ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }
}

fn ended(status: &Status) -> Error {
    match status.code() {
        Code::Unimplemented => Error::NotAGateway {
            address: "the server".to_owned(),
            reason: "it has no messageloop.v1.MessagingService".to_owned(),
        },
        code => Error::ConnectionLost(format!("{code:?}: {}", status.message())),
    }
}

/// What the operating system said, if it was asked.
fn root(error: &tonic::transport::Error) -> Option<String> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(reason(io));
        }
        cause = error.source();
    }
    None
}
