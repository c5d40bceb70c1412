//! Clients on other people's transports (tokio-tungstenite, tonic's client), one of which reads as a client that
//! knows only MessageLoop v1 does: with prost-reflect, and any field outside v1 is a failure.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::LazyLock,
};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, Value};
use streamgate::node::Node;
use streamgate_e2e::raw::BytesCodec;
use streamgate_proto::{
    Encoding, V1_DESCRIPTOR_SET, decode_outbound, encode_inbound,
    v1::{InboundMessage, OutboundMessage, inbound_message as inbound, outbound_message::Envelope},
};
use tokio::{net::TcpStream, sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{Message as WsMessage, client::IntoClientRequest as _},
};
use tonic::{Streaming, codegen::http::uri::PathAndQuery, transport::Endpoint};

use crate::v1_gateway::{PATIENCE, websocket_url};

/// The ways in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    Json,
    Proto,
    Grpc,
}

impl Wire {
    pub const ALL: [Self; 3] = [Self::Json, Self::Proto, Self::Grpc];

    fn encoding(self) -> Encoding {
        if self == Self::Json { Encoding::Json } else { Encoding::Protobuf }
    }
}

/// What the transport hands up.
#[derive(Debug)]
pub enum Event {
    Frame(Box<OutboundMessage>),
    /// A ping of WebSocket itself.
    Ping,
    /// The close code; `None` where the transport has none.
    Closed(Option<u16>),
}

enum Link {
    Ws(Box<WebSocketStream<MaybeTlsStream<TcpStream>>>),
    Grpc(mpsc::Sender<Bytes>, Box<Streaming<Bytes>>),
}

/// One client.
pub struct Client {
    wire: Wire,
    link: Link,
    strict: bool,
    requests: u32,
    unread: VecDeque<OutboundMessage>,
    /// Names of the envelopes that it got.
    pub kinds: BTreeSet<String>,
}

impl Client {
    /// A client that fails on whatever v1 does not know.
    pub async fn v1(node: &Node, wire: Wire) -> Self {
        Self::open(node, wire, true).await
    }

    /// A client that knows the whole schema.
    pub async fn extended(node: &Node, wire: Wire) -> Self {
        Self::open(node, wire, false).await
    }

    async fn open(node: &Node, wire: Wire, strict: bool) -> Self {
        let link = match wire {
            Wire::Json => websocket(node, "messageloop+json").await,
            Wire::Proto => websocket(node, "messageloop+proto").await,
            Wire::Grpc => grpc(node).await,
        };
        Self { wire, link, strict, requests: 0, unread: VecDeque::new(), kinds: BTreeSet::new() }
    }

    /// Sends a request and returns the answer with its id; what comes in between is kept.
    pub async fn ask(&mut self, envelope: inbound::Envelope) -> Envelope {
        self.ask_frame(InboundMessage { envelope: Some(envelope), ..InboundMessage::default() }).await
    }

    pub async fn ask_frame(&mut self, mut frame: InboundMessage) -> Envelope {
        self.requests += 1;
        let id = format!("req-{}", self.requests);
        frame.id.clone_from(&id);
        frame.metadata = [("trace".to_owned(), id.clone())].into();
        self.send(&frame).await;
        let answer = self.find(|frame| frame.id == id).await;
        assert_eq!(answer.metadata, frame.metadata);
        answer.envelope.unwrap()
    }

    pub async fn send(&mut self, frame: &InboundMessage) {
        let bytes = encode_inbound(self.wire.encoding(), frame).unwrap();
        self.send_bytes(bytes).await;
    }

    pub async fn send_bytes(&mut self, bytes: Bytes) {
        match &mut self.link {
            Link::Ws(socket) if self.wire == Wire::Json => {
                let text = String::from_utf8(bytes.to_vec()).unwrap();
                socket.send(WsMessage::Text(text.into())).await.unwrap();
            }
            Link::Ws(socket) => socket.send(WsMessage::Binary(bytes)).await.unwrap(),
            Link::Grpc(requests, _) => requests.send(bytes).await.unwrap(),
        }
    }

    /// The next frame that `wanted` takes, unread ones first.
    pub async fn find(&mut self, wanted: impl Fn(&OutboundMessage) -> bool) -> OutboundMessage {
        if let Some(at) = self.unread.iter().position(&wanted) {
            return self.unread.remove(at).unwrap();
        }
        loop {
            match self.event().await {
                Event::Frame(frame) if wanted(&frame) => return *frame,
                Event::Frame(frame) => self.unread.push_back(*frame),
                Event::Ping => {}
                Event::Closed(code) => panic!("{:?}: closed with {code:?}", self.wire),
            }
        }
    }

    /// Frames that came and nobody asked for.
    pub fn unread(&self) -> usize {
        self.unread.len()
    }

    /// What comes next from the wire.
    pub async fn event(&mut self) -> Event {
        let wire = self.wire;
        let next = timeout(PATIENCE, self.next()).await;
        let bytes = match next.unwrap_or_else(|_| panic!("{wire:?}: nothing within {PATIENCE:?}")) {
            Ok(bytes) => bytes,
            Err(event) => return event,
        };
        if self.strict {
            self.kinds.insert(check_v1(wire, &bytes));
        }
        Event::Frame(Box::new(decode_outbound(wire.encoding(), &bytes).unwrap()))
    }

    async fn next(&mut self) -> Result<Bytes, Event> {
        match &mut self.link {
            Link::Ws(socket) => match socket.next().await.map(Result::unwrap) {
                Some(WsMessage::Text(text)) if self.wire == Wire::Json => Ok(Bytes::from(text)),
                Some(WsMessage::Binary(bytes)) if self.wire == Wire::Proto => Ok(bytes),
                Some(WsMessage::Ping(_)) => Err(Event::Ping),
                Some(WsMessage::Close(close)) => Err(Event::Closed(close.map(|close| close.code.into()))),
                None => Err(Event::Closed(None)),
                other => panic!("{:?}: unexpected {other:?}", self.wire),
            },
            Link::Grpc(_, stream) => match stream.message().await.unwrap() {
                Some(bytes) => Ok(bytes),
                None => Err(Event::Closed(None)),
            },
        }
    }

    /// Awaits the end and returns its code, wherever the transport carries it.
    pub async fn close_code(&mut self) -> u16 {
        let mut carried = None;
        loop {
            match self.event().await {
                Event::Closed(code) => return code.or(carried).expect("an end without a code"),
                Event::Frame(frame) => {
                    let Some(Envelope::Error(error)) = frame.envelope else {
                        panic!("{:?}: {frame:?} before the end", self.wire)
                    };
                    assert_eq!(error.r#type, "transport_error", "{error:?}");
                    assert_eq!(error.code, "DISCONNECT_ERROR");
                    carried = error.metadata.and_then(|metadata| number(&metadata));
                }
                Event::Ping => {}
            }
        }
    }
}

fn number(metadata: &streamgate_proto::wkt::Struct) -> Option<u16> {
    metadata.fields.values().find_map(|value| match value.kind {
        Some(streamgate_proto::wkt::value::Kind::NumberValue(code)) => Some(code as u16),
        _ => None,
    })
}

async fn websocket(node: &Node, subprotocol: &str) -> Link {
    let mut request = websocket_url(node).into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", subprotocol.parse().unwrap());
    let (socket, response) = tokio_tungstenite::connect_async(request).await.unwrap();
    assert_eq!(response.headers()["Sec-WebSocket-Protocol"], subprotocol);
    Link::Ws(Box::new(socket))
}

async fn grpc(node: &Node) -> Link {
    let endpoint = Endpoint::from_shared(format!("http://{}", node.grpc_addr())).unwrap();
    let mut client = tonic::client::Grpc::new(endpoint.connect().await.unwrap());
    client.ready().await.unwrap();
    let (requests, queue) = mpsc::channel(16);
    let path = PathAndQuery::from_static("/messageloop.v1.MessagingService/MessageLoop");
    let call = client.streaming(tonic::Request::new(ReceiverStream::new(queue)), path, BytesCodec);
    let stream = timeout(PATIENCE, call).await.unwrap().unwrap().into_inner();
    Link::Grpc(requests, Box::new(stream))
}

static V1_OUTBOUND: LazyLock<MessageDescriptor> = LazyLock::new(|| {
    let pool = DescriptorPool::decode(V1_DESCRIPTOR_SET).unwrap();
    pool.get_message_by_name("messageloop.v1.OutboundMessage").unwrap()
});

/// Fails unless the frame is a v1 frame and nothing more; returns the name of its envelope.
pub fn check_v1(wire: Wire, frame: &[u8]) -> String {
    let shown = || String::from_utf8_lossy(frame).into_owned();
    let message = match wire {
        Wire::Json => {
            let options = DeserializeOptions::new().deny_unknown_fields(true);
            let mut parser = serde_json::Deserializer::from_slice(frame);
            let message =
                DynamicMessage::deserialize_with_options(V1_OUTBOUND.clone(), &mut parser, &options)
                    .unwrap_or_else(|error| panic!("not a v1 frame: {error}: {}", shown()));
            parser.end().unwrap();
            message
        }
        Wire::Proto | Wire::Grpc => DynamicMessage::decode(V1_OUTBOUND.clone(), frame).unwrap(),
    };
    assert_no_unknown(&message, &shown());
    let envelope = V1_OUTBOUND.oneofs().next().unwrap();
    let kind = envelope.fields().find(|field| message.has_field(field));
    kind.unwrap_or_else(|| panic!("no v1 envelope: {}", shown())).name().to_owned()
}

fn assert_no_unknown(message: &DynamicMessage, shown: &str) {
    let unknown: Vec<_> = message.unknown_fields().collect();
    assert!(unknown.is_empty(), "outside v1: {unknown:?} in {shown}");
    fn visit(value: &Value, shown: &str) {
        match value {
            Value::Message(message) => assert_no_unknown(message, shown),
            Value::List(items) => items.iter().for_each(|item| visit(item, shown)),
            Value::Map(entries) => entries.values().for_each(|entry| visit(entry, shown)),
            _ => {}
        }
    }
    message.fields().for_each(|(_, value)| visit(value, shown));
}
