//! A scripted gateway: the test reads what the client sends and says what it gets, frame by frame.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use streamgate_client::{
    Client, CloudEventBuilder,
    proto::{
        Encoding, decode_inbound, encode_outbound, shared,
        v1::{
            self, Connect, Connected, InboundMessage, Message, OutboundMessage, Publication, PublishAck,
            RecoverComplete, SubscribeAck, Subscription, inbound_message::Envelope as In,
            outbound_message::Envelope as Out,
        },
    },
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        self,
        handshake::server::{Request, Response},
        protocol::CloseFrame,
    },
};

/// Longer than anything here takes; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Listens for clients.
pub struct Server {
    listener: TcpListener,
}

impl Server {
    pub async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    pub fn url(&self) -> String {
        format!("ws://{}/ws", self.listener.local_addr().unwrap())
    }

    /// A client that comes back at once.
    pub fn client(&self) -> Client {
        self.builder().build().unwrap()
    }

    pub fn builder(&self) -> streamgate_client::Builder {
        Client::builder(self.url())
            .client_id("test")
            .backoff(Duration::from_millis(1), Duration::from_millis(2))
    }

    /// The next connection, before its connect.
    pub async fn accept(&self) -> Peer {
        let (stream, _) = timeout(PATIENCE, self.listener.accept()).await.expect("no connection").unwrap();
        let mut encoding = Encoding::Json;
        #[expect(clippy::result_large_err, reason = "the callback's type is tungstenite's")]
        let choose = |request: &Request, mut response: Response| {
            let offered = request.headers()["sec-websocket-protocol"].clone();
            if offered == "messageloop+proto" {
                encoding = Encoding::Protobuf;
            }
            response.headers_mut().insert("sec-websocket-protocol", offered);
            Ok(response)
        };
        let socket = accept_hdr_async(stream, choose).await.unwrap();
        Peer { socket, encoding }
    }

    /// The next connection, with its connect answered by `connected`.
    pub async fn welcome_with(&self, connected: Connected) -> (Peer, Connect) {
        let mut peer = self.accept().await;
        let (id, connect) = peer.connect().await;
        peer.answer(&id, Out::Connected(connected)).await;
        (peer, connect)
    }

    /// The next connection; says that it offers the extension and acknowledges what the connect subscribes.
    pub async fn welcome(&self) -> (Peer, Connect) {
        let mut peer = self.accept().await;
        let (id, connect) = peer.connect().await;
        let subscriptions = connect.subscriptions.iter().map(|wanted| named(&wanted.channel)).collect();
        let connected = Connected { subscriptions, ..extended() };
        peer.answer(&id, Out::Connected(connected)).await;
        (peer, connect)
    }
}

/// One connected client.
pub struct Peer {
    socket: WebSocketStream<TcpStream>,
    encoding: Encoding,
}

impl Peer {
    /// The next frame of the client.
    pub async fn frame(&mut self) -> InboundMessage {
        loop {
            let message =
                timeout(PATIENCE, self.socket.next()).await.expect("no frame").expect("closed").unwrap();
            match message {
                tungstenite::Message::Text(text) => {
                    return decode_inbound(Encoding::Json, text.as_bytes()).unwrap();
                }
                tungstenite::Message::Binary(bytes) => {
                    return decode_inbound(Encoding::Protobuf, &bytes).unwrap();
                }
                tungstenite::Message::Close(_) => panic!("the client closed"),
                _ => {}
            }
        }
    }

    /// Waits until the client has closed or dropped the connection.
    pub async fn closed(mut self) {
        let rest = async { while let Some(Ok(_)) = self.socket.next().await {} };
        timeout(PATIENCE, rest).await.expect("still open");
    }

    pub async fn connect(&mut self) -> (String, Connect) {
        let frame = self.frame().await;
        match frame.envelope {
            Some(In::Connect(connect)) => (frame.id, connect),
            other => panic!("connect expected, got {other:?}"),
        }
    }

    pub async fn subscribe(&mut self) -> (String, Subscription) {
        let frame = self.frame().await;
        match frame.envelope {
            Some(In::Subscribe(mut subscribe)) => (frame.id, subscribe.subscriptions.remove(0)),
            other => panic!("subscribe expected, got {other:?}"),
        }
    }

    /// Takes a subscribe and acknowledges it with `entry`.
    pub async fn accept_subscribe(&mut self, entry: Subscription) -> Subscription {
        let (id, wanted) = self.subscribe().await;
        assert_eq!(wanted.channel, entry.channel);
        self.answer(&id, Out::SubscribeAck(SubscribeAck { subscriptions: vec![entry] })).await;
        wanted
    }

    pub async fn publish(&mut self) -> (String, InboundMessage) {
        let frame = self.frame().await;
        assert!(matches!(frame.envelope, Some(In::Publish(_))), "publish expected, got {frame:?}");
        (frame.id.clone(), frame)
    }

    pub async fn answer(&mut self, id: &str, envelope: Out) {
        self.send(OutboundMessage {
            id: id.to_owned(),
            envelope: Some(envelope),
            ..OutboundMessage::default()
        })
        .await;
    }

    pub async fn send(&mut self, frame: OutboundMessage) {
        let bytes = encode_outbound(self.encoding, &frame).unwrap();
        let message = match self.encoding {
            Encoding::Json => tungstenite::Message::Text(bytes.try_into().unwrap()),
            Encoding::Protobuf => tungstenite::Message::Binary(bytes),
        };
        self.socket.send(message).await.unwrap();
    }

    pub async fn say(&mut self, envelope: Out) {
        self.answer("server-made", envelope).await;
    }

    pub async fn raw(&mut self, message: tungstenite::Message) {
        self.socket.send(message).await.unwrap();
    }

    pub async fn refuse(&mut self, id: &str, code: &str) {
        self.answer(id, Out::Error(error(code))).await;
    }

    pub async fn publication(&mut self, channel: &str, position: &str, replay: bool) {
        let message = message(channel, position, replay);
        self.say(Out::Publication(Publication { messages: vec![message] })).await;
    }

    pub async fn recovered(&mut self, target: &str, position: Option<v1::Position>) {
        let complete = RecoverComplete { channel: target.to_owned(), position, ..RecoverComplete::default() };
        self.say(Out::RecoverComplete(complete)).await;
    }

    pub async fn ack(&mut self, id: &str, position: &str) {
        let position = at(position);
        let ack = PublishAck { offset: position.offset, position: Some(position), duplicate: false };
        self.answer(id, Out::PublishAck(ack)).await;
    }

    pub async fn close(mut self, code: u16, reason: &'static str) {
        let close = CloseFrame { code: code.into(), reason: reason.into() };
        self.socket.close(Some(close)).await.unwrap();
    }
}

pub fn extended() -> Connected {
    Connected {
        session_id: "session".into(),
        caps: vec!["streamgate.v1".into()],
        resume_token: "secret".into(),
        ..Connected::default()
    }
}

pub fn error(code: &str) -> shared::Error {
    shared::Error { code: code.into(), r#type: "test".into(), message: "no".into(), metadata: None }
}

/// The position that `epoch:offset` names.
pub fn at(text: &str) -> v1::Position {
    let (epoch, offset) = text.split_once(':').unwrap();
    v1::Position { epoch: epoch.into(), offset: offset.parse().unwrap() }
}

pub fn named(channel: &str) -> Subscription {
    Subscription { channel: channel.into(), ..Subscription::default() }
}

/// An acknowledged exact channel that is live from `position` on.
pub fn live_at(channel: &str, position: &str) -> Subscription {
    Subscription { cursor: Some(at(position)), ..named(channel) }
}

/// A message whose event's id is its position.
pub fn message(channel: &str, position: &str, replay: bool) -> Message {
    let event = CloudEventBuilder::new("test").id(position).text("data").build();
    Message {
        id: position.into(),
        channel: channel.into(),
        offset: at(position).offset,
        position: Some(at(position)),
        payload: Some(event),
        replay,
        ..Message::default()
    }
}

/// Takes one event of a subscription, in few words.
pub async fn next(subscription: &mut streamgate_client::Subscription) -> String {
    use streamgate_client::Event;
    match timeout(PATIENCE, subscription.next()).await.expect("no event") {
        Some(Event::Message(message)) => {
            format!("{} {}", message.channel, message.position.map_or("-".into(), |at| at.to_string()))
        }
        Some(Event::Gap(gap)) => format!("gap {} {}", gap.channel, gap.reason),
        Some(Event::Recovered(done)) => {
            format!("recovered {}{}", done.target, done.gap.map(|why| format!(" {why}")).unwrap_or_default())
        }
        Some(Event::Closed(error)) => format!("closed {error}"),
        Some(other) => format!("{other:?}"),
        None => "end".into(),
    }
}
