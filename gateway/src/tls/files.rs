//! What a listener shows and whom it trusts: from names of files to a configuration of rustls.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, ring},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use sha2::{Digest as _, Sha256};

use super::{Speaks, expiry::not_after, pem};

/// The files of a listener, all PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, its chain after it.
    pub cert_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
    /// Whether clients show certificates, too.
    pub client_auth: ClientAuth,
}

/// What is asked of clients. One that shows a certificate which is not good is refused in any case.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ClientAuth {
    /// Nothing.
    #[default]
    None,
    /// A certificate that an authority in this file has signed, or none.
    Request(PathBuf),
    /// A certificate that an authority in this file has signed.
    Require(PathBuf),
}

impl ClientAuth {
    fn file(&self) -> Option<&PathBuf> {
        match self {
            Self::None => None,
            Self::Request(file) | Self::Require(file) => Some(file),
        }
    }
}

/// What was in the files at one time.
pub(super) struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authorities: Vec<u8>,
}

/// What a listener works with, and until when its certificate is good, in seconds since the Unix epoch.
pub(super) struct Usable {
    pub config: Arc<ServerConfig>,
    pub not_after: i64,
}

impl TlsFiles {
    /// Whether the files can be used now. Blocks.
    ///
    /// # Errors
    /// A text that names the file; it never repeats what is in it.
    pub fn check(&self) -> Result<(), String> {
        self.usable(&self.read()?, Speaks::Http1).map(drop)
    }

    /// Reads the files. Blocks.
    pub(super) fn read(&self) -> Result<Contents, String> {
        Ok(Contents {
            certificate: pem::read(&self.cert_file)?,
            key: pem::read(&self.key_file)?,
            authorities: self.client_auth.file().map_or(Ok(Vec::new()), |file| pem::read(file))?,
        })
    }

    /// Makes a configuration of what was read. TLS 1.2 and 1.3, with the suites of rustls.
    pub(super) fn usable(&self, contents: &Contents, speaks: Speaks) -> Result<Usable, String> {
        let provider = Arc::new(ring::default_provider());
        let chain = pem::certificates(&self.cert_file, &contents.certificate)?;
        let key = pem::private_key(&self.key_file, &contents.key)?;
        let not_after = chain.first().and_then(|leaf| not_after(leaf)).ok_or_else(|| {
            format!("{}: the certificate has no end that can be read", self.cert_file.display())
        })?;
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS: {error}"))?;
        let builder = match self.verifier(contents, provider)? {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(verifier),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| {
            format!("{} and {}: {error}", self.cert_file.display(), self.key_file.display())
        })?;
        config.alpn_protocols = speaks.alpn();
        if self.client_auth == ClientAuth::None {
            // The state is with the client: a node that many come back to does not sign for each of them.
            config.ticketer = ring::Ticketer::new().map_err(|error| format!("TLS: {error}"))?;
        } else {
            // A session that is taken up again would not show its certificate again, which may be over by then.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(Usable { config: Arc::new(config), not_after })
    }

    fn verifier(
        &self,
        contents: &Contents,
        provider: Arc<CryptoProvider>,
    ) -> Result<Option<Arc<dyn ClientCertVerifier>>, String> {
        let Some(file) = self.client_auth.file() else { return Ok(None) };
        let roots = Arc::new(pem::authorities(file, &contents.authorities)?);
        let builder = WebPkiClientVerifier::builder_with_provider(roots, provider);
        let builder = match self.client_auth {
            ClientAuth::Request(_) => builder.allow_unauthenticated(),
            _ => builder,
        };
        let verifier = builder.build().map_err(|error| format!("{}: {error}", file.display()))?;
        Ok(Some(verifier))
    }
}

impl Contents {
    /// Tells whether files have changed; what is in them need not be kept for that.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for part in [&self.certificate, &self.key, &self.authorities] {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }
}
