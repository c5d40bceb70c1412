//! Options that all scenarios share. What is serialised of them is what makes two results incomparable if it differs.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use anyhow::ensure;
use serde::Serialize;

use super::{run::Times, stamp::Stamp};
use crate::{clients::endpoint::Transport, report, servers};

/// Options of every scenario with clients.
#[derive(Debug, Clone, Default, clap::Args, Serialize)]
pub struct Options {
    #[command(flatten)]
    #[serde(flatten)]
    pub servers: servers::Args,
    #[command(flatten)]
    #[serde(flatten)]
    pub speech: Speech,
    #[command(flatten)]
    #[serde(skip)]
    pub beside: Beside,
    #[command(flatten)]
    #[serde(flatten)]
    pub clients: Clients,
    #[command(flatten)]
    #[serde(flatten)]
    pub output: Output,
}

/// How the servers are spoken to.
#[derive(Debug, Clone, Default, clap::Args, Serialize)]
#[command(next_help_heading = "Clients")]
pub struct Speech {
    /// What carries the frames
    #[arg(long, value_enum, default_value_t = Transport::Ws)]
    #[serde(skip)]
    pub transport: Transport,
    /// Speaks to another server by this table of frames (see loadtest/adapters), which also has the path of the --url
    #[arg(long, value_name = "FILE", requires = "url")]
    #[serde(serialize_with = "report::record_file")]
    pub adapter: Option<PathBuf>,
}

/// A second server, measured in the same run.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Beside it")]
#[group(skip)]
pub struct Beside {
    /// Endpoint of another server that is measured in the same run and at the same rates, in turn with the first, and
    /// compared with it; repeat it for several nodes
    #[arg(id = "beside_url", long = "beside-url", value_name = "URL")]
    pub url: Vec<String>,
    /// Table of frames for it; without one it is spoken to as Streamgate is
    #[arg(id = "beside_adapter", long = "beside-adapter", value_name = "FILE", requires = "beside_url")]
    pub adapter: Option<PathBuf>,
    /// Process id of the node of the --beside-url in the same place
    #[arg(id = "beside_pid", long = "beside-pid", value_name = "PID", requires = "beside_url")]
    pub pid: Vec<u32>,
    /// Redis behind it
    #[arg(id = "beside_redis", long = "beside-redis", value_name = "HOST:PORT", requires = "beside_url")]
    pub redis: Option<String>,
}

/// The clients and how long they are at work.
#[derive(Debug, Clone, clap::Args, Serialize)]
#[command(next_help_heading = "Clients")]
pub struct Clients {
    /// Encoding of the frames on a WebSocket; gRPC is protobuf
    #[arg(long, value_enum, default_value_t = Text::Json)]
    #[serde(skip)]
    pub encoding: Text,
    /// Bytes of a payload
    #[arg(long, default_value_t = 128)]
    pub size: usize,
    /// Threads of clients
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Source address to connect from, in turn if repeated: each has some 28,000 ports for one server
    #[arg(long)]
    pub source: Vec<IpAddr>,
    /// Seconds that are measured
    #[arg(long, default_value_t = 10.0, help_heading = "Run")]
    pub seconds: f64,
    /// Seconds of load before that
    #[arg(long, default_value_t = 2.0, help_heading = "Run")]
    pub warmup: f64,
}

/// Where a result goes, and how many runs it is of.
#[derive(Debug, Clone, Default, clap::Args, Serialize)]
#[command(next_help_heading = "Run")]
pub struct Output {
    /// Runs; the figures are then medians
    #[arg(long, default_value_t = 1)]
    pub repeat: usize,
    /// Writes the result to this file
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub json: Option<PathBuf>,
    /// Writes a report with plots to this file
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub html: Option<PathBuf>,
    /// No progress bars
    #[arg(long, short)]
    #[serde(skip)]
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
    /// That these options fit together, before anything is started.
    ///
    /// # Errors
    /// They do not; the text says which.
    pub fn check(&self) -> anyhow::Result<()> {
        self.output.check()?;
        self.clients.check()?;
        if self.speech.transport == Transport::Grpc {
            let adapter = self.speech.adapter.is_some();
            ensure!(!adapter, "--adapter is for servers with WebSocket, not for --transport grpc");
            let source = !self.clients.source.is_empty();
            ensure!(!source, "--source is for WebSocket, --transport grpc cannot choose one");
        }
        if self.beside.transport() == Transport::Grpc {
            let adapter = self.beside.adapter.is_some();
            ensure!(!adapter, "--beside-adapter is for servers with WebSocket, --beside-url is for gRPC");
        }
        Ok(())
    }

    /// That clients can recover so many messages of a channel, as far as it is known before anything is started.
    ///
    /// # Errors
    /// They cannot.
    pub fn must_recover(&self, messages: u64) -> anyhow::Result<()> {
        let adapters = self.speech.adapter.is_some() || self.beside.adapter.is_some();
        ensure!(!adapters, "clients come back with cursors, which an --adapter has no words for");
        if let Some(history) = self.servers.history {
            ensure!(history >= messages, "--history {history}: {messages} messages are to be recovered");
        }
        Ok(())
    }
}

impl Beside {
    /// What carries its frames, as its URL says.
    pub fn transport(&self) -> Transport {
        let grpc = self.url.iter().any(|url| url.starts_with("http://"));
        if grpc { Transport::Grpc } else { Transport::Ws }
    }
}

impl Clients {
    fn check(&self) -> anyhow::Result<()> {
        ensure!(self.threads > 0, "--threads 0: nobody would connect");
        ensure!(self.seconds > 0.0 && self.warmup >= 0.0, "--seconds and --warmup are times");
        ensure!(self.size >= Stamp::LENGTH, "--size {}: a stamp has {} bytes", self.size, Stamp::LENGTH);
        Ok(())
    }

    /// How long a run is.
    pub fn times(&self) -> Times {
        Times { warmup: Duration::from_secs_f64(self.warmup), measure: Duration::from_secs_f64(self.seconds) }
    }
}

impl Default for Clients {
    fn default() -> Self {
        let source = Vec::new();
        Self { encoding: Text::Json, size: 128, threads: 1, source, seconds: 10.0, warmup: 2.0 }
    }
}

impl Output {
    /// That there will be a result, and that it can be written.
    ///
    /// # Errors
    /// A file cannot be written, or there would be no run.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(self.repeat > 0, "--repeat 0: there would be no result");
        self.json.iter().chain(&self.html).try_for_each(|path| report::check(path))
    }
}
