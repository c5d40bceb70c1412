//! Ten thousand clients come back at once and recover one channel: Redis hardly notices, and each gets what it missed.

use std::{
    fs,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::future::try_join_all;
use streamgate_client::PublishOptions;
use streamgate_e2e::{
    cluster, events,
    gateway::Addrs,
    process::GatewayProcess,
    raw::Via,
    redis_server::RedisServer,
    scrape::{Scrape, metrics_until},
};
use streamgate_proto::{
    Encoding, decode_outbound, encode_inbound,
    v1::{
        InboundMessage, OutboundMessage, Position, Subscribe, inbound_message::Envelope as In,
        outbound_message::Envelope as Out,
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Semaphore,
    time::timeout,
};

const CLIENTS: usize = 10_000;
/// Publications that the channel holds; the clients' cursors are spread over them.
const HISTORY: u64 = 40;
const MOST_RANGE_READS: u64 = 50;
/// Connections that are being opened at a time.
const OPENING: usize = 200;
/// For all of it; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// As little of a WebSocket client as ten thousand of them allow: no task, no buffer but for an unfinished frame.
struct Recoverer {
    stream: TcpStream,
    buffer: BytesMut,
    cursor: u64,
}

impl Recoverer {
    async fn open(addrs: Addrs, cursor: u64) -> std::io::Result<Self> {
        let mut stream = TcpStream::connect(addrs.websocket).await?;
        stream.set_nodelay(true)?;
        let upgrade = format!(
            "GET /ws HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: messageloop+proto\r\n\r\n",
            addrs.websocket
        );
        stream.write_all(upgrade.as_bytes()).await?;
        let mut buffer = BytesMut::new();
        let end = loop {
            if let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end;
            }
            assert!(stream.read_buf(&mut buffer).await? > 0, "the upgrade was refused");
        };
        let head = buffer.split_to(end + 4);
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
        let mut client = Self { stream, buffer, cursor };
        client.send(In::Connect(events::extended([]))).await?;
        assert!(matches!(client.receive().await?.envelope, Some(Out::Connected(_))));
        client.buffer = BytesMut::new();
        Ok(client)
    }

    async fn send(&mut self, envelope: In) -> std::io::Result<()> {
        let frame = InboundMessage { id: "1".into(), envelope: Some(envelope), ..InboundMessage::default() };
        let payload = encode_inbound(Encoding::Protobuf, &frame).unwrap();
        // A final binary frame. The mask must be there; that of zero changes nothing.
        let mut bytes = BytesMut::from(&[0x82_u8][..]);
        match u8::try_from(payload.len()) {
            Ok(length @ 0..=125) => bytes.extend_from_slice(&[0x80 | length]),
            _ => {
                bytes.extend_from_slice(&[0x80 | 126]);
                bytes.extend_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
            }
        }
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&payload);
        self.stream.write_all(&bytes).await
    }

    /// The next envelope. Not safe to cancel in general; nobody cancels it and goes on.
    async fn receive(&mut self) -> std::io::Result<OutboundMessage> {
        loop {
            if let Some((opcode, payload)) = self.parse() {
                match opcode {
                    0x2 => return Ok(decode_outbound(Encoding::Protobuf, &payload).unwrap()),
                    0x9 => continue,
                    other => panic!("opcode {other}: {}", String::from_utf8_lossy(&payload)),
                }
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Takes a frame from the buffer, if a whole one is there.
    fn parse(&mut self) -> Option<(u8, Bytes)> {
        let (first, second) = (*self.buffer.first()?, *self.buffer.get(1)?);
        assert!(first & 0x80 != 0 && second & 0x80 == 0, "a whole frame without a mask");
        let (head, length) = match second {
            126 => (4, usize::from(u16::from_be_bytes(self.buffer.get(2..4)?.try_into().ok()?))),
            127 => panic!("nothing is that long here"),
            length => (2, usize::from(length)),
        };
        if self.buffer.len() < head + length {
            return None;
        }
        self.buffer.advance(head);
        Some((first & 0xf, self.buffer.split_to(length).freeze()))
    }

    /// Subscribes with the cursor and takes what was missed, each of it, once and in order.
    async fn recover(&mut self, epoch: &str) -> std::io::Result<()> {
        let cursor = Position { epoch: epoch.to_owned(), offset: self.cursor };
        let subscriptions = vec![events::recover("room.storm", cursor)];
        self.send(In::Subscribe(Subscribe { subscriptions })).await?;
        match self.receive().await?.envelope {
            Some(Out::SubscribeAck(_)) => {}
            other => return Err(unexpected(self.cursor, "the ack", &other)),
        }
        for offset in self.cursor + 1..=HISTORY {
            self.expect(offset, true).await?;
        }
        match self.receive().await?.envelope {
            Some(Out::RecoverComplete(end))
                if !end.gap
                    && !end.truncated
                    && end.error.is_none()
                    && end.position.as_ref().is_some_and(|position| position.offset == HISTORY) =>
            {
                Ok(())
            }
            other => Err(unexpected(self.cursor, "recover_complete", &other)),
        }
    }

    /// The next message is the one at `offset`.
    async fn expect(&mut self, offset: u64, replay: bool) -> std::io::Result<()> {
        let envelope = self.receive().await?.envelope;
        if let Some(Out::Publication(publication)) = &envelope
            && let [message] = &publication.messages[..]
            && (message.offset, message.replay) == (offset, replay)
            && message.payload.as_ref().is_some_and(|event| events::text_of(event) == offset.to_string())
        {
            return Ok(());
        }
        Err(unexpected(self.cursor, &format!("message {offset}"), &envelope))
    }
}

/// An error, not a panic: ten thousand reports help nobody.
fn unexpected(cursor: u64, expected: &str, got: &Option<Out>) -> std::io::Error {
    std::io::Error::other(format!("{expected} was expected after cursor {cursor}, not {got:?}"))
}

/// Raises this process's limit of open files, which its children inherit, to what the system allows; answers it.
fn raise_file_limit() -> usize {
    let pid = std::process::id().to_string();
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let hard = line.split_whitespace().nth(4).unwrap();
    let status = Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={hard}:{hard}")]).status();
    assert!(status.unwrap().success(), "prlimit");
    hard.parse().unwrap_or(usize::MAX)
}

/// Range reads that Redis has carried out, also inside of scripts.
fn range_reads(redis: &RedisServer) -> u64 {
    let stats = redis.info("commandstats");
    let calls = |name: &str| {
        let stat = stats.get(&format!("cmdstat_{name}"))?;
        stat.strip_prefix("calls=")?.split(',').next()?.parse::<u64>().ok()
    };
    calls("xrange").unwrap_or(0) + calls("xrevrange").unwrap_or(0)
}

/// Opens the connections, not more than [`OPENING`] at a time.
async fn open_all(addrs: Addrs, count: usize) -> Vec<Recoverer> {
    let turns = Arc::new(Semaphore::new(OPENING));
    let opening = (0..count).map(|number| {
        let turns = turns.clone();
        tokio::spawn(async move {
            let _turn = turns.acquire().await.unwrap();
            Recoverer::open(addrs, number as u64 % (HISTORY + 1)).await.unwrap()
        })
    });
    try_join_all(opening).await.unwrap()
}

/// Does the same with all clients at once.
async fn all_at_once<F>(clients: Vec<Recoverer>, step: impl Fn(Recoverer) -> F) -> Vec<Recoverer>
where
    F: Future<Output = std::io::Result<Recoverer>> + Send + 'static,
{
    let running: Vec<_> = clients.into_iter().map(|client| tokio::spawn(step(client))).collect();
    let all = timeout(PATIENCE, try_join_all(running)).await.expect("all of them in time").unwrap();
    all.into_iter().collect::<Result<_, _>>().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_recoveries_of_one_channel_cost_a_handful_of_range_reads() {
    let files = raise_file_limit();
    // Besides the clients: what other tests of this process hold open.
    let count = CLIENTS.min(files.saturating_sub(2_000));
    if count < CLIENTS {
        println!("only {count} clients: {files} files may be open");
    }
    let redis = cluster::redis();
    // How long it takes is not the promise: without optimisation and among other tests, the node itself may be too busy
    // to see an answer of Redis within the usual 2 s, or the last clients may wait for longer than the usual 5 s.
    let node = GatewayProcess::start(&format!(
        "broker: {{type: redis, redis: {{addr: '{}', command_timeout: 30s}}}}\nlimits: {{request_timeout: 60s}}",
        redis.addr()
    ))
    .await;
    node.addrs().ready().await;
    let publisher = cluster::connect(&[node.addrs()], Via::WsProto).await;
    let publish = |number: u64| {
        let event = events::text(&number.to_string(), &number.to_string());
        publisher.publish("room.storm", event, PublishOptions::default())
    };
    let first = publish(1).await.unwrap().position.unwrap();
    for number in 2..=HISTORY {
        publish(number).await.unwrap();
    }

    let start = Instant::now();
    let clients = open_all(node.addrs(), count).await;
    let opened = start.elapsed();
    let (before, reads_before) = (range_reads(&redis), reads_metric(&node.addrs()).await);
    let start = Instant::now();
    let epoch = Arc::new(first.epoch);
    let clients = all_at_once(clients, |mut client| {
        let epoch = epoch.clone();
        async move { client.recover(&epoch).await.map(|()| client) }
    })
    .await;
    let recovered = start.elapsed();
    let (reads, metric) = (range_reads(&redis) - before, reads_metric(&node.addrs()).await - reads_before);

    let outcome = "streamgate_recoveries_total";
    metrics_until(node.addrs().admin, "every recovery is counted as whole", |scrape| {
        scrape.labelled(outcome, "outcome=\"whole\"") as usize == count
    })
    .await;
    let start = Instant::now();
    publish(HISTORY + 1).await.unwrap();
    all_at_once(
        clients,
        |mut client| async move { client.expect(HISTORY + 1, false).await.map(|()| client) },
    )
    .await;
    println!(
        "{count} clients: opened in {opened:?}, recovered in {recovered:?} with {reads} range reads in Redis ({metric} by \
         the node's count), next live message at all of them in {:?}",
        start.elapsed()
    );
    assert!(reads <= MOST_RANGE_READS, "{reads} range reads");
    assert!(metric as u64 <= MOST_RANGE_READS, "{metric} range reads by the node's count");
    assert!(reads > 0 && metric > 0.0, "the counters count");
}

async fn reads_metric(addrs: &Addrs) -> f64 {
    Scrape::of(addrs.admin).await.value("streamgate_history_reads_total")
}
