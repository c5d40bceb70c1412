//! Scenario: many idle WebSocket connections with one subscription each, and what one costs the node in memory.
//!
//! The connections are bare sockets without buffers, so that this side is cheap: the handshake and the connect frame
//! are written by hand, whatever the server says afterwards stays in the kernel.

use std::{
    fs,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, lookup_host},
    time::{sleep, timeout},
};

/// Handshakes under way at once.
const CONCURRENCY: usize = 64;
/// For one connection to be subscribed.
const DEADLINE: Duration = Duration::from_secs(30);
/// Well below the time after which the server would give a silent client up.
const SIGN_OF_LIFE: Duration = Duration::from_secs(20);
/// A masked pong without payload: a sign of life that has no answer.
const PONG: [u8; 6] = [0x8a, 0x80, 0, 0, 0, 0];
/// Longest answer that is waited for, in bytes.
const GREATEST_ANSWER: usize = 16 * 1024;

/// Options of `idle`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// WebSocket endpoint of the node
    #[arg(long, default_value = "ws://127.0.0.1:9080/ws")]
    url: String,
    /// Process id of the node, to read its memory from /proc
    #[arg(long)]
    pid: Option<u32>,
    /// How many connections
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Subscribe all to one channel instead of one channel each
    #[arg(long)]
    one_channel: bool,
    /// Connect as plain MessageLoop v1 clients, without the extension
    #[arg(long)]
    v1: bool,
    /// Seconds of quiet before the memory is read
    #[arg(long, default_value_t = 10)]
    settle: u64,
    /// Seconds to stay connected after that
    #[arg(long, default_value_t = 0)]
    hold: u64,
}

/// The parts of a `ws://` URL.
#[derive(Debug, Clone)]
struct Endpoint {
    host: String,
    path: String,
    addr: SocketAddr,
}

/// Connects, waits, measures, prints.
///
/// # Errors
/// The node cannot be reached or refuses a connection, or its memory cannot be read.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let endpoint = Endpoint::resolve(&args.url).await?;
    let before = args.pid.map(resident).transpose()?;
    let started = Instant::now();
    let mut sockets: Vec<TcpStream> = stream::iter(0..args.connections)
        .map(|number| {
            let (endpoint, frame) = (endpoint.clone(), connect_frame(number, &args));
            async move {
                timeout(DEADLINE, subscribe(&endpoint, &frame))
                    .await
                    .with_context(|| format!("connection {number}: no answer within {DEADLINE:?}"))?
                    .with_context(|| format!("connection {number}"))
            }
        })
        .buffer_unordered(CONCURRENCY)
        .try_collect()
        .await?;
    let took = started.elapsed();
    stay(&mut sockets, Duration::from_secs(args.settle)).await?;
    let after = args.pid.map(resident).transpose()?;
    println!("{:<44} {:>12}", "connections, one subscription each", sockets.len());
    println!("{:<44} {:>12.0}", "connected a second", sockets.len() as f64 / took.as_secs_f64());
    match before.zip(after) {
        Some((before, after)) => {
            let each = (after as f64 - before as f64) / sockets.len().max(1) as f64;
            println!("{:<44} {:>12.1}", "RSS of the node before, MiB", before as f64 / 1024.0);
            println!("{:<44} {:>12.1}", "RSS of the node after, MiB", after as f64 / 1024.0);
            println!("{:<44} {:>12.2}", "RSS for each connection, KiB", each);
        }
        None => println!("memory was not read: name the node's process with --pid"),
    }
    stay(&mut sockets, Duration::from_secs(args.hold)).await
}

/// Keeps the connections alive for `time`.
async fn stay(sockets: &mut [TcpStream], time: Duration) -> anyhow::Result<()> {
    let end = Instant::now() + time;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        sleep(left.min(SIGN_OF_LIFE)).await;
        if left <= SIGN_OF_LIFE {
            return Ok(());
        }
        for socket in &mut *sockets {
            socket.write_all(&PONG).await.context("the node closed a connection")?;
        }
    }
}

impl Endpoint {
    async fn resolve(url: &str) -> anyhow::Result<Self> {
        let Some(rest) = url.strip_prefix("ws://") else { bail!("{url}: a ws:// URL is expected") };
        let (host, path) = rest.split_once('/').unwrap_or((rest, "ws"));
        let addr = lookup_host(host).await.with_context(|| format!("cannot resolve {host}"))?.next();
        let addr = addr.with_context(|| format!("{host} has no address"))?;
        Ok(Self { host: host.to_owned(), path: format!("/{path}"), addr })
    }
}

/// The masked text frame with connect and its subscription; the mask is zero, which leaves the text as it is.
fn connect_frame(number: usize, args: &Args) -> Vec<u8> {
    let channel = if args.one_channel { "load.idle".to_owned() } else { format!("load.idle.{number}") };
    let caps: &[&str] = if args.v1 { &[] } else { &["streamgate.v1"] };
    let connect = serde_json::json!({
        "id": "1",
        "connect": {
            "client_id": format!("idle-{number}"),
            "caps": caps,
            "subscriptions": [{ "channel": channel }],
        },
    });
    let text = connect.to_string();
    let mut frame = vec![0x81];
    // RFC 6455 section 5.2: up to 125 bytes the length is in the second byte, then in two more.
    match (u8::try_from(text.len()), u16::try_from(text.len()).unwrap_or(u16::MAX)) {
        (Ok(length @ 0..=125), _) => frame.push(0x80 | length),
        (_, length) => {
            frame.push(0x80 | 126);
            frame.extend(length.to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(text.as_bytes());
    frame
}

/// Opens one connection and waits until it is subscribed.
async fn subscribe(endpoint: &Endpoint, frame: &[u8]) -> anyhow::Result<TcpStream> {
    let mut socket = TcpStream::connect(endpoint.addr).await.with_context(|| {
        format!("cannot connect to {} (enough file descriptors? ulimit -n)", endpoint.addr)
    })?;
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: messageloop+json\r\n\r\n",
        endpoint.path, endpoint.host
    );
    socket.write_all(request.as_bytes()).await?;
    let head = read_until(&mut socket, "\r\n\r\n").await.context("handshake")?;
    ensure!(head.starts_with("HTTP/1.1 101"), "refused: {}", head.lines().next().unwrap_or_default());
    socket.write_all(frame).await?;
    read_until(&mut socket, "\"connected\"").await.context("connect")?;
    Ok(socket)
}

/// Reads until `mark` was read; whatever came with it.
async fn read_until(socket: &mut TcpStream, mark: &str) -> anyhow::Result<String> {
    let mut text = Vec::new();
    loop {
        let read = socket.read_buf(&mut text).await?;
        let seen = String::from_utf8_lossy(&text);
        if seen.contains(mark) {
            return Ok(seen.into_owned());
        }
        ensure!(read > 0, "the node closed the connection: {seen:?}");
        ensure!(text.len() < GREATEST_ANSWER, "unexpected answer: {seen:?}");
    }
}

/// `VmRSS` of a process, in KiB.
fn resident(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|rest| rest.split_whitespace().next()).and_then(|text| text.parse().ok());
    number.with_context(|| format!("{path} has no VmRSS"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_carries_its_length_in_either_form() {
        let args = |one_channel, v1| Args {
            url: String::new(),
            pid: None,
            connections: 1,
            one_channel,
            v1,
            settle: 0,
            hold: 0,
        };
        for (one_channel, v1) in [(true, true), (false, false)] {
            let frame = connect_frame(7, &args(one_channel, v1));
            let (head, length) = match frame[1] & 0x7f {
                126 => (4, usize::from(u16::from_be_bytes([frame[2], frame[3]]))),
                length => (2, usize::from(length)),
            };
            assert_eq!(frame.len(), head + 4 + length);
            serde_json::from_slice::<serde_json::Value>(&frame[head + 4..]).unwrap();
        }
    }

    #[test]
    fn the_memory_of_this_process_can_be_read() {
        assert!(resident(std::process::id()).unwrap() > 0);
    }
}
