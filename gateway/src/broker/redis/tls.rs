//! TLS to Redis: from the names of files to what the client needs.
//!
//! Files are read for each connection, so the next one uses a certificate that was renewed meanwhile. There is no switch
//! to skip verification: a private CA is what `ca_file` is for.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{ClientConfig, RootCertStore, client::WantsClientCert, crypto::ring, pki_types::ServerName};

use crate::tls::pem;

/// How the server is recognized and how this node shows itself. All files are PEM.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsOptions {
    /// Certificates of the authorities that may have signed the server's; `None`: those of the system.
    pub ca_file: Option<PathBuf>,
    /// This node's certificate, its chain after it.
    pub cert_file: Option<PathBuf>,
    /// Its private key.
    pub key_file: Option<PathBuf>,
    /// The name that the server's certificate must be for; `None`: the host that is connected to.
    pub server_name: Option<String>,
}

impl TlsOptions {
    /// Whether a certificate could be for this name: a host name or an IP address.
    #[must_use]
    pub fn is_server_name(name: &str) -> bool {
        ServerName::try_from(name).is_ok()
    }

    /// What a failed attempt says of trust, in words; `None` if it failed for another reason. `details` is the debug form
    /// of an error of rustls, which is all that the Redis crate hands on.
    pub(super) fn refusal(&self, details: &str) -> Option<String> {
        let inside = |name: &str| {
            let (_, rest) = details.split_once(&format!("{name}("))?;
            Some(rest.split(['(', ')', ' ', '{']).next().unwrap_or_default().to_owned())
        };
        let file = |file: &Option<PathBuf>| file.as_ref().map(|file| file.display().to_string());
        if let Some(why) = inside("InvalidCertificate") {
            let by = file(&self.ca_file).unwrap_or_else(|| "the system".to_owned());
            return Some(format!("the server's certificate is refused ({why}; authorities: {by})"));
        }
        if let Some(why) = inside("AlertReceived") {
            let mine = file(&self.cert_file).unwrap_or_else(|| "none".to_owned());
            return Some(format!(
                "the server refuses TLS with this node ({why}; this node's certificate: {mine})"
            ));
        }
        details.contains("InvalidMessage").then(|| "the server does not speak TLS on this port".to_owned())
    }

    /// Reads the files. Blocks.
    ///
    /// # Errors
    /// A text that names the file; it never repeats what is in it.
    pub(crate) fn client_config(&self) -> Result<ClientConfig, String> {
        let roots = match &self.ca_file {
            Some(file) => pem::authorities(file, &pem::read(file)?)?,
            None => system_roots()?,
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS: {error}"))?
            .with_root_certificates(roots);
        match (&self.cert_file, &self.key_file) {
            (Some(certificate), Some(key)) => identified(builder, certificate, key),
            (None, None) => Ok(builder.with_no_client_auth()),
            _ => Err("cert_file and key_file belong together".to_owned()),
        }
    }
}

fn identified(
    builder: rustls::ConfigBuilder<ClientConfig, WantsClientCert>,
    certificate: &Path,
    key: &Path,
) -> Result<ClientConfig, String> {
    let chain = pem::certificates(certificate, &pem::read(certificate)?)?;
    let secret = pem::private_key(key, &pem::read(key)?)?;
    builder
        .with_client_auth_cert(chain, secret)
        .map_err(|error| format!("{} and {}: {error}", certificate.display(), key.display()))
}

fn system_roots() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    // Single certificates that cannot be read do no harm as long as there are others.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err("this system has no certificates of authorities: set ca_file".to_owned());
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_wrong_with_a_file_is_said_with_its_name_and_without_its_content() {
        let dir = std::env::temp_dir().join(format!("streamgate-tls-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&dir).unwrap();
        let file = dir.join("ca.pem");
        fs::write(&file, "s3cret, not a certificate").unwrap();
        let of = |ca_file: &Path| {
            let options = TlsOptions { ca_file: Some(ca_file.to_owned()), ..TlsOptions::default() };
            options.client_config().unwrap_err()
        };
        let (damaged, missing) = (of(&file), of(&dir.join("none.pem")));
        fs::remove_dir_all(&dir).unwrap();
        assert!(damaged.contains("ca.pem: there is no usable certificate"), "{damaged}");
        assert!(!damaged.contains("s3cret"), "{damaged}");
        assert!(missing.contains("none.pem cannot be read: "), "{missing}");
    }
}
