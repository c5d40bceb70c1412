//! The WebSocket transport. A task of its own writes, so that a server that reads slowly does not keep this side from
//! reading.

use std::time::Duration;

use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use streamgate_proto::{EncodeError, Encoding, decode_outbound, encode_inbound, v1::InboundMessage};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        self, Message,
        client::IntoClientRequest,
        http::HeaderValue,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use super::{
    Endpoint, Received,
    stream::{Stream, open, reason},
};
use crate::error::Error;

type Socket = WebSocketStream<Stream>;

/// Code of a connection that ended without a close frame (RFC 6455, section 7.4.1).
const NO_STATUS: u16 = 1005;

/// How long a close may take to be sent.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

pub(crate) struct WebSocket {
    encoding: Encoding,
    outgoing: mpsc::UnboundedSender<Message>,
    incoming: SplitStream<Socket>,
    writer: JoinHandle<()>,
}

impl WebSocket {
    pub(super) async fn connect(endpoint: &Endpoint, encoding: Encoding) -> Result<Self, Error> {
        let invalid = |error: tungstenite::Error| Error::InvalidUrl {
            url: endpoint.url.clone(),
            reason: error.to_string(),
        };
        let mut request = endpoint.url.as_str().into_client_request().map_err(invalid)?;
        let subprotocol = match encoding {
            Encoding::Json => "messageloop+json",
            Encoding::Protobuf => "messageloop+proto",
        };
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(subprotocol));
        let connected = client_async(request, open(endpoint).await?).await;
        let (socket, _) = connected.map_err(|error| refused(endpoint, error))?;
        let (sink, incoming) = socket.split();
        let (outgoing, queue) = mpsc::unbounded_channel();
        let writer = tokio::spawn(write(sink, queue));
        Ok(Self { encoding, outgoing, incoming, writer })
    }

    pub(super) fn send(&self, frame: &InboundMessage) -> Result<(), EncodeError> {
        let bytes = encode_inbound(self.encoding, frame)?;
        let message = match self.encoding {
            Encoding::Protobuf => Message::Binary(bytes),
            Encoding::Json => Message::Text(bytes.try_into().map_err(|_| EncodeError::Json {
                reason: "the encoder wrote something that is not UTF-8".to_owned(),
            })?),
        };
        // An error means that the writer has ended over a broken connection, which the reader sees too.
        let _ = self.outgoing.send(message);
        Ok(())
    }

    /// Safe to cancel: a stream's `next` loses nothing.
    pub(super) async fn receive(&mut self) -> Received {
        let message = match self.incoming.next().await {
            Some(Ok(message)) => message,
            Some(Err(error)) => return Received::Closed(Error::ConnectionLost(error.to_string())),
            None => return Received::Closed(Error::ConnectionLost("the stream ended".to_owned())),
        };
        let frame = match &message {
            Message::Text(text) => text.as_str().as_bytes(),
            Message::Binary(bytes) => bytes,
            Message::Close(close) => return Received::Closed(closed(close.as_ref())),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return Received::Alive,
        };
        match decode_outbound(self.encoding, frame) {
            Ok(frame) => Received::Frame(Box::new(frame)),
            Err(error) => Received::Undecodable(error.to_string()),
        }
    }

    pub(super) async fn close(mut self) {
        let goodbye = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        let _ = self.outgoing.send(Message::Close(Some(goodbye)));
        // A server that does not answer is left alone.
        let _ =
            timeout(CLOSE_TIMEOUT, async { while self.incoming.next().await.is_some_and(|m| m.is_ok()) {} })
                .await;
    }
}

impl Drop for WebSocket {
    fn drop(&mut self) {
        self.writer.abort();
    }
}

async fn write(mut sink: SplitSink<Socket, Message>, mut queue: mpsc::UnboundedReceiver<Message>) {
    while let Some(message) = queue.recv().await {
        if sink.feed(message).await.is_err() {
            return;
        }
        // One flush for everything that waits.
        while let Ok(message) = queue.try_recv() {
            if sink.feed(message).await.is_err() {
                return;
            }
        }
        if sink.flush().await.is_err() {
            return;
        }
    }
}

fn closed(close: Option<&CloseFrame>) -> Error {
    match close {
        Some(close) => Error::Closed { code: close.code.into(), reason: close.reason.as_str().to_owned() },
        None => Error::Closed { code: NO_STATUS, reason: "without a reason".to_owned() },
    }
}

fn refused(endpoint: &Endpoint, error: tungstenite::Error) -> Error {
    let address = endpoint.address.clone();
    match error {
        tungstenite::Error::Io(error) => Error::Unreachable { address, reason: reason(&error) },
        tungstenite::Error::Http(response) => Error::NotAGateway {
            address,
            reason: format!("it answers {} at {}", response.status(), endpoint.url),
        },
        other => Error::NotAGateway { address, reason: other.to_string() },
    }
}
