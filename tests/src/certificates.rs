//! Certificates for one test: an authority and what it signs, as PEM files that are gone when the test is.

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// An authority of its own. Dropping it removes the files of all that it signed.
pub struct Authority {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// Two PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate.
    pub cert_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
}

impl Authority {
    /// A new authority.
    #[must_use]
    pub fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("streamgate-ca-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&dir).expect("create a directory");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // A name of its own: a stranger's certificate is not taken for a damaged one of this authority.
        let name = format!("authority {}", uuid::Uuid::new_v4());
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("sign");
        pem(&dir.join("ca.pem"), "CERTIFICATE", certificate.der());
        Self { dir, issuer: Issuer::new(params, key) }
    }

    /// The certificate of the authority.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// A new certificate for these names and addresses. The files of an identity of the same `label` are replaced.
    #[must_use]
    pub fn issue(&self, label: &str, names: &[&str]) -> Identity {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name.push(DnType::CommonName, label);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("sign");
        let file = |end: &str| self.dir.join(format!("{label}.{end}.pem"));
        let identity = Identity { cert_file: file("cert"), key_file: file("key") };
        pem(&identity.cert_file, "CERTIFICATE", certificate.der());
        pem(&identity.key_file, "PRIVATE KEY", &key.serialize_der());
        identity
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// RFC 7468.
fn pem(file: &Path, label: &str, der: &[u8]) {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
    let text = format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"));
    fs::write(file, text).expect("write a PEM file");
}
