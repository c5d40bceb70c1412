//! Who a client is.
//!
//! Owns: the [`Authenticator`], and what it makes of a [`Token`]: an [`Identity`] or a [`Refusal`]. Never does: touch
//! sessions, sockets or the broker.
//!
//! Invariants:
//! - A token is never shown, in no log and to no client: a [`Refusal`] says in words of our own what is wrong with it.
//! - A key serves one algorithm, the one that it is configured with, or those of its type and set if it is fetched; what a
//!   token says of itself only chooses among keys.
//! - A token is for a connection or for a subscription, never for both: the claim `channel` tells.
//! - Whoever shows a token is who the token says, or nobody: a bad token never makes its bearer anonymous.

mod grants;
mod identity;
mod jwks;
mod jwt;
mod revoked;
mod subscription;
mod token;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;

pub use grants::{Claims, Grants};
pub use identity::{Identity, Refusal};
pub use jwks::{Jwks, JwksConfig};
pub(crate) use jwt::is_user;
pub use jwt::{Algorithm, JwtConfig, JwtKey, JwtVerifier, KeyMaterial, RESERVED_CLAIMS};
pub use revoked::{NO_VERSION, RevokedTokens, Stamp};
pub use subscription::SubscriptionToken;
pub use token::Token;

use crate::hooks::{Credential, Hooks};

/// Tells who a client is by what it shows.
#[derive(Debug, Clone, Default)]
pub struct Authenticator {
    jwt: Option<(Arc<JwtVerifier>, Handle)>,
    /// A backend that is asked, unless there are keys.
    hook: Option<Hooks>,
    /// Whether who shows nothing may come in though there are keys.
    anonymous: bool,
}

impl Authenticator {
    /// Everybody is anonymous, whatever they show.
    #[must_use]
    pub fn open() -> Self {
        Self::default()
    }

    /// What checks tokens.
    #[must_use]
    pub fn verifier(&self) -> Option<&JwtVerifier> {
        self.jwt.as_ref().map(|(jwt, _)| &**jwt)
    }

    /// Bearers of a token that `jwt` accepts; who shows none is anonymous, or refused. Tokens are checked on `runtime`:
    /// signatures take tens of microseconds, which a shard's thread has not.
    #[must_use]
    pub fn jwt(jwt: Arc<JwtVerifier>, anonymous: bool, runtime: Handle) -> Self {
        Self { jwt: Some((jwt, runtime)), hook: None, anonymous }
    }

    /// Bearers of a token that a backend accepts; who shows none is anonymous, or refused.
    #[must_use]
    pub fn hook(hooks: Hooks, anonymous: bool) -> Self {
        Self { jwt: None, hook: Some(hooks), anonymous }
    }

    /// What is known at once: whoever needs not show anything. `None`: [`Self::authenticate`] says.
    #[must_use]
    pub fn unasked(&self, token: Option<&Token>) -> Option<Result<Identity, Refusal>> {
        match (self.jwt.is_some() || self.hook.is_some(), token) {
            (false, _) => Some(Ok(Identity::default())),
            (true, None) if self.anonymous => Some(Ok(Identity::default())),
            (true, None) => Some(Err(Refusal::Missing)),
            (true, Some(_)) => None,
        }
    }

    /// Checks a token: with keys by those alone, else by the backend.
    #[must_use]
    pub fn authenticate(&self, credential: Credential) -> BoxFuture<'static, Result<Identity, Refusal>> {
        let Some((jwt, runtime)) = self.jwt.clone() else {
            return match &self.hook {
                Some(hooks) => hooks.authenticate(credential),
                None => Box::pin(async { Ok(Identity::default()) }),
            };
        };
        let checked = runtime.spawn(async move { check(&jwt, &credential.token, JwtVerifier::verify).await });
        Box::pin(async move { checked.await.unwrap_or(Err(Refusal::Stopped)) })
    }

    /// Whether tokens of subscriptions can be checked here.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        self.jwt.is_some()
    }

    /// Checks the token of a subscription; without keys none is good.
    #[must_use]
    pub fn subscription(&self, token: Token) -> BoxFuture<'static, Result<SubscriptionToken, Refusal>> {
        let Some((jwt, runtime)) = self.jwt.clone() else {
            return Box::pin(async { Err(Refusal::NoKey) });
        };
        let checked =
            runtime.spawn(async move { check(&jwt, &token, JwtVerifier::verify_subscription).await });
        Box::pin(async move { checked.await.unwrap_or(Err(Refusal::Stopped)) })
    }
}

/// Checks a token; if its key is not known, once more when it has been looked for.
async fn check<T>(
    jwt: &JwtVerifier,
    token: &Token,
    verify: impl Fn(&JwtVerifier, &Token) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    match verify(jwt, token) {
        Err(Refusal::NoKey | Refusal::KeysAway | Refusal::Signature) => {
            jwt.look_for_key(token).await;
            verify(jwt, token)
        }
        outcome => outcome,
    }
}
