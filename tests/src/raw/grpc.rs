//! A raw gRPC stream: the bytes of envelopes in and out.

use bytes::{Buf as _, BufMut as _, Bytes};
use streamgate_proto::{Encoding, decode_outbound, v1::outbound_message::Envelope, wkt::value::Kind};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    metadata::MetadataMap,
    transport::{Channel, Endpoint},
};

use super::Received;
use crate::{gateway::Addrs, within};

const METHOD: &str = "/messageloop.v1.MessagingService/MessageLoop";

/// A stream of `MessagingService/MessageLoop`.
pub struct RawGrpc {
    out: mpsc::Sender<Bytes>,
    frames: Streaming<Bytes>,
}

impl RawGrpc {
    /// Opens a connection of its own and the stream on it.
    ///
    /// # Panics
    /// It was refused.
    pub async fn open(addrs: Addrs) -> Self {
        Self::open_on(Self::channel(addrs).await).await
    }

    async fn channel(addrs: Addrs) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", addrs.grpc)).expect("a valid URL");
        within("a gRPC connection", endpoint.connect()).await.expect("connect")
    }

    /// As [`Self::open`], with this token in the metadata `authorization`.
    ///
    /// # Panics
    /// It was refused.
    pub async fn open_with(addrs: Addrs, token: &str) -> Self {
        Self::open_showing(addrs, token, &[]).await
    }

    /// As [`Self::open_with`], with more metadata.
    ///
    /// # Panics
    /// It was refused.
    pub async fn open_showing(addrs: Addrs, token: &str, more: &[(&'static str, &str)]) -> Self {
        let bearer = format!("Bearer {token}").parse().expect("a metadata value");
        let channel = Self::channel(addrs).await;
        Self::open_request(channel, METHOD, |metadata| {
            metadata.insert("authorization", bearer);
            for (name, value) in more {
                metadata.append(*name, value.parse().expect("a metadata value"));
            }
        })
        .await
        .expect("the stream opens")
    }

    /// Opens a stream on a connection.
    ///
    /// # Panics
    /// It was refused.
    pub async fn open_on(channel: Channel) -> Self {
        Self::open_method(channel, METHOD).await.expect("the stream opens")
    }

    /// Opens a stream of any method on a connection, or answers why not.
    pub async fn open_method(channel: Channel, method: &'static str) -> Result<Self, Status> {
        Self::open_request(channel, method, |_| {}).await
    }

    async fn open_request(
        channel: Channel,
        method: &'static str,
        change: impl FnOnce(&mut MetadataMap),
    ) -> Result<Self, Status> {
        let (out, requests) = mpsc::channel(64);
        let mut client = Grpc::new(channel);
        let opened = within("a gRPC stream", async {
            client.ready().await.expect("a connection");
            let mut request = Request::new(ReceiverStream::new(requests));
            change(request.metadata_mut());
            client.streaming(request, PathAndQuery::from_static(method), BytesCodec).await
        });
        Ok(Self { out, frames: opened.await?.into_inner() })
    }

    /// Sends one message. A stream that the server has ended takes nothing more, which is no failure here.
    pub async fn send(&mut self, bytes: Bytes) {
        let _ = within("sending", self.out.send(bytes)).await;
    }

    /// What arrives next. Cancel: safe.
    pub async fn next(&mut self) -> Received {
        let payload = match self.frames.next().await {
            Some(Ok(payload)) => payload,
            Some(Err(status)) => return Received::Closed(1006, status.to_string()),
            None => return Received::Closed(1006, "the stream ended without a DISCONNECT_ERROR".into()),
        };
        match disconnect(&payload) {
            Some((code, reason)) => {
                let after = self.frames.next().await;
                assert!(!matches!(after, Some(Ok(_))), "a frame after DISCONNECT_ERROR");
                Received::Closed(code, reason)
            }
            None => Received::Payload(payload),
        }
    }

    /// Ends our side and reads the server's to its end.
    pub async fn close(self) {
        let Self { out, mut frames } = self;
        drop(out);
        within("the end of the stream", async { while let Some(Ok(_)) = frames.next().await {} }).await;
    }
}

/// Code and reason of a `DISCONNECT_ERROR` (PROTOCOL part A, "Behaviour").
fn disconnect(payload: &[u8]) -> Option<(u16, String)> {
    let frame = decode_outbound(Encoding::Protobuf, payload).ok()?;
    let Some(Envelope::Error(error)) = frame.envelope else { return None };
    if error.code != "DISCONNECT_ERROR" {
        return None;
    }
    assert_eq!(error.r#type, "transport_error");
    let fields = error.metadata.expect("code and reason are in the metadata").fields;
    let code = match fields["code"].kind {
        Some(Kind::NumberValue(code)) => code as u16,
        ref other => panic!("the code is {other:?}"),
    };
    match &fields["reason"].kind {
        Some(Kind::StringValue(reason)) => Some((code, reason.clone())),
        other => panic!("the reason is {other:?}"),
    }
}

/// Passes bytes through: anything can be sent, and what comes is seen as it came.
#[derive(Debug, Clone, Copy, Default)]
pub struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let size = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(size)))
    }
}
