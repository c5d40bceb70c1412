//! Certificates and keys in PEM files (RFC 7468). Errors name the file and never repeat what is in it.

use std::{fs, path::Path};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// Reads a file. Blocks.
///
/// # Errors
/// A text that names it.
pub fn read(file: &Path) -> Result<Vec<u8>, String> {
    fs::read(file).map_err(|error| format!("{} cannot be read: {error}", file.display()))
}

/// The certificates in `text`, which comes from `file`: at least one.
///
/// # Errors
/// A text that names the file.
pub fn certificates(file: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(format!("{}: there is no usable certificate in it", file.display())),
    }
}

/// The private key in `text`, which comes from `file`.
///
/// # Errors
/// A text that names the file.
pub fn private_key(file: &Path, text: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(text)
        .map_err(|_| format!("{}: there is no usable private key in it", file.display()))
}

/// The authorities in `text`, which comes from `file`.
///
/// # Errors
/// A text that names the file.
pub fn authorities(file: &Path, text: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file, text)? {
        roots.add(certificate).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(roots)
}
