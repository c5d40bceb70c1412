//! The broker that the configuration names.

use std::{sync::Arc, time::Duration};

use super::StartError;
use crate::{
    broker::{
        Broker,
        memory::{MemoryBroker, MemoryOptions},
        redis::{InvalidAddress, RedisBroker, RedisOptions},
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
            let options = RedisOptions { lease, ..options(redis)? };
            let broker = RedisBroker::start(options, policies.clone());
            Ok(Arc::new(broker.map_err(|error| StartError::Broker(error.to_string()))?))
        }
    }
}

fn options(config: &RedisConfig) -> Result<RedisOptions, StartError> {
    let invalid = |error: InvalidAddress| StartError::Broker(error.to_string());
    let servers = config.addrs.iter().map(|addr| addr.parse::<RedisOptions>().map_err(invalid));
    let servers: Vec<RedisOptions> = servers.collect::<Result<_, _>>()?;
    let cluster = match config.mode {
        RedisMode::Standalone => Vec::new(),
        RedisMode::Cluster => servers.iter().map(RedisOptions::server).collect(),
    };
    Ok(RedisOptions {
        cluster,
        username: config.username.clone(),
        password: config.password.as_ref().map(|password| password.reveal().to_owned()),
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
