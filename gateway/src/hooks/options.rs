//! What is configured of a backend (`proxy`), checked.

use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};

use super::BreakerOptions;
use crate::http_client::Trust;

/// A backend of the user (an element of `proxy`).
#[derive(Debug, Clone, PartialEq)]
pub struct BackendOptions {
    /// Name in logs and metrics.
    pub name: String,
    /// Where it is, and how it is spoken to.
    pub endpoint: Endpoint,
    /// Longest that a call may take; the smaller of this and `server.rpc_timeout` holds.
    pub timeout: Option<Duration>,
    /// Calls that may be under way; one more fails at once.
    pub max_concurrent: usize,
    /// When it is left alone.
    pub breaker: BreakerOptions,
    /// Whether it is told of sessions and subscriptions.
    pub lifecycle: bool,
    /// Whether it is told of channels that are occupied and vacated, too; only with `lifecycle`.
    pub occupancy: bool,
    /// Headers of clients that go with its questions.
    pub forward_headers: Vec<HeaderName>,
    /// What else goes to this backend.
    pub routes: Vec<BackendRoute>,
}

/// How a backend is spoken to.
#[derive(Debug, Clone, PartialEq)]
pub enum Endpoint {
    /// One POST for each call, proto3 JSON both ways.
    Http(HttpOptions),
    /// `messageloop.proxy.v1.ProxyService`.
    Grpc(GrpcOptions),
}

/// Settings of an HTTP backend (`proxy[].endpoint` and `proxy[].http`).
#[derive(Debug, Clone, PartialEq)]
pub struct HttpOptions {
    /// URL with scheme and host and without user; `{hook}` in its path stands for the hook's name.
    pub url: String,
    /// Headers of each call; `Debug` does not show their values.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Who may have signed the server's certificate.
    pub trust: Trust,
    /// Bytes that the body of an answer may have.
    pub max_response_bytes: usize,
}

/// Settings of a gRPC backend (`proxy[].endpoint` and `proxy[].grpc`).
#[derive(Debug, Clone, PartialEq)]
pub struct GrpcOptions {
    /// `http://host:port` or `https://host:port`.
    pub url: String,
    /// Metadata of each call, in text; `Debug` does not show the values.
    pub metadata: Vec<(HeaderName, HeaderValue)>,
    /// Who may have signed the server's certificate.
    pub trust: Trust,
    /// Bytes that an answer may have.
    pub max_message_bytes: usize,
}

/// Globs over channel and method (an element of `proxy[].routes`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendRoute {
    /// Glob over the channel; empty for `$authenticate`.
    pub channel: String,
    /// Glob over the method.
    pub method: String,
}
