//! A client that ends its side of the connection and waits for the answers to what it has said.

use streamgate_e2e::{gateway::TestNode, within};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

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
