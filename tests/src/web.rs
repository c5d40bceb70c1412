//! Clients that know HTTP and nothing else: requests, streams of server-sent events, and a WebSocket of events.

use std::{collections::BTreeMap, net::SocketAddr};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use crate::{
    gateway::Addrs,
    raw::{RawWs, Received, WsOptions},
    within,
};

/// An answer to a request.
#[derive(Debug, Clone)]
pub struct WebAnswer {
    /// Status code.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Body.
    pub body: Vec<u8>,
}

impl WebAnswer {
    /// The body as JSON; null if it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A header; empty if it is not there.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// Makes a request; `Content-Length` and `Host` are added.
pub async fn ask(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> WebAnswer {
    within("an HTTP answer", async {
        let mut socket = TcpStream::connect(addr).await.expect("connect");
        let length = body.len().to_string();
        let more = [("Host", "gateway"), ("Connection", "close"), ("Content-Length", &length)];
        let head = head(method, path, more.iter().chain(headers));
        socket.write_all(head.as_bytes()).await.expect("send the head");
        // One that is refused by its head may be closed before.
        let _ = socket.write_all(body).await;
        let mut bytes = Vec::new();
        let _ = socket.read_to_end(&mut bytes).await;
        let (status, headers, body) =
            parsed(&bytes).unwrap_or_else(|| panic!("no answer to {method} {path}"));
        WebAnswer { status, headers, body: body.to_vec() }
    })
    .await
}

fn head<'a>(method: &str, path: &str, headers: impl Iterator<Item = &'a (&'a str, &'a str)>) -> String {
    let lines: String = headers.map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("{method} {path} HTTP/1.1\r\n{lines}\r\n")
}

/// Status, headers, and where the body begins; none as long as the head is not whole.
fn parsed(bytes: &[u8]) -> Option<(u16, BTreeMap<String, String>, &[u8])> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Some((status, headers, &bytes[end + 4..]))
}

/// Publishes an event in structured mode.
pub async fn post(addrs: Addrs, channel: &str, event: &Value, headers: &[(&str, &str)]) -> WebAnswer {
    let path = format!("/channels/{channel}/events");
    let kind = [("Content-Type", "application/cloudevents+json")];
    let headers: Vec<_> = kind.iter().chain(headers).copied().collect();
    ask(addrs.websocket, "POST", &path, &headers, event.to_string().as_bytes()).await
}

/// Publishes events in batched mode.
pub async fn post_batch(addrs: Addrs, channel: &str, events: &Value, headers: &[(&str, &str)]) -> WebAnswer {
    let path = format!("/channels/{channel}/events");
    let kind = [("Content-Type", "application/cloudevents-batch+json")];
    let headers: Vec<_> = kind.iter().chain(headers).copied().collect();
    ask(addrs.websocket, "POST", &path, &headers, events.to_string().as_bytes()).await
}

/// An event with this id and data.
#[must_use]
pub fn event(id: &str, data: Value) -> Value {
    json!({"specversion": "1.0", "id": id, "source": "/test", "type": "test.event", "data": data})
}

/// One event of a stream, as an EventSource would see it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ServerEvent {
    /// Its name; empty for those without one.
    pub name: String,
    /// The last id that was given, also by an earlier event.
    pub id: String,
    /// Its data, lines joined; empty for what is no event (an id alone, a comment).
    pub data: String,
}

impl ServerEvent {
    /// The data as JSON.
    ///
    /// # Panics
    /// It is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{self:?}: {error}"))
    }
}

/// A stream of server-sent events, read as the standard says.
pub struct EventStream {
    socket: TcpStream,
    /// What has come and is not yet read: first the chunks of HTTP, then the text.
    chunked: Vec<u8>,
    text: Vec<u8>,
    ended: bool,
    id: String,
    /// The last `retry`, in ms.
    pub retry: Option<u64>,
    /// Comments so far.
    pub comments: usize,
    /// Headers of the answer.
    pub headers: BTreeMap<String, String>,
}

impl EventStream {
    /// Opens a stream at an address with a query, as `/sse?channel=a`.
    ///
    /// # Errors
    /// The answer, if it is no stream.
    pub async fn open(
        addr: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, Box<WebAnswer>> {
        Self::open_with(addr, path, headers, None).await
    }

    /// The same with a receive buffer of so many bytes.
    ///
    /// # Errors
    /// The answer, if it is no stream.
    pub async fn open_with(
        addr: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
        receive_buffer: Option<u32>,
    ) -> Result<Self, Box<WebAnswer>> {
        let socket = TcpSocket::new_v4().expect("a socket");
        if let Some(bytes) = receive_buffer {
            socket.set_recv_buffer_size(bytes).expect("set the receive buffer");
        }
        let mut socket = within("a connection", socket.connect(addr)).await.expect("connect");
        let more = [("Host", "gateway"), ("Accept", "text/event-stream")];
        let request = head("GET", path, more.iter().chain(headers));
        socket.write_all(request.as_bytes()).await.expect("send the request");
        let mut bytes = Vec::new();
        let (status, headers, body) = within("the head of a stream", async {
            loop {
                if let Some((status, headers, body)) = parsed(&bytes) {
                    return (status, headers, body.to_vec());
                }
                if socket.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                    panic!("no answer to {path}: {:?}", String::from_utf8_lossy(&bytes));
                }
            }
        })
        .await;
        if status != 200 {
            let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            let mut body = body;
            while body.len() < length && socket.read_buf(&mut body).await.unwrap_or(0) > 0 {}
            return Err(Box::new(WebAnswer { status, headers, body }));
        }
        Ok(Self {
            socket,
            chunked: body,
            text: Vec::new(),
            ended: false,
            id: String::new(),
            retry: None,
            comments: 0,
            headers,
        })
    }

    /// The last id that was given: what a client brings back.
    #[must_use]
    pub fn last_id(&self) -> &str {
        &self.id
    }

    /// The next event; `None` at the end of the stream, however that comes.
    pub async fn next(&mut self) -> Option<ServerEvent> {
        within("an event of a stream", self.next_within()).await
    }

    /// The next event, however long it takes. Cancel: safe.
    pub async fn next_within(&mut self) -> Option<ServerEvent> {
        loop {
            let end = self.text.windows(2).position(|window| window == b"\n\n");
            if let Some(end) = end {
                let block = self.text.drain(..end + 2).collect::<Vec<_>>();
                let event = self.read(std::str::from_utf8(&block).expect("UTF-8"));
                if !event.data.is_empty() {
                    return Some(event);
                }
                continue;
            }
            if self.ended || !self.receive().await {
                return None;
            }
        }
    }

    /// The next published event.
    pub async fn message(&mut self) -> Value {
        let event = self.next().await.expect("the stream goes on");
        assert_eq!(event.name, "", "{event:?}");
        event.json()
    }

    /// The next event of this name.
    pub async fn named(&mut self, name: &str) -> Value {
        let event = self.next().await.expect("the stream goes on");
        assert_eq!(event.name, name, "{event:?}");
        event.json()
    }

    /// Reads nothing for ever, and keeps the connection.
    #[must_use]
    pub fn into_socket(self) -> TcpStream {
        self.socket
    }

    fn read(&mut self, block: &str) -> ServerEvent {
        let mut event = ServerEvent::default();
        let mut data = Vec::new();
        for line in block.lines().filter(|line| !line.is_empty()) {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "" => self.comments += 1,
                "event" => event.name = value.to_owned(),
                "data" => data.push(value),
                "id" => self.id = value.to_owned(),
                "retry" => self.retry = value.parse().ok(),
                other => panic!("a field {other:?}"),
            }
        }
        event.data = data.join("\n");
        event.id.clone_from(&self.id);
        event
    }

    /// Takes what the socket has; `false` at the end.
    async fn receive(&mut self) -> bool {
        let more = self.unchunk() || {
            let read = self.socket.read_buf(&mut self.chunked).await.unwrap_or(0);
            self.unchunk();
            read > 0
        };
        self.ended |= !more;
        more || !self.text.is_empty()
    }

    /// Takes the whole chunks out of what has come; whether there was one.
    fn unchunk(&mut self) -> bool {
        let mut any = false;
        while let Some(line) = self.chunked.windows(2).position(|window| window == b"\r\n") {
            let size = std::str::from_utf8(&self.chunked[..line]).expect("the size of a chunk");
            let size = usize::from_str_radix(size.trim(), 16).expect("the size of a chunk");
            let start = line + 2;
            if self.chunked.len() < start + size + 2 {
                break;
            }
            self.text.extend_from_slice(&self.chunked[start..start + size]);
            self.chunked.drain(..start + size + 2);
            self.ended |= size == 0;
            any = size > 0;
            if self.ended {
                break;
            }
        }
        any
    }
}

/// A WebSocket of the subprotocol `cloudevents.json`.
pub struct EventSocket(RawWs);

impl EventSocket {
    /// Opens it; `query` is what stands behind the path.
    pub async fn open(addrs: Addrs, query: &str) -> Self {
        Self(RawWs::open(addrs, options(query)).await)
    }

    /// Opens it, and takes the event that says what it is connected to.
    pub async fn connected(addrs: Addrs, query: &str) -> (Self, Value) {
        let mut socket = Self::open(addrs, query).await;
        let connected = socket.notice("connected").await;
        (socket, connected)
    }

    /// The HTTP status that refuses it.
    pub async fn refused(addrs: Addrs, query: &str) -> u16 {
        RawWs::try_open(addrs, options(query)).await.err().expect("it is refused")
    }

    /// Sends an event.
    pub async fn send(&mut self, event: &Value) {
        self.0.send_text(event.to_string()).await;
    }

    /// The socket itself.
    pub fn raw(&mut self) -> &mut RawWs {
        &mut self.0
    }

    /// The next event.
    pub async fn next(&mut self) -> Value {
        loop {
            match within("an event of a socket", self.0.next()).await {
                Received::Payload(text) => return serde_json::from_slice(&text).expect("JSON"),
                Received::Ping => {}
                Received::Closed(code, reason) => panic!("closed with {code}: {reason}"),
            }
        }
    }

    /// The next event, which the server says itself; its data.
    pub async fn notice(&mut self, kind: &str) -> Value {
        let event = self.next().await;
        assert_eq!(event["type"], format!("io.streamgate.{kind}"), "{event}");
        assert_eq!((&event["source"], event.get("sgchannel")), (&json!("/streamgate"), None), "{event}");
        event["data"].clone()
    }

    /// The next event, which somebody published.
    pub async fn message(&mut self) -> Value {
        let event = self.next().await;
        assert!(event["sgchannel"].is_string(), "{event}");
        event
    }

    /// Waits for the close.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            if let Received::Closed(code, reason) = within("the close", self.0.next()).await {
                return (code, reason);
            }
        }
    }
}

fn options(query: &str) -> WsOptions {
    WsOptions::default().subprotocol("cloudevents.json").query(query)
}
