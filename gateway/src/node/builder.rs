//! Starting a node.

use std::{
    io,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{runtime::Handle, sync::watch};
use tokio_util::sync::CancellationToken;

use super::{
    Node, broker,
    control::Deployment,
    drain::Draining,
    listen::{accept, bind},
    respond::Respondent,
    tls::ListenersTls,
};
use crate::{
    api::{self, Door, Observability, Readiness, admin, control::Control, operations::Operations},
    auth::{Authenticator, NO_VERSION, RevokedTokens},
    broker::{Broker, BrokerStatus},
    config::{Config, ListenAddr},
    hooks::{Hooks, Lifecycle, SystemChannel},
    peers::NodeCard,
    policy::rights::{Arbiter, Rights},
    rpc::{Handler, Handlers, Router},
    session::Settings,
    shard::{self, Mail, Neighbours, ShardConfig},
    telemetry::metrics,
    transport::{
        grpc::{self, GrpcConfig},
        http,
        ws::OriginPolicy,
    },
};

/// Shortest time between two rounds of keeping all sessions' records anew.
const DOUBTS_REST: Duration = Duration::from_secs(10);

/// A node to be.
pub struct NodeBuilder {
    config: Config,
    broker: Option<Arc<dyn Broker>>,
    handlers: Handlers,
    arbiter: Option<Arc<dyn Arbiter>>,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener cannot be bound.
    #[error("cannot listen on {addr:?} ({key}): {source}")]
    Listen {
        /// Key of the configuration.
        key: &'static str,
        /// What it says.
        addr: ListenAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The broker refuses to start.
    #[error("the broker cannot start: {0}")]
    Broker(String),
    /// A backend's files cannot be used.
    #[error("cannot call backends (proxy): {0}")]
    Hooks(String),
    /// The files of a listener's TLS cannot be used.
    #[error("TLS cannot be spoken ({key}): {reason}")]
    Tls {
        /// Key of the configuration.
        key: &'static str,
        /// Which file, and why.
        reason: String,
    },
    /// A shard's thread or runtime cannot be made, or metrics cannot be installed.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

impl NodeBuilder {
    pub(super) fn new(config: Config) -> Self {
        Self { config, broker: None, handlers: Handlers::default(), arbiter: None }
    }

    /// Uses this broker instead of the configured one.
    #[must_use]
    pub fn broker(mut self, broker: Arc<dyn Broker>) -> Self {
        self.broker = Some(broker);
        self
    }

    /// Answers RPCs in this process: those whose channel and method the globs match (`*` one segment, a last `**`
    /// any number). The first match wins.
    #[must_use]
    pub fn handler(mut self, channel: &str, method: &str, handler: impl Handler) -> Self {
        self.handlers.add(channel, method, handler);
        self
    }

    /// Decides what `permissions` leave to a hook.
    #[must_use]
    pub fn arbiter(mut self, arbiter: Arc<dyn Arbiter>) -> Self {
        self.arbiter = Some(arbiter);
        self
    }

    /// Binds the listeners and starts everything.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub async fn start(self) -> Result<Node, StartError> {
        let config = self.config;
        // Before anything looks up a metric.
        let metrics_handle = metrics::install().map_err(|error| io::Error::other(error.to_string()))?;
        Draining::announce();
        let hooks = Hooks::new(&config.backends, config.rpc_timeout).map_err(StartError::Hooks)?;
        let settings = Settings::new(config.policies.build(), config.limits.clone())
            .authenticator(authenticator(&config, &hooks, &Authenticator::open()))
            .rights(rights(&config), self.arbiter.or_else(|| hooks.arbiter()))
            .revoked(RevokedTokens::unread());
        let websocket = listen("transport.websocket.addr", &config.websocket.addr)?;
        let grpc_listener = listen("transport.grpc.addr", &config.grpc)?;
        let admin_listener = listen("server.http.addr", &config.admin)?;
        let tls = ListenersTls::read(&config).await?;
        let broker = match self.broker {
            Some(broker) => broker,
            None => broker::make(&config.broker, config.lease, &settings.policies)?,
        };
        let delivering = CancellationToken::new();
        let system = config.client_events.clone();
        let system =
            system.map(|channel| SystemChannel::new(broker.clone(), channel, settings.policies.clone()));
        // Before Redis is there: it is told at once whether anybody wants to know of channels.
        let lifecycle = Lifecycle::start(&hooks, system, &broker, config.lease, &delivering);
        // Redis is not there yet: then it is read when it is.
        let _ = settings.revoked.read(&*broker, NO_VERSION).await;
        let origins = OriginPolicy::new(&config.websocket.allowed_origins);
        let running = CancellationToken::new();
        let rpc = Router {
            handlers: self.handlers,
            hooks: hooks.clone(),
            ..Router::new(broker.clone(), running.clone())
        };
        let neighbours = Neighbours::default();
        let shard_config = ShardConfig {
            broker: broker.clone(),
            settings: settings.clone(),
            neighbours: neighbours.clone(),
            rpc: rpc.clone(),
            lifecycle: lifecycle.clone(),
            rpc_timeout: config.rpc_timeout,
            failed: CancellationToken::new(),
            serve: http::serve(http::HttpConfig {
                path: config.websocket.path.clone(),
                origins,
                cors: config.websocket.cors.policy(),
                proxies: config.trusted_proxies.clone(),
                wanted: hooks.wanted_headers(),
            }),
        };
        let admin = admin_listener.local_addr()?;
        let deployment = Deployment { router: rpc.clone(), runtime: Handle::current() };
        let control = Some(Arc::new(deployment) as Arc<dyn Control>);
        let operations = Operations::new(broker.clone(), control, settings.clone(), config.rpc_timeout);
        let mut node = Node {
            api: Door::new(operations, &config.api, admin.ip().to_canonical().is_loopback()),
            websocket: websocket.local_addr()?,
            grpc: grpc_listener.local_addr()?,
            admin,
            shards: Vec::new(),
            draining: Arc::new(watch::Sender::new(false)),
            failed: shard_config.failed.clone(),
            accepting: CancellationToken::new(),
            running,
            listeners: Vec::new(),
            tls,
            config,
            broker,
            settings,
            rpc,
            hooks,
            lifecycle,
            delivering,
        };
        for number in (0u16..).take(node.config.shards) {
            node.shards.push(shard::spawn(number, shard_config.clone())?);
        }
        neighbours.introduce(node.shards.iter().map(|shard| shard.mailbox().clone()));
        node.answer_peers();
        node.follow_doubts();
        node.follow_revocations();
        node.serve_clients(websocket, grpc_listener);
        node.serve_admin(admin_listener, metrics_handle);
        node.listeners.extend(node.tls.watch(&node.running));
        Ok(node)
    }
}

impl Node {
    /// Shows the node to the others, and answers what they ask.
    fn answer_peers(&mut self) {
        let Router { peers, cards, responders, places, .. } = self.rpc.clone();
        peers.respond_with(Arc::new(Respondent {
            shards: self.shards.iter().map(|shard| shard.mailbox().clone()).collect(),
            places: places.clone(),
            responders: responders.clone(),
        }));
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let card = NodeCard {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: host_name(),
            started_at: u64::try_from(started.as_millis()).unwrap_or(u64::MAX),
            websocket: self.websocket.to_string(),
            grpc: self.grpc.to_string(),
            admin: self.admin.to_string(),
            ..NodeCard::default()
        };
        let source =
            move || NodeCard { sessions: places.count() as u64, offers: responders.offers(), ..card.clone() };
        self.listeners.push(tokio::spawn(cards.show(Arc::new(source), self.running.clone())));
    }

    /// Closes the sessions of tokens that are revoked, and lets in no others with them.
    fn follow_revocations(&mut self) {
        let shards: Vec<_> = self.shards.iter().map(|shard| shard.mailbox().clone()).collect();
        let changed = move || {
            for shard in &shards {
                // One that is gone has no sessions.
                shard.send(Mail::Revoked);
            }
        };
        let list = self.settings.revoked.clone();
        let broker = Arc::downgrade(&self.broker);
        self.listeners.push(tokio::spawn(list.follow(broker, changed, self.running.clone())));
    }

    /// Keeps the records of sessions anew when they, or what other nodes said of them, may have been lost.
    fn follow_doubts(&mut self) {
        let shards: Vec<_> = self.shards.iter().map(|shard| shard.mailbox().clone()).collect();
        let (mut doubts, running) = (self.broker.doubts(), self.running.clone());
        let follow = async move {
            while doubts.changed().await.is_ok() {
                for shard in &shards {
                    // One that is gone has no sessions.
                    shard.send(Mail::Doubt);
                }
                // Doubts come in rows, one for each partition.
                tokio::time::sleep(DOUBTS_REST).await;
            }
        };
        self.listeners.push(tokio::spawn(async move {
            // Stopped or not: there is nothing left to follow.
            running.run_until_cancelled(follow).await;
        }));
    }

    fn serve_clients(&mut self, websocket: tokio::net::TcpListener, grpc_listener: tokio::net::TcpListener) {
        let shards: Vec<_> = self.shards.iter().map(|shard| shard.mailbox().clone()).collect();
        let stop = self.accepting.clone();
        let tls = self.tls.websocket.clone();
        self.listeners.push(tokio::spawn(accept(websocket, tls, shards.clone(), stop.clone())));
        let grpc_config = GrpcConfig {
            shards,
            settings: self.settings.clone(),
            proxies: self.config.trusted_proxies.clone(),
            wanted: self.hooks.wanted_headers(),
            tls: self.tls.grpc.clone(),
        };
        self.listeners.push(tokio::spawn(async move {
            if let Err(error) = grpc::serve(grpc_listener, grpc_config, stop).await {
                tracing::error!(%error, "the gRPC listener failed");
            }
        }));
    }

    fn serve_admin(&mut self, listener: tokio::net::TcpListener, metrics_handle: PrometheusHandle) {
        let (status, draining) = (self.broker.status(), self.draining.clone());
        let revoked = self.settings.revoked.clone();
        let observability = Observability::new(metrics_handle.clone(), move || {
            readiness(&status.borrow(), *draining.borrow(), revoked.is_known())
        });
        let router = api::Router::new(observability, self.api.clone());
        self.listeners.push(tokio::spawn(metrics::upkeep(metrics_handle, self.running.clone())));
        let (tls, running) = (self.tls.admin.clone(), self.running.clone());
        self.listeners.push(tokio::spawn(async move {
            admin::serve(listener, tls, router, running).await;
        }));
    }
}

/// A node is ready once its broker was there and until it drains: a broker that is away later is no reason to move
/// clients, every node would be as badly off.
fn readiness(broker: &BrokerStatus, draining: bool, revocations: bool) -> Readiness {
    let (usable, broker, why) = match broker {
        BrokerStatus::Ready | BrokerStatus::Away(_) if !revocations => {
            (false, "ready".to_owned(), "waiting for the list of revocations".to_owned())
        }
        BrokerStatus::Ready => (true, "ready".to_owned(), String::new()),
        BrokerStatus::Away(reason) => (true, format!("away: {reason}"), String::new()),
        BrokerStatus::Starting(reason) => {
            (false, format!("starting: {reason}"), format!("waiting for the broker: {reason}"))
        }
        BrokerStatus::Refused(reason) => {
            (false, format!("refused: {reason}"), format!("the broker refuses: {reason}"))
        }
        BrokerStatus::Stopped => (false, "stopped".to_owned(), "stopped".to_owned()),
    };
    let reason = if draining { "draining".to_owned() } else { why };
    Readiness { ready: usable && !draining, reason, broker, draining }
}

/// What clients may do: on the system channel next to nothing.
fn rights(config: &Config) -> Rights {
    let rights = Rights::new(config.permissions.clone());
    match &config.client_events {
        Some(channel) => rights.guarding(channel.clone()),
        None => rights,
    }
}

/// How clients of a node with this configuration prove who they are; keys that `former` has fetched are taken over.
pub(super) fn authenticator(config: &Config, hooks: &Hooks, former: &Authenticator) -> Authenticator {
    match &config.jwt {
        None if hooks.authenticates() => Authenticator::hook(hooks.clone(), config.allow_anonymous),
        None => Authenticator::open(),
        Some(jwt) => {
            jwt.start(former.verifier(), &Handle::current());
            Authenticator::jwt(jwt.clone(), config.allow_anonymous, Handle::current())
        }
    }
}

fn listen(key: &'static str, addr: &ListenAddr) -> Result<tokio::net::TcpListener, StartError> {
    bind(addr).map_err(|source| StartError::Listen { key, addr: addr.clone(), source })
}

/// The machine's name; in Kubernetes the pod's.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
