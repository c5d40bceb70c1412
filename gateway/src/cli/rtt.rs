//! `streamgate rtt`.

use std::{io::Write as _, time::Duration};

use clap::Args;
use serde_json::json;

use super::{
    ConnectArgs, Failure, Format,
    connect::{Settings, explain},
    question,
    table::table,
};

/// Options of `rtt`.
#[derive(Debug, Args)]
#[command(
    after_help = "Each node that --server names is asked by itself: a question of the protocol and its answer, one after the other.

Examples:
  streamgate rtt
  streamgate rtt --count 1000 --interval 1ms --server grpc://127.0.0.1:9090 --server 127.0.0.1:9080"
)]
pub struct RttArgs {
    /// How often to ask
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub count: u32,
    /// Pause between two questions
    #[arg(long, value_name = "TIME", default_value = "20ms", value_parser = question::timeout)]
    pub interval: Duration,
    /// How to print; json has microseconds
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: Format,
    /// Where the gateway is
    #[command(flatten)]
    pub connect: ConnectArgs,
}

pub(super) async fn run(args: RttArgs) -> Result<(), Failure> {
    let settings = args.connect.settings()?;
    let mut rows = Vec::new();
    for server in &settings.servers {
        rows.push((server, Times::of(measure(&settings, server, &args).await?)));
    }
    let lines = match args.output {
        Format::Text => table(
            ["SERVER", "COUNT", "MIN", "AVG", "P99", "MAX"],
            rows.iter().map(|(server, times)| times.row(server)),
        ),
        Format::Json => rows.iter().map(|(server, times)| times.object(server)).collect(),
    };
    let mut out = std::io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    Ok(out.flush()?)
}

async fn measure(settings: &Settings, server: &String, args: &RttArgs) -> Result<Vec<Duration>, Failure> {
    let builder = settings.builder(std::slice::from_ref(server))?;
    let client = builder.connect().await.map_err(|error| explain(error, 1))?;
    let mut times = Vec::new();
    // The first answer may have to wait for what follows a connect.
    client.ping().await?;
    for _ in 0..args.count {
        tokio::time::sleep(args.interval).await;
        times.push(client.ping().await?);
    }
    client.close().await;
    Ok(times)
}

/// What came out.
#[derive(Debug, PartialEq, Eq)]
struct Times {
    count: usize,
    min: Duration,
    avg: Duration,
    p99: Duration,
    max: Duration,
}

impl Times {
    /// Of at least one time.
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |index: usize| times.get(index).copied().unwrap_or_default();
        let count = times.len();
        let total: Duration = times.iter().sum();
        Self {
            count,
            min: at(0),
            avg: total / u32::try_from(count.max(1)).unwrap_or(u32::MAX),
            // The least of which 99 of 100 are no greater.
            p99: at((count * 99).div_ceil(100).saturating_sub(1)),
            max: at(count.saturating_sub(1)),
        }
    }

    fn row(&self, server: &str) -> [String; 6] {
        let ms = |time: Duration| format!("{:.3} ms", time.as_secs_f64() * 1_000.0);
        let count = self.count.to_string();
        [server.to_owned(), count, ms(self.min), ms(self.avg), ms(self.p99), ms(self.max)]
    }

    fn object(&self, server: &str) -> String {
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        json!({
            "server": server,
            "count": self.count,
            "min_us": us(self.min),
            "avg_us": us(self.avg),
            "p99_us": us(self.p99),
            "max_us": us(self.max),
        })
        .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_the_sorted_times() {
        let times = |range: std::ops::RangeInclusive<u64>| {
            Times::of(range.rev().map(Duration::from_millis).collect())
        };
        let ms = Duration::from_millis;
        let hundred = times(1..=100);
        assert_eq!((hundred.min, hundred.p99, hundred.max), (ms(1), ms(99), ms(100)));
        assert_eq!(hundred.avg, Duration::from_micros(50_500));
        let one = times(7..=7);
        assert_eq!((one.min, one.avg, one.p99, one.max), (ms(7), ms(7), ms(7), ms(7)));
        assert_eq!(one.row("s")[2], "7.000 ms");
    }
}
