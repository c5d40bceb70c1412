//! The `auth` section.

use std::{sync::Arc, time::Duration};

use super::{
    checks::Checks,
    jwks::jwks,
    schema::{Auth, JwtKeyEntry},
};
use crate::auth::{Algorithm, JwtConfig, JwtKey, JwtVerifier, KeyMaterial};

/// What a key may be used with.
const ALGORITHMS: &str =
    "HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA";

/// What tokens must be like; none: there is no authentication.
pub(super) fn auth(checks: &mut Checks, keys: Auth) -> Option<Arc<JwtVerifier>> {
    let keys = keys.jwt?;
    let leeway = checks.span("auth.jwt.leeway", keys.leeway, Duration::from_secs(5), 0..=300_000);
    let (issuer, audience) = (given(keys.issuer), given(keys.audience));
    let had_set = keys.jwks.as_ref().is_some_and(|jwks| jwks.url.as_ref().is_some_and(|url| !url.is_empty()));
    let jwks = jwks(checks, keys.jwks.unwrap_or_default());
    let entries = match keys.keys {
        Some(entries) if !entries.is_empty() => entries,
        _ if had_set => Vec::new(),
        None if issuer.is_none() && audience.is_none() && keys.leeway.is_none() => return None,
        _ => {
            checks.wrong("auth.jwt.keys", "is empty, and there is no jwks.url: no token could be checked");
            return None;
        }
    };
    let read: Vec<_> = entries.into_iter().enumerate().map(|(at, entry)| key(checks, at, entry)).collect();
    let read = read.into_iter().collect::<Option<Vec<_>>>()?;
    let config = JwtConfig { keys: read, issuer, audience, leeway };
    match JwtVerifier::new(config) {
        Ok(verifier) => Some(Arc::new(match jwks {
            Some(jwks) => verifier.with_jwks(jwks),
            None => verifier,
        })),
        Err((at, why)) => {
            checks.wrong(&format!("auth.jwt.keys[{at}]"), why);
            None
        }
    }
}

/// An empty text is none.
fn given(value: Option<String>) -> Option<String> {
    value.filter(|text| !text.is_empty())
}

/// A key, if all that it needs is there.
fn key(checks: &mut Checks, at: usize, entry: JwtKeyEntry) -> Option<JwtKey> {
    let path = format!("auth.jwt.keys[{at}]");
    let name = entry.algorithm.unwrap_or_default();
    let Ok(algorithm) = name.parse::<Algorithm>() else {
        checks.wrong(&format!("{path}.algorithm"), format!("`{name}` is unknown, allowed is {ALGORITHMS}"));
        return None;
    };
    let mut file = |key: &str, name: &str| match std::fs::read(name) {
        Ok(content) => Some(content),
        Err(error) => {
            checks.wrong(&format!("{path}.{key}"), format!("`{name}` cannot be read: {error}"));
            None
        }
    };
    let material = match (given(entry.secret), given(entry.secret_file), given(entry.public_key_file)) {
        (Some(secret), None, None) => KeyMaterial::Secret(secret.into_bytes()),
        (None, Some(name), None) => {
            // A line that an editor has ended is meant without its end.
            let content = file("secret_file", &name)?;
            KeyMaterial::Secret(content.trim_ascii_end().to_vec())
        }
        (None, None, Some(name)) => KeyMaterial::PublicPem(file("public_key_file", &name)?),
        _ => {
            checks.wrong(&path, "needs one of secret, secret_file and public_key_file");
            return None;
        }
    };
    Some(JwtKey { id: entry.id.filter(|id| !id.is_empty()), algorithm, material })
}
