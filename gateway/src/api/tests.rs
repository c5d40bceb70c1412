//! What several tests of the API need.

use std::{sync::Arc, time::Duration};

use super::{Door, control::Control, operations::Operations};
use crate::{
    broker::memory::{MemoryBroker, MemoryOptions},
    config::ApiConfig,
    policy::{Limits, Policies},
    session::Settings,
};

/// Operations on an empty memory broker.
pub(super) fn operations(policies: Policies, control: Option<Arc<dyn Control>>) -> Operations {
    let broker = Arc::new(MemoryBroker::new(policies.clone(), MemoryOptions::default()));
    Operations::new(broker, control, Settings::new(policies, Limits::default()), Duration::from_millis(200))
}

/// A door on loopback.
pub(super) fn door(config: ApiConfig) -> Door {
    Door::new(operations(Policies::default(), None), &config, true)
}
