//! What is under load: nodes that are started here, or those that the command line names.
//!
//! Owns: the options that say so, shared by all scenarios, and the processes that it starts. Nodes that were named are
//! never touched beyond what a client does.

mod node;
mod own;
mod settings;

use std::{net::SocketAddr, path::PathBuf};

use anyhow::{Context as _, bail, ensure};
use serde::Serialize;
use streamgate_e2e::{
    cluster,
    process::{self, GatewayProcess},
    redis_server::RedisServer,
};
use tokio::{net::lookup_host, task::JoinHandle};

pub use node::Node;
pub use own::OwnServer;

use crate::{
    measure::{
        limits::raise_open_files,
        sampler::{Source, Watched},
    },
    report::{record_file, result::Target},
};

/// Options that say what is under load.
#[derive(Debug, Clone, clap::Args, Serialize)]
#[command(next_help_heading = "What is under load")]
#[group(skip)]
pub struct Args {
    /// Node of a running node: ws://HOST:PORT/PATH or, for gRPC, http://HOST:PORT; repeat it for several nodes.
    /// Without it nodes are started here, on this machine
    #[arg(long, value_name = "URL")]
    #[serde(skip)]
    pub url: Vec<String>,
    /// Process id of the node of the --url in the same place, to read its CPU time and memory from /proc
    #[arg(long, requires = "url")]
    #[serde(skip)]
    pub pid: Vec<u32>,
    /// Redis behind the nodes of --url, to read its CPU time and memory by INFO
    #[arg(long, value_name = "HOST:PORT", requires = "url")]
    #[serde(skip)]
    pub redis: Option<String>,
    /// How many nodes to start; more than one need --broker redis
    #[arg(long, default_value_t = 1, conflicts_with = "url")]
    #[serde(skip)]
    pub nodes: usize,
    /// Broker of the nodes that are started; redis starts a redis-server, too
    #[arg(long, value_enum, default_value_t = Broker::Memory, conflicts_with = "url")]
    #[serde(skip)]
    pub broker: Broker,
    /// Settings for the nodes that are started, as in a configuration file of the gateway; they go before the load
    /// generator's own, its elements of `channels` before those of the scenario
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    #[serde(serialize_with = "record_file")]
    pub config: Option<PathBuf>,
    /// `history_size` of the channels on nodes that are started, instead of what the scenario asks for
    #[arg(long, value_name = "N", conflicts_with = "url")]
    pub history: Option<u64>,
}

impl Default for Args {
    fn default() -> Self {
        let (url, pid, redis) = (Vec::new(), Vec::new(), None);
        Self { url, pid, redis, nodes: 1, broker: Broker::Memory, config: None, history: None }
    }
}

/// Broker of the nodes that are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Broker {
    /// Within the one node.
    Memory,
    /// A redis-server that is started, too.
    Redis,
}

impl Broker {
    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Redis => "redis",
        }
    }
}

/// Nodes that are ready. Dropping it ends those that it has started, and their Redis.
pub struct Servers {
    /// Where the nodes are.
    pub endpoints: Vec<Node>,
    /// Names and ids of the processes on this machine that are known: `gateway 1`, `gateway 2` ..., `redis`.
    pub processes: Vec<(String, u32)>,
    /// Redis behind the nodes.
    pub redis: Option<SocketAddr>,
    /// `memory`, `redis`, or empty if not known.
    pub broker: &'static str,
    server: &'static str,
    nodes: Vec<GatewayProcess>,
    own: Vec<OwnServer>,
    /// Declared last: it outlives the nodes.
    _server: Option<RedisServer>,
}

impl Servers {
    /// Finds or starts the nodes. `scenario` is the YAML text of what the scenario needs of the gateway's configuration,
    /// empty for the defaults; it means nothing for nodes that run already.
    ///
    /// # Errors
    /// A URL or the settings are wrong, a name has no address, or something does not start.
    pub async fn start(args: &Args, scenario: &str) -> anyhow::Result<Self> {
        // Before any process is started: it inherits the limit.
        raise_open_files()?;
        if args.url.is_empty() { Self::launch(args, scenario).await } else { Self::find(args).await }
    }

    /// A server of this program's own in the place of a node, as the process `name`, which a result calls `server`.
    ///
    /// # Errors
    /// It does not start.
    pub async fn own(command: &'static str, name: &str, server: &'static str) -> anyhow::Result<Self> {
        raise_open_files()?;
        let own = own(command).await?;
        Ok(Self {
            endpoints: vec![Node::resolve(name.to_owned(), &format!("ws://{}/ws", own.address)).await?],
            processes: vec![(name.to_owned(), own.pid())],
            redis: None,
            broker: "",
            server,
            nodes: Vec::new(),
            own: vec![own],
            _server: None,
        })
    }

    /// Measures this server, too, under this name, and ends it with the others.
    pub fn add(&mut self, name: &str, own: OwnServer) {
        self.processes.push((name.to_owned(), own.pid()));
        self.own.push(own);
    }

    /// What to sample: this process, the nodes and Redis, as far as they are known.
    pub fn watched(&self) -> Vec<Watched> {
        let processes = self.processes.iter().map(|(name, pid)| (name.clone(), Source::Process(*pid)));
        let known = self.processes.iter().any(|(name, _)| name == REDIS);
        let redis = self.redis.filter(|_| !known).map(|addr| (REDIS.to_owned(), Source::Redis(addr)));
        let this = (OWN.to_owned(), Source::Process(std::process::id()));
        processes.chain(redis).chain([this]).map(|(name, source)| Watched { name, source }).collect()
    }

    /// How a result describes it.
    pub fn target(&self, transport: &str, encoding: &str) -> Target {
        Target {
            server: self.server.to_owned(),
            broker: self.broker.to_owned(),
            nodes: self.endpoints.len(),
            transport: transport.to_owned(),
            encoding: encoding.to_owned(),
        }
    }

    /// What the nodes that were started here have warned of or called an error, each line behind the node's name.
    pub fn warnings(&self) -> Vec<String> {
        let lines = self.nodes.iter().enumerate().flat_map(|(at, node)| {
            node.log().into_iter().map(move |line| format!("{}: {line}", gateway(at)))
        });
        lines.filter(|line| line.contains(" WARN ") || line.contains(" ERROR ")).collect()
    }

    async fn find(args: &Args) -> anyhow::Result<Self> {
        let (urls, pids) = (args.url.len(), args.pid.len());
        ensure!(
            pids == 0 || pids == urls,
            "{pids} times --pid, but {urls} times --url: one for each, or none"
        );
        let mut endpoints = Vec::with_capacity(urls);
        for (at, url) in args.url.iter().enumerate() {
            endpoints.push(Node::resolve(gateway(at), url).await?);
        }
        let redis = match &args.redis {
            Some(name) => Some(address(name).await?),
            None => None,
        };
        Ok(Self {
            endpoints,
            processes: args.pid.iter().enumerate().map(|(at, pid)| (gateway(at), *pid)).collect(),
            redis,
            broker: redis.map_or("", |_| Broker::Redis.name()),
            server: STREAMGATE,
            nodes: Vec::new(),
            own: Vec::new(),
            _server: None,
        })
    }

    async fn launch(args: &Args, scenario: &str) -> anyhow::Result<Self> {
        let (count, broker) = (args.nodes, args.broker);
        ensure!(count > 0, "--nodes 0: there is nothing to load");
        ensure!(
            count == 1 || broker == Broker::Redis,
            "--nodes {count} need --broker redis to know each other"
        );
        let settings = settings::read(args.config.as_deref(), scenario, args.history)?;
        blocking("the gateway's binary", process::binary).await?;
        let server = match broker {
            Broker::Redis => Some(blocking("redis-server", cluster::redis).await?),
            Broker::Memory => None,
        };
        let (redis, redis_pid) = server.as_ref().map(|server| (server.addr(), server.pid())).unzip();
        let yaml = settings.yaml(redis)?;
        let mut servers = Self {
            endpoints: Vec::with_capacity(count),
            processes: Vec::with_capacity(count + 1),
            redis,
            broker: broker.name(),
            server: STREAMGATE,
            nodes: Vec::with_capacity(count),
            own: Vec::new(),
            _server: server,
        };
        for at in 0..count {
            let node = node(gateway(at), yaml.clone()).await?;
            servers.endpoints.push(Node::of_node(gateway(at), node.addrs(), &settings.path));
            servers.processes.push((gateway(at), node.pid()));
            servers.nodes.push(node);
        }
        servers.processes.extend(redis_pid.map(|pid| (REDIS.to_owned(), pid)));
        Ok(servers)
    }
}

/// The process of Redis in results.
pub const REDIS: &str = "redis";
/// This process in results.
pub const OWN: &str = "loadtest";
/// A backend that was started here, in results.
pub const BACKEND: &str = "backend";
const STREAMGATE: &str = "streamgate";

fn gateway(at: usize) -> String {
    format!("gateway {}", at + 1)
}

/// Starts a server of this program's own.
///
/// # Errors
/// It does not start.
pub async fn own(command: &'static str) -> anyhow::Result<OwnServer> {
    blocking(command, move || OwnServer::start(command)).await?
}

/// Starts one node and waits until it is ready.
async fn node(name: String, yaml: String) -> anyhow::Result<GatewayProcess> {
    let starting = async move {
        let node = GatewayProcess::start(&yaml).await;
        node.addrs().ready().await;
        node
    };
    unpanicked(&name, tokio::spawn(starting)).await
}

/// Does something of the harness that blocks.
async fn blocking<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    unpanicked(what, tokio::task::spawn_blocking(work)).await
}

/// The harness of the tests panics when something is wrong; here that is an error.
async fn unpanicked<T>(what: &str, task: JoinHandle<T>) -> anyhow::Result<T> {
    match task.await {
        Ok(value) => Ok(value),
        Err(error) if error.is_panic() => {
            let panic = error.into_panic();
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked");
            bail!("{what}: {text}")
        }
        Err(error) => Err(error).with_context(|| what.to_owned()),
    }
}

/// The first address of `host:port`.
async fn address(name: &str) -> anyhow::Result<SocketAddr> {
    let mut found = lookup_host(name).await.with_context(|| format!("cannot resolve {name} (HOST:PORT)"))?;
    found.next().with_context(|| format!("{name} has no address"))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
