//! The broker that the configuration names.

use std::{sync::Arc, time::Duration};

use super::StartError;
use crate::{
    broker::{
        Broker,
        memory::{MemoryBroker, MemoryOptions},
        redis::{InvalidAddress, RedisBroker, RedisOptions, SentinelOptions},
    },
    config::{BrokerConfig, RedisConfig, RedisMode},
    policy::Policies,
};

/// Makes the configured broker. That of Redis starts whether or not Redis is there: its status tells.
pub(super) fn make(
    config: &BrokerConfig,
    lease: Duration,
    policies: &Policies,
) -> Result<Arc<dyn Broker>, StartError> {
    match config {
        BrokerConfig::Memory(memory) => {
            let options = MemoryOptions { max_bytes: memory.max_bytes, ..MemoryOptions::default() };
            Ok(Arc::new(MemoryBroker::new(policies.clone(), options)))
        }
        BrokerConfig::Redis(redis) => {
            let options = RedisOptions { lease, ..redis_options(redis)? };
            let broker = RedisBroker::start(options, policies.clone());
            Ok(Arc::new(broker.map_err(|error| StartError::Broker(error.to_string()))?))
        }
    }
}

/// The options of a Redis broker, but for the lease.
///
/// # Errors
/// An address is none.
pub(crate) fn redis_options(config: &RedisConfig) -> Result<RedisOptions, StartError> {
    let invalid = |error: InvalidAddress| StartError::Broker(error.to_string());
    let servers = config.addrs.iter().map(|addr| addr.parse::<RedisOptions>().map_err(invalid));
    let servers: Vec<RedisOptions> = servers.collect::<Result<_, _>>()?;
    let addresses = || servers.iter().map(RedisOptions::server).collect();
    let cluster = if config.mode == RedisMode::Cluster { addresses() } else { Vec::new() };
    let sentinel = config.sentinel.as_ref().map(|sentinel| SentinelOptions {
        sentinels: addresses(),
        master_name: sentinel.master_name.clone(),
        username: sentinel.username.clone(),
        password: sentinel.password.as_ref().map(|password| password.reveal().to_owned()),
    });
    Ok(RedisOptions {
        cluster,
        sentinel,
        username: config.username.clone(),
        password: config.password.as_ref().map(|password| password.reveal().to_owned()),
        tls: config.tls.clone(),
        db: config.db,
        key_prefix: config.key_prefix.clone(),
        partitions: config.partitions,
        connect_timeout: config.connect_timeout,
        command_timeout: config.command_timeout,
        inbox_max_length: config.inbox_max_length,
        inbox_ttl: config.inbox_ttl,
        ..servers.into_iter().next().unwrap_or_default()
    })
}
