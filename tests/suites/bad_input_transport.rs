//! Bad input below the protocol: sizes, kinds of frames, origins, paths, bytes that are no HTTP.

use streamgate_e2e::{
    events::{frame, publish, text},
    gateway::{Addrs, TestNode},
    raw::{RawClient, RawWs, Via, WsOptions},
    scrape, within,
};
use streamgate_proto::v1::inbound_message::Envelope as In;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// A client on every transport can do its work.
async fn others_work(addrs: Addrs) {
    for via in Via::ALL {
        let mut client = RawClient::connect_v1(addrs, via).await;
        client.publish("others", text("1", "fine")).await;
        client.close().await;
    }
}

#[tokio::test]
async fn an_event_above_the_policys_size_gets_too_large_and_the_connection_goes_on() {
    let node = TestNode::start("channels: [{pattern: 'small.**', max_message_size: 1KiB}]").await;
    for via in Via::ALL {
        let mut client = RawClient::connect_v1(node.addrs(), via).await;
        let large = text("1", &"x".repeat(2 * 1024));
        let error = client.refused(publish("small.a", large.clone())).await;
        assert_eq!((error.code.as_str(), error.r#type.as_str()), ("TOO_LARGE", "limit_error"), "{via:?}");
        assert!(error.message.contains("1024"), "the limit is named: {error:?}");
        client.publish("large", large).await;
        client.publish("small.a", text("2", "small")).await;
    }
}

#[tokio::test]
async fn a_frame_above_the_limit_closes_with_1009() {
    let node = TestNode::start("limits: {frame_bytes: 4KiB}").await;
    for via in Via::ALL {
        let mut client = RawClient::connect_v1(node.addrs(), via).await;
        client.publish("size", text("1", &"x".repeat(3 * 1024))).await;
        client.send(publish("size", text("2", &"x".repeat(8 * 1024)))).await;
        assert_eq!(client.close_code().await, 1009, "{via:?}");
    }
    others_work(node.addrs()).await;
}

#[tokio::test]
async fn a_frame_of_the_wrong_kind_closes_with_1003() {
    let node = TestNode::start("").await;
    let mut client = RawClient::connect_v1(node.addrs(), Via::WsProto).await;
    client.ws().send_text("{\"ping\":{}}").await;
    assert_eq!(client.close_code().await, 1003);
    let mut client = RawClient::connect_v1(node.addrs(), Via::WsJson).await;
    client.ws().send_binary("{\"ping\":{}}").await;
    assert_eq!(client.close_code().await, 1003);
    others_work(node.addrs()).await;
}

#[tokio::test]
async fn a_foreign_origin_gets_403_and_the_own_or_an_allowed_one_connects() {
    let node =
        TestNode::start("transport: {websocket: {allowed_origins: ['https://app.example.com']}}").await;
    let foreign =
        ["https://evil.example.com", "null", "http://127.0.0.1:1", "https://app.example.com.evil.com"];
    for origin in foreign {
        let refused = RawWs::try_open(node.addrs(), WsOptions::json().origin(origin)).await;
        assert_eq!(refused.err(), Some(403), "{origin}");
    }
    let own = format!("http://{}", node.addrs().websocket);
    for origin in [own.as_str(), "https://app.example.com"] {
        let mut client = RawClient::open_ws(node.addrs(), WsOptions::json().origin(origin)).await;
        client.say_connect(streamgate_e2e::events::v1([])).await;
    }
}

#[tokio::test]
async fn an_unknown_path_gets_404_and_what_is_no_upgrade_says_so() {
    let node = TestNode::start("transport: {websocket: {path: /socket}}").await;
    for path in ["/", "/ws", "/socket/", "/socketx"] {
        let refused = RawWs::try_open(node.addrs(), WsOptions::json().path(path)).await;
        assert_eq!(refused.err(), Some(404), "{path}");
    }
    let mut client = RawClient::open_ws(node.addrs(), WsOptions::proto().path("/socket?x=1")).await;
    client.say_connect(streamgate_e2e::events::v1([])).await;
    let plain = scrape::get(node.addrs().websocket, "/socket").await;
    assert_eq!(plain.status, 426, "{plain:?}");
    let post = "POST /socket HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    assert_eq!(scrape::request(node.addrs().websocket, post).await.status, 405);
}

#[tokio::test]
async fn bytes_that_are_no_http_end_their_connection_and_nothing_else() {
    let node = TestNode::start("").await;
    let addrs = node.addrs();
    let noise: Vec<u8> = (0..64_u32 * 1024).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let flood = format!("GET /ws HTTP/1.1\r\n{}", "X-Header: y\r\n".repeat(10_000));
    let inputs: [&[u8]; 5] =
        [b"\x16\x03\x01\x02\x00", b"\r\n\r\n\r\n", b"GET /ws\r\n\r\n", &noise, flood.as_bytes()];
    for addr in [addrs.websocket, addrs.grpc, addrs.admin] {
        for input in inputs {
            let mut socket = TcpStream::connect(addr).await.unwrap();
            // The server may end it before all is written.
            let _ = socket.write_all(input).await;
            let _ = socket.shutdown().await;
            let mut answer = Vec::new();
            let _ = within("the end of the connection", socket.read_to_end(&mut answer)).await;
        }
    }
    others_work(addrs).await;
}

#[tokio::test]
async fn a_client_that_vanishes_in_the_middle_of_a_frame_harms_nobody() {
    let node = TestNode::start("").await;
    let key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    let upgrade =
        format!("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{key}\r\n\r\n");
    for rest in
        [&b""[..], b"\x81", b"\x81\xfe\xff", b"\x81\xfe\x10\x00abcd{\"connect\":", b"\x01\x85abcdhello"]
    {
        let mut socket = TcpStream::connect(node.addrs().websocket).await.unwrap();
        // Frames may follow the request at once: nothing of them is lost.
        socket.write_all(&[upgrade.as_bytes(), rest].concat()).await.unwrap();
        let mut head = [0; 12];
        socket.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 101");
    }
    others_work(node.addrs()).await;
}

#[tokio::test]
async fn an_unmasked_frame_closes_with_1002() {
    let node = TestNode::start("").await;
    let key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    let upgrade =
        format!("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{key}\r\n\r\n");
    let mut socket = TcpStream::connect(node.addrs().websocket).await.unwrap();
    socket.write_all(&[upgrade.as_bytes(), b"\x81\x02{}"].concat()).await.unwrap();
    let mut answer = Vec::new();
    let closed = async {
        // Until the close frame with its code is there; then it is our turn to end.
        while !answer.windows(3).any(|bytes| bytes[0] == 0x88 && bytes[2..] == [0x03]) {
            assert!(socket.read_buf(&mut answer).await.unwrap() > 0, "closed without a code");
        }
    };
    within("the close frame", closed).await;
    let at = answer.windows(3).position(|bytes| bytes[0] == 0x88 && bytes[2] == 0x03).unwrap();
    assert_eq!(answer[at + 3], 0xea, "1002 is 0x03ea");
}

#[tokio::test]
async fn a_duplicate_connect_and_the_next_client_works() {
    let node = TestNode::start("").await;
    for via in Via::ALL {
        let mut client = RawClient::connect_v1(node.addrs(), via).await;
        client.send(frame(In::Connect(Default::default()))).await;
        client.send(publish("late", text("1", "not taken"))).await;
        assert_eq!(client.close_code().await, 3501, "{via:?}");
        let mut next = RawClient::connect(node.addrs(), via).await;
        let page = next.history(streamgate_e2e::events::history("late", -1)).await;
        assert!(page.messages.is_empty(), "nothing is taken after the close");
    }
    others_work(node.addrs()).await;
}
