//! What both doors share: who may enter, how many at a time, and what for.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use metrics::counter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    access::Access,
    bodies::Bodies,
    operations::{Operation, Operations},
};
use crate::{
    config::ApiConfig,
    error::{ClientError, ErrorCode},
    telemetry::metrics::API_REQUESTS,
};

/// Requests carried out at once; calls and surveys wait for clients.
const MAX_REQUESTS: usize = 4_096;

/// What may change while the node runs.
#[derive(Debug)]
struct Rules {
    access: Access,
    max_request_bytes: usize,
}

/// The API behind its doors. Cheap to clone.
#[derive(Clone)]
pub struct Door {
    operations: Operations,
    rules: Arc<ArcSwap<Rules>>,
    bodies: Bodies,
    running: Arc<Semaphore>,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl Door {
    /// `loopback`: whether only this machine can connect to the listener.
    #[must_use]
    pub fn new(operations: Operations, config: &ApiConfig, loopback: bool) -> Self {
        let access = Access::new(config.tokens.clone(), loopback);
        let rules = Rules { access, max_request_bytes: config.max_request_bytes };
        Self {
            operations,
            rules: Arc::new(ArcSwap::from_pointee(rules)),
            bodies: Bodies::new(),
            running: Arc::new(Semaphore::new(MAX_REQUESTS)),
        }
    }

    /// Takes over another configuration; it holds for requests that come afterwards.
    pub fn reload(&self, config: &ApiConfig) {
        let access = self.rules.load().access.with_tokens(config.tokens.clone());
        self.rules.store(Arc::new(Rules { access, max_request_bytes: config.max_request_bytes }));
    }

    pub(super) fn operations(&self) -> &Operations {
        &self.operations
    }

    pub(super) fn access(&self) -> impl std::ops::Deref<Target = Access> + use<> {
        AccessGuard(self.rules.load())
    }

    pub(super) fn max_request_bytes(&self) -> usize {
        self.rules.load().max_request_bytes
    }

    pub(super) fn bodies(&self) -> &Bodies {
        &self.bodies
    }

    /// A place among the requests that are carried out: for one that is there as a whole.
    ///
    /// # Errors
    /// [`ErrorCode::NotAvailable`] if there is none.
    pub(super) fn enter(&self) -> Result<OwnedSemaphorePermit, ClientError> {
        self.running.clone().try_acquire_owned().map_err(|_| {
            let text = format!("{MAX_REQUESTS} requests are being carried out");
            ClientError::new(ErrorCode::NotAvailable, text)
        })
    }

    pub(super) fn count(&self, door: &'static str, operation: Operation, error: Option<ErrorCode>) {
        let code = error.map_or("OK", ErrorCode::as_str);
        counter!(API_REQUESTS, "door" => door, "operation" => operation.name(), "code" => code).increment(1);
    }
}

struct AccessGuard(Guard<Arc<Rules>>);

impl std::ops::Deref for AccessGuard {
    type Target = Access;

    fn deref(&self) -> &Access {
        &self.0.access
    }
}
