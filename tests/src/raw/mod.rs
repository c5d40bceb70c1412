//! Raw clients: they show every frame, hide nothing and repair nothing.
//!
//! [`RawClient`] speaks envelopes over any transport. Requests wait for the answer with their id; what else arrives
//! meanwhile is kept, and comes out of [`RawClient::next`] in the order in which it arrived. Every frame for a client
//! that did not offer `streamgate.v1` is parsed strictly with the schema of MessageLoop v1.

mod grpc;
mod schema;
mod ws;

use std::collections::VecDeque;

use bytes::Bytes;
use streamgate_proto::{
    Encoding,
    cloudevents::CloudEvent,
    decode_outbound, encode_inbound, shared,
    v1::{
        Connect, Connected, HistoryRequest, HistoryResponse, InboundMessage, Message, OutboundMessage,
        PublishAck, RecoverComplete, Subscribe, SubscribeAck, Subscription, Unsubscribe,
        inbound_message::Envelope as In, outbound_message::Envelope as Out,
    },
};

pub use grpc::{BytesCodec, RawGrpc};
pub use ws::{RawWs, WsOptions};

use crate::{events, gateway::Addrs, within};

/// A transport and its encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Via {
    /// WebSocket, text frames with JSON.
    WsJson,
    /// WebSocket, binary frames with protobuf.
    WsProto,
    /// A gRPC stream.
    Grpc,
}

impl Via {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::WsJson, Self::WsProto, Self::Grpc];

    /// How its envelopes are encoded.
    #[must_use]
    pub fn encoding(self) -> Encoding {
        match self {
            Self::WsJson => Encoding::Json,
            Self::WsProto | Self::Grpc => Encoding::Protobuf,
        }
    }
}

/// What arrives from the transport, below the protocol.
#[derive(Debug)]
pub enum Received {
    /// The bytes of an envelope.
    Payload(Bytes),
    /// A ping of WebSocket itself; the pong is sent.
    Ping,
    /// The end: the close code and reason (of gRPC: those of its `DISCONNECT_ERROR`); 1006 without either.
    Closed(u16, String),
}

/// What arrives at a client.
#[derive(Debug)]
pub enum Event {
    /// An envelope.
    Frame(Box<OutboundMessage>),
    /// A ping of WebSocket itself.
    Ping,
    /// The end, as in [`Received::Closed`].
    Closed(u16, String),
}

enum Io {
    Ws(Box<RawWs>),
    Grpc(Box<RawGrpc>),
}

/// A client of a gateway. Nothing is read but when one of its methods reads: a client that is left alone stalls.
pub struct RawClient {
    via: Via,
    io: Io,
    strict_v1: bool,
    requests: u64,
    kept: VecDeque<Event>,
    ended: Option<(u16, String)>,
    /// What answered the connect.
    pub connected: Connected,
}

impl RawClient {
    /// A transport on which nothing was said yet.
    pub async fn open(addrs: Addrs, via: Via) -> Self {
        let io = match via {
            Via::WsJson => Io::Ws(Box::new(RawWs::open(addrs, WsOptions::json()).await)),
            Via::WsProto => Io::Ws(Box::new(RawWs::open(addrs, WsOptions::proto()).await)),
            Via::Grpc => Io::Grpc(Box::new(RawGrpc::open(addrs).await)),
        };
        Self::over(via, io)
    }

    /// As [`Self::open`], with this token in the header or the metadata.
    pub async fn open_with(addrs: Addrs, via: Via, token: &str) -> Self {
        let io = match via {
            Via::WsJson => Io::Ws(Box::new(RawWs::open(addrs, WsOptions::json().bearer(token)).await)),
            Via::WsProto => Io::Ws(Box::new(RawWs::open(addrs, WsOptions::proto().bearer(token)).await)),
            Via::Grpc => Io::Grpc(Box::new(RawGrpc::open_with(addrs, token).await)),
        };
        Self::over(via, io)
    }

    /// A gRPC stream on which nothing was said yet, opened with this token and more metadata.
    pub async fn open_grpc(addrs: Addrs, token: &str, more: &[(&'static str, &str)]) -> Self {
        Self::over(Via::Grpc, Io::Grpc(Box::new(RawGrpc::open_showing(addrs, token, more).await)))
    }

    /// A WebSocket on which nothing was said yet, opened with special options. JSON, unless they ask for protobuf.
    pub async fn open_ws(addrs: Addrs, options: WsOptions) -> Self {
        let via = if options.is_proto() { Via::WsProto } else { Via::WsJson };
        Self::over(via, Io::Ws(Box::new(RawWs::open(addrs, options).await)))
    }

    fn over(via: Via, io: Io) -> Self {
        Self {
            via,
            io,
            strict_v1: false,
            requests: 0,
            kept: VecDeque::new(),
            ended: None,
            connected: Connected::default(),
        }
    }

    /// An extended client that is connected.
    pub async fn connect(addrs: Addrs, via: Via) -> Self {
        Self::connect_as(addrs, via, events::extended([])).await
    }

    /// A client of MessageLoop v1 that is connected. Each frame it gets is checked against that schema.
    pub async fn connect_v1(addrs: Addrs, via: Via) -> Self {
        Self::connect_as(addrs, via, events::v1([])).await
    }

    /// A client that connected with `connect`.
    pub async fn connect_as(addrs: Addrs, via: Via, connect: Connect) -> Self {
        let mut client = Self::open(addrs, via).await;
        client.say_connect(connect).await;
        client
    }

    /// Sends connect and waits for its answer.
    pub async fn say_connect(&mut self, connect: Connect) {
        self.strict_v1 = connect.caps.is_empty();
        match self.request(events::frame(In::Connect(connect))).await.envelope {
            Some(Out::Connected(connected)) => self.connected = connected,
            other => panic!("connect was answered with {other:?}"),
        }
    }

    /// Its transport.
    #[must_use]
    pub fn via(&self) -> Via {
        self.via
    }

    /// Sends a frame as it is.
    pub async fn send(&mut self, frame: InboundMessage) {
        let bytes = encode_inbound(self.via.encoding(), &frame).expect("the frame can be encoded");
        self.send_raw(bytes).await;
    }

    /// Sends bytes as one message of the transport, of the kind that belongs to its encoding.
    pub async fn send_raw(&mut self, bytes: impl Into<Bytes>) {
        match &mut self.io {
            Io::Ws(ws) if self.via == Via::WsJson => ws.send_text(bytes.into()).await,
            Io::Ws(ws) => ws.send_binary(bytes.into()).await,
            Io::Grpc(grpc) => grpc.send(bytes.into()).await,
        }
    }

    /// The WebSocket below.
    ///
    /// # Panics
    /// There is none: the client is on gRPC.
    pub fn ws(&mut self) -> &mut RawWs {
        match &mut self.io {
            Io::Ws(ws) => ws,
            Io::Grpc(_) => panic!("a gRPC client has no WebSocket"),
        }
    }

    /// Sends a frame with a fresh id and waits for the answer to it. The answer may be an error.
    ///
    /// # Panics
    /// The connection ended, or no answer came.
    pub async fn request(&mut self, mut frame: InboundMessage) -> OutboundMessage {
        self.requests += 1;
        let id = format!("r{}", self.requests);
        frame.id.clone_from(&id);
        self.send(frame).await;
        self.answer_to(&id).await
    }

    /// Waits for the frame with this id; keeps all others.
    pub async fn answer_to(&mut self, id: &str) -> OutboundMessage {
        within(&format!("the answer to {id}"), async {
            loop {
                match self.read().await {
                    Event::Frame(frame) if frame.id == id => return *frame,
                    Event::Closed(code, reason) => {
                        panic!("closed instead of an answer to {id}: {code} {reason}")
                    }
                    other => self.kept.push_back(other),
                }
            }
        })
        .await
    }

    /// What arrived next.
    pub async fn next(&mut self) -> Event {
        match self.kept.pop_front() {
            Some(kept) => kept,
            None => within("the next event", self.read()).await,
        }
    }

    /// What arrives next, however long that takes.
    pub async fn next_event(&mut self) -> Event {
        match self.kept.pop_front() {
            Some(kept) => kept,
            None => self.read().await,
        }
    }

    /// The next frame; pings of WebSocket are passed over.
    ///
    /// # Panics
    /// The connection ended.
    pub async fn frame(&mut self) -> OutboundMessage {
        loop {
            match self.next().await {
                Event::Frame(frame) => return *frame,
                Event::Ping => {}
                Event::Closed(code, reason) => panic!("closed instead of a frame: {code} {reason}"),
            }
        }
    }

    /// Reads to the end and answers its close code and reason.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            if let Event::Closed(code, reason) = self.next().await {
                return (code, reason);
            }
        }
    }

    /// As [`Self::closed`], the code alone.
    pub async fn close_code(&mut self) -> u16 {
        self.closed().await.0
    }

    /// The next delivered message. Server pings are passed over.
    ///
    /// # Panics
    /// Something else arrived first.
    pub async fn message(&mut self) -> Message {
        loop {
            match self.frame().await.envelope {
                Some(Out::Publication(mut publication)) if publication.messages.len() == 1 => {
                    return publication.messages.remove(0);
                }
                Some(Out::Ping(_)) => {}
                other => panic!("{other:?} instead of a publication"),
            }
        }
    }

    /// The texts of the next `count` messages.
    pub async fn texts(&mut self, count: usize) -> Vec<String> {
        let mut texts = Vec::with_capacity(count);
        for _ in 0..count {
            let message = self.message().await;
            texts.push(events::text_of(message.payload.as_ref().expect("a payload")).to_owned());
        }
        texts
    }

    /// The replays up to `recover_complete`, and that.
    ///
    /// # Panics
    /// Something else arrived, or a message without `replay`.
    pub async fn recovered(&mut self) -> (Vec<Message>, RecoverComplete) {
        let mut replays = Vec::new();
        loop {
            match self.frame().await.envelope {
                Some(Out::Publication(publication)) => {
                    assert!(
                        publication.messages.iter().all(|message| message.replay),
                        "live before complete"
                    );
                    replays.extend(publication.messages);
                }
                Some(Out::RecoverComplete(complete)) => return (replays, complete),
                Some(Out::Ping(_)) => {}
                other => panic!("{other:?} within a recovery"),
            }
        }
    }

    /// Subscribes; an error panics.
    pub async fn subscribe(&mut self, subscriptions: impl IntoIterator<Item = Subscription>) -> SubscribeAck {
        let subscribe = Subscribe { subscriptions: subscriptions.into_iter().collect() };
        match self.request(events::frame(In::Subscribe(subscribe))).await.envelope {
            Some(Out::SubscribeAck(ack)) => ack,
            other => panic!("subscribe was answered with {other:?}"),
        }
    }

    /// Subscribes to one channel or pattern, live.
    pub async fn subscribe_to(&mut self, channel: &str) -> SubscribeAck {
        self.subscribe([events::live(channel)]).await
    }

    /// Unsubscribes; an error panics.
    pub async fn unsubscribe(&mut self, channel: &str) {
        let unsubscribe = Unsubscribe { subscriptions: vec![events::live(channel)] };
        let answer = self.request(events::frame(In::Unsubscribe(unsubscribe))).await;
        assert!(matches!(answer.envelope, Some(Out::UnsubscribeAck(_))), "{answer:?}");
    }

    /// Publishes; an error panics.
    pub async fn publish(&mut self, channel: &str, event: CloudEvent) -> PublishAck {
        self.publish_frame(events::publish(channel, event)).await
    }

    /// Sends a publish frame; an error panics.
    pub async fn publish_frame(&mut self, frame: InboundMessage) -> PublishAck {
        match self.request(frame).await.envelope {
            Some(Out::PublishAck(ack)) => ack,
            other => panic!("publish was answered with {other:?}"),
        }
    }

    /// Sends a request that must fail, and answers the error.
    pub async fn refused(&mut self, frame: InboundMessage) -> shared::Error {
        match self.request(frame).await.envelope {
            Some(Out::Error(error)) => error,
            other => panic!("{other:?} instead of an error"),
        }
    }

    /// A page of history; an error panics.
    pub async fn history(&mut self, request: HistoryRequest) -> HistoryResponse {
        match self.request(events::frame(In::History(request))).await.envelope {
            Some(Out::History(page)) => page,
            other => panic!("history was answered with {other:?}"),
        }
    }

    /// Asserts that nothing arrived up to now but server pings. No time is waited: the pong to a ping of ours comes
    /// behind all that the server wrote before, and what it does later is not asked for.
    pub async fn quiet(&mut self) {
        let answer = self.request(events::frame(In::Ping(Default::default()))).await;
        assert!(matches!(answer.envelope, Some(Out::Pong(_))), "{answer:?}");
        for event in self.kept.drain(..) {
            match event {
                Event::Ping => {}
                Event::Frame(frame) if matches!(frame.envelope, Some(Out::Ping(_))) => {}
                other => panic!("{other:?} where nothing was expected"),
            }
        }
    }

    /// Says goodbye.
    pub async fn close(self) {
        match self.io {
            Io::Ws(ws) => ws.close().await,
            Io::Grpc(grpc) => grpc.close().await,
        }
    }

    async fn read(&mut self) -> Event {
        if let Some((code, reason)) = &self.ended {
            return Event::Closed(*code, reason.clone());
        }
        let received = match &mut self.io {
            Io::Ws(ws) => ws.next().await,
            Io::Grpc(grpc) => grpc.next().await,
        };
        match received {
            Received::Payload(payload) => {
                if self.strict_v1 {
                    schema::assert_v1(self.via.encoding(), &payload);
                }
                let frame = decode_outbound(self.via.encoding(), &payload).expect("a valid envelope");
                Event::Frame(Box::new(frame))
            }
            Received::Ping => Event::Ping,
            Received::Closed(code, reason) => {
                self.ended = Some((code, reason.clone()));
                Event::Closed(code, reason)
            }
        }
    }
}
