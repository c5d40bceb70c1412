//! The checked settings that a node runs with.

use std::{fmt, sync::Arc, time::Duration};

use hyper::header::HeaderName;

use super::listen::ListenAddr;
use crate::api::ApiToken;
use crate::auth::JwtVerifier;
use crate::broker::redis::TlsOptions;
use crate::channel::Channel;
use crate::hooks::BackendOptions;
use crate::policy::{ChannelPolicy, Limits, Policies, PolicyRule, rights::Rule};
use crate::tls::TlsFiles;
use crate::transport::{TrustedProxies, http::CorsPolicy, ws::OriginPolicy};

/// Everything a node needs to know, checked. Made by [`load`](super::load); [`Config::default`] is what an empty
/// file gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where metrics, health and the server API are served (`server.http.addr`).
    pub admin: ListenAddr,
    /// Its TLS (`server.http.tls`); none: plain.
    pub admin_tls: Option<TlsFiles>,
    /// The WebSocket and client HTTP listener.
    pub websocket: WebSocketConfig,
    /// The gRPC listener (`transport.grpc.addr`).
    pub grpc: ListenAddr,
    /// Its TLS (`transport.grpc.tls`); none: plain.
    pub grpc_tls: Option<TlsFiles>,
    /// Proxies before the node whose word on the address of a client counts (`transport.trusted_proxies`).
    pub trusted_proxies: TrustedProxies,
    /// Where everything lives that must outlive a connection.
    pub broker: BrokerConfig,
    /// Connection shards, 1 to 64: one per core where the file says 0.
    pub shards: usize,
    /// What tokens of clients must be like (`auth.jwt`); none: everybody is anonymous. Reloadable.
    pub jwt: Option<Arc<JwtVerifier>>,
    /// Whether clients without a token may come in though there is authentication, or from other machines though there is
    /// none.
    pub allow_anonymous: bool,
    /// Who may call the server API (`api`). Reloadable.
    pub api: ApiConfig,
    /// Policies by channel pattern. Reloadable.
    pub policies: PolicyTable,
    /// Who may do what (`permissions`). Reloadable.
    pub permissions: Vec<Rule>,
    /// What one client may use. Reloadable.
    pub limits: Limits,
    /// Longest that an RPC may take (`server.rpc_timeout`).
    pub rpc_timeout: Duration,
    /// What is logged, and how.
    pub log: LogConfig,
    /// How long members and interest of a node outlive its last sign of life (`presence.lease`).
    pub lease: Duration,
    /// How a node that shuts down sends its clients away.
    pub drain: DrainConfig,
    /// Backends of the user (`proxy`).
    pub backends: Vec<BackendOptions>,
    /// Where events of sessions and channels are published (`client_events.channel`); none: nowhere.
    pub client_events: Option<Channel>,
}

/// The WebSocket and client HTTP listener (`transport.websocket`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSocketConfig {
    /// Where it listens.
    pub addr: ListenAddr,
    /// Path of the upgrade request.
    pub path: String,
    /// Origins that may connect besides the listener's own; `*` is any.
    pub allowed_origins: Vec<String>,
    /// Which pages may publish and listen over plain HTTP (`transport.websocket.cors`).
    pub cors: CorsConfig,
    /// Its TLS; none: plain.
    pub tls: Option<TlsFiles>,
}

/// Requests of web pages (`transport.websocket.cors`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorsConfig {
    /// Origins that may ask besides the listener's own; `*` is any.
    pub allowed_origins: Vec<String>,
    /// Headers that they may send besides those that are always allowed.
    pub allowed_headers: Vec<HeaderName>,
    /// Whether browsers send cookies and client certificates along.
    pub credentials: bool,
    /// How long browsers may remember what is allowed.
    pub max_age: Duration,
}

impl CorsConfig {
    /// What the listener goes by.
    #[must_use]
    pub fn policy(&self) -> CorsPolicy {
        let origins = OriginPolicy::new(&self.allowed_origins);
        CorsPolicy::new(origins, self.allowed_headers.clone(), self.credentials, self.max_age)
    }
}

/// Which broker, and its settings (`broker`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerConfig {
    /// One node, in memory.
    Memory(MemoryConfig),
    /// Any number of nodes, on Redis Streams.
    Redis(Box<RedisConfig>),
}

/// The memory broker (`broker.memory`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryConfig {
    /// Bytes that history may hold in all.
    pub max_bytes: usize,
}

/// The Redis broker (`broker.redis`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisConfig {
    /// How Redis is set up.
    pub mode: RedisMode,
    /// `host:port`; a host may be a name, it is resolved at each connect. One server, all the
    /// Sentinels, or nodes of a Cluster to ask first. Never empty.
    pub addrs: Vec<String>,
    /// What is needed at the Sentinels: present with [`RedisMode::Sentinel`] only.
    pub sentinel: Option<SentinelConfig>,
    /// ACL user; none: the default user.
    pub username: Option<String>,
    /// Password of the user.
    pub password: Option<Password>,
    /// How to speak TLS; none: plain TCP.
    pub tls: Option<TlsOptions>,
    /// Logical database.
    pub db: u8,
    /// What every key starts with.
    pub key_prefix: String,
    /// Hash slices of channels; fixed for a deployment.
    pub partitions: u16,
    /// Longest that opening a connection may take, handshake included.
    pub connect_timeout: Duration,
    /// Longest that a command may take before its connection is given up.
    pub command_timeout: Duration,
    /// Entries that an inbox keeps for a node that does not read, about; each partition has one.
    pub inbox_max_length: u64,
    /// How long an inbox outlives the last sign of its node.
    pub inbox_ttl: Duration,
}

/// The Sentinels (`broker.redis.sentinel`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentinelConfig {
    /// What they call the master.
    pub master_name: String,
    /// ACL user at the Sentinels; none: the default user.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<Password>,
}

/// How Redis is set up (`broker.redis.mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedisMode {
    /// One server.
    Standalone,
    /// One master that Sentinels watch over.
    Sentinel,
    /// A Redis Cluster.
    Cluster,
}

/// A secret that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Wraps a secret.
    #[must_use]
    pub fn new(secret: String) -> Self {
        Self(secret)
    }

    /// The secret itself: for the wire only.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(***)")
    }
}

/// Policies as configured (`channels`); what [`Policies`] is made from and replaced with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicyTable {
    /// The first rule that matches wins.
    pub rules: Vec<PolicyRule>,
    /// What holds where no rule matches.
    pub fallback: ChannelPolicy,
}

impl PolicyTable {
    /// A table for lookups.
    #[must_use]
    pub fn build(&self) -> Policies {
        Policies::new(self.rules.clone(), self.fallback.clone())
    }

    /// Makes this the table of a running node.
    pub fn install(&self, policies: &Policies) {
        policies.replace(self.rules.clone(), self.fallback.clone());
    }
}

/// The server API (`api`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiConfig {
    /// Who may call it; none: this machine, if the admin listener is bound to loopback.
    pub tokens: Vec<ApiToken>,
    /// Greatest request, in bytes.
    pub max_request_bytes: usize,
}

/// What is logged (`log`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// A level, or directives such as `info,streamgate=debug`. Reloadable.
    pub level: String,
    /// Text or JSON.
    pub format: LogFormat,
}

/// How a line of the log looks (`log.format`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How a node that shuts down sends its clients away (`drain`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainConfig {
    /// Time over which their connections are closed, evenly.
    pub duration: Duration,
    /// Time before that in which the node is not ready but serves and accepts as before, so that balancers notice.
    pub delay: Duration,
}
