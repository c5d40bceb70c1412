//! A key pair that is made for one run, the gateway's settings that know it, and tokens that it has signed.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::Context as _;
use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rsa,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;
use streamgate_client::server::{self, ConnectionToken, TokenMinter};

/// How tokens are signed (RFC 7518 section 3.1, RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// RSA of 2048 bits with SHA-256.
    Rs256,
    /// ECDSA over P-256 with SHA-256.
    Es256,
    /// Ed25519.
    Eddsa,
}

/// What a file with a private key says of itself (PKCS #8).
const PRIVATE: &str = "PRIVATE KEY";
/// Tokens are good for that long: longer than any run.
const GOOD_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// A private key, and what the gateway is told of it.
pub struct Keys {
    minter: TokenMinter,
    /// As in the gateway's configuration.
    settings: String,
    /// Where nodes read the public key, if there is one; gone when this is dropped.
    _public: Option<PublicFile>,
}

struct PublicFile(PathBuf);

impl Drop for PublicFile {
    fn drop(&mut self) {
        // A file that stays in the temporary directory harms nobody.
        let _ = fs::remove_file(&self.0);
    }
}

impl Keys {
    /// A new one.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn make(algorithm: Algorithm) -> anyhow::Result<Self> {
        let (name, signing, public) = match algorithm {
            Algorithm::Hs256 => {
                let secret: [u8; 32] = rand::random();
                let secret = STANDARD.encode(secret);
                let minter = TokenMinter::with_secret(server::Algorithm::HS256, secret.as_bytes())?;
                let settings = settings("HS256", &format!("secret: {secret}"));
                return Ok(Self { minter, settings, _public: None });
            }
            Algorithm::Rs256 => {
                let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048)?;
                let private: Pkcs8V1Der<'_> = pair.as_der()?;
                (server::Algorithm::RS256, pem(PRIVATE, private.as_ref()), public(pair.public_key())?)
            }
            Algorithm::Es256 => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
                (
                    server::Algorithm::ES256,
                    pem(PRIVATE, pair.to_pkcs8v1()?.as_ref()),
                    public(pair.public_key())?,
                )
            }
            Algorithm::Eddsa => {
                let pair = Ed25519KeyPair::generate()?;
                (
                    server::Algorithm::EdDSA,
                    pem(PRIVATE, pair.to_pkcs8v1()?.as_ref()),
                    public(pair.public_key())?,
                )
            }
        };
        let minter = TokenMinter::with_private_pem(name, signing.as_bytes())?;
        let file = format!("loadtest-{}-{:08x}.pem", std::process::id(), rand::random::<u32>());
        let path = std::env::temp_dir().join(file);
        fs::write(&path, public).with_context(|| format!("cannot write {}", path.display()))?;
        let settings = settings(&format!("{name:?}"), &format!("public_key_file: '{}'", path.display()));
        Ok(Self { minter, settings, _public: Some(PublicFile(path)) })
    }

    /// What nodes must be told to let in who shows such a token, in YAML.
    pub fn settings(&self) -> &str {
        &self.settings
    }

    /// So many tokens, each of another user.
    ///
    /// # Errors
    /// One cannot be signed.
    pub fn tokens(&self, count: usize) -> anyhow::Result<Vec<String>> {
        let token = |number| {
            let token = ConnectionToken::new(format!("user-{number}")).expires_in(GOOD_FOR);
            self.minter.connection(&token).context("a token")
        };
        (0..count).map(token).collect()
    }
}

fn settings(algorithm: &str, key: &str) -> String {
    format!("auth: {{jwt: {{keys: [{{id: load, algorithm: {algorithm}, {key}}}]}}}}")
}

fn public(key: &impl AsDer<PublicKeyX509Der<'static>>) -> anyhow::Result<String> {
    Ok(pem("PUBLIC KEY", key.as_der()?.as_ref()))
}

/// RFC 7468.
fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line));
    let body = lines.fold(String::new(), |body, line| body + &line + "\n");
    format!("-----BEGIN {label}-----\n{body}-----END {label}-----\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_takes_the_settings_of_every_algorithm() {
        for algorithm in [Algorithm::Hs256, Algorithm::Rs256, Algorithm::Es256, Algorithm::Eddsa] {
            let keys = Keys::make(algorithm).unwrap();
            streamgate::config::assemble("test", keys.settings(), &[]).unwrap();
            let tokens = keys.tokens(2).unwrap();
            assert_ne!(tokens[0], tokens[1]);
        }
    }
}
