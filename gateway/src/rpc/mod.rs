//! RPC: who answers a client's `rpc_request`.
//!
//! Owns: the [`Router`], which finds who answers; the in-process [`Handlers`] of an embedding program; and
//! [`Responders`], the clients of this node that answer. Never does: touch sessions or sockets.
//!
//! Invariants: a call is answered exactly once. Handlers go first, in their order; then the session that the call names, else
//! the first backend whose globs match, else a client that offers the method; else `NO_PROXY`. A call is given to one of
//! them only.

mod responders;
mod router;
mod survey;

use std::{future::Future, sync::Arc};

use futures_util::future::BoxFuture;
use streamgate_proto::cloudevents::CloudEvent;

use crate::{channel::glob, error::ClientError, session::RpcRequest};

pub use responders::Responders;
pub use router::{Router, TO_SESSION, no_room, nobody, not_found};
pub use survey::{MOST_ANSWERS, survey};

/// Answers calls in this process.
pub trait Handler: Send + Sync + 'static {
    /// Answers one call; an error reaches the caller as it is.
    fn call(&self, request: RpcRequest) -> BoxFuture<'static, Result<CloudEvent, ClientError>>;
}

impl<F, Fut> Handler for F
where
    F: Fn(RpcRequest) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<CloudEvent, ClientError>> + Send + 'static,
{
    fn call(&self, request: RpcRequest) -> BoxFuture<'static, Result<CloudEvent, ClientError>> {
        Box::pin(self(request))
    }
}

/// Handlers by channel and method; the first match wins.
#[derive(Clone, Default)]
pub struct Handlers(Vec<Route>);

#[derive(Clone)]
struct Route {
    channel: String,
    method: String,
    handler: Arc<dyn Handler>,
}

impl Handlers {
    /// Adds a handler for the channels and methods that the globs match (`*` one segment, a last `**` any number).
    pub fn add(&mut self, channel: &str, method: &str, handler: impl Handler) {
        self.0.push(Route {
            channel: channel.to_owned(),
            method: method.to_owned(),
            handler: Arc::new(handler),
        });
    }

    /// The first handler that matches.
    #[must_use]
    pub fn find(&self, channel: &str, method: &str) -> Option<&Arc<dyn Handler>> {
        let route =
            self.0.iter().find(|route| glob(&route.channel, channel) && glob(&route.method, method))?;
        Some(&route.handler)
    }
}
