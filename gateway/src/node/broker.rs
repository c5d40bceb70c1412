//! The broker that the configuration names.

use std::sync::Arc;

use super::StartError;
use crate::{
    broker::{
        Broker,
        memory::{MemoryBroker, MemoryOptions},
    },
    config::BrokerConfig,
    policy::Policies,
};

/// Makes the configured broker. That of Redis starts whether or not Redis is there: its status tells.
pub(super) fn make(config: &BrokerConfig, policies: &Policies) -> Result<Arc<dyn Broker>, StartError> {
    match config {
        BrokerConfig::Memory(memory) => {
            let options = MemoryOptions { max_bytes: memory.max_bytes, ..MemoryOptions::default() };
            Ok(Arc::new(MemoryBroker::new(policies.clone(), options)))
        }
        BrokerConfig::Redis(_) => Err(StartError::Broker("the Redis broker is not linked in".into())),
    }
}
