//! Scenario: CPU time of Redis for each publish, in batches, with one interested node that reads its inbox; beside
//! plain XADD and PUBLISH in the same run.
//!
//! It calls the gateway's own scripts on a server of its own. Everything runs in rounds, one row after the other, so
//! that a disturbance of the machine falls on all rows alike. What is printed of a row is the median of its rounds, for
//! the ratio to plain XADD the median of the rounds' ratios.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use streamgate::broker::redis::{
    Connection, RedisOptions, Script,
    keys::{Keys, idempotency_record},
    scripts,
};
use streamgate_e2e::redis_server::{RedisServer, RedisServerOptions};

use crate::resp::{Client, Value, encode};

/// The one interested node.
const NODE: &str = "1";
/// Entries in one read of the inbox, as in the gateway.
const COUNT: &str = "500";
/// Consumed entries after which the gateway trims its inbox.
const TRIM: u64 = 2_000;
/// `history_size` and greatest length of an inbox: the gateway's defaults.
const HISTORY: &str = "1000";
const INBOX: &str = "100000";
/// How long a history, an inbox and an idempotency record are kept.
const KEEP_MS: &str = "900000";
const WINDOW_MS: &str = "300000";

/// Options of `redis-publish`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Publishes of each row
    #[arg(long, default_value_t = 200_000)]
    publishes: usize,
    /// Rounds that they are spread over
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// Channels, all in one partition
    #[arg(long, default_value_t = 100)]
    channels: usize,
    /// Bytes of a publication
    #[arg(long, default_value_t = 256)]
    payload: usize,
    /// Commands, or calls of a script, that are sent at once
    #[arg(long, default_value_t = 16)]
    in_flight: usize,
    /// `stream-node-max-bytes` of the server
    #[arg(long, default_value = "512")]
    node_bytes: String,
}

/// What a row does.
#[derive(Debug, Clone, Copy)]
enum Work {
    Xadd,
    Publish,
    Script(Calls),
}

/// How the publish script is called and its inbox read.
#[derive(Debug, Clone, Copy)]
struct Calls {
    batch: usize,
    /// With an idempotency key each.
    keyed: bool,
    /// A reader blocks on the inbox meanwhile; else it is read when all is written, 500 entries at a time.
    live: bool,
}

const ROWS: [(&str, Work); 11] = [
    ("plain XADD with MAXLEN ~", Work::Xadd),
    ("plain PUBLISH, one subscriber", Work::Publish),
    ("publish script, 1 to a call", script(1, false, false)),
    ("publish script, 8 to a call", script(8, false, false)),
    ("publish script, 32 to a call", script(32, false, false)),
    ("1 to a call, with idempotency keys", script(1, true, false)),
    ("8 to a call, with idempotency keys", script(8, true, false)),
    ("32 to a call, with idempotency keys", script(32, true, false)),
    ("1 to a call, reader blocks on the inbox", script(1, false, true)),
    ("8 to a call, reader blocks on the inbox", script(8, false, true)),
    ("32 to a call, reader blocks on the inbox", script(32, false, true)),
];

const fn script(batch: usize, keyed: bool, live: bool) -> Work {
    Work::Script(Calls { batch, keyed, live })
}

/// CPU seconds of a row in a round, or microseconds for each publish.
#[derive(Debug, Clone, Copy, Default)]
struct Spent {
    writing: f64,
    /// Zero where it is not told apart.
    reading: f64,
}

impl Spent {
    fn total(&self) -> f64 {
        self.writing + self.reading
    }
}

/// What is aimed at: publishes to a call, and greatest multiple of plain XADD, one interested node, reads included.
const AIMS: [(&str, usize, f64); 2] =
    [("8 publishes to a call", 8, 4.2), ("32 publishes to a call", 32, 3.6)];

/// Measures and prints.
///
/// # Errors
/// Redis refuses a call. A `redis-server` that cannot be started is a panic.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let size = (args.publishes / args.rounds.max(1)).next_multiple_of(32).max(32);
    let mut bench = Bench::start(args).await?;
    let mut spent = vec![Vec::new(); ROWS.len()];
    for round in 0..bench.args.rounds.max(1) {
        eprintln!("round {} of {}", round + 1, bench.args.rounds.max(1));
        for ((_, work), row) in ROWS.iter().zip(&mut spent) {
            let round = bench.row(*work, size).await?;
            let micros = |seconds: f64| seconds * 1e6 / size as f64;
            row.push(Spent { writing: micros(round.writing), reading: micros(round.reading) });
        }
    }
    bench.print(&spent, size);
    Ok(())
}

struct Bench {
    args: Args,
    server: RedisServer,
    client: Client,
    reader: Client,
    subscriber: Client,
    keys: Keys,
    replid: String,
    /// Names with the epoch of their history.
    channels: Vec<(String, String)>,
    payload: Vec<u8>,
    /// Numbers the idempotency keys.
    serial: u64,
}

impl Bench {
    /// A server with the scripts, one node, its interest and the histories.
    async fn start(args: Args) -> anyhow::Result<Self> {
        let options = RedisServerOptions::default().args(&["--stream-node-max-bytes", &args.node_bytes]);
        let server = RedisServer::start(options);
        let options: RedisOptions = server.addr().to_string().parse()?;
        let connection = Connection::open(&options, &options.server(), 1).await?;
        connection.load_scripts(&scripts::all(), Duration::from_secs(5)).await?;
        let mut subscriber = Client::connect(server.addr()).await?;
        subscriber.call(&[b"SUBSCRIBE", b"bench"]).await?;
        let mut bench = Self {
            client: Client::connect(server.addr()).await?,
            reader: Client::connect(server.addr()).await?,
            subscriber,
            keys: Keys::new("bench", 16).map_err(anyhow::Error::msg)?,
            replid: connection.hello().replid.clone(),
            channels: (0..args.channels.max(1)).map(|n| (format!("bench.{n}"), String::new())).collect(),
            payload: vec![b'x'; args.payload],
            serial: 0,
            server,
            args,
        };
        bench.register().await?;
        Ok(bench)
    }

    async fn register(&mut self) -> anyhow::Result<()> {
        let inbox = self.inbox();
        let base = String::from_utf8(self.keys.base(0).to_vec())?;
        let request = eval(&scripts::REGISTER_NODE, &inbox, &[NODE, "1", "0", KEEP_MS, &base, KEEP_MS]);
        self.client.pipeline(&[request], 1).await?;
        for at in 0..self.channels.len() {
            let interest = self.keys.key(0, &format!("i:{}", self.channels[at].0));
            self.client.call(&[b"SADD", &interest, NODE.as_bytes()]).await?;
            let request = self.call(at, 1, false);
            let replies = self.client.pipeline(&[request], 1).await?;
            let position = replies.first().and_then(|reply| reply.items().get(1)).map_or("", Value::text);
            let (epoch, _) = position.split_once('-').context("the publish script answered no position")?;
            self.channels[at].1 = epoch.to_owned();
        }
        self.drain().await
    }

    fn inbox(&self) -> Bytes {
        self.keys.key(0, &format!("in:{NODE}"))
    }

    /// One call of the publish script with `batch` publishes to the channels from `first` on.
    fn call(&mut self, first: usize, batch: usize, keyed: bool) -> Vec<u8> {
        let base = String::from_utf8_lossy(&self.keys.base(0)).into_owned();
        let payload = String::from_utf8_lossy(&self.payload).into_owned();
        let mut args = vec![base, self.replid.clone(), INBOX.to_owned()];
        // No Cluster, one setting.
        args.extend(["1000000", "0", "1", HISTORY, KEEP_MS, "0", WINDOW_MS].map(str::to_owned));
        for at in first..first + batch {
            let (channel, epoch) = &self.channels[at % self.channels.len()];
            self.serial += 1;
            let record = if keyed {
                idempotency_record("user", channel, &format!("key-{}", self.serial))
            } else {
                String::new()
            };
            args.extend([channel.clone(), payload.clone(), epoch.clone(), "1".to_owned(), record]);
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        eval(&scripts::PUBLISH, &self.keys.key(0, "meta"), &args)
    }

    /// `size` publishes of one row.
    async fn row(&mut self, work: Work, size: usize) -> anyhow::Result<Spent> {
        match work {
            Work::Xadd => self.xadd(size).await,
            Work::Publish => self.publish(size).await,
            Work::Script(calls) => self.script(calls, size).await,
        }
    }

    async fn xadd(&mut self, size: usize) -> anyhow::Result<Spent> {
        let requests: Vec<_> = (0..size)
            .map(|at| {
                let key = format!("plain:{}", at % self.channels.len());
                request(
                    &["XADD", &key, "MAXLEN", "~", HISTORY, "*", "t", "1767225600000", "b"],
                    &self.payload,
                )
            })
            .collect();
        let before = self.server.cpu_seconds();
        self.client.pipeline(&requests, self.args.in_flight).await?;
        Ok(Spent { writing: self.server.cpu_seconds() - before, reading: 0.0 })
    }

    async fn publish(&mut self, size: usize) -> anyhow::Result<Spent> {
        let requests: Vec<_> = (0..size).map(|_| request(&["PUBLISH", "bench"], &self.payload)).collect();
        let before = self.server.cpu_seconds();
        let received = async {
            for _ in 0..size {
                self.subscriber.reply().await?;
            }
            anyhow::Ok(())
        };
        tokio::try_join!(self.client.pipeline(&requests, self.args.in_flight), received)?;
        Ok(Spent { writing: self.server.cpu_seconds() - before, reading: 0.0 })
    }

    async fn script(&mut self, calls: Calls, size: usize) -> anyhow::Result<Spent> {
        let starts = (0..size).step_by(calls.batch);
        let requests: Vec<_> = starts.map(|first| self.call(first, calls.batch, calls.keyed)).collect();
        let inbox = self.inbox();
        let before = self.server.cpu_seconds();
        if calls.live {
            let read = read_live(&mut self.reader, &inbox, size as u64);
            tokio::try_join!(self.client.pipeline(&requests, self.args.in_flight), read)?;
            return Ok(Spent { writing: self.server.cpu_seconds() - before, reading: 0.0 });
        }
        self.client.pipeline(&requests, self.args.in_flight).await?;
        let written = self.server.cpu_seconds();
        self.drain().await?;
        Ok(Spent { writing: written - before, reading: self.server.cpu_seconds() - written })
    }

    /// Reads the inbox to its end.
    async fn drain(&mut self) -> anyhow::Result<()> {
        let inbox = self.inbox();
        let mut trim = Trim::default();
        loop {
            let reply = self.reader.call(&read(&inbox, None)).await?;
            if reply == Value::Nil {
                return trim.now(&mut self.reader, &inbox).await;
            }
            trim.after(&mut self.reader, &inbox, &reply).await?;
        }
    }

    /// Prints the rows; `spent` is microseconds, round by round.
    fn print(&self, spent: &[Vec<Spent>], size: usize) {
        let version = self.server.info("server").get("redis_version").cloned().unwrap_or_default();
        println!(
            "CPU of Redis {version} (main thread) for each publish of {} B, {} channels, {} commands or calls sent at \
             once, stream-node-max-bytes {}; medians of {} rounds of {size} publishes",
            self.args.payload,
            self.args.channels,
            self.args.in_flight,
            self.args.node_bytes,
            self.args.rounds.max(1)
        );
        let columns = ("us", "x XADD", "script us", "reading us");
        println!("{:<42} {:>8} {:>8} {:>10} {:>11}", "", columns.0, columns.1, columns.2, columns.3);
        for ((name, work), rounds) in ROWS.iter().zip(spent) {
            let us = median(rounds.iter().map(Spent::total));
            let (mut writing, mut reading) = (String::new(), String::new());
            if matches!(work, Work::Script(Calls { live: false, .. })) {
                writing = format!("{:.2}", median(rounds.iter().map(|round| round.writing)));
                reading = format!("{:.2}", median(rounds.iter().map(|round| round.reading)));
            }
            println!("{name:<42} {us:>8.2} {:>8.2} {writing:>10} {reading:>11}", ratio(spent, rounds));
        }
        for (name, batch, aim) in AIMS {
            let row = ROWS.iter().zip(spent).find(|((_, work), _)| {
                matches!(work, Work::Script(calls) if calls.batch == batch && !calls.keyed && !calls.live)
            });
            let got = row.map_or(f64::NAN, |(_, rounds)| ratio(spent, rounds));
            let verdict = if got <= aim { "met" } else { "missed" };
            println!("{name}: {got:.2} x plain XADD, aim at most {aim}: {verdict}");
        }
    }
}

/// Median over the rounds of a row's cost divided by that of plain XADD (the first row) in the same round.
fn ratio(spent: &[Vec<Spent>], rounds: &[Spent]) -> f64 {
    let xadd = spent.first().map_or(&[][..], Vec::as_slice);
    median(rounds.iter().zip(xadd).map(|(round, xadd)| round.total() / xadd.total()))
}

/// The middle one; of an even number the higher of the two.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Reads `size` publications as they come.
async fn read_live(reader: &mut Client, inbox: &[u8], size: u64) -> anyhow::Result<()> {
    let (mut trim, mut got) = (Trim::default(), 0);
    while got < size {
        let reply = reader.call(&read(inbox, Some("1000"))).await?;
        got += trim.after(reader, inbox, &reply).await?;
    }
    trim.now(reader, inbox).await
}

/// Drops consumed entries of the inbox as often as the gateway does.
#[derive(Debug, Default)]
struct Trim {
    consumed: u64,
    /// Sequence that was read last.
    last: u64,
}

impl Trim {
    /// Takes what a read answered; how many publications that were.
    async fn after(&mut self, reader: &mut Client, inbox: &[u8], reply: &Value) -> anyhow::Result<u64> {
        let entries =
            reply.items().first().and_then(|stream| stream.items().get(1)).map_or(&[][..], Value::items);
        let mut got = 0;
        for entry in entries {
            // A pair of fields for each publication; the entry has the sequence of its first one.
            let publications = entry.items().get(1).map_or(0, |fields| fields.items().len() as u64 / 2);
            let id = entry.items().first().map_or("", Value::text);
            let sequence: u64 = id.split_once('-').map_or("", |(_, sequence)| sequence).parse()?;
            self.last = sequence + publications - 1;
            got += publications;
        }
        self.consumed += got;
        if self.consumed >= TRIM {
            self.now(reader, inbox).await?;
        }
        Ok(got)
    }

    async fn now(&mut self, reader: &mut Client, inbox: &[u8]) -> anyhow::Result<()> {
        self.consumed = 0;
        let request = eval(&scripts::RENEW_INBOX, inbox, &[NODE, &self.last.to_string(), KEEP_MS]);
        reader.pipeline(&[request], 1).await.map(drop)
    }
}

/// The gateway's read of its inbox.
fn read<'a>(inbox: &'a [u8], block_ms: Option<&'a str>) -> Vec<&'a [u8]> {
    let mut args: Vec<&[u8]> = vec![b"XREADGROUP", b"GROUP", b"g1", b"bench", b"COUNT", COUNT.as_bytes()];
    if let Some(block_ms) = block_ms {
        args.extend([&b"BLOCK"[..], block_ms.as_bytes()]);
    }
    args.extend([&b"NOACK"[..], b"STREAMS", inbox, b">"]);
    args
}

fn request(args: &[&str], last: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut all: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
    all.push(last);
    encode(&mut out, &all);
    out
}

fn eval(script: &Script, key: &[u8], args: &[&str]) -> Vec<u8> {
    let (mut out, sha) = (Vec::new(), script.sha());
    let mut all: Vec<&[u8]> = vec![b"EVALSHA", &sha, b"1", key];
    all.extend(args.iter().map(|arg| arg.as_bytes()));
    encode(&mut out, &all);
    out
}
