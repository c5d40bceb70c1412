//! Opening connections: TCP, and TLS where the URL says `https`.

use std::{path::PathBuf, time::Duration};

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::ClientConfig;

use crate::broker::redis::TlsOptions;

/// Longest that a TCP connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// How often the system looks whether a silent peer is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Opens connections for `http` and `https`.
pub type Https = HttpsConnector<HttpConnector>;

/// Which authorities may have signed a server's certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Trust {
    /// Those of the system.
    #[default]
    System,
    /// Those in this PEM file only.
    File(PathBuf),
}

impl Trust {
    /// Reads the certificates.
    fn client_config(&self) -> Result<ClientConfig, String> {
        let ca_file = match self {
            Self::System => None,
            Self::File(file) => Some(file.clone()),
        };
        TlsOptions { ca_file, ..TlsOptions::default() }.client_config()
    }
}

/// For HTTP/1.1.
pub(super) fn http1(trust: &Trust) -> Result<Https, String> {
    Ok(HttpsConnectorBuilder::new()
        .with_tls_config(trust.client_config()?)
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp()))
}

/// For HTTP/2 alone, as gRPC speaks it. Reads files, blocking.
///
/// # Errors
/// A text that names the file that cannot be used.
pub fn https(trust: &Trust) -> Result<Https, String> {
    Ok(HttpsConnectorBuilder::new()
        .with_tls_config(trust.client_config()?)
        .https_or_http()
        .enable_http2()
        .wrap_connector(tcp()))
}

fn tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    // `https` is for the layer above it.
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT));
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp
}
