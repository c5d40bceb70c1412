//! Options that all scenarios share, and how they become a run and a result.

use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::ensure;
use serde_json::{Map, Value};
use streamgate_proto::Encoding;

use super::{
    probe::Probe,
    run::{Outcome, Times, run},
    stamp::Stamp,
    topology::Topology,
    worker::{Load, Plan, Worker},
};
use crate::{
    clients::{
        dialect::{Detail, Dialect, table::Table},
        endpoint::{Endpoint, Transport},
    },
    measure::machine,
    report::{
        number,
        result::{Correctness, FORMAT, Figure, RunResult, Target},
    },
    servers::{self, Servers},
};

/// Share of the latency from which on the lateness of sending is told of.
const BEHIND: f64 = 0.1;
/// Warnings of servers that go into a result.
const GREATEST_WARNINGS: usize = 20;

/// Options of every scenario with clients.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    #[command(flatten)]
    pub servers: servers::Args,
    /// What carries the frames
    #[arg(long, value_enum, default_value_t = Transport::Ws, help_heading = "Clients")]
    pub transport: Transport,
    /// Encoding of the frames on a WebSocket; gRPC is protobuf
    #[arg(long, value_enum, default_value_t = Text::Json, help_heading = "Clients")]
    pub encoding: Text,
    /// Speaks to another server by this table of frames (see loadtest/adapters), which also has the path of the --url
    #[arg(long, value_name = "FILE", requires = "url", help_heading = "Clients")]
    pub adapter: Option<PathBuf>,
    /// Bytes of a payload
    #[arg(long, default_value_t = 128, help_heading = "Clients")]
    pub size: usize,
    /// Threads of clients
    #[arg(long, default_value_t = 1, help_heading = "Clients")]
    pub threads: usize,
    /// Source address to connect from, in turn if repeated: each has some 28,000 ports for one server
    #[arg(long, help_heading = "Clients")]
    pub source: Vec<IpAddr>,
    /// Seconds that are measured
    #[arg(long, default_value_t = 10.0, help_heading = "Run")]
    pub seconds: f64,
    /// Seconds of load before that
    #[arg(long, default_value_t = 2.0, help_heading = "Run")]
    pub warmup: f64,
    #[command(flatten)]
    pub output: Output,
}

/// Where a result goes, and how many runs it is of.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Run")]
pub struct Output {
    /// Runs; the figures are then medians
    #[arg(long, default_value_t = 1)]
    pub repeat: usize,
    /// Writes the result to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Writes a report with plots to this file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// No progress bars
    #[arg(long, short)]
    pub quiet: bool,
}

/// Encodings of a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Text {
    /// JSON in text frames
    Json,
    /// Protobuf in binary frames
    Protobuf,
}

impl Options {
    /// How the servers are spoken to.
    ///
    /// # Errors
    /// The adapter cannot be read.
    pub fn dialect(&self) -> anyhow::Result<Dialect> {
        Ok(match (&self.adapter, self.transport, self.encoding) {
            (Some(file), ..) => Dialect::Table(Arc::new(Table::load(file)?)),
            (None, Transport::Grpc, _) | (None, _, Text::Protobuf) => Dialect::Streamgate(Encoding::Protobuf),
            (None, Transport::Ws, Text::Json) => Dialect::Streamgate(Encoding::Json),
        })
    }

    /// That these options fit together, before anything is started.
    ///
    /// # Errors
    /// They do not; the text says which.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(self.threads > 0, "--threads 0: nobody would connect");
        ensure!(self.seconds > 0.0 && self.warmup >= 0.0, "--seconds and --warmup are times");
        ensure!(self.size >= Stamp::LENGTH, "--size {}: a stamp has {} bytes", self.size, Stamp::LENGTH);
        if self.transport == Transport::Grpc {
            ensure!(
                self.adapter.is_none(),
                "--adapter is for servers with WebSocket, not for --transport grpc"
            );
            ensure!(self.source.is_empty(), "--source is for WebSocket, --transport grpc cannot choose one");
        }
        Ok(())
    }

    /// That clients can recover so many messages of a channel, as far as it is known before anything is started.
    ///
    /// # Errors
    /// They cannot.
    pub fn must_recover(&self, messages: u64) -> anyhow::Result<()> {
        ensure!(
            self.adapter.is_none(),
            "clients come back with cursors, which an --adapter has no words for"
        );
        if let Some(history) = self.servers.history {
            ensure!(history >= messages, "--history {history}: {messages} messages are to be recovered");
        }
        Ok(())
    }

    /// How long a run is.
    pub fn times(&self) -> Times {
        Times { warmup: Duration::from_secs_f64(self.warmup), measure: Duration::from_secs_f64(self.seconds) }
    }

    /// One run of `script` on these servers.
    ///
    /// # Errors
    /// Those of [`run`]; or there are no threads.
    pub async fn run<F>(
        &self,
        servers: &Servers,
        topology: Arc<Topology>,
        (load, detail): (Load, Detail),
        script: F,
    ) -> anyhow::Result<Outcome>
    where
        F: AsyncFn(&Worker) -> anyhow::Result<()> + Clone + Send + 'static,
    {
        let endpoints = servers.endpoints.iter().map(|node| Endpoint::of(node, self.transport));
        let mut endpoints = endpoints.collect::<anyhow::Result<Vec<Endpoint>>>()?;
        let dialect = self.dialect()?;
        if let Dialect::Table(table) = &dialect {
            endpoints.iter_mut().for_each(|endpoint| endpoint.path.clone_from(&table.path));
        }
        let plan = Plan {
            topology,
            endpoints,
            dialect,
            detail,
            size: self.size,
            sources: self.source.clone(),
            load,
            run: rand::random(),
            threads: self.threads,
        };
        let outcome = run(plan, self.times(), servers.watched(), script).await?;
        let mut warnings = outcome.warnings;
        warnings.extend(servers.warnings().into_iter().take(GREATEST_WARNINGS));
        Ok(Outcome { warnings, ..outcome })
    }

    /// The result of a run, with `options` of the scenario's own.
    ///
    /// # Errors
    /// The adapter cannot be read.
    pub fn result(
        &self,
        scenario: &str,
        target: Target,
        options: Value,
        outcome: Outcome,
        figures: Vec<Figure>,
    ) -> anyhow::Result<RunResult> {
        let p99 = |name| outcome.latency(name).map_or(0.0, |latency| latency.p99);
        let mut notes = outcome.warnings.clone();
        if p99("send lag") > p99("deliver") * BEHIND && p99("deliver") > 0.0 {
            notes.push("the load generator itself was late: see send lag; latencies include it".to_owned());
        }
        let mut all = Map::new();
        for (name, value) in [
            ("seconds", self.seconds.into()),
            ("warmup", self.warmup.into()),
            ("size", self.size.into()),
            ("threads", self.threads.into()),
        ] {
            all.insert(name.to_owned(), value);
        }
        if let Value::Object(own) = options {
            all.extend(own);
        }
        Ok(RunResult {
            started: machine::rfc3339(outcome.begun),
            latencies: outcome.latencies,
            correctness: outcome.correctness,
            processes: outcome.processes,
            series: outcome.series,
            notes,
            ..blank(scenario, target, all, figures)
        })
    }

    /// The same of a scenario that only publishes and delivers: times of the timed run, correctness of all.
    ///
    /// # Errors
    /// The adapter cannot be read.
    pub fn probed(
        &self,
        scenario: &str,
        target: Target,
        options: Value,
        probe: Probe,
        figures: Vec<Figure>,
    ) -> anyhow::Result<RunResult> {
        let (correctness, rate) = (probe.correctness(), probe.rate);
        let mut result = self.result(scenario, target, options, probe.timed, figures)?;
        result.correctness = correctness;
        result.options.insert("rate".to_owned(), rate.into());
        result.phase = format!("at {} publications a second", number::value(rate.round()));
        result.saturated = probe.most.map(|most| {
            let phase = format!("as much as goes, {} publications of each publisher under way", probe.window);
            most.into_phase(phase)
        });
        Ok(result)
    }

    /// How a result describes these servers.
    ///
    /// # Errors
    /// The adapter cannot be read.
    pub fn target(&self, servers: &Servers) -> anyhow::Result<Target> {
        let (transport, encoding) = match (self.transport, self.encoding) {
            (Transport::Grpc, _) => ("grpc", "protobuf"),
            (Transport::Ws, Text::Json) => ("ws", "json"),
            (Transport::Ws, Text::Protobuf) => ("ws", "protobuf"),
        };
        let mut target = servers.target(transport, encoding);
        if let Dialect::Table(table) = self.dialect()? {
            target.server.clone_from(&table.name);
            "text".clone_into(&mut target.encoding);
        }
        Ok(target)
    }
}

/// A result without anything measured by clients.
pub fn blank(scenario: &str, target: Target, options: Map<String, Value>, figures: Vec<Figure>) -> RunResult {
    RunResult {
        format: FORMAT,
        scenario: scenario.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: machine::rfc3339(std::time::SystemTime::now()),
        machine: machine::machine(),
        target,
        options,
        figures,
        latencies: Vec::new(),
        correctness: Correctness::default(),
        processes: Vec::new(),
        series: Vec::new(),
        phase: String::new(),
        saturated: None,
        floors: Vec::new(),
        notes: Vec::new(),
    }
}
