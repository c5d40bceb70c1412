//! The `broker` section.

use super::{
    checks::Checks,
    redis::redis,
    runtime::{BrokerConfig, MemoryConfig},
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
        Some("redis") => BrokerConfig::Redis(Box::new(redis)),
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
