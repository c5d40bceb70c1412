//! A Redis of its own with channels, interest and inboxes as a gateway makes them, and one round of any row on it.
//!
//! All channels are in one partition: then every call carries as many publishes as its row says, and whatever grows with
//! what a partition holds grows the most. Spread over 16 partitions the keys would be as many in the same keyspace.

use std::{ops::Range, time::Duration};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use rand::{SeedableRng as _, rngs::SmallRng, seq::SliceRandom as _};
use streamgate::broker::queue::JobOptions;
use streamgate::broker::redis::{
    Believed, Connection, PublishArgs, RedisOptions, Script, Setting,
    keys::{Keys, idempotency_record},
    scripts,
};
use streamgate_e2e::redis_server::{RedisServer, RedisServerOptions};

use super::{
    inbox::{COUNT, Inbox},
    rows::{Calls, Work},
    spent::Spent,
};
use crate::measure::resp::{Client, Value, encode};

/// The one interested node; the others are numbered from 2.
const NODE: &str = "1";
/// `history_size`, greatest length of an inbox and greatest size of the catalogue: the gateway's defaults.
const HISTORY_SIZE: u64 = 1_000;
const INBOX: &str = "100000";
const CATALOGUE: &str = "1000000";
/// How long a history, an inbox and an idempotency record are kept.
pub const KEEP: Duration = Duration::from_secs(900);
const WINDOW: Duration = Duration::from_secs(300);
/// When a publication was made, for plain commands: as long as any time.
const TIME: &str = "1767225600000";
/// Channels that are made at once.
const MAKING: usize = 10_000;
/// Interests that one call registers.
const INTERESTS: usize = 500;
/// Publishes of the largest calls. So many times as many plain commands as calls are sent at once: as many publishes to a write
/// of the socket, which would otherwise be the greater part of what plain commands cost.
const LARGEST_CALL: usize = 32;
/// The stream of [`Work::XaddXread`].
const PLAIN: &str = "plain";

/// How large a server is made, and how it is spoken to.
#[derive(Debug, Clone)]
pub struct Size {
    /// Channels, all in one partition.
    pub channels: usize,
    /// Of them, those that are published to after they are made; all if there are not so many.
    pub active: usize,
    /// Nodes that are registered.
    pub nodes: usize,
    /// Bytes of what is stored of a publication.
    pub payload: usize,
    /// Commands, or calls of a script, that are sent at once.
    pub in_flight: usize,
    /// `stream-node-max-bytes` of the server.
    pub node_bytes: String,
}

/// A channel.
#[derive(Debug, Clone, Copy)]
struct Channel {
    number: u32,
    /// Of its history.
    epoch: u64,
}

impl Channel {
    fn name(self) -> String {
        format!("bench.{}", self.number)
    }
}

/// The server and all that a round needs.
#[derive(Debug)]
pub struct Bench {
    size: Size,
    server: RedisServer,
    client: Client,
    subscriber: Client,
    inbox: Inbox,
    keys: Keys,
    replid: String,
    /// In random order, in which they are published to: neighbours in memory are not neighbours in time.
    channels: Vec<Channel>,
    /// Which channel is next.
    next: usize,
    payload: String,
    /// Numbers the idempotency keys.
    serial: u64,
}

impl Bench {
    /// A server with the scripts, the nodes, the interest of one of them, and two publications in every history: the first
    /// makes it, the second is the first that takes the script's fast path.
    ///
    /// # Errors
    /// Redis refuses a call. A `redis-server` that cannot be started is a panic.
    pub async fn start(size: Size) -> anyhow::Result<Self> {
        let options = RedisServerOptions::default().args(&["--stream-node-max-bytes", &size.node_bytes]);
        let server = RedisServer::start(options);
        let options: RedisOptions = server.addr().to_string().parse()?;
        let connection = Connection::open(&options, &options.server(), 1).await?;
        connection.load_scripts(&scripts::all(), Duration::from_secs(5)).await?;
        let mut subscriber = Client::connect(server.addr()).await?;
        subscriber.call(&[b"SUBSCRIBE", b"bench"]).await?;
        let keys = Keys::new("bench", 16).map_err(anyhow::Error::msg)?;
        let inbox = Inbox::new(Client::connect(server.addr()).await?, NODE, inbox_key(&keys, NODE));
        let numbers = 0..u32::try_from(size.channels.max(1)).context("too many channels")?;
        let mut bench = Self {
            client: Client::connect(server.addr()).await?,
            subscriber,
            inbox,
            keys,
            replid: connection.hello().replid.clone(),
            channels: numbers.map(|number| Channel { number, epoch: 0 }).collect(),
            next: 0,
            payload: "x".repeat(size.payload),
            serial: 0,
            server,
            size,
        };
        bench.register().await?;
        bench.channels.shuffle(&mut SmallRng::seed_from_u64(1));
        bench.channels.truncate(bench.size.active.max(1));
        Ok(bench)
    }

    /// `redis_version` and the like, from a section of INFO.
    pub fn info(&self, section: &str, key: &str) -> String {
        self.server.info(section).remove(key).unwrap_or_default()
    }

    /// CPU seconds of the server's main thread so far.
    ///
    /// # Errors
    /// Redis refuses.
    pub async fn cpu(&mut self) -> anyhow::Result<f64> {
        let reply = self.client.call(&[b"INFO", b"cpu"]).await?;
        let lines = || reply.text().lines();
        ["used_cpu_user_main_thread:", "used_cpu_sys_main_thread:"]
            .iter()
            .map(|key| {
                let value = lines().find_map(|line| line.strip_prefix(key));
                let value =
                    value.with_context(|| format!("INFO has no {key} (Redis 6.2 or newer is needed)"))?;
                Ok(value.trim().parse::<f64>()?)
            })
            .sum()
    }

    /// `publishes` publishes of one row: the CPU seconds that they took.
    ///
    /// # Errors
    /// Redis refuses, or the inbox did not get each of them.
    pub async fn round(&mut self, work: Work, publishes: usize) -> anyhow::Result<Spent> {
        match work {
            Work::XaddXread => self.xadd_xread(publishes).await,
            Work::Publish => self.publish(publishes).await,
            Work::Script(calls) => self.script(calls, publishes).await,
            Work::Xadd => {
                let to = |bench: &Self, channel: Channel| {
                    bench.xadd(
                        format!("plain:{}", channel.number).as_bytes(),
                        "*",
                        &["MAXLEN", "~", &HISTORY_SIZE.to_string()],
                    )
                };
                self.each(publishes, to).await
            }
            Work::XaddToHistory => {
                let to = |bench: &Self, channel: Channel| {
                    let key = bench.key("h", channel);
                    let size = HISTORY_SIZE.to_string();
                    let words = ["NOMKSTREAM", "MAXLEN", "~", &size];
                    bench.xadd(&key, &format!("{}-*", channel.epoch), &words)
                };
                self.each(publishes, to).await
            }
            Work::Interest => {
                let of = |bench: &Self, channel: Channel| {
                    request(&[b"HGET", &bench.keys.key(0, "i"), channel.name().as_bytes()])
                };
                self.each(publishes, of).await
            }
        }
    }

    /// One plain command for each publish.
    async fn each(
        &mut self,
        publishes: usize,
        command: impl Fn(&Self, Channel) -> Vec<u8>,
    ) -> anyhow::Result<Spent> {
        let channels = self.take(publishes);
        let requests: Vec<_> = channels.map(|at| command(self, self.at(at))).collect();
        let before = self.cpu().await?;
        self.client.pipeline(&requests, self.plain_in_flight()).await?;
        Ok(Spent { writing: self.cpu().await? - before, reading: 0.0 })
    }

    fn plain_in_flight(&self) -> usize {
        self.size.in_flight * LARGEST_CALL
    }

    async fn xadd_xread(&mut self, publishes: usize) -> anyhow::Result<Spent> {
        let one = self.xadd(PLAIN.as_bytes(), "*", &["MAXLEN", "~", INBOX]);
        let requests = vec![one; publishes];
        let before = self.cpu().await?;
        self.client.pipeline(&requests, self.plain_in_flight()).await?;
        let written = self.cpu().await?;
        let (mut last, mut got) = ("0".to_owned(), 0);
        while got < publishes {
            let read: [&[u8]; 6] =
                [b"XREAD", b"COUNT", COUNT.as_bytes(), b"STREAMS", PLAIN.as_bytes(), last.as_bytes()];
            let reply = self.client.call(&read).await?;
            let stream = reply.items().first().and_then(|stream| stream.items().get(1));
            let entries = stream.map_or(&[][..], Value::items);
            let id = entries.last().and_then(|entry| entry.items().first()).map_or("", Value::text);
            ensure!(!id.is_empty(), "only {got} of {publishes} entries were read");
            last = id.to_owned();
            got += entries.len();
        }
        let read = self.cpu().await?;
        self.client.call(&[b"UNLINK", PLAIN.as_bytes()]).await?;
        Ok(Spent { writing: written - before, reading: read - written })
    }

    async fn publish(&mut self, publishes: usize) -> anyhow::Result<Spent> {
        let requests = vec![request(&[b"PUBLISH", b"bench", self.payload.as_bytes()]); publishes];
        let before = self.cpu().await?;
        let in_flight = self.plain_in_flight();
        let received = async {
            for _ in 0..publishes {
                self.subscriber.reply().await?;
            }
            anyhow::Ok(())
        };
        tokio::try_join!(self.client.pipeline(&requests, in_flight), received)?;
        Ok(Spent { writing: self.cpu().await? - before, reading: 0.0 })
    }

    async fn script(&mut self, calls: Calls, publishes: usize) -> anyhow::Result<Spent> {
        let all = self.take(publishes);
        let starts = all.clone().step_by(calls.batch);
        let requests: Vec<_> = starts
            .map(|start| self.call(start..all.end.min(start + calls.batch), calls.keyed, false))
            .collect();
        let before = self.cpu().await?;
        if calls.live {
            let read = self.inbox.read_live(publishes as u64);
            tokio::try_join!(self.client.pipeline(&requests, self.size.in_flight), read)?;
            return Ok(Spent { writing: self.cpu().await? - before, reading: 0.0 });
        }
        self.client.pipeline(&requests, self.size.in_flight).await?;
        let written = self.cpu().await?;
        let got = self.inbox.drain().await?;
        let read = self.cpu().await?;
        ensure!(got == publishes as u64, "{got} of {publishes} publications came to the inbox");
        Ok(Spent { writing: written - before, reading: read - written })
    }

    async fn register(&mut self) -> anyhow::Result<()> {
        let base = self.base();
        for node in 1..=self.size.nodes.max(1) {
            let keep = KEEP.as_millis().to_string();
            let args = [&node.to_string(), "1", "0", &keep, &base, &keep];
            let request = eval(&scripts::REGISTER_NODE, &inbox_key(&self.keys, args[0]), &args);
            self.client.pipeline(&[request], 1).await?;
        }
        for start in (0..self.channels.len()).step_by(MAKING) {
            self.make(start..self.channels.len().min(start + MAKING)).await?;
        }
        Ok(())
    }

    /// Interest and history of some channels.
    async fn make(&mut self, range: Range<usize>) -> anyhow::Result<()> {
        let interests: Vec<_> =
            self.channels[range.clone()].iter().map(|channel| format!("i:{}", channel.name())).collect();
        for some in interests.chunks(INTERESTS) {
            let (base, number) = (self.base(), some.len().to_string());
            let mut args = vec![&*base, &*self.replid, NODE, &*number];
            args.extend(some.iter().map(String::as_str));
            let request = eval(&scripts::CHECK, &self.keys.key(0, "meta"), &args);
            self.client.pipeline(&[request], 1).await?;
        }
        for birth in [true, false] {
            for start in range.clone().step_by(32) {
                let some = start..range.end.min(start + 32);
                let request = self.call(some.clone(), false, birth);
                let replies = self.client.pipeline(&[request], 1).await?;
                let outcomes = replies.first().map_or(&[][..], Value::items);
                for (channel, outcome) in self.channels[some].iter_mut().zip(outcomes.iter().skip(1)) {
                    let (epoch, _) = outcome.text().split_once('-').with_context(|| {
                        format!("the publish script answered {:?}, not a position", outcome.text())
                    })?;
                    channel.epoch = epoch.parse()?;
                }
            }
        }
        self.inbox.drain().await.map(drop)
    }

    /// One call of the publish script for these channels; `birth` without an epoch.
    fn call(&mut self, channels: Range<usize>, keyed: bool, birth: bool) -> Vec<u8> {
        // No Cluster, one setting.
        let head = [self.base(), self.replid.clone(), INBOX.into(), CATALOGUE.into(), "0".into()];
        let setting = Setting {
            history_size: HISTORY_SIZE,
            keep: KEEP,
            refresh: false,
            idempotency_window: WINDOW,
            channel_is_queue: false,
            max_jobs: 1,
        };
        let mut publishes = PublishArgs::default();
        for at in channels {
            let channel = self.at(at);
            let name = channel.name();
            self.serial += 1;
            let record = if keyed {
                idempotency_record("user", &name, &format!("key-{}", self.serial))
            } else {
                String::new()
            };
            let believed = if birth { Believed::Unknown } else { Believed::Epoch(channel.epoch) };
            publishes.push(
                &name,
                self.payload.clone().into(),
                believed,
                setting,
                record.into(),
                &JobOptions::default(),
            );
        }
        let mut args: Vec<Bytes> = head.map(Bytes::from).to_vec();
        publishes.append_to(&mut args);
        eval(&scripts::PUBLISH, &self.keys.key(0, "meta"), &args)
    }

    /// The places of the next `publishes` channels, going round.
    fn take(&mut self, publishes: usize) -> Range<usize> {
        let start = self.next;
        self.next = (start + publishes) % self.channels.len();
        start..start + publishes
    }

    fn at(&self, place: usize) -> Channel {
        self.channels[place % self.channels.len()]
    }

    fn base(&self) -> String {
        String::from_utf8_lossy(&self.keys.base(0)).into_owned()
    }

    fn key(&self, kind: &str, channel: Channel) -> Bytes {
        self.keys.key(0, &format!("{kind}:{}", channel.name()))
    }

    fn xadd(&self, key: &[u8], id: &str, words: &[&str]) -> Vec<u8> {
        let mut args: Vec<&[u8]> = vec![b"XADD", key];
        args.extend(words.iter().map(|word| word.as_bytes()));
        args.extend([id.as_bytes(), b"t", TIME.as_bytes(), b"b", self.payload.as_bytes()]);
        request(&args)
    }
}

fn inbox_key(keys: &Keys, node: &str) -> Bytes {
    keys.key(0, &format!("in:{node}"))
}

fn request(args: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out, args);
    out
}

/// A call of a script.
pub fn eval<A: AsRef<[u8]>>(script: &Script, key: &[u8], args: &[A]) -> Vec<u8> {
    let sha = script.sha();
    let mut all: Vec<&[u8]> = vec![b"EVALSHA", &sha, b"1", key];
    all.extend(args.iter().map(AsRef::as_ref));
    request(&all)
}
