//! Settings of a client.

use std::{path::PathBuf, time::Duration};

use tokio::sync::{mpsc, watch};

use crate::{
    backoff::Backoff,
    client::Client,
    driver::Driver,
    engine::{Engine, Settings},
    error::Error,
    status::Status,
    transport::{Encoding, Endpoint, Tls, TlsOptions},
};

/// Builds a [`Client`].
#[derive(Debug, Clone)]
pub struct Builder {
    urls: Vec<String>,
    encoding: Encoding,
    client_id: Option<String>,
    token: String,
    tls: TlsOptions,
    extended: bool,
    backoff_base: Duration,
    backoff_cap: Duration,
    connect_timeout: Duration,
    request_timeout: Duration,
    publish_timeout: Duration,
    ping_interval: Duration,
    answer_bytes: usize,
}

impl Builder {
    pub(crate) fn new(url: String) -> Self {
        Self {
            urls: vec![url],
            encoding: Encoding::Json,
            client_id: None,
            token: String::new(),
            tls: TlsOptions::default(),
            extended: true,
            backoff_base: Duration::from_millis(100),
            backoff_cap: Duration::from_secs(20),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(10),
            publish_timeout: Duration::from_secs(30),
            ping_interval: Duration::from_secs(20),
            answer_bytes: 64 * 1024,
        }
    }

    /// Another node of the same gateway. Every attempt to connect goes to the next one.
    #[must_use]
    pub fn node(mut self, url: impl Into<String>) -> Self {
        self.urls.push(url.into());
        self
    }

    /// Encoding on WebSocket (default: JSON). gRPC is always protobuf.
    #[must_use]
    pub fn encoding(mut self, encoding: Encoding) -> Self {
        self.encoding = encoding;
        self
    }

    /// What the client calls itself (default: random). It grants nothing.
    #[must_use]
    pub fn client_id(mut self, client_id: impl Into<String>) -> Self {
        self.client_id = Some(client_id.into());
        self
    }

    /// Credential for the gateway's authentication.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = token.into();
        self
    }

    /// Authorities that may have signed the certificate of a `wss://` or `grpcs://` gateway, in PEM (default: those of the
    /// system).
    #[must_use]
    pub fn ca_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.tls.ca_file = Some(file.into());
        self
    }

    /// The client's own certificate with its chain, and its key, both PEM, for gateways that ask for one.
    #[must_use]
    pub fn identity(mut self, cert_file: impl Into<PathBuf>, key_file: impl Into<PathBuf>) -> Self {
        self.tls.identity = Some((cert_file.into(), key_file.into()));
        self
    }

    /// Whether to ask for the `streamgate.v1` extension (default: yes). Without it there are no positions, no recovery
    /// and no idempotency: a plain `MessageLoop` v1 client.
    #[must_use]
    pub fn extended(mut self, extended: bool) -> Self {
        self.extended = extended;
        self
    }

    /// Delays between attempts are drawn from zero to a ceiling that starts at `base` (default 100 ms) and doubles up
    /// to `cap` (default 20 s).
    #[must_use]
    pub fn backoff(mut self, base: Duration, cap: Duration) -> Self {
        (self.backoff_base, self.backoff_cap) = (base, cap);
        self
    }

    /// How long one attempt to connect may take, and the answer to `connect` after it (default 10 s each).
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long requests wait for an answer, reconnects included (default 10 s).
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// How long publishes are retried (default 30 s). Keep it below the server's idempotency window (default 5 min).
    #[must_use]
    pub fn publish_timeout(mut self, timeout: Duration) -> Self {
        self.publish_timeout = timeout;
        self
    }

    /// How often to ping a server that does not ping itself (default 20 s).
    #[must_use]
    pub fn ping_interval(mut self, interval: Duration) -> Self {
        self.ping_interval = interval.max(Duration::from_millis(1));
        self
    }

    /// Largest answer to a call or survey, in bytes as a frame (default 64 KiB, as the gateway's `limits.frame_bytes`). A
    /// larger one is sent as the error `TOO_LARGE`: the gateway would close the connection over it.
    #[must_use]
    pub fn answer_bytes(mut self, bytes: usize) -> Self {
        self.answer_bytes = bytes;
        self
    }

    /// Starts the client; it connects in the background, and goes on trying. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`Error::InvalidUrl`]; [`Error::Invalid`] if a TLS file cannot be used. Those files are read here.
    pub fn build(self) -> Result<Client, Error> {
        let endpoints: Vec<_> = self.urls.iter().map(|url| Endpoint::parse(url)).collect::<Result<_, _>>()?;
        let secure = endpoints.iter().any(|endpoint| endpoint.secure);
        let tls = secure.then(|| Tls::new(&self.tls)).transpose()?;
        let endpoints: Vec<_> =
            endpoints.into_iter().map(|endpoint| endpoint.with_tls(tls.as_ref())).collect();
        let address = endpoints.first().map(|endpoint| endpoint.address.clone()).unwrap_or_default();
        let all_protobuf = endpoints.iter().all(|endpoint| endpoint.kind == crate::transport::Kind::Grpc);
        let settings = Settings {
            client_id: self.client_id.unwrap_or_else(|| format!("rust-{}", uuid::Uuid::new_v4())),
            token: self.token,
            extended: self.extended,
            connect_timeout: self.connect_timeout,
            ping_interval: self.ping_interval,
        };
        let (commands, queue) = mpsc::unbounded_channel();
        let (status, watcher) = watch::channel(Status::Connecting { address });
        let driver = Driver::new(
            Engine::new(settings),
            endpoints,
            self.encoding,
            self.connect_timeout,
            Backoff::new(self.backoff_base, self.backoff_cap),
            queue,
            status,
        );
        let unasked = driver.unasked();
        tokio::spawn(driver.run());
        Ok(Client::new(crate::client::Defaults {
            commands,
            status: watcher,
            unasked,
            json: !all_protobuf && self.encoding == Encoding::Json,
            extended: self.extended,
            request_timeout: self.request_timeout,
            publish_timeout: self.publish_timeout,
            answer_bytes: self.answer_bytes,
        }))
    }

    /// Starts the client and waits until it is connected.
    ///
    /// # Errors
    /// As [`Self::build`]; or why no node could be reached, when every node was tried once; the client is closed
    /// then.
    pub async fn connect(self) -> Result<Client, Error> {
        let nodes = self.urls.len();
        let client = self.build()?;
        let mut status = client.status();
        let mut failures = 0;
        loop {
            let now = status.borrow_and_update().clone();
            match now {
                Status::Connected { .. } => return Ok(client),
                Status::Closed { error } => return Err(error),
                Status::Disconnected { error, .. } => {
                    failures += 1;
                    if failures >= nodes {
                        return Err(error);
                    }
                }
                Status::Connecting { .. } => {}
            }
            if status.changed().await.is_err() {
                return Err(Error::ClientClosed);
            }
        }
    }
}
