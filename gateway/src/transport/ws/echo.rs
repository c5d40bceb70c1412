//! Echo server over this module: an aid for tests and conformance suites (`examples/ws_echo.rs`), no part
//! of the gateway.

use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::frame::encode_frame;
use super::reader::{DataKinds, Event, FrameReader};
use super::writer::{MAX_SLICES, PushError, WriteQueue};
use super::{OpCode, OriginPolicy, Subprotocol, Upgrade, accept};

/// How long to wait for the client's end of the stream after the close frame, so that unread bytes do not
/// turn the end into a reset that takes the close frame with it.
const LINGER: Duration = Duration::from_secs(2);

const READ_BUFFER: usize = 16 * 1024;

/// What the echo server takes.
#[derive(Debug, Clone)]
pub struct EchoConfig {
    /// Largest assembled message, in bytes.
    pub max_message: u32,
    /// Pages that may connect.
    pub origins: OriginPolicy,
}

impl Default for EchoConfig {
    fn default() -> Self {
        Self { max_message: super::DEFAULT_MAX_MESSAGE, origins: OriginPolicy::default() }
    }
}

/// Serves every connection of `listener`, on any path: messages come back as they are, pings are answered,
/// violations end with their close code. A client that chose a subprotocol may send that one's kind of
/// message only (else 1003).
///
/// Cancel: dropping the future stops accepting; connections go on until their clients leave.
///
/// # Errors
/// The listener failed.
pub async fn serve(listener: TcpListener, config: EchoConfig) -> io::Result<()> {
    loop {
        let (socket, peer) = listener.accept().await?;
        let config = config.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| std::future::ready(respond(request, &config)));
            let http = http1::Builder::new().serve_connection(TokioIo::new(socket), service);
            if let Err(error) = http.with_upgrades().await {
                tracing::debug!(%peer, %error, "HTTP connection ended");
            }
        });
    }
}

fn respond(request: Request<Incoming>, config: &EchoConfig) -> Result<Response<Full<Bytes>>, Infallible> {
    let handshake = match accept(request, &config.origins) {
        Ok(handshake) => handshake,
        Err(refusal) => return Ok(refusal.response()),
    };
    let accepts = match handshake.subprotocol.map(Subprotocol::is_binary) {
        None => DataKinds::Both,
        Some(true) => DataKinds::Binary,
        Some(false) => DataKinds::Text,
    };
    let reader = FrameReader::new(config.max_message, accepts);
    tokio::spawn(async move {
        if let Err(error) = run(handshake.upgrade, reader).await {
            tracing::debug!(%error, "echo connection ended");
        }
    });
    Ok(handshake.response)
}

async fn run(upgrade: Upgrade, mut reader: FrameReader) -> io::Result<()> {
    let (mut socket, mut first) = upgrade.stream::<TcpStream>().await.map_err(io::Error::other)?;
    socket.set_nodelay(true)?;
    // What is echoed was read before, and is written before more is read: the limits of reader and read
    // buffer bound it.
    let mut queue = WriteQueue::new(u32::MAX);
    let mut buffer = vec![0; READ_BUFFER];
    echo(&mut reader, &mut first, &mut queue);
    loop {
        flush(&socket, &mut queue).await?;
        if queue.is_closing() {
            return linger(&mut socket, &mut buffer).await;
        }
        match socket.read(&mut buffer).await? {
            0 => return Ok(()),
            size => echo(&mut reader, &mut buffer[..size], &mut queue),
        }
    }
}

/// Queues the answers to what `input` says.
fn echo(reader: &mut FrameReader, input: &mut [u8], queue: &mut WriteQueue) {
    for event in reader.read(input) {
        let queued = match event {
            Ok(Event::Text(text)) => queue.push(encode_frame(OpCode::Text, text.as_bytes())),
            Ok(Event::Binary(bytes)) => queue.push(encode_frame(OpCode::Binary, &bytes)),
            Ok(Event::Ping(payload)) => queue.push(encode_frame(OpCode::Pong, &payload)),
            Ok(Event::Pong(_)) => Ok(()),
            Ok(Event::Close(frame)) => {
                queue.close(frame.as_ref().map(|frame| (frame.code, &*frame.reason)));
                Ok(())
            }
            Err(error) => {
                queue.close(Some((error.close_code(), &error.to_string())));
                Ok(())
            }
        };
        match queued {
            Ok(()) | Err(PushError::Closing) => {}
            Err(overflow @ PushError::Overflow { .. }) => queue.close(Some((3512, &overflow.to_string()))),
        }
    }
}

/// Writes the whole queue. Cancel: safe, what was written is off the queue.
async fn flush(socket: &TcpStream, queue: &mut WriteQueue) -> io::Result<()> {
    while !queue.is_empty() {
        socket.writable().await?;
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let count = queue.fill_slices(&mut slices);
        match socket.try_write_vectored(&slices[..count]) {
            Ok(written) => queue.advance(written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Ends the stream and reads until the client has ended its side too, or took too long.
async fn linger(socket: &mut TcpStream, buffer: &mut [u8]) -> io::Result<()> {
    socket.shutdown().await?;
    let until_end = async { while socket.read(buffer).await.is_ok_and(|size| size > 0) {} };
    // Either way the connection is over.
    tokio::time::timeout(LINGER, until_end).await.ok();
    Ok(())
}
