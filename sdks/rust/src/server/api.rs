//! The client of the server API: where it is, who asks, and how long.

use std::{fmt, future::Future, path::PathBuf, time::Duration};

use streamgate_proto::{server::api_service_client::ApiServiceClient, shared};
use tonic::{
    Request, Response, Status,
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};

use super::{connection::channel, status::error_of};
use crate::{
    error::Error,
    transport::{Endpoint, Tls, TlsOptions},
};

/// Largest answer that is taken, in bytes.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// What generated code calls.
pub(super) type Stub = ApiServiceClient<Channel>;

/// A client of the server API (`messageloop.server.v1.APIService`), which is on the gateway's admin listener. Cheap to clone:
/// all clones share one connection, which is made when it is needed and again when it is lost.
///
/// Every operation has the same two ways to fail. What is wrong with one item, such as a session that is not there, is in its
/// result. What is wrong with the request is the error: [`Error::Server`] with the gateway's code (`AUTH_ERROR`: the token;
/// `ACL_ERROR`: its scopes; `BAD_REQUEST`, `NOT_FOUND`, `NOT_AVAILABLE`, ...), [`Error::Unreachable`], [`Error::Timeout`] or
/// [`Error::ConnectionLost`] ([`Error::OutcomeUnknown`] of calls, surveys, and publishes without a key). After the last it is
/// not known whether it was carried out, nor after a timeout.
#[derive(Clone)]
pub struct ApiClient {
    stub: Stub,
    address: String,
    token: Option<MetadataValue<Ascii>>,
    pub(super) timeout: Duration,
    pub(super) publish_timeout: Duration,
}

impl fmt::Debug for ApiClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiClient").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Builds an [`ApiClient`].
#[derive(Clone)]
pub struct ApiBuilder {
    url: String,
    token: Option<String>,
    tls: TlsOptions,
    timeout: Duration,
    publish_timeout: Duration,
    connect_timeout: Duration,
}

impl fmt::Debug for ApiBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiBuilder").field("url", &self.url).field("tls", &self.tls).finish_non_exhaustive()
    }
}

impl ApiBuilder {
    /// The bearer token: one of the gateway's `api.tokens`.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Authorities that may have signed the gateway's certificate, in PEM (default: those of the system).
    #[must_use]
    pub fn ca_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.tls.ca_file = Some(file.into());
        self
    }

    /// The backend's own certificate with its chain, and its key, both PEM, for gateways that ask for one.
    #[must_use]
    pub fn identity(mut self, cert_file: impl Into<PathBuf>, key_file: impl Into<PathBuf>) -> Self {
        self.tls.identity = Some((cert_file.into(), key_file.into()));
        self
    }

    /// How long one request may take (default 10 s).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long a publish with idempotency keys is tried again (default 30 s). Keep it below the server's idempotency
    /// window (default 5 min).
    #[must_use]
    pub fn publish_timeout(mut self, timeout: Duration) -> Self {
        self.publish_timeout = timeout;
        self
    }

    /// How long a connection may take to be made, TLS included (default 5 s).
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// The client; it connects with the first request. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`Error::InvalidUrl`]; [`Error::Invalid`] if the token or a TLS file cannot be used. Those files are read here.
    pub fn build(self) -> Result<ApiClient, Error> {
        let endpoint = Endpoint::parse_api(&self.url)?;
        let tls = endpoint.secure.then(|| Tls::new(&self.tls)).transpose()?;
        let endpoint = endpoint.with_tls(tls.as_ref());
        let address = endpoint.address.clone();
        let bearer = |token: String| {
            let mut value: MetadataValue<Ascii> = format!("Bearer {token}").parse().map_err(|_| {
                Error::Invalid("the token has characters that no bearer token can have".to_owned())
            })?;
            value.set_sensitive(true);
            Ok::<_, Error>(value)
        };
        let token = self.token.map(bearer).transpose()?;
        let stub = Stub::new(channel(endpoint, self.connect_timeout)?).max_decoding_message_size(MAX_ANSWER);
        let (timeout, publish_timeout) = (self.timeout, self.publish_timeout);
        Ok(ApiClient { stub, address, token, timeout, publish_timeout })
    }
}

impl ApiClient {
    /// A client of the API at `url`: `http://host:port`, `https://host:port`, or `host:port`, which means without TLS. The
    /// port is 8080, if there is none.
    pub fn builder(url: impl Into<String>) -> ApiBuilder {
        ApiBuilder {
            url: url.into(),
            token: None,
            tls: TlsOptions::default(),
            timeout: Duration::from_secs(10),
            publish_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
        }
    }

    /// Sends a request and waits for its answer until `deadline`. Cancel: the request may be carried out or not.
    pub(super) async fn ask<Q, A, F>(
        &self,
        what: &'static str,
        deadline: Duration,
        request: Q,
        send: impl FnOnce(Stub, Request<Q>) -> F,
    ) -> Result<A, Error>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let mut request = Request::new(request);
        request.set_timeout(deadline);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        match tokio::time::timeout(deadline, send(self.stub.clone(), request)).await {
            Err(_) => Err(Error::Timeout { what }),
            Ok(Err(status)) => Err(error_of(&status, what, &self.address)),
            Ok(Ok(answer)) => Ok(answer.into_inner()),
        }
    }
}

/// The error of a request that must not be sent twice.
pub(super) fn sent_once(what: &'static str, error: Error) -> Error {
    match error {
        Error::ConnectionLost(_) => Error::OutcomeUnknown { what, cause: Box::new(error) },
        other => other,
    }
}

/// The result of an item that has this error, or none.
pub(super) fn outcome<T>(error: Option<shared::Error>, value: T) -> Result<T, Error> {
    error.map_or(Ok(value), |error| Err(Error::from_wire(error)))
}

/// Whole milliseconds, as much as the field holds.
pub(super) fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}
