//! What is measured: servers, how they are spoken to, and by which clients.

use std::sync::Arc;

use anyhow::Context as _;
use streamgate_proto::Encoding;

use super::{
    options::{Beside, Clients, Options, Text},
    run::{Outcome, run},
    topology::Topology,
    worker::{Load, Plan, Worker},
};
use crate::{
    clients::{
        dialect::{Detail, Dialect, table::Table},
        endpoint::{Endpoint, Transport},
    },
    measure::redis::Info,
    report::result::Target,
    servers::{self, Servers},
};

/// Warnings of servers that go into a result.
const GREATEST_WARNINGS: usize = 20;

/// Why something is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The result is of it.
    Main,
    /// It is another server that the first is compared with.
    Beside,
    /// It is what the first cannot be better than; the name of the scenario that measures it alone.
    Floor(&'static str),
}

/// Servers under load. Dropping it ends those that were started.
pub struct Subject {
    /// Why it is measured.
    pub role: Role,
    /// Where the nodes are.
    pub servers: Servers,
    transport: Transport,
    dialect: Dialect,
    clients: Clients,
}

impl Subject {
    /// What the options name or let start: the first is what the result is of.
    ///
    /// # Errors
    /// An adapter cannot be read, or those of [`Servers::start`].
    pub async fn all(options: &Options) -> anyhow::Result<Vec<Self>> {
        Self::all_with(options, "").await
    }

    /// The same, where nodes that are started get these settings, in YAML, too.
    ///
    /// # Errors
    /// As those of [`Subject::all`].
    pub async fn all_with(options: &Options, settings: &str) -> anyhow::Result<Vec<Self>> {
        let speech = &options.speech;
        let mut all = vec![Self {
            role: Role::Main,
            dialect: dialect(speech.adapter.as_deref(), speech.transport, options.clients.encoding)?,
            transport: speech.transport,
            servers: Servers::start(&options.servers, settings).await?,
            clients: options.clients.clone(),
        }];
        let Beside { url, adapter, pid, redis } = options.beside.clone();
        if !url.is_empty() {
            let transport = options.beside.transport();
            let args = servers::Args { url, pid, redis, ..servers::Args::default() };
            all.push(Self {
                role: Role::Beside,
                dialect: dialect(adapter.as_deref(), transport, options.clients.encoding)?,
                transport,
                servers: Servers::start(&args, "").await.context("what is measured beside it")?,
                clients: options.clients.clone(),
            });
        }
        Ok(all)
    }

    /// Other servers, spoken to as Streamgate is.
    ///
    /// # Errors
    /// None is known.
    pub fn of(servers: Servers, transport: Transport, clients: &Clients, role: Role) -> anyhow::Result<Self> {
        let dialect = dialect(None, transport, clients.encoding)?;
        Ok(Self { role, dialect, transport, servers, clients: clients.clone() })
    }

    /// The bare writer, in the same encoding.
    ///
    /// # Errors
    /// It does not start.
    pub async fn bare_writer(clients: &Clients, role: Role) -> anyhow::Result<Self> {
        let servers = Servers::own("floor-writer", "floor", "bare writer").await?;
        Self::of(servers, Transport::Ws, clients, role)
    }

    /// One run of `script` on these servers.
    ///
    /// # Errors
    /// Those of [`run`]; or a node has no address for the transport, or Redis does not answer.
    pub async fn run<F>(
        &self,
        topology: Arc<Topology>,
        (load, detail): (Load, Detail),
        script: F,
    ) -> anyhow::Result<Outcome>
    where
        F: AsyncFn(&Worker) -> anyhow::Result<()> + Clone + Send + 'static,
    {
        let endpoints = self.servers.endpoints.iter().map(|node| Endpoint::of(node, self.transport));
        let mut endpoints = endpoints.collect::<anyhow::Result<Vec<Endpoint>>>()?;
        if let Dialect::Table(table) = &self.dialect {
            for endpoint in &mut endpoints {
                endpoint.path.clone_from(&table.path);
                endpoint.reset = false;
            }
        }
        let plan = Plan {
            topology,
            endpoints,
            dialect: self.dialect.clone(),
            detail,
            size: self.clients.size,
            sources: self.clients.source.clone(),
            load,
            run: rand::random(),
            threads: self.clients.threads,
        };
        let before = self.script_calls().await?;
        let outcome = run(plan, self.clients.times(), self.servers.watched(), script).await;
        let mut outcome = match self.role {
            Role::Beside => outcome.context("the server of --beside-url")?,
            Role::Main | Role::Floor(_) => outcome?,
        };
        let calls = before.zip(self.script_calls().await?);
        outcome.script_calls = calls.map(|(before, after)| after.saturating_sub(before));
        outcome.warnings.extend(self.servers.warnings().into_iter().take(GREATEST_WARNINGS));
        Ok(outcome)
    }

    /// How a result describes these servers.
    pub fn target(&self) -> Target {
        let transport = match self.transport {
            Transport::Ws => "ws",
            Transport::Grpc => "grpc",
        };
        let (server, encoding) = match &self.dialect {
            Dialect::Table(table) => (Some(&table.name), "text"),
            Dialect::Streamgate(Encoding::Json) => (None, "json"),
            Dialect::Streamgate(Encoding::Protobuf) => (None, "protobuf"),
        };
        let mut target = self.servers.target(transport, encoding);
        if let Some(name) = server {
            target.server.clone_from(name);
        }
        target
    }

    /// Calls of scripts so far, if Redis is known.
    async fn script_calls(&self) -> anyhow::Result<Option<u64>> {
        let Some(addr) = self.servers.redis else { return Ok(None) };
        Ok(Some(Info::connect(addr).await?.usage().await?.evalsha_calls))
    }
}

fn dialect(adapter: Option<&std::path::Path>, transport: Transport, text: Text) -> anyhow::Result<Dialect> {
    Ok(match (adapter, transport, text) {
        (Some(file), ..) => Dialect::Table(Arc::new(Table::load(file)?)),
        (None, Transport::Grpc, _) | (None, _, Text::Protobuf) => Dialect::Streamgate(Encoding::Protobuf),
        (None, Transport::Ws, Text::Json) => Dialect::Streamgate(Encoding::Json),
    })
}
