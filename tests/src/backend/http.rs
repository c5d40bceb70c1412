//! A backend over HTTP/1.1, as plain as it can be.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::{Notes, Question, Reply};

/// See the module. Dropping it closes its port; connections that are open go on.
pub struct HttpBackend {
    addr: SocketAddr,
    /// What it was asked, and how it answers.
    pub notes: Notes,
    accepting: JoinHandle<()>,
}

impl HttpBackend {
    /// A backend that answers like this.
    pub async fn start(answer: impl Fn(&Question) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_on("127.0.0.1:0".parse().expect("an address"), answer).await
    }

    /// As [`Self::start`], at this address.
    pub async fn start_on(
        addr: SocketAddr,
        answer: impl Fn(&Question) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(addr).await.expect("bind");
        let (addr, notes) = (listener.local_addr().expect("bound"), Notes::new(answer));
        let serving = notes.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, serving.clone()));
            }
        });
        Self { addr, notes, accepting }
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its URL, without a path.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

impl Drop for HttpBackend {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(mut stream: TcpStream, notes: Notes) {
    while let Some(question) = read(&mut stream).await {
        let sent = match notes.take(question) {
            Reply::Json(status, body) => {
                let body = body.to_string();
                let head = format!(
                    "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                stream.write_all((head + &body).as_bytes()).await
            }
            Reply::Stall => std::future::pending().await,
            Reply::Garbage => {
                let _ = stream.write_all(b"\x01\x02 this is no HTTP\r\n\r\n").await;
                return;
            }
            Reply::NoMessage => {
                let answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{\"id\": 7,";
                stream.write_all(answer).await
            }
            Reply::Redirect => {
                let answer = b"HTTP/1.1 302 X\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
                stream.write_all(answer).await
            }
            Reply::Endless => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
                let chunk = format!("{:x}\r\n{}\r\n", 16_384, "x".repeat(16_384));
                while stream.write_all(chunk.as_bytes()).await.is_ok() {}
                return;
            }
            Reply::Close => return,
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Reads one request; `None` when the caller has gone.
async fn read(stream: &mut TcpStream) -> Option<Question> {
    let mut bytes = Vec::new();
    let (mut question, start, length) = loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let question = head(&String::from_utf8_lossy(&bytes[..end]));
            let length = question.headers.get("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
            break (question, end + 4, length);
        }
    };
    while bytes.len() < start + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    question.body = serde_json::from_slice(&bytes[start..start + length]).unwrap_or(Value::Null);
    Some(question)
}

fn head(text: &str) -> Question {
    let mut lines = text.split("\r\n");
    let path = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
    let headers: std::collections::BTreeMap<_, _> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let hook = headers.get("streamgate-hook").cloned().unwrap_or_default();
    Question { hook, path, headers, body: json!(null) }
}
