//! The broker that the configuration names.

use std::sync::Arc;

use super::StartError;
use crate::{
    broker::{
        Broker,
        memory::{MemoryBroker, MemoryOptions},
        redis::{InvalidAddress, RedisBroker, RedisOptions},
    },
    config::{BrokerConfig, RedisConfig},
    policy::Policies,
};

/// Makes the configured broker. That of Redis starts whether or not Redis is there: its status tells.
pub(super) fn make(config: &BrokerConfig, policies: &Policies) -> Result<Arc<dyn Broker>, StartError> {
    match config {
        BrokerConfig::Memory(memory) => {
            let options = MemoryOptions { max_bytes: memory.max_bytes, ..MemoryOptions::default() };
            Ok(Arc::new(MemoryBroker::new(policies.clone(), options)))
        }
        BrokerConfig::Redis(redis) => {
            let broker = RedisBroker::start(options(redis)?, policies.clone());
            Ok(Arc::new(broker.map_err(|error| StartError::Broker(error.to_string()))?))
        }
    }
}

fn options(config: &RedisConfig) -> Result<RedisOptions, StartError> {
    let address: RedisOptions =
        config.addr.parse().map_err(|error: InvalidAddress| StartError::Broker(error.to_string()))?;
    Ok(RedisOptions {
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
        ..address
    })
}
