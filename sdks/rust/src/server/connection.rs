//! The connection below [`ApiClient`](super::ApiClient): made when it is needed, and again when it is lost.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tonic::{
    codegen::{
        Service,
        http::{Uri, uri::InvalidUri},
    },
    transport::Channel,
};

use crate::{
    error::Error,
    transport::{Endpoint, Stream, open},
};

/// A connection that says nothing for so long while requests wait is asked for a sign of life.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long it has for that.
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(10);

/// A channel to `endpoint`; nothing is connected yet. Must be called inside a tokio runtime.
pub(super) fn channel(endpoint: Endpoint, connect_timeout: Duration) -> Result<Channel, Error> {
    let invalid =
        |error: InvalidUri| Error::InvalidUrl { url: endpoint.url.clone(), reason: error.to_string() };
    let uri: Uri = endpoint.url.parse().map_err(invalid)?;
    Ok(Channel::builder(uri)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_ANSWER)
        .connect_with_connector_lazy(Connector { endpoint, timeout: connect_timeout }))
}

/// Makes connections, TLS included.
struct Connector {
    endpoint: Endpoint,
    timeout: Duration,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<Stream>, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (endpoint, timeout) = (self.endpoint.clone(), self.timeout);
        Box::pin(async move {
            let late = |_| Error::Unreachable {
                address: endpoint.address.clone(),
                reason: "no connection in time".to_owned(),
            };
            tokio::time::timeout(timeout, open(&endpoint)).await.map_err(late)?.map(TokioIo::new)
        })
    }
}
