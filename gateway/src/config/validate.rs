//! From what is written to what a node runs with: every range, every rule between keys, all problems at once.

use std::{net::SocketAddr, thread::available_parallelism, time::Duration};

use super::{
    api::api,
    auth::auth,
    backends::{authenticates, backends},
    broker::broker,
    checks::Checks,
    error::{ConfigError, Problem},
    listen::ListenAddr,
    permissions::permissions,
    policies::{limits, policies},
    runtime::{Config, CorsConfig, DrainConfig, LogConfig, LogFormat, WebSocketConfig},
    schema::{ClientEvents, Cors, Drain, Log, Root, WebSocket},
    tls::listener_tls,
    trusted_proxies::trusted_proxies,
};
use crate::channel::Channel;

/// Sinks that a broker can have ([`SinkId`](crate::broker::SinkId)).
const MAX_SHARDS: u64 = 64;

/// Checks everything; the second value is the warnings.
pub(super) fn validate(root: Root) -> Result<(Config, Vec<Problem>), ConfigError> {
    let mut checks = Checks::default();
    let server = root.server.unwrap_or_default();
    let transport = root.transport.unwrap_or_default();
    let (fallback, broker) = broker(&mut checks, root.broker.unwrap_or_default());
    let idle_timeout = server.heartbeat.unwrap_or_default().idle_timeout;
    let (admin, mut grpc_keys) = (server.http.unwrap_or_default(), transport.grpc.unwrap_or_default());
    let limits = limits(&mut checks, root.limits.unwrap_or_default(), idle_timeout);
    let config = Config {
        admin_tls: listener_tls(&mut checks, "server.http.tls", admin.tls),
        admin: checks.listen("server.http.addr", admin.addr, local(8080)),
        websocket: websocket(&mut checks, transport.websocket.unwrap_or_default()),
        grpc_tls: listener_tls(&mut checks, "transport.grpc.tls", grpc_keys.tls.take()),
        grpc: grpc(&mut checks, grpc_keys),
        trusted_proxies: trusted_proxies(&mut checks, transport.trusted_proxies, transport.forwarded_header),
        broker,
        shards: shards(&mut checks, root.shards),
        jwt: auth(&mut checks, root.auth.unwrap_or_default()),
        api: api(&mut checks, root.api.unwrap_or_default()),
        allow_anonymous: root.allow_anonymous.unwrap_or(false),
        policies: policies(&mut checks, root.channels.unwrap_or_default(), fallback, limits.frame_bytes),
        permissions: permissions(&mut checks, root.permissions.unwrap_or_default()),
        limits,
        rpc_timeout: checks.span(
            "server.rpc_timeout",
            server.rpc_timeout,
            Duration::from_secs(30),
            1..=3_600_000,
        ),
        log: log(&mut checks, root.log.unwrap_or_default()),
        lease: checks.span(
            "presence.lease",
            root.presence.unwrap_or_default().lease,
            Duration::from_secs(10),
            1_000..=600_000,
        ),
        drain: drain(&mut checks, root.drain.unwrap_or_default()),
        backends: backends(&mut checks, root.proxy.unwrap_or_default()),
        client_events: client_events(&mut checks, root.client_events.unwrap_or_default()),
    };
    refuse_open_doors(&mut checks, &config);
    if checks.problems.is_empty() {
        Ok((config, checks.warnings))
    } else {
        Err(ConfigError { problems: checks.problems })
    }
}

fn local(port: u16) -> ListenAddr {
    SocketAddr::from(([127, 0, 0, 1], port)).into()
}

fn shards(checks: &mut Checks, value: Option<u64>) -> usize {
    match checks.number("shards", value, 0, 0..=MAX_SHARDS) {
        0 => available_parallelism().map_or(1, usize::from).min(MAX_SHARDS as usize),
        shards => shards,
    }
}

fn websocket(checks: &mut Checks, keys: WebSocket) -> WebSocketConfig {
    let key = "transport.websocket";
    for (name, present) in [
        ("read_timeout", keys.read_timeout.is_some()),
        ("write_timeout", keys.write_timeout.is_some()),
        ("compression", keys.compression == Some(true)),
    ] {
        if present {
            checks.warn(&format!("{key}.{name}"), "has no meaning here and is ignored");
        }
    }
    let path = keys.path.unwrap_or_else(|| "/ws".to_owned());
    if !path.starts_with('/') || path.contains(['?', '#', '*', '{']) || path.contains(char::is_whitespace) {
        checks.wrong(
            &format!("{key}.path"),
            format!("`{path}` is not a path: it starts with / and has no ?, #, *"),
        );
    }
    let allowed_origins = origins(checks, key, keys.allowed_origins);
    let cors = cors(checks, &format!("{key}.cors"), keys.cors.unwrap_or_default());
    WebSocketConfig {
        addr: checks.listen(&format!("{key}.addr"), keys.addr, local(9080)),
        path,
        allowed_origins,
        cors,
        tls: listener_tls(checks, &format!("{key}.tls"), keys.tls),
    }
}

fn origins(checks: &mut Checks, key: &str, origins: Option<Vec<String>>) -> Vec<String> {
    let origins = origins.unwrap_or_default();
    for (at, origin) in origins.iter().enumerate() {
        if !is_origin(origin) {
            checks.wrong(
                &format!("{key}.allowed_origins[{at}]"),
                format!("`{origin}` is not an origin: write scheme://host or scheme://host:port, null, or *"),
            );
        }
    }
    origins
}

fn cors(checks: &mut Checks, key: &str, keys: Cors) -> CorsConfig {
    let allowed_origins = origins(checks, key, keys.allowed_origins);
    let credentials = keys.credentials.unwrap_or(false);
    if credentials && allowed_origins.iter().any(|origin| origin == "*") {
        let text = "does not go with the origin *: every page could act as the user of the browser";
        checks.wrong(&format!("{key}.credentials"), text);
    }
    let mut allowed_headers = Vec::new();
    for (at, name) in keys.allowed_headers.unwrap_or_default().iter().enumerate() {
        match name.parse() {
            Ok(name) => allowed_headers.push(name),
            Err(_) => checks.wrong(
                &format!("{key}.allowed_headers[{at}]"),
                format!("`{name}` is not the name of a header"),
            ),
        }
    }
    let max_age =
        checks.span(&format!("{key}.max_age"), keys.max_age, Duration::from_secs(600), 0..=86_400_000);
    CorsConfig { allowed_origins, allowed_headers, credentials, max_age }
}

fn grpc(checks: &mut Checks, keys: super::schema::Grpc) -> ListenAddr {
    if keys.write_timeout.is_some() {
        checks.warn("transport.grpc.write_timeout", "has no meaning here and is ignored");
    }
    checks.listen("transport.grpc.addr", keys.addr, local(9090))
}

/// RFC 6454: scheme, host and port, nothing behind them.
fn is_origin(text: &str) -> bool {
    if matches!(text, "*" | "null") {
        return true;
    }
    text.split_once("://").is_some_and(|(scheme, host)| {
        !scheme.is_empty()
            && !host.is_empty()
            && !host.contains(['/', '?', '#', '@', '*'])
            && !text.contains(char::is_whitespace)
    })
}

fn drain(checks: &mut Checks, keys: Drain) -> DrainConfig {
    DrainConfig {
        duration: checks.span("drain.duration", keys.duration, Duration::from_secs(10), 0..=3_600_000),
        delay: checks.span("drain.delay", keys.delay, Duration::ZERO, 0..=600_000),
    }
}

/// The channel, if there is to be one.
fn client_events(checks: &mut Checks, keys: ClientEvents) -> Option<Channel> {
    let name = keys.channel.filter(|name| !name.is_empty())?;
    Channel::parse(&name).map_err(|error| checks.wrong("client_events.channel", error.to_string())).ok()
}

fn log(checks: &mut Checks, keys: Log) -> LogConfig {
    let level = keys.level.unwrap_or_else(|| "info".to_owned());
    if let Err(message) = check_level(&level) {
        checks.wrong("log.level", message);
    }
    let format = match keys.format.as_deref() {
        None | Some("text") => LogFormat::Text,
        Some("json") => LogFormat::Json,
        Some(other) => {
            checks.wrong("log.format", format!("`{other}` is unknown, allowed is text or json"));
            LogFormat::Text
        }
    };
    LogConfig { level, format }
}

/// The filter's own parser takes a misspelt level for a target; so a directive without `=` must be a level.
fn check_level(text: &str) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    for directive in text.split(',') {
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level).trim();
        if !LEVELS.contains(&level.to_ascii_lowercase().as_str()) {
            return Err(format!(
                "`{directive}` is not a level, allowed is {}, also target=level, separated by commas",
                LEVELS.join(", ")
            ));
        }
    }
    tracing_subscriber::EnvFilter::try_new(text)
        .map(drop)
        .map_err(|error| format!("`{text}` is not understood: {error}"))
}

/// Without authentication only loopback or an explicit word opens a client listener.
fn refuse_open_doors(checks: &mut Checks, config: &Config) {
    if config.allow_anonymous || config.jwt.is_some() || authenticates(&config.backends) {
        return;
    }
    for (key, addr) in
        [("transport.websocket.addr", &config.websocket.addr), ("transport.grpc.addr", &config.grpc)]
    {
        if !addr.is_loopback() {
            checks.wrong(
                key,
                format!(
                    "{addr} can be reached from other machines, but no authentication is configured: anybody \
                     could publish and subscribe. Configure `auth.jwt` or a route `$authenticate` under `proxy`, listen on 127.0.0.1, or allow it with `allow_anonymous: true` \
                     (STREAMGATE_ALLOW_ANONYMOUS=true)"
                ),
            );
        }
    }
}
