//! A bare client of Redis: requests out, replies in, as many under way as the caller likes.
//!
//! For benchmarks only. It sends what the gateway's own transport refuses to (PUBLISH), and its cost is not measured.

use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use bytes::{Buf as _, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// One reply (RESP2).
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Integer.
    Int(i64),
    /// Simple or bulk string.
    Text(String),
    /// Array.
    Array(Vec<Value>),
    /// Null string or array.
    Nil,
}

impl Value {
    /// The elements of an array, else none.
    pub fn items(&self) -> &[Self] {
        if let Self::Array(items) = self { items } else { &[] }
    }

    /// The text of a string, else empty.
    pub fn text(&self) -> &str {
        if let Self::Text(text) = self { text } else { "" }
    }
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    socket: TcpStream,
    buffer: BytesMut,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens at `addr`.
    pub async fn connect(addr: SocketAddr) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(addr).await.context("connect to redis-server")?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, buffer: BytesMut::new() })
    }

    /// Sends one request and waits for its reply.
    ///
    /// # Errors
    /// The reply is an error, or the connection is lost.
    pub async fn call(&mut self, args: &[&[u8]]) -> anyhow::Result<Value> {
        let mut request = Vec::new();
        encode(&mut request, args);
        self.socket.write_all(&request).await?;
        self.reply().await
    }

    /// Sends all requests, `in_flight` of them with one write, and the next ones when all are answered; the replies in
    /// order. So reading and writing its socket costs the server as little as it can.
    ///
    /// # Errors
    /// As [`call`](Self::call), for the first that fails.
    pub async fn pipeline(&mut self, requests: &[Vec<u8>], in_flight: usize) -> anyhow::Result<Vec<Value>> {
        let mut replies = Vec::with_capacity(requests.len());
        for burst in requests.chunks(in_flight.max(1)) {
            self.socket.write_all(&burst.concat()).await?;
            for _ in burst {
                replies.push(self.reply().await?);
            }
        }
        Ok(replies)
    }

    /// Waits for the next reply (or message, for a subscriber).
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn reply(&mut self) -> anyhow::Result<Value> {
        loop {
            if let Some((value, used)) = parse(&self.buffer)? {
                self.buffer.advance(used);
                return Ok(value);
            }
            if self.socket.read_buf(&mut self.buffer).await? == 0 {
                bail!("redis-server closed the connection");
            }
        }
    }
}

/// Appends one request.
pub fn encode(out: &mut Vec<u8>, args: &[&[u8]]) {
    out.extend(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        out.extend(format!("${}\r\n", arg.len()).as_bytes());
        out.extend(*arg);
        out.extend(b"\r\n");
    }
}

/// Reads one reply from the beginning of `input`: the reply and its length; `None` if it is not all there.
fn parse(input: &[u8]) -> anyhow::Result<Option<(Value, usize)>> {
    let Some(end) = input.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
    let (line, mut at) = (std::str::from_utf8(&input[1..end])?, end + 2);
    let value = match input[0] {
        b'-' => bail!("redis-server answered: {line}"),
        b'+' => Value::Text(line.to_owned()),
        b':' => Value::Int(line.parse()?),
        b'$' | b'*' if line == "-1" => Value::Nil,
        b'$' => {
            let length: usize = line.parse()?;
            let Some(bytes) = input.get(at..at + length + 2) else { return Ok(None) };
            at += length + 2;
            Value::Text(String::from_utf8_lossy(&bytes[..length]).into_owned())
        }
        b'*' => {
            let mut items = Vec::new();
            for _ in 0..line.parse::<usize>()? {
                let Some((item, used)) = parse(&input[at..])? else { return Ok(None) };
                items.push(item);
                at += used;
            }
            Value::Array(items)
        }
        other => bail!("unexpected reply type {:?}", char::from(other)),
    };
    Ok(Some((value, at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_however_they_are_cut() {
        let text = b"*4\r\n:1\r\n$2\r\nab\r\n$-1\r\n*1\r\n+OK\r\n";
        for end in 0..text.len() {
            assert_eq!(parse(&text[..end]).unwrap(), None, "{end}");
        }
        let items = vec![
            Value::Int(1),
            Value::Text("ab".into()),
            Value::Nil,
            Value::Array(vec![Value::Text("OK".into())]),
        ];
        assert_eq!(parse(text).unwrap(), Some((Value::Array(items), text.len())));
    }

    #[test]
    fn errors_are_errors() {
        assert!(parse(b"-ERR no\r\n").unwrap_err().to_string().contains("ERR no"));
    }
}
