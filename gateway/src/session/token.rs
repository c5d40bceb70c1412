//! Resume tokens: the secret that brings a session back on any node.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

/// `session id "." secret`; only the hash of the secret is ever stored. `Debug` does not show the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct ResumeToken {
    /// The session that it brings back.
    pub session: String,
    secret: String,
}

impl ResumeToken {
    /// A token for `session` with a fresh secret of 122 random bits.
    #[must_use]
    pub fn fresh(session: &str) -> Self {
        let secret = URL_SAFE_NO_PAD.encode(uuid::Uuid::new_v4().as_bytes());
        Self { session: session.to_owned(), secret }
    }

    /// Reads what [`Self::wire`] made; `None` if `text` has another form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (session, secret) = text.split_once('.')?;
        let plausible = uuid::Uuid::try_parse(session).is_ok() && (16..=64).contains(&secret.len());
        plausible.then(|| Self { session: session.to_owned(), secret: secret.to_owned() })
    }

    /// The form that the client keeps.
    #[must_use]
    pub fn wire(&self) -> String {
        format!("{}.{}", self.session, self.secret)
    }

    /// SHA-256 of the secret.
    #[must_use]
    pub fn secret_hash(&self) -> Vec<u8> {
        Sha256::digest(self.secret.as_bytes()).to_vec()
    }
}

impl fmt::Debug for ResumeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResumeToken").field("session", &self.session).finish_non_exhaustive()
    }
}
