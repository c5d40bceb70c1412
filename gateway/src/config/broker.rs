//! The `broker` section.

use std::time::Duration;

use super::{
    checks::Checks,
    runtime::{BrokerConfig, MemoryConfig, Password, RedisConfig, RedisMode},
    schema::{Broker, Redis},
    units::Size,
};
use crate::policy::ChannelPolicy;

/// The broker, and what holds for channels that no rule matches.
pub(super) fn broker(checks: &mut Checks, keys: Broker) -> (ChannelPolicy, BrokerConfig) {
    let max_bytes: Option<Size> = keys.memory.unwrap_or_default().max_bytes;
    let max_bytes = checks.size("broker.memory.max_bytes", max_bytes, 256 << 20, (1 << 20)..=(1 << 40));
    let redis_keys = keys.redis.unwrap_or_default();
    let fallback = fallback(checks, &redis_keys);
    ignored(checks, &redis_keys);
    // Checked also where it is not used: a mistake should not wait for the day of the switch.
    let redis = redis(checks, redis_keys);
    let broker = match keys.r#type.as_deref() {
        None | Some("memory") => BrokerConfig::Memory(MemoryConfig { max_bytes }),
        Some("redis") => BrokerConfig::Redis(redis),
        Some(other) => {
            checks.wrong("broker.type", format!("`{other}` is unknown, allowed is memory or redis"));
            BrokerConfig::Memory(MemoryConfig { max_bytes })
        }
    };
    (fallback, broker)
}

/// `stream_max_length` and `history_ttl` are what MessageLoop has instead of policies. Its 0 means "not set".
fn fallback(checks: &mut Checks, keys: &Redis) -> ChannelPolicy {
    let default = ChannelPolicy::default();
    let size = keys.stream_max_length.filter(|size| *size > 0);
    let ttl = keys.history_ttl.filter(|ttl| !ttl.0.is_zero());
    ChannelPolicy {
        history_size: checks.number(
            "broker.redis.stream_max_length",
            size,
            default.history_size,
            1..=super::policies::MAX_HISTORY,
        ),
        history_ttl: checks.span(
            "broker.redis.history_ttl",
            ttl,
            default.history_ttl,
            super::policies::TTL_RANGE,
        ),
        ..default
    }
}

fn ignored(checks: &mut Checks, keys: &Redis) {
    for (name, present) in [
        ("pool_size", keys.pool_size.is_some()),
        ("min_idle_conns", keys.min_idle_conns.is_some()),
        ("max_retries", keys.max_retries.is_some()),
        ("dial_timeout", keys.dial_timeout.is_some()),
        ("read_timeout", keys.read_timeout.is_some()),
        ("write_timeout", keys.write_timeout.is_some()),
        ("stream_approximate", keys.stream_approximate.is_some()),
        ("consumer_group", keys.consumer_group.is_some()),
    ] {
        if present {
            let instead = match name {
                "dial_timeout" => "; connect_timeout is what you may want",
                "read_timeout" | "write_timeout" => "; command_timeout is what you may want",
                _ => "",
            };
            checks.warn(
                &format!("broker.redis.{name}"),
                format!("has no meaning here and is ignored{instead}"),
            );
        }
    }
}

fn redis(checks: &mut Checks, keys: Redis) -> RedisConfig {
    let key = |name: &str| format!("broker.redis.{name}");
    let mode = mode(checks, keys.mode.as_deref());
    let addrs = addrs(checks, mode, keys.addr, keys.addrs);
    let key_prefix = keys.key_prefix.unwrap_or_else(|| "streamgate".to_owned());
    if key_prefix.contains(['{', '}']) || key_prefix.contains(char::is_whitespace) || key_prefix.len() > 64 {
        // Braces would move the hash tag and with it the keys of a partition into different slots.
        checks.wrong(
            &key("key_prefix"),
            format!("`{key_prefix}` must have at most 64 bytes, no braces and no white space"),
        );
    }
    let db = checks.number(&key("db"), keys.db, 0, 0..=255);
    if mode == RedisMode::Cluster && db != 0 {
        checks.wrong(&key("db"), format!("{db}, but a Cluster has only database 0"));
    }
    RedisConfig {
        mode,
        addrs,
        username: keys.username.filter(|name| !name.is_empty()),
        password: keys.password.filter(|word| !word.is_empty()).map(Password::new),
        db,
        key_prefix,
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

fn mode(checks: &mut Checks, mode: Option<&str>) -> RedisMode {
    match mode {
        None | Some("standalone") => RedisMode::Standalone,
        Some("cluster") => RedisMode::Cluster,
        Some(other) => {
            let message = format!("`{other}` is unknown, allowed is standalone or cluster");
            checks.wrong("broker.redis.mode", message);
            RedisMode::Standalone
        }
    }
}

/// `addrs`, or `addr` as the only one.
fn addrs(
    checks: &mut Checks,
    mode: RedisMode,
    addr: Option<String>,
    addrs: Option<Vec<String>>,
) -> Vec<String> {
    let addrs = addrs.filter(|addrs| !addrs.is_empty());
    let (key, addrs) = match (addr, addrs) {
        (Some(_), Some(addrs)) => {
            checks.wrong("broker.redis.addrs", "either addr or addrs, not both");
            ("addrs", addrs)
        }
        (None, Some(addrs)) => ("addrs", addrs),
        (addr, None) => ("addr", vec![addr.unwrap_or_else(|| "127.0.0.1:6379".to_owned())]),
    };
    if mode == RedisMode::Standalone && addrs.len() > 1 {
        let count = addrs.len();
        checks.wrong("broker.redis.addrs", format!("{count} addresses, but mode standalone has one server"));
    }
    for addr in &addrs {
        let host_and_port = addr.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty()
                && !host.contains(['/', '@', ','])
                && !host.contains(char::is_whitespace)
                && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        if !host_and_port {
            checks.wrong(&format!("broker.redis.{key}"), format!("`{addr}` is not host:port"));
        }
    }
    addrs
}
