//! RPC: who answers a client's `rpc_request`.
//!
//! Owns: the in-process [`Handlers`] of an embedding program. Never does: touch sessions or sockets. Invariant: a call
//! is answered exactly once, by the first handler whose globs match, or with `NO_PROXY`.

use std::{future::Future, sync::Arc};

use futures_util::future::BoxFuture;
use streamgate_proto::cloudevents::CloudEvent;

use crate::{
    channel::glob,
    error::{ClientError, ErrorCode},
    session::RpcRequest,
};

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

    /// Calls the first handler that matches.
    ///
    /// # Errors
    /// `NO_PROXY` if none does, else what the handler says.
    pub fn call(&self, request: RpcRequest) -> BoxFuture<'static, Result<CloudEvent, ClientError>> {
        let route = self
            .0
            .iter()
            .find(|route| glob(&route.channel, &request.channel) && glob(&route.method, &request.method));
        match route {
            Some(route) => route.handler.call(request),
            None => {
                let text = format!("nothing serves method {:?} on {:?}", request.method, request.channel);
                Box::pin(async move { Err(ClientError::new(ErrorCode::NoProxy, text)) })
            }
        }
    }
}
