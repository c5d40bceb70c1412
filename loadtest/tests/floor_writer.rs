//! The bare writer as a process, with clients that know nothing of it.

#![allow(clippy::unwrap_used, reason = "in a test the panic is the report")]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use futures_util::{SinkExt as _, StreamExt as _};
use streamgate_e2e::gateway::TestNode;
use streamgate_proto::{
    Encoding,
    cloudevents::{Attr, CloudEvent, CloudEventAttributeValue, Data},
    decode_outbound, encode_inbound,
    v1::{
        Connect, InboundMessage, OutboundMessage, Ping, Subscribe, Subscription,
        inbound_message::Envelope as In, outbound_message::Envelope as Out,
    },
};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};

const DEADLINE: Duration = Duration::from_secs(20);

struct Writer {
    process: Child,
    addr: SocketAddr,
}

impl Writer {
    fn start() -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_loadtest"))
            .args(["floor-writer", "--listen", "127.0.0.1:0"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { addr: line.trim().parse().unwrap(), process }
    }

    /// System calls so far that write.
    fn writes(&self) -> u64 {
        let io = fs::read_to_string(format!("/proc/{}/io", self.process.id())).unwrap();
        io.lines().find_map(|line| line.strip_prefix("syscw: ")).unwrap().parse().unwrap()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    encoding: Encoding,
}

impl Client {
    /// Connects and subscribes to `channel`.
    async fn connect(addr: SocketAddr, encoding: Encoding, extended: bool, channel: &str) -> Self {
        let mut request = format!("ws://{addr}/ws").into_client_request().unwrap();
        let subprotocol = if encoding == Encoding::Json { "messageloop+json" } else { "messageloop+proto" };
        request.headers_mut().insert("sec-websocket-protocol", subprotocol.parse().unwrap());
        let (socket, response) = timeout(DEADLINE, connect_async(request)).await.unwrap().unwrap();
        assert_eq!(response.headers()["sec-websocket-protocol"], subprotocol);
        let mut client = Self { socket, encoding };
        let subscriptions = vec![Subscription { channel: channel.to_owned(), ..Subscription::default() }];
        let caps = if extended { vec!["streamgate.v1".to_owned()] } else { Vec::new() };
        let connect = Connect { client_id: "c".to_owned(), caps, subscriptions, ..Connect::default() };
        let (answer, _) = client.ask("hello", "", In::Connect(connect)).await;
        let Some(Out::Connected(connected)) = answer.envelope else { panic!("{answer:?}") };
        assert_eq!((answer.id.as_str(), connected.session_id.len()), ("hello", 36));
        assert_eq!(connected.caps.is_empty(), !extended);
        let subscribed: Vec<_> = connected.subscriptions.iter().map(|s| s.channel.as_str()).collect();
        assert_eq!(subscribed, [channel]);
        client
    }

    async fn send(&mut self, id: &str, channel: &str, envelope: In) {
        let (id, channel) = (id.to_owned(), channel.to_owned());
        let message = InboundMessage { id, channel, envelope: Some(envelope), ..InboundMessage::default() };
        let bytes = encode_inbound(self.encoding, &message).unwrap();
        let message = match self.encoding {
            Encoding::Json => Message::text(String::from_utf8(bytes.to_vec()).unwrap()),
            Encoding::Protobuf => Message::binary(bytes),
        };
        self.socket.send(message).await.unwrap();
    }

    /// The next message and its bytes without the frame's head.
    async fn next(&mut self) -> (OutboundMessage, usize) {
        let message = timeout(DEADLINE, self.socket.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(message.is_text(), self.encoding == Encoding::Json);
        let bytes = message.into_data();
        (decode_outbound(self.encoding, &bytes).unwrap(), bytes.len())
    }

    async fn ask(&mut self, id: &str, channel: &str, envelope: In) -> (OutboundMessage, usize) {
        self.send(id, channel, envelope).await;
        self.next().await
    }

    /// The next publication's only message, and the bytes of its frame.
    async fn publication(&mut self) -> (streamgate_proto::v1::Message, usize) {
        loop {
            let (message, size) = self.next().await;
            match message.envelope {
                Some(Out::Publication(mut publication)) => {
                    let inner = publication.messages.pop().unwrap();
                    assert!(publication.messages.is_empty() && inner.id == message.id && message.time > 0);
                    return (inner, size);
                }
                // A gateway may ack before or after it delivers.
                Some(Out::PublishAck(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

fn event(text: &str) -> CloudEvent {
    let json = CloudEventAttributeValue { attr: Some(Attr::CeString("application/json".to_owned())) };
    CloudEvent {
        id: "e1".to_owned(),
        source: "/load/1".to_owned(),
        spec_version: "1.0".to_owned(),
        r#type: "load".to_owned(),
        attributes: [("datacontenttype".to_owned(), json)].into(),
        data: Some(Data::TextData(text.to_owned())),
    }
}

#[tokio::test]
async fn clients_of_both_encodings_get_acks_and_each_others_publications() {
    let writer = Writer::start();
    let mut json = Client::connect(writer.addr, Encoding::Json, false, "room.blue").await;
    let mut protobuf = Client::connect(writer.addr, Encoding::Protobuf, true, "room.blue").await;
    let mut elsewhere = Client::connect(writer.addr, Encoding::Json, true, "room.red").await;

    let (ack, _) = json.ask("7", "room.blue", In::Publish(event("{\"n\":1}"))).await;
    let Some(Out::PublishAck(ack_of_json)) = ack.envelope else { panic!("{ack:?}") };
    assert_eq!((ack.id.as_str(), ack_of_json.offset, ack_of_json.position), ("7", 1, None));
    let (ack, _) = protobuf.ask("8", "room.blue", In::Publish(event("{\"n\":2}"))).await;
    // The first publication was on its way.
    assert!(matches!(ack.envelope, Some(Out::Publication(_))), "{ack:?}");
    let (ack, _) = protobuf.next().await;
    let Some(Out::PublishAck(ack_of_protobuf)) = ack.envelope else { panic!("{ack:?}") };
    let position = ack_of_protobuf.position.unwrap();
    assert_eq!((ack.id.as_str(), position.offset, position.epoch.len()), ("8", 2, 13));

    for (offset, text) in [(1, "{\"n\":1}"), (2, "{\"n\":2}")] {
        let (message, _) = json.publication().await;
        assert_eq!(
            (message.channel.as_str(), message.offset, &message.position),
            ("room.blue", offset, &None)
        );
        assert_eq!(message.payload, Some(event(text)));
    }
    let (message, _) = protobuf.publication().await;
    assert_eq!((message.offset, message.position), (2, Some(position)));
    assert_eq!(message.payload, Some(event("{\"n\":2}")));

    // What it gets next is this, nothing of the other channel.
    let (pong, _) = elsewhere.ask("9", "", In::Ping(Ping {})).await;
    assert!(pong.id == "9" && matches!(pong.envelope, Some(Out::Pong(_))), "{pong:?}");
}

#[tokio::test]
async fn what_it_does_not_know_is_refused_and_later_subscriptions_count() {
    let writer = Writer::start();
    let mut client = Client::connect(writer.addr, Encoding::Json, true, "a").await;
    let subscribe = |channel: &str| {
        let subscriptions = vec![Subscription { channel: channel.to_owned(), ..Subscription::default() }];
        In::Subscribe(Subscribe { subscriptions })
    };
    let (refused, _) = client.ask("1", "", subscribe("a.*")).await;
    let Some(Out::Error(error)) = refused.envelope else { panic!("{refused:?}") };
    assert_eq!((refused.id.as_str(), error.code.as_str()), ("1", "NOT_SUPPORTED"));
    client.socket.send(Message::text("{")).await.unwrap();
    assert!(matches!(client.next().await.0.envelope, Some(Out::Error(error)) if error.code == "BAD_REQUEST"));
    let (ack, _) = client.ask("2", "", subscribe("b")).await;
    assert!(matches!(ack.envelope, Some(Out::SubscribeAck(_))), "{ack:?}");
    client.send("3", "b", In::Publish(event("x"))).await;
    assert_eq!(client.publication().await.0.channel, "b");
}

#[tokio::test]
async fn its_frames_are_as_large_as_those_of_a_gateway() {
    let (writer, node) = (Writer::start(), TestNode::start("").await);
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        for extended in [true, false] {
            let mut sizes = Vec::new();
            for addr in [writer.addr, node.addrs().websocket] {
                let channel = format!("load.{encoding:?}.{extended}");
                let mut client = Client::connect(addr, encoding, extended, &channel).await;
                client.send("1", &channel, In::Publish(event(&"x".repeat(128)))).await;
                sizes.push(client.publication().await.1);
            }
            assert_eq!(sizes[0], sizes[1], "{encoding:?}, extended: {extended}");
            println!("{encoding:?}, extended: {extended}: {} B", sizes[0]);
        }
    }
}

#[tokio::test]
async fn it_writes_once_for_each_socket_and_message() {
    const CLIENTS: u64 = 20;
    const PUBLISHES: u64 = 50;
    let writer = Writer::start();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Client::connect(writer.addr, Encoding::Json, true, "all").await);
    }
    let mut publisher = Client::connect(writer.addr, Encoding::Protobuf, true, "none").await;
    let before = writer.writes();
    for n in 0..PUBLISHES {
        publisher.send(&n.to_string(), "all", In::Publish(event("x"))).await;
    }
    for client in &mut clients {
        for offset in 1..=PUBLISHES {
            assert_eq!(client.publication().await.0.offset, offset);
        }
    }
    // And the acks.
    assert_eq!(writer.writes() - before, PUBLISHES * (CLIENTS + 1));
}

#[tokio::test]
async fn it_goes_on_when_clients_leave_and_ends_with_its_standard_input() {
    let mut writer = Writer::start();
    let gone = Client::connect(writer.addr, Encoding::Json, true, "a").await;
    let mut stays = Client::connect(writer.addr, Encoding::Json, true, "a").await;
    drop(gone);
    for offset in 1..=3 {
        stays.send("1", "a", In::Publish(event("x"))).await;
        assert_eq!(stays.publication().await.0.offset, offset);
    }
    drop(writer.process.stdin.take());
    let ended = tokio::task::spawn_blocking(move || writer.process.wait().unwrap());
    assert!(timeout(DEADLINE, ended).await.unwrap().unwrap().success());
}
