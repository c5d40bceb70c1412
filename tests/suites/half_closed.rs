//! A client that ends its side of the connection and waits for the answers to what it has said.

use streamgate_e2e::{
    events::{self, extended},
    gateway::TestNode,
    within,
};
use streamgate_proto::v1::{
    InboundMessage, inbound_message::Envelope as In, messaging_service_client::MessagingServiceClient,
    outbound_message::Envelope as Out,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::transport::Endpoint;

/// A masked text frame of less than 126 bytes; the mask is zero.
fn frame(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).expect("short");
    assert!(length < 126);
    [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat()
}

#[tokio::test]
async fn all_that_was_said_before_is_answered() {
    let node = TestNode::start("").await;
    let mut socket = TcpStream::connect(node.addrs().websocket).await.unwrap();
    let upgrade = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    socket.write_all(upgrade.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    socket.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 101");
    let mut said = frame(r#"{"id":"c","connect":{"client_id":"half"}}"#);
    (0..3).for_each(|number| said.extend(frame(&format!(r#"{{"id":"p{number}","ping":{{}}}}"#))));
    // With one write and the end right behind it: the node reads both in one step.
    socket.write_all(&said).await.unwrap();
    socket.shutdown().await.unwrap();
    let mut answers = Vec::new();
    within("the end of the connection", socket.read_to_end(&mut answers)).await.unwrap();
    let answers = String::from_utf8_lossy(&answers);
    for answer in ["\"connected\"", "\"p0\"", "\"p1\"", "\"p2\""] {
        assert!(answers.contains(answer), "{answer} is missing: {answers}");
    }
    drop(node);
}

/// What is answered to these frames and the end right behind them, over gRPC: ids, and the code of the last error.
async fn answers_over_grpc(node: &TestNode, said: Vec<InboundMessage>) -> (Vec<String>, Option<String>) {
    let endpoint = Endpoint::from_shared(format!("http://{}", node.addrs().grpc)).unwrap();
    let mut client = MessagingServiceClient::new(endpoint.connect().await.unwrap());
    let mut answers = client.message_loop(tokio_stream::iter(said)).await.unwrap().into_inner();
    let (mut ids, mut code) = (Vec::new(), None);
    while let Some(answer) = within("an answer", answers.message()).await.unwrap() {
        match answer.envelope {
            Some(Out::Error(error)) => code = Some(error.code),
            _ => ids.push(answer.id),
        }
    }
    (ids, code)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_grpc_all_that_was_said_before_is_answered_also_if_its_end_closes_the_session() {
    let node = TestNode::start("").await;
    let connect = || In::Connect(extended([]));
    let said = |id: &str, envelope: In| InboundMessage { id: id.to_owned(), ..events::frame(envelope) };
    // A race between the client's end and what it is still to read.
    for _ in 0..50 {
        let pings = || (0..20).map(|n| said(&format!("p{n}"), In::Ping(Default::default())));
        let expected: Vec<String> =
            std::iter::once("c".to_owned()).chain((0..20).map(|n| format!("p{n}"))).collect();
        let plain = std::iter::once(said("c", connect())).chain(pings()).collect();
        assert_eq!(answers_over_grpc(&node, plain).await, (expected.clone(), None));
        // A second connect is a mistake that closes the session.
        let closing = std::iter::once(said("c", connect())).chain(pings()).chain([said("d", connect())]);
        let code = Some("DISCONNECT_ERROR".to_owned());
        assert_eq!(answers_over_grpc(&node, closing.collect()).await, (expected, code));
    }
}
