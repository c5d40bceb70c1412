//! The `broker.redis` section.

use std::{path::PathBuf, time::Duration};

use super::{
    checks::Checks,
    runtime::{Password, RedisConfig, RedisMode, SentinelConfig},
    schema::{Redis, Sentinel, Tls},
};
use crate::broker::redis::{InvalidAddress, RedisOptions, TlsOptions};

fn key(name: &str) -> String {
    format!("broker.redis.{name}")
}

/// Everything but the keys that are only MessageLoop's.
pub(super) fn redis(checks: &mut Checks, keys: Redis) -> RedisConfig {
    let mode = mode(checks, keys.mode.as_deref());
    let servers = servers(checks, mode, keys.addr, keys.addrs);
    let secure = servers.iter().filter(|server| server.tls.is_some()).count();
    if secure > 0 && secure < servers.len() {
        checks.wrong(&key("addrs"), "rediss:// holds for all of them or for none");
    }
    let addrs = servers.iter().map(RedisOptions::address).collect();
    let first = servers.into_iter().next().unwrap_or_default();
    let tls = tls(checks, keys.tls.unwrap_or_default(), secure > 0);
    let in_address = |name: &str| format!("stands in `{}` already", key(name));
    if keys.username.is_some() && first.username.is_some() {
        checks.wrong(&key("username"), in_address("addr"));
    }
    if keys.password.is_some() && first.password.is_some() {
        checks.wrong(&key("password"), in_address("addr"));
    }
    let db = checks.number(&key("db"), keys.db, first.db, 0..=255);
    if first.db != 0 && db != first.db {
        checks.wrong(&key("db"), in_address("addr"));
    }
    if mode == RedisMode::Cluster && db != 0 {
        checks.wrong(&key("db"), format!("{db}, but a Cluster has only database 0"));
    }
    RedisConfig {
        mode,
        addrs,
        sentinel: sentinel(checks, mode, keys.sentinel.unwrap_or_default()),
        username: text(keys.username).or(first.username),
        password: text(keys.password).or(first.password).map(Password::new),
        tls,
        db,
        key_prefix: key_prefix(checks, keys.key_prefix),
        partitions: checks.number(&key("partitions"), keys.partitions, 16, 1..=256),
        connect_timeout: checks.span(
            &key("connect_timeout"),
            keys.connect_timeout,
            Duration::from_secs(5),
            10..=60_000,
        ),
        command_timeout: checks.span(
            &key("command_timeout"),
            keys.command_timeout,
            Duration::from_secs(2),
            10..=60_000,
        ),
        inbox_max_length: checks.number(
            &key("inbox_max_length"),
            keys.inbox_max_length,
            100_000,
            1_000..=10_000_000,
        ),
        inbox_ttl: checks.span(
            &key("inbox_ttl"),
            keys.inbox_ttl,
            Duration::from_secs(60),
            60_000..=86_400_000,
        ),
    }
}

/// An empty text is none.
fn text(value: Option<String>) -> Option<String> {
    value.filter(|text| !text.is_empty())
}

fn mode(checks: &mut Checks, mode: Option<&str>) -> RedisMode {
    match mode {
        None | Some("standalone") => RedisMode::Standalone,
        Some("sentinel") => RedisMode::Sentinel,
        Some("cluster") => RedisMode::Cluster,
        Some(other) => {
            let message = format!("`{other}` is unknown, allowed is standalone, sentinel or cluster");
            checks.wrong(&key("mode"), message);
            RedisMode::Standalone
        }
    }
}

fn key_prefix(checks: &mut Checks, prefix: Option<String>) -> String {
    let prefix = prefix.unwrap_or_else(|| "streamgate".to_owned());
    let banned = prefix.contains(['{', '}']) || prefix.contains(char::is_whitespace);
    if banned || !(1..=64).contains(&prefix.len()) {
        // Braces would move the hash tag and with it the keys of a partition into different slots.
        let message = format!("`{prefix}` must have 1 to 64 bytes, no braces and no white space");
        checks.wrong(&key("key_prefix"), message);
    }
    prefix
}

/// What is needed at the Sentinels.
fn sentinel(checks: &mut Checks, mode: RedisMode, keys: Sentinel) -> Option<SentinelConfig> {
    let name = text(keys.master_name);
    let (username, password) = (text(keys.username), text(keys.password));
    if mode == RedisMode::Sentinel {
        if name.is_none() {
            checks.wrong(&key("sentinel.master_name"), "is missing: what do the Sentinels call the master?");
        }
        let password = password.map(Password::new);
        return Some(SentinelConfig { master_name: name.unwrap_or_default(), username, password });
    }
    for (name, set) in
        [("master_name", name.is_some()), ("username", username.is_some()), ("password", password.is_some())]
    {
        if set {
            checks.wrong(&key(&format!("sentinel.{name}")), "needs mode: sentinel");
        }
    }
    None
}

/// `addrs`, or `addr` as the only one.
fn servers(
    checks: &mut Checks,
    mode: RedisMode,
    addr: Option<String>,
    addrs: Option<Vec<String>>,
) -> Vec<RedisOptions> {
    let addrs = addrs.filter(|addrs| !addrs.is_empty());
    let (name, addrs) = match (addr, addrs) {
        (Some(_), Some(addrs)) => {
            checks.wrong(&key("addrs"), "either addr or addrs, not both");
            ("addrs", addrs)
        }
        (None, Some(addrs)) => ("addrs", addrs),
        (addr, None) => ("addr", vec![addr.unwrap_or_else(|| "127.0.0.1:6379".to_owned())]),
    };
    if mode == RedisMode::Standalone && addrs.len() > 1 {
        let count = addrs.len();
        checks.wrong(&key("addrs"), format!("{count} addresses, but mode standalone has one server"));
    }
    let read = |addr: &String| {
        let server = server(addr).unwrap_or_else(|message| {
            checks.wrong(&key(name), message);
            RedisOptions::default()
        });
        if mode != RedisMode::Standalone && !is_bare(&server) {
            checks.wrong(&key(name), "user, password and db have keys of their own in this mode");
        }
        server
    };
    addrs.iter().map(read).collect()
}

/// Reads `host:port` or a URL. The error never repeats what may hold a password.
fn server(addr: &str) -> Result<RedisOptions, String> {
    let parsed: Result<RedisOptions, InvalidAddress> = addr.parse();
    if addr.contains("://") {
        return parsed.map_err(|error| error.to_string());
    }
    let has_port = addr.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    parsed.ok().filter(|server| has_port && is_bare(server)).ok_or_else(|| {
        let shown = if addr.contains('@') { "this".to_owned() } else { format!("`{addr}`") };
        format!("{shown} is not host:port or redis[s]://host:port")
    })
}

/// Whether it names a server and nothing else.
fn is_bare(server: &RedisOptions) -> bool {
    server.username.is_none()
        && server.password.is_none()
        && server.db == 0
        && !server.host.contains([',', '/', '@'])
        && !server.host.contains(char::is_whitespace)
}

/// TLS is on if the address says so or `enabled` does. What only means something with TLS must not stand without it:
/// that would be plain text where somebody thought of TLS.
fn tls(checks: &mut Checks, keys: Tls, by_address: bool) -> Option<TlsOptions> {
    let enabled = keys.enabled.unwrap_or(by_address);
    if by_address && !enabled {
        checks.wrong(&key("tls.enabled"), "the address says rediss://, which is TLS");
    }
    let (ca, certificate, private) = (text(keys.ca_file), text(keys.cert_file), text(keys.key_file));
    let server_name = text(keys.server_name);
    if !enabled {
        let named = [
            ("ca_file", &ca),
            ("cert_file", &certificate),
            ("key_file", &private),
            ("server_name", &server_name),
        ];
        for (name, _) in named.iter().filter(|(_, value)| value.is_some()) {
            checks.wrong(&key(&format!("tls.{name}")), "TLS is off: write rediss:// or tls.enabled: true");
        }
        return None;
    }
    match (&certificate, &private) {
        (Some(_), None) => checks.wrong(&key("tls.key_file"), "is missing: cert_file needs it"),
        (None, Some(_)) => checks.wrong(&key("tls.cert_file"), "is missing: key_file needs it"),
        _ => {}
    }
    if let Some(name) = server_name.as_deref().filter(|name| !TlsOptions::is_server_name(name)) {
        checks.wrong(&key("tls.server_name"), format!("`{name}` is neither a host name nor an address"));
    }
    Some(TlsOptions {
        ca_file: ca.map(PathBuf::from),
        cert_file: certificate.map(PathBuf::from),
        key_file: private.map(PathBuf::from),
        server_name,
    })
}
