//! A raw WebSocket.

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Error, Message, Utf8Bytes, client::IntoClientRequest as _, handshake::client::Request,
        http::HeaderValue, protocol::WebSocketConfig,
    },
};

use super::Received;
use crate::{gateway::Addrs, within};

/// How to open a WebSocket.
#[derive(Debug, Clone, Default)]
pub struct WsOptions {
    subprotocol: Option<&'static str>,
    origin: Option<String>,
    receive_buffer: Option<u32>,
    path: Option<&'static str>,
    query: Option<String>,
    bearer: Option<String>,
    headers: Vec<(&'static str, String)>,
}

impl WsOptions {
    /// JSON by the subprotocol `messageloop+json`.
    #[must_use]
    pub fn json() -> Self {
        Self::default().subprotocol("messageloop+json")
    }

    /// Protobuf by the subprotocol `messageloop+proto`.
    #[must_use]
    pub fn proto() -> Self {
        Self::default().subprotocol("messageloop+proto")
    }

    /// Offers this subprotocol; the default offers none.
    #[must_use]
    pub fn subprotocol(mut self, name: &'static str) -> Self {
        self.subprotocol = Some(name);
        self
    }

    /// Says that a web page of this origin connects.
    #[must_use]
    pub fn origin(mut self, origin: impl Into<String>) -> Self {
        self.origin = Some(origin.into());
        self
    }

    /// Size of the socket's receive buffer: a small one fills soon when the client does not read.
    #[must_use]
    pub fn receive_buffer(mut self, bytes: u32) -> Self {
        self.receive_buffer = Some(bytes);
        self
    }

    /// Another path than `/ws`.
    #[must_use]
    pub fn path(mut self, path: &'static str) -> Self {
        self.path = Some(path);
        self
    }

    /// Puts this behind the path.
    #[must_use]
    pub fn query(mut self, query: impl Into<String>) -> Self {
        self.query = Some(query.into());
        self
    }

    /// Shows this token in the `Authorization` header.
    #[must_use]
    pub fn bearer(mut self, token: &str) -> Self {
        self.bearer = Some(format!("Bearer {token}"));
        self
    }

    /// Sends this header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(super) fn is_proto(&self) -> bool {
        self.subprotocol == Some("messageloop+proto")
    }

    fn request(&self, addrs: Addrs) -> Request {
        let query = self.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        let url = format!("ws://{}{}{query}", addrs.websocket, self.path.unwrap_or("/ws"));
        let mut request = url.into_client_request().expect("a valid URL");
        let headers = request.headers_mut();
        if let Some(name) = self.subprotocol {
            headers.insert("sec-websocket-protocol", HeaderValue::from_static(name));
        }
        if let Some(bearer) = &self.bearer {
            headers.insert("authorization", bearer.parse().expect("a header value"));
        }
        if let Some(origin) = &self.origin {
            headers.insert("origin", origin.parse().expect("a header value"));
        }
        for (name, value) in &self.headers {
            headers.append(*name, value.parse().expect("a header value"));
        }
        request
    }
}

/// A WebSocket that is open.
pub struct RawWs {
    stream: WebSocketStream<TcpStream>,
}

impl RawWs {
    /// Opens it.
    ///
    /// # Panics
    /// It was refused.
    pub async fn open(addrs: Addrs, options: WsOptions) -> Self {
        Self::try_open(addrs, options)
            .await
            .unwrap_or_else(|status| panic!("the upgrade was answered with {status}"))
    }

    /// Opens it, or answers the HTTP status that refused it.
    pub async fn try_open(addrs: Addrs, options: WsOptions) -> Result<Self, u16> {
        let socket = TcpSocket::new_v4().expect("a socket");
        if let Some(bytes) = options.receive_buffer {
            // Before the connect, so that the window is never larger.
            socket.set_recv_buffer_size(bytes).expect("set the receive buffer");
        }
        let opened = within("the upgrade", async {
            let tcp = socket.connect(addrs.websocket).await.expect("connect");
            tcp.set_nodelay(true).expect("set TCP_NODELAY");
            let config = WebSocketConfig::default().read_buffer_size(4 * 1024);
            client_async_with_config(options.request(addrs), tcp, Some(config)).await
        });
        match opened.await {
            Ok((stream, _)) => Ok(Self { stream }),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("the upgrade failed: {error}"),
        }
    }

    /// Sends a text frame; what is not UTF-8 panics.
    pub async fn send_text(&mut self, text: impl Into<Bytes>) {
        let text = Utf8Bytes::try_from(text.into()).expect("text is UTF-8");
        self.send(Message::Text(text)).await;
    }

    /// Sends a binary frame.
    pub async fn send_binary(&mut self, bytes: impl Into<Bytes>) {
        self.send(Message::Binary(bytes.into())).await;
    }

    /// Sends a ping of WebSocket itself; the pong is not shown.
    pub async fn ping(&mut self) {
        self.send(Message::Ping(Bytes::new())).await;
    }

    /// A server that has closed takes nothing more: what it said is read next, so that is no failure here.
    async fn send(&mut self, message: Message) {
        let _ = within("sending", self.stream.send(message)).await;
    }

    /// What arrives next. Cancel: safe.
    pub async fn next(&mut self) -> Received {
        loop {
            return match self.stream.next().await {
                Some(Ok(Message::Text(text))) => Received::Payload(text.into()),
                Some(Ok(Message::Binary(bytes))) => Received::Payload(bytes),
                Some(Ok(Message::Ping(_))) => {
                    // The pong is queued; a client that says nothing else would never send it.
                    let _ = self.stream.flush().await;
                    Received::Ping
                }
                Some(Ok(Message::Close(Some(frame)))) => {
                    let _ = self.stream.flush().await;
                    Received::Closed(frame.code.into(), frame.reason.to_string())
                }
                Some(Ok(Message::Close(None))) => Received::Closed(1005, String::new()),
                Some(Ok(Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Err(error)) => Received::Closed(1006, error.to_string()),
                None => Received::Closed(1006, "the connection ended without a close frame".into()),
            };
        }
    }

    /// Closes with the closing handshake.
    pub async fn close(mut self) {
        let _ = self.stream.close(None).await;
        let _ = within("the closing handshake", async {
            while self.stream.next().await.is_some_and(|m| m.is_ok()) {}
        })
        .await;
    }
}
