//! The server API over HTTP/JSON, in requests that may be wrong in every way.

use std::net::SocketAddr;

use serde_json::Value;
use streamgate_proto::server::api_service_client::ApiServiceClient;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::within;

/// An answer as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiAnswer {
    /// Status code; 0 if it is not HTTP.
    pub status: u16,
    /// Names in small letters, and values.
    pub headers: Vec<(String, String)>,
    /// Body as text.
    pub body: String,
}

impl ApiAnswer {
    /// The body as JSON.
    ///
    /// # Panics
    /// It is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// Calls an operation with `body` as JSON; `headers` replace those of the same name.
pub async fn post(admin: SocketAddr, operation: &str, headers: &[(&str, &str)], body: &str) -> ApiAnswer {
    let (host, length) = (admin.to_string(), body.len().to_string());
    let usual = [("Host", host.as_str()), ("Content-Type", "application/json"), ("Content-Length", &length)];
    let given = |name: &str| headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
    let usual = usual.into_iter().filter(|(name, _)| !given(name));
    let all: Vec<_> = usual.chain(headers.iter().copied()).collect();
    raw(admin, "POST", &format!("/api/v1/{operation}"), &all, body).await
}

/// Sends a request with exactly these headers, but for one that has the server close the connection.
pub async fn raw(
    admin: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> ApiAnswer {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let host = if headers.to_ascii_lowercase().contains("host:") { "" } else { "Host: localhost\r\n" };
    let request = format!("{method} {path} HTTP/1.1\r\n{host}{headers}Connection: close\r\n\r\n{body}");
    let bytes = within("an HTTP answer", async {
        let mut socket = TcpStream::connect(admin).await.expect("connect");
        // A server that refuses the head does not read the body, and a reset after the answer is no failure of it.
        let _ = socket.write_all(request.as_bytes()).await;
        let mut bytes = Vec::new();
        let _ = socket.read_to_end(&mut bytes).await;
        bytes
    })
    .await;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or(0);
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    ApiAnswer { status, headers: lines.filter_map(header).collect(), body: body.to_owned() }
}

/// A client of the API over gRPC.
///
/// # Panics
/// Nothing listens there.
pub async fn grpc(admin: SocketAddr) -> ApiServiceClient<tonic::transport::Channel> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{admin}")).expect("an address");
    ApiServiceClient::new(within("a connection", endpoint.connect()).await.expect("a listener"))
}
