//! Floors of Redis: its CPU time for each publish, by plain commands and by the gateway's own script without a gateway.
//!
//! `floor-redis`, `floor-script` and `redis-publish` are selections of the same [`rows`]; a sweep runs some of them on
//! servers of different sizes. Everything runs in rounds, one row after the other and one server after the other, so that
//! a disturbance of the machine falls on all alike. What is told of a row is the median of its rounds, for a ratio the
//! median of the rounds' ratios.

mod bench;
mod figures;
mod inbox;
mod rows;
mod spent;
mod table;

use std::{path::PathBuf, time::SystemTime};

use serde::Serialize;

use self::{
    bench::{Bench, Size},
    rows::Rows,
    spent::{Spent, median},
};
use crate::report::{self, html, result::RunResult};

/// What is aimed at: publishes to a call, and greatest multiple of plain XADD, one interested node, reads included.
const AIMS: [(usize, f64); 2] = [(8, 4.0), (32, 3.4)];
/// Greatest multiple of a sweep's first figure.
const FLAT: f64 = 1.25;
/// A round must fit into an inbox, which is read when all is written. Whole calls of 32.
const GREATEST_ROUND: usize = 48_000;
/// Publishes of a row in a sweep, if not fewer are asked for: with more of them small histories grow much deeper than
/// large ones.
const GREATEST_SWEEP: usize = 50_000;
/// Points of a sweep.
const CHANNELS: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];
const NODES: [usize; 2] = [4, 16];

/// How much is published, and how.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub struct Load {
    /// Publishes of each row
    #[arg(long, default_value_t = 200_000)]
    publishes: usize,
    /// Rounds that they are spread over
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// Channels, all in one partition
    #[arg(long, default_value_t = 100)]
    channels: usize,
    /// Publish to no more than so many of the channels, the others are only there; default: to all
    #[arg(long)]
    active: Option<usize>,
    /// Registered nodes, of which one is interested
    #[arg(long, default_value_t = 1)]
    nodes: usize,
    /// Bytes that are stored of a publication
    #[arg(long, default_value_t = 256)]
    payload: usize,
    /// Calls of a script that are sent at once, and 32 times as many plain commands
    #[arg(long, default_value_t = 16)]
    in_flight: usize,
    /// `stream-node-max-bytes` of the server
    #[arg(long, default_value = "512")]
    node_bytes: String,
    #[command(flatten)]
    #[serde(skip)]
    files: Files,
}

/// Where the result goes.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
struct Files {
    /// Writes the result to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes a report to this file; without plots, as nothing is measured second by second
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl Files {
    fn check(&self) -> anyhow::Result<()> {
        self.json.iter().chain(&self.html).try_for_each(|path| report::check(path))
    }

    fn write(&self, result: &RunResult) -> anyhow::Result<()> {
        let json = self.json.as_ref().map_or(Ok(()), |path| report::write(path, result));
        let html = self.html.as_ref().map_or(Ok(()), |path| html::write(path, result));
        json.and(html)
    }
}

/// Options of `redis-publish` and `floor-script`.
#[derive(Debug, Clone, clap::Args, Serialize)]
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    #[serde(flatten)]
    load: Load,
    /// Measure 8 and 32 publishes to a call with 1,000 to 1,000,000 channels and with 4 and 16 nodes instead; at most
    /// 50,000 publishes of each. A million channels take some 2 GiB of memory
    #[arg(long)]
    sweep: bool,
    /// Greatest number of channels of a sweep
    #[arg(long, default_value_t = 1_000_000)]
    max_channels: usize,
}

/// `redis-publish`: every row, with its ratio to plain XADD and what is aimed at.
///
/// # Errors
/// Redis refuses a call, or the result cannot be written. A `redis-server` that cannot be started is a panic.
pub async fn publish(args: Args) -> anyhow::Result<()> {
    scripts("redis-publish", Rows::all(), &args).await
}

/// `floor-script`: the publish script called directly.
///
/// # Errors
/// As [`publish`].
pub async fn script(args: Args) -> anyhow::Result<()> {
    scripts("floor-script", Rows::script(), &args).await
}

/// `floor-redis`: plain XADD and XREAD of the same payloads.
///
/// # Errors
/// As [`publish`].
pub async fn plain(load: Load) -> anyhow::Result<()> {
    load.files.check()?;
    let measured = measure(vec![load.size()], Rows::plain(), load.publishes, load.rounds).await?;
    print!("{}", table::rows(&measured));
    load.files.write(&figures::of_rows(&measured, "floor-redis", &load)?)
}

async fn scripts(scenario: &str, rows: Rows, args: &Args) -> anyhow::Result<()> {
    let load = &args.load;
    load.files.check()?;
    if args.sweep {
        let publishes = load.publishes.min(GREATEST_SWEEP);
        let sizes = sweep(&load.size(), args.max_channels);
        let measured = measure(sizes, Rows::sweep(), publishes, load.rounds).await?;
        print!("{}", table::sweep(&measured));
        return load.files.write(&figures::of_sweep(&measured, scenario, args)?);
    }
    let measured = measure(vec![load.size()], rows, load.publishes, load.rounds).await?;
    print!("{}", table::rows(&measured));
    load.files.write(&figures::of_rows(&measured, scenario, args)?)
}

/// CPU time of Redis for each publish through the script, called directly.
#[derive(Debug, Clone, Copy)]
pub struct ScriptCost {
    /// Script and reading of the inbox, microseconds.
    pub redis_cpu_us_per_publish: f64,
    /// Of it the script, microseconds.
    pub script_us: f64,
    /// Of it the reading, 500 entries at a time when all is written, microseconds.
    pub reading_us: f64,
    /// Plain XADD of the same payload in the same rounds, microseconds.
    pub xadd_us: f64,
}

/// `floor-script` at one batch size, with 100 channels and one node, on a server that is started for it. `payload` is the
/// bytes that are stored of a publication: those of its encoded event and about 21 more.
///
/// # Errors
/// Redis refuses a call. A `redis-server` that cannot be started is a panic.
pub async fn script_cost(batch: usize, payload: usize, publishes: usize) -> anyhow::Result<ScriptCost> {
    let node_bytes = "512".to_owned();
    let size = Size { channels: 100, active: 100, nodes: 1, payload, in_flight: 16, node_bytes };
    let measured = measure(vec![size], Rows::one_script(batch.max(1)), publishes, 10).await?;
    let [xadd, script] = measured.points[0].spent.as_slice() else {
        anyhow::bail!("two rows were asked for")
    };
    Ok(ScriptCost {
        redis_cpu_us_per_publish: median(script.iter().map(Spent::total)),
        script_us: median(script.iter().map(|round| round.writing)),
        reading_us: median(script.iter().map(|round| round.reading)),
        xadd_us: median(xadd.iter().map(Spent::total)),
    })
}

impl Load {
    fn size(&self) -> Size {
        let Self { channels, nodes, payload, in_flight, .. } = *self;
        let active = self.active.unwrap_or(usize::MAX);
        Size { channels, active, nodes, payload, in_flight, node_bytes: self.node_bytes.clone() }
    }
}

/// The servers of a sweep: the first is what the others are compared to.
fn sweep(size: &Size, max_channels: usize) -> Vec<Size> {
    let mut channels = CHANNELS.map(|channels| channels.min(max_channels)).to_vec();
    channels.dedup();
    let first = channels[0];
    let channels = channels.into_iter().map(|channels| Size { channels, ..size.clone() });
    let nodes = NODES.map(|nodes| Size { channels: first, nodes, ..size.clone() });
    channels.chain(nodes.into_iter().filter(|more| more.nodes > size.nodes)).collect()
}

/// What was measured.
#[derive(Debug)]
struct Measured {
    started: SystemTime,
    redis_version: String,
    rows: Rows,
    rounds: usize,
    /// Of a row in a round.
    publishes: usize,
    points: Vec<Point>,
}

/// One server.
#[derive(Debug)]
struct Point {
    size: Size,
    /// By row, then by round: microseconds for each publish.
    spent: Vec<Vec<Spent>>,
    before: Footprint,
    after: Footprint,
}

/// What a server has used so far.
#[derive(Debug, Clone, Copy, Default)]
struct Footprint {
    /// CPU of its main thread, seconds.
    cpu: f64,
    /// Resident memory, KiB.
    rss: u64,
    /// Allocated memory (`used_memory`), bytes.
    memory: u64,
}

/// Runs all rows on servers of these sizes, `publishes` publishes of each in `rounds` rounds.
async fn measure(sizes: Vec<Size>, rows: Rows, publishes: usize, rounds: usize) -> anyhow::Result<Measured> {
    let started = SystemTime::now();
    let (publishes, rounds) = spread(publishes, rounds);
    let mut servers = Vec::new();
    for size in sizes {
        eprintln!("making {} channels, {} nodes", size.channels, size.nodes);
        let mut bench = Bench::start(size.clone()).await?;
        let usage = footprint(&mut bench).await?;
        let spent = vec![Vec::with_capacity(rounds); rows.0.len()];
        servers.push((bench, Point { size, spent, before: usage, after: usage }));
    }
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        for (at, row) in rows.0.iter().enumerate() {
            for (bench, point) in &mut servers {
                point.spent[at].push(bench.round(row.work, publishes).await?.each_of(publishes));
            }
        }
    }
    let redis_version =
        servers.first().map(|(bench, _)| bench.info("server", "redis_version")).unwrap_or_default();
    let mut points = Vec::new();
    for (mut bench, mut point) in servers {
        point.after = footprint(&mut bench).await?;
        points.push(point);
    }
    Ok(Measured { started, redis_version, rows, rounds, publishes, points })
}

/// Publishes of a round and number of rounds: whole calls of every size, and no round too large for an inbox.
fn spread(publishes: usize, rounds: usize) -> (usize, usize) {
    let rounds = rounds.max(1).max(publishes.div_ceil(GREATEST_ROUND));
    ((publishes / rounds).next_multiple_of(32).max(32), rounds)
}

async fn footprint(bench: &mut Bench) -> anyhow::Result<Footprint> {
    let bytes = |key: &str| bench.info("memory", key).parse::<u64>().unwrap_or(0);
    let (rss, memory) = (bytes("used_memory_rss") / 1024, bytes("used_memory"));
    Ok(Footprint { cpu: bench.cpu().await?, rss, memory })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size() -> Size {
        let node_bytes = "512".to_owned();
        Size { channels: 100, active: 100, nodes: 1, payload: 1, in_flight: 1, node_bytes }
    }

    #[test]
    fn rounds_are_whole_calls_and_fit_into_an_inbox() {
        assert_eq!(spread(200_000, 10), (20_000, 10));
        assert_eq!(spread(1, 0), (32, 1));
        assert_eq!(spread(1_000, 10), (128, 10));
        let (publishes, rounds) = spread(1_000_000, 2);
        assert!(publishes <= GREATEST_ROUND && publishes * rounds >= 1_000_000);
    }

    #[tokio::test]
    async fn the_cost_of_the_script_is_told_with_its_parts() {
        let cost = script_cost(8, 150, 640).await.unwrap();
        assert!(cost.script_us > 0.0 && cost.reading_us > 0.0 && cost.xadd_us > 0.0, "{cost:?}");
        assert!(cost.redis_cpu_us_per_publish >= cost.script_us, "{cost:?}");
    }

    #[test]
    fn a_sweep_ends_at_the_greatest_number_of_channels() {
        let points =
            |max| sweep(&size(), max).iter().map(|size| (size.channels, size.nodes)).collect::<Vec<_>>();
        assert_eq!(points(50_000), [(1_000, 1), (10_000, 1), (50_000, 1), (1_000, 4), (1_000, 16)]);
        assert_eq!(points(500), [(500, 1), (500, 4), (500, 16)]);
        assert_eq!(points(usize::MAX).len(), 6);
    }
}
