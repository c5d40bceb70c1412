//! The node's outgoing HTTP: one pooled client for hooks, key sets and whatever else is asked of other servers.
//!
//! Owns: connections to other servers (HTTP/1.1, plain or TLS), and the bounds of a call. Never does: follow a redirect,
//! send a request twice once any of it was written, or repeat a URL, header or body in an error.
//!
//! Invariants:
//! - A call ends within its deadline: connecting, sending and the whole answer are in it.
//! - No more of an answer is held than the call allows; an answer that goes on is cut, with its connection.
//! - [`HttpError::was_sent`] is false only if no byte of the request has left this node.

mod connector;
mod error;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response,
    body::{Body as _, Incoming},
};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::timeout;

pub use connector::{Https, Trust, https};
pub use error::HttpError;

/// How long an idle connection is kept for the next call: below what usual servers and balancers keep them for, so that a
/// call seldom meets a connection that is just being closed. Nothing else bounds how many are idle: there are never more
/// than there were calls at a time, and with a lower bound each call beyond it would open a connection of its own, which
/// costs more than the call.
const IDLE: Duration = Duration::from_secs(20);
/// Bytes that the head of an answer may have.
const HEAD_BYTES: usize = 64 * 1024;

/// What one call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallLimits {
    /// From the first moment to the last byte of the answer.
    pub deadline: Duration,
    /// Bytes of the answer's body.
    pub max_response_bytes: usize,
}

/// Calls other servers. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct HttpClient(Client<Https, Full<Bytes>>);

impl HttpClient {
    /// A client that trusts servers as `trust` says. Reads files, blocking.
    ///
    /// # Errors
    /// A text that names the file that cannot be used.
    pub fn new(trust: &Trust) -> Result<Self, String> {
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .http1_max_buf_size(HEAD_BYTES);
        Ok(Self(builder.build(connector::http1(trust)?)))
    }

    /// Sends `request`, whose URL has scheme and host, and reads the whole answer. Any status but 3xx is an answer.
    ///
    /// Cancel: ends the call and closes its connection; the server may have taken the request.
    ///
    /// # Errors
    /// [`HttpError`].
    pub async fn call(
        &self,
        request: Request<Bytes>,
        limits: CallLimits,
    ) -> Result<Response<Bytes>, HttpError> {
        let answered = self.exchange(request.map(Full::new), limits.max_response_bytes);
        match timeout(limits.deadline, answered).await {
            Ok(answer) => answer,
            Err(_) => Err(HttpError::Timeout { deadline: limits.deadline }),
        }
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        limit: usize,
    ) -> Result<Response<Bytes>, HttpError> {
        let answer = self.0.request(request).await.map_err(|error| HttpError::of_client(&error))?;
        if answer.status().is_redirection() {
            return Err(HttpError::Redirect { status: answer.status().as_u16() });
        }
        let (head, body) = answer.into_parts();
        Ok(Response::from_parts(head, read(body, limit).await?))
    }
}

/// Reads a body of at most `limit` bytes.
async fn read(mut body: Incoming, limit: usize) -> Result<Bytes, HttpError> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > limit {
        return Err(HttpError::TooLarge { limit });
    }
    let mut whole = Vec::with_capacity(announced);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| HttpError::of_body(&error))?;
        // Trailers say nothing that anybody here needs.
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > limit {
            return Err(HttpError::TooLarge { limit });
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.into())
}
