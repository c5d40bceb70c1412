//! RFC 6455 cases (after the Autobahn test suite's groups) played over raw TCP against the echo server.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::net::SocketAddr;

use streamgate::transport::ws::echo::{self, EchoConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
/// First bytes of frames without FIN, and of the last fragment.
const TEXT_PART: u8 = 0x01;
const BINARY_PART: u8 = 0x02;
const MORE: u8 = 0x00;
const LAST: u8 = 0x80;

async fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(echo::serve(listener, EchoConfig::default()));
    address
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0xde, 0xad, 0xbe, 0xef];
    let mut out = vec![first];
    match payload.len() {
        len @ 0..126 => out.push(0x80 | len as u8),
        len @ 126..65536 => out.extend_from_slice(&[&[0xfe][..], &(len as u16).to_be_bytes()].concat()),
        len => out.extend_from_slice(&[&[0xff][..], &(len as u64).to_be_bytes()].concat()),
    }
    out.extend_from_slice(&mask);
    out.extend(payload.iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]));
    out
}

fn close_payload(code: u16, reason: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), reason].concat()
}

struct Client {
    socket: TcpStream,
}

impl Client {
    /// Sends a request head and whatever follows it in one write; the client and the response's head.
    async fn open(request: &str, then: &[u8]) -> (Self, String) {
        let socket = TcpStream::connect(start().await).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let mut client = Self { socket };
        client.send(&[request.as_bytes(), then].concat()).await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.socket.read_u8().await.unwrap());
        }
        (client, String::from_utf8(head).unwrap().to_ascii_lowercase())
    }

    async fn connect() -> Self {
        let (client, head) =
            Self::open(&format!("GET / HTTP/1.1\r\nHost: h\r\n{UPGRADE}{KEY}\r\n"), b"").await;
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{head}");
        client
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.unwrap();
    }

    /// The next frame: first byte and payload.
    async fn receive(&mut self) -> (u8, Vec<u8>) {
        let first = self.socket.read_u8().await.unwrap();
        let len = match self.socket.read_u8().await.unwrap() {
            126 => u64::from(self.socket.read_u16().await.unwrap()),
            127 => self.socket.read_u64().await.unwrap(),
            len @ 0..126 => u64::from(len),
            masked => panic!("server frame with second byte {masked:#x}"),
        };
        let mut payload = vec![0; len as usize];
        self.socket.read_exact(&mut payload).await.unwrap();
        (first, payload)
    }

    async fn expect(&mut self, first: u8, payload: &[u8]) {
        let got = self.receive().await;
        assert!(got == (first, payload.to_vec()), "expected {first:#x} of {}, got {got:02x?}", payload.len());
    }

    /// The server closes with this code and then ends the TCP stream, without a reset.
    async fn expect_close(mut self, code: u16) {
        let (first, payload) = self.receive().await;
        let got = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
        assert_eq!((first, got), (CLOSE, Some(code)), "{}", String::from_utf8_lossy(&payload));
        self.expect_end().await;
    }

    async fn expect_end(&mut self) {
        assert_eq!(self.socket.read(&mut [0]).await.unwrap(), 0, "stream goes on after the close frame");
    }
}

/// Sends a stream at once, and byte by byte, on connections of their own: both must close with `code`.
async fn assert_closes(stream: &[u8], code: u16) {
    let mut client = Client::connect().await;
    client.send(stream).await;
    client.expect_close(code).await;
    let mut client = Client::connect().await;
    for byte in stream {
        if client.socket.write_all(&[*byte]).await.is_err() {
            break;
        }
    }
    client.expect_close(code).await;
}

#[tokio::test]
async fn messages_of_every_length_form_come_back() {
    let mut client = Client::connect().await;
    for len in [0, 1, 125, 126, 127, 128, 65535, 65536] {
        for (first, payload) in [(TEXT, vec![b'*'; len]), (BINARY, vec![0xfe; len])] {
            client.send(&frame(first, &payload)).await;
            client.expect(first, &payload).await;
        }
    }
}

#[tokio::test]
async fn messages_sent_in_small_chops_come_back() {
    let payload = "Hello-\u{b5}@\u{df}\u{f6}\u{e4}\u{fc}\u{e0}\u{e1}-UTF-8!!".repeat(30);
    for chop in [1, 7, 997] {
        let mut client = Client::connect().await;
        for piece in frame(TEXT, payload.as_bytes()).chunks(chop) {
            client.send(piece).await;
        }
        client.expect(TEXT, payload.as_bytes()).await;
    }
}

#[tokio::test]
async fn pings_come_back_as_pongs_in_order_and_pongs_are_ignored() {
    let mut client = Client::connect().await;
    client.send(&frame(PONG, b"unsolicited")).await;
    let mut stream = Vec::new();
    for len in 0..=125 {
        stream.extend(frame(PING, &vec![len; usize::from(len)]));
    }
    client.send(&stream).await;
    for len in 0..=125 {
        client.expect(PONG, &vec![len; usize::from(len)]).await;
    }
}

#[tokio::test]
async fn bad_control_frames_are_1002() {
    assert_closes(&frame(PING, &[0; 126]), 1002).await;
    assert_closes(&frame(PING & 0x7f, b"x"), 1002).await;
    assert_closes(&frame(PONG & 0x7f, b"x"), 1002).await;
    assert_closes(&[frame(PING & 0x7f, b"x"), frame(LAST, b"y")].concat(), 1002).await;
    assert_closes(&frame(CLOSE, &close_payload(1000, &[b'x'; 124])), 1002).await;
}

#[tokio::test]
async fn reserved_bits_are_1002_after_earlier_messages_were_answered() {
    for bits in 1..=7u8 {
        assert_closes(&frame(TEXT | bits << 4, b"x"), 1002).await;
        assert_closes(&frame(PING | bits << 4, b"x"), 1002).await;
        let mut client = Client::connect().await;
        client.send(&[frame(TEXT, b"good"), frame(CLOSE | bits << 4, b"")].concat()).await;
        client.expect(TEXT, b"good").await;
        client.expect_close(1002).await;
    }
}

#[tokio::test]
async fn reserved_opcodes_are_1002() {
    for opcode in (3..=7).chain(11..=15) {
        assert_closes(&frame(0x80 | opcode, b""), 1002).await;
        assert_closes(&[frame(0x80 | opcode, b"payload"), frame(PING, b"")].concat(), 1002).await;
    }
}

#[tokio::test]
async fn unmasked_frames_are_1002() {
    assert_closes(b"\x81\x05hello", 1002).await;
    assert_closes(b"\x89\x00", 1002).await;
}

#[tokio::test]
async fn illegal_lengths_are_1002() {
    assert_closes(b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xffmask", 1002).await;
    assert_closes(b"\x81\xfe\x00\x05maskhello", 1002).await;
}

#[tokio::test]
async fn fragments_are_assembled_around_pings() {
    let mut client = Client::connect().await;
    client.send(&frame(TEXT_PART, b"frag")).await;
    client.send(&frame(PING, b"between")).await;
    client.expect(PONG, b"between").await;
    client
        .send(&[frame(MORE, b"men"), frame(MORE, b""), frame(PING, b"again"), frame(LAST, b"t")].concat())
        .await;
    client.expect(PONG, b"again").await;
    client.expect(TEXT, b"fragment").await;
    client.send(&[frame(BINARY_PART, b""), frame(MORE, b""), frame(LAST, b"")].concat()).await;
    client.expect(BINARY, b"").await;
}

#[tokio::test]
async fn bad_fragmentation_is_1002() {
    assert_closes(&frame(LAST, b"no start"), 1002).await;
    assert_closes(&frame(MORE, b"no start"), 1002).await;
    assert_closes(&[frame(TEXT_PART, b"a"), frame(TEXT, b"b")].concat(), 1002).await;
    assert_closes(&[frame(TEXT_PART, b"a"), frame(BINARY_PART, b"b")].concat(), 1002).await;
}

#[tokio::test]
async fn valid_utf8_passes_whatever_the_fragments() {
    let text =
        "\u{3ba}\u{1f79}\u{3c3}\u{3bc}\u{3b5} \u{7ff}\u{800}\u{d7ff}\u{e000}\u{ffff}\u{10000}\u{10ffff}\0";
    let bytes = text.as_bytes();
    let mut client = Client::connect().await;
    for cut in 0..=bytes.len() {
        client.send(&[frame(TEXT_PART, &bytes[..cut]), frame(LAST, &bytes[cut..])].concat()).await;
        client.expect(TEXT, bytes).await;
    }
}

#[tokio::test]
async fn invalid_utf8_is_1007() {
    let invalid: [&[u8]; 10] = [
        b"\x80",
        b"\xfe",
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xc1\xbf",
        b"\xed\xa0\x80",
        b"\xed\xaf\xbf\xed\xbf\xbf",
        b"\xf4\x90\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xce\xba\xe1\xbd\xb9\xcf",
    ];
    for bytes in invalid {
        assert_closes(&frame(TEXT, bytes), 1007).await;
        let mut stream = frame(TEXT_PART, b"ok ");
        bytes.iter().for_each(|byte| stream.extend(frame(MORE, &[*byte])));
        stream.extend(frame(LAST, b""));
        assert_closes(&stream, 1007).await;
    }
}

#[tokio::test]
async fn invalid_utf8_fails_before_the_message_has_ended() {
    let mut client = Client::connect().await;
    client.send(&frame(TEXT_PART, b"\xce\xba\xf4\x90")).await;
    client.expect_close(1007).await;
    let mut client = Client::connect().await;
    client.send(&frame(TEXT, b"\xce\xba\xf4\x90 and more")[..6 + 4]).await;
    client.expect_close(1007).await;
}

#[tokio::test]
async fn oversize_is_1009_from_the_head_alone() {
    let mut client = Client::connect().await;
    client.send(&frame(BINARY, &[0; 65537])[..14]).await;
    client.expect_close(1009).await;
    let mut client = Client::connect().await;
    client.send(b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xffmask").await;
    client.expect_close(1009).await;
    let mut client = Client::connect().await;
    client.send(&frame(TEXT_PART, &[b'x'; 65000])).await;
    client.send(&frame(LAST, &[b'x'; 537])).await;
    client.expect_close(1009).await;
}

#[tokio::test]
async fn close_code_reaches_a_client_that_goes_on_sending() {
    let mut client = Client::connect().await;
    client.send(&frame(BINARY, &[0; 300_000])).await;
    client.expect_close(1009).await;
}

#[tokio::test]
async fn close_is_echoed_and_what_follows_it_ignored() {
    let mut client = Client::connect().await;
    client.send(&[frame(TEXT, b"last"), frame(CLOSE, b""), frame(TEXT, b"ignored")].concat()).await;
    client.expect(TEXT, b"last").await;
    client.expect(CLOSE, b"").await;
    client.expect_end().await;
    for code in (1000..=1003).chain(1007..=1014).chain([3000, 3999, 4000, 4999]) {
        let payload = close_payload(code, "r\u{e9}ason".as_bytes());
        let mut client = Client::connect().await;
        client.send(&[frame(CLOSE, &payload), frame(PING, b"ignored")].concat()).await;
        client.expect(CLOSE, &payload).await;
        client.expect_end().await;
    }
    let longest = close_payload(1000, &[b'*'; 123]);
    let mut client = Client::connect().await;
    client.send(&frame(CLOSE, &longest)).await;
    client.expect(CLOSE, &longest).await;
}

#[tokio::test]
async fn illegal_close_payloads_are_refused() {
    assert_closes(&frame(CLOSE, b"\x03"), 1002).await;
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        assert_closes(&frame(CLOSE, &close_payload(code, b"")), 1002).await;
    }
    assert_closes(&frame(CLOSE, &close_payload(1000, b"\xce\xba\xed\xa0\x80")), 1007).await;
}

#[tokio::test]
async fn close_between_fragments_is_answered() {
    let mut client = Client::connect().await;
    client.send(&[frame(TEXT_PART, b"half"), frame(CLOSE, &close_payload(1001, b""))].concat()).await;
    client.expect_close(1001).await;
}

#[tokio::test]
async fn frames_sent_together_with_the_handshake_are_not_lost() {
    let request = format!("GET / HTTP/1.1\r\nHost: h\r\n{UPGRADE}{KEY}\r\n");
    let first = frame(TEXT, b"first");
    // Whole, cut inside its head, and cut inside its payload.
    for cut in [first.len(), 3, 8] {
        let (mut client, head) =
            Client::open(&request, &[&frame(PING, b"zero"), &first[..cut]].concat()).await;
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        client.expect(PONG, b"zero").await;
        client.send(&first[cut..]).await;
        client.expect(TEXT, b"first").await;
    }
}

#[tokio::test]
async fn subprotocol_is_chosen_and_its_kind_of_message_enforced_with_1003() {
    let open = |offer: &str| {
        format!("GET / HTTP/1.1\r\nHost: h\r\n{UPGRADE}{KEY}Sec-WebSocket-Protocol: {offer}\r\n\r\n")
    };
    let cases = [
        ("x, messageloop+proto, messageloop", "messageloop+proto", TEXT),
        ("messageloop+json, messageloop+proto", "messageloop+json", BINARY),
        ("messageloop", "messageloop", BINARY),
    ];
    for (offer, chosen, refused) in cases {
        let (mut client, head) = Client::open(&open(offer), b"").await;
        assert!(head.contains(&format!("sec-websocket-protocol: {chosen}\r\n")), "{head}");
        client.send(&frame(refused, b"x")).await;
        client.expect_close(1003).await;
    }
    let (mut client, head) = Client::open(&open("mqtt"), b"").await;
    assert!(head.starts_with("http/1.1 101 ") && !head.contains("sec-websocket-protocol"), "{head}");
    client.send(&frame(BINARY, b"x")).await;
    client.expect(BINARY, b"x").await;
}

#[tokio::test]
async fn compression_is_declined() {
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    let (mut client, head) =
        Client::open(&format!("GET / HTTP/1.1\r\nHost: h\r\n{UPGRADE}{KEY}{offer}\r\n"), b"").await;
    assert!(head.starts_with("http/1.1 101 ") && !head.contains("extensions"), "{head}");
    client.send(&frame(TEXT | 0x40, b"\x2a\x04\x00")).await;
    client.expect_close(1002).await;
}

#[tokio::test]
async fn bad_handshakes_get_their_status() {
    let cases = [
        (
            format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n{UPGRADE}{KEY}\r\n"),
            "405",
            "allow: get",
        ),
        ("GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), "426", "upgrade: websocket"),
        (format!("GET / HTTP/1.1\r\nHost: h\r\n{UPGRADE}\r\n"), "400", ""),
        (format!("GET / HTTP/1.1\r\nHost: h\r\n{UPGRADE}Sec-WebSocket-Key: x\r\n\r\n"), "400", ""),
        (
            format!("GET / HTTP/1.1\r\nHost: h\r\n{}{KEY}\r\n", UPGRADE.replace("13", "8")),
            "426",
            "sec-websocket-version: 13",
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: h\r\nOrigin: https://evil.example\r\n{UPGRADE}{KEY}\r\n"),
            "403",
            "",
        ),
    ];
    for (request, status, header) in cases {
        let (_, head) = Client::open(&request, b"").await;
        assert!(head.starts_with(&format!("http/1.1 {status} ")) && head.contains(header), "{request}{head}");
    }
    let same = format!("GET / HTTP/1.1\r\nHost: h:1\r\nOrigin: http://h:1\r\n{UPGRADE}{KEY}\r\n");
    let (_, head) = Client::open(&same, b"").await;
    assert!(head.starts_with("http/1.1 101 "), "{head}");
}
