//! TLS to a gateway (`wss://`, `grpcs://`), by rustls. There is no switch to skip verification: a private authority is what
//! [`Builder::ca_file`](crate::Builder::ca_file) is for.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::error::Error;

/// Whom the client trusts and how it shows itself. All files are PEM.
#[derive(Debug, Clone, Default)]
pub(crate) struct TlsOptions {
    /// Authorities; `None`: those of the system.
    pub(crate) ca_file: Option<PathBuf>,
    /// The client's certificate with its chain, and its key.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
}

/// Made from options once, used for every connection.
#[derive(Clone)]
pub(crate) struct Tls(Arc<ClientConfig>);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Reads the files.
    pub(crate) fn new(options: &TlsOptions) -> Result<Self, Error> {
        config(options).map(|config| Self(Arc::new(config))).map_err(Error::Invalid)
    }

    /// The same for connections that speak `protocol` (ALPN).
    pub(crate) fn speaking(&self, protocol: &[u8]) -> Self {
        let mut config = (*self.0).clone();
        config.alpn_protocols = vec![protocol.to_vec()];
        Self(Arc::new(config))
    }

    /// Shakes hands with `address`, `host:port`: its certificate must be for the host. Cancel: ends the connection.
    pub(super) async fn connect(&self, address: &str, tcp: TcpStream) -> Result<TlsStream<TcpStream>, Error> {
        let failed = |reason: String| Error::Unreachable { address: address.to_owned(), reason };
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host)
            .map_err(|_| failed("a certificate cannot be for this host".to_owned()))?;
        let shaken = TlsConnector::from(self.0.clone()).connect(name, tcp).await;
        shaken.map_err(|error| failed(format!("no trusted connection: {error}")))
    }
}

fn config(options: &TlsOptions) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS: {error}"))?
        .with_root_certificates(roots(options.ca_file.as_deref())?);
    let Some((certificate, key)) = &options.identity else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates(certificate)?;
    let secret = PrivateKeyDer::from_pem_slice(&read(key)?)
        .map_err(|_| format!("{}: there is no usable private key in it", key.display()))?;
    builder
        .with_client_auth_cert(chain, secret)
        .map_err(|error| format!("{} and {}: {error}", certificate.display(), key.display()))
}

fn roots(file: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let Some(file) = file else {
        // Single certificates that cannot be read do no harm as long as there are others.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err("this system has no certificates of authorities: name a file with them".to_owned());
        }
        return Ok(roots);
    };
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(roots)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(file)?).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(format!("{}: there is no usable certificate in it", file.display())),
    }
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    fs::read(file).map_err(|error| format!("{} cannot be read: {error}", file.display()))
}
