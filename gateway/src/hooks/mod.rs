//! Backend hooks: what the gateway asks of the user's own servers, over HTTP or gRPC.
//!
//! Owns: which backend is asked ([`BackendRoute`]), how (deadline, number of calls at a time, circuit breaker, asking
//! again), and what answers mean. Never does: touch sessions, decide whether a hook is needed, or show a token, a header
//! or a URL in an error or a log.
//!
//! Invariants:
//! - A question ends within its deadline, whatever the backend does, and what it cost is bounded.
//! - A question is sent at most once, or at most twice if asking twice is the same as asking once.
//! - A backend that cannot be asked has allowed nothing.
//! - Of a client's headers a backend gets those that its configuration names, and no others.
//! - Work for backends runs on the node's own runtime, not on the shards' threads; dropping a future gives its question up.

mod access;
mod backend;
mod breaker;
mod error;
mod grpc;
mod http;
mod kinds;
mod lifecycle;
mod options;
mod routes;
mod rpc;
mod verdict;

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::{runtime::Handle, task::JoinHandle};

pub use breaker::{Breaker, BreakerOptions, Phase, Ticket, Verdict};
pub use error::HookError;
pub use http::{HOOK_HEADER, HOOK_IN_URL};
pub use kinds::{Hook, NAMES};
pub use lifecycle::{Happening, Lifecycle, SystemChannel, Who};
pub use options::{BackendOptions, BackendRoute, Endpoint, GrpcOptions, HttpOptions};
pub use routes::{AUTHENTICATE, PUBLISH, SUBSCRIBE};
pub use verdict::Credential;

use crate::{
    client_headers::WantedHeaders,
    error::{ClientError, ErrorCode},
    http_client::{HttpClient, Trust},
};
use backend::Backend;
use routes::Routes;

/// The backends of a node. Cheap to clone; the default has none.
#[derive(Clone, Default)]
pub struct Hooks(Option<Arc<Inner>>);

struct Inner {
    backends: Vec<Arc<Backend>>,
    routes: Routes,
    runtime: Handle,
}

impl Hooks {
    /// The backends of `options`, none of which is connected to yet; a call takes `longest` at most. Within a Tokio
    /// runtime, on which they are called. Reads the files that the options name, blocking.
    ///
    /// # Errors
    /// A text that names the backend and what cannot be used.
    pub fn new(options: &[BackendOptions], longest: Duration) -> Result<Self, String> {
        if options.is_empty() {
            return Ok(Self::default());
        }
        let client = HttpClient::new(&Trust::System)?;
        let (mut backends, mut routes) = (Vec::new(), Routes::default());
        for (number, options) in options.iter().enumerate() {
            routes.add(number, &options.routes);
            backends.push(Arc::new(Backend::new(options.clone(), &client, longest)?));
        }
        Ok(Self(Some(Arc::new(Inner { backends, routes, runtime: Handle::current() }))))
    }

    /// The headers of clients that some backend gets.
    #[must_use]
    pub fn wanted_headers(&self) -> WantedHeaders {
        let backends = self.0.iter().flat_map(|inner| &inner.backends);
        WantedHeaders::new(backends.flat_map(|backend| &backend.forward_headers))
    }

    /// The backend that `find` says, if there is any.
    fn backend(&self, find: impl FnOnce(&Routes) -> Option<usize>) -> Option<Arc<Backend>> {
        let inner = self.0.as_ref()?;
        find(&inner.routes).and_then(|number| inner.backends.get(number)).cloned()
    }

    /// The backends that are told of sessions and subscriptions.
    fn told(&self) -> Vec<Arc<Backend>> {
        let all = self.0.iter().flat_map(|inner| &inner.backends);
        all.filter(|backend| backend.lifecycle).cloned().collect()
    }

    /// Runs `work` on the node's runtime; dropping the answer ends it.
    fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ClientError>> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, ClientError>> {
        let Some(inner) = &self.0 else { return Box::pin(work) };
        let task = GivenUp(inner.runtime.spawn(work));
        Box::pin(async move {
            let mut task = task;
            match (&mut task.0).await {
                Ok(outcome) => outcome,
                Err(_) => Err(ClientError::new(ErrorCode::NotAvailable, "the node is shutting down")),
            }
        })
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.iter().flat_map(|inner| &inner.backends).map(|backend| backend.name());
        f.debug_list().entries(names).finish()
    }
}

/// Ends its task when it is dropped.
struct GivenUp<T>(JoinHandle<T>);

impl<T> Drop for GivenUp<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
