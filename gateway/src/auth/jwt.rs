//! JSON Web Tokens (RFC 7519), signed (RFC 7515) with keys that are configured or fetched.
//!
//! Claims: `sub` is the user; `exp` and `nbf` are checked if they are there, `iss` and `aud` if they are configured, and are
//! needed then; `channels` are subscribed to at connect; `subscribe` and `publish` are rights; others are kept for rules to look at.
//! A token with the claim `channel` is for a subscription to it, and for nothing else.

use std::{fmt, sync::Arc, time::Duration};

pub use jsonwebtoken::Algorithm;
use jsonwebtoken::{AlgorithmFamily, DecodingKey, Validation, decode, decode_header, errors::ErrorKind};
use serde::Deserialize;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;

use super::{Claims as OtherClaims, Grants, Identity, Jwks, Refusal, Stamp, SubscriptionToken, Token};
use crate::channel::Target;

/// Bytes of the longest token that is looked at.
const LONGEST: usize = 16 * 1024;
/// Bytes of the longest user id.
const LONGEST_USER: usize = 255;
/// Channels and patterns that one claim may list.
const MOST_CHANNELS: usize = 128;
/// Claims that have a meaning of their own here or in RFC 7519 section 4.1: no rule looks at them.
pub const RESERVED_CLAIMS: [&str; 11] =
    ["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "channels", "channel", "subscribe", "publish"];

/// What tokens must be like.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JwtConfig {
    /// Any of them may have signed.
    pub keys: Vec<JwtKey>,
    /// What `iss` must be; none: not looked at.
    pub issuer: Option<String>,
    /// What `aud` must be or contain; none: not looked at.
    pub audience: Option<String>,
    /// How far clocks may differ, in whole seconds.
    pub leeway: Duration,
}

/// A key that tokens may be signed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtKey {
    /// What tokens call it (`kid`). Without one, it is tried for tokens that name any key or none.
    pub id: Option<String>,
    /// The only one that it is used with.
    pub algorithm: Algorithm,
    /// The key itself.
    pub material: KeyMaterial,
}

/// A secret or a public key. `Debug` shows neither.
#[derive(Clone, PartialEq, Eq)]
pub enum KeyMaterial {
    /// For HS256, HS384 and HS512.
    Secret(Vec<u8>),
    /// A public key in PEM, for all others.
    PublicPem(Vec<u8>),
}

impl fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret(_) => "Secret(***)",
            Self::PublicPem(_) => "PublicPem(..)",
        })
    }
}

/// A key that can be used at once.
#[derive(Clone)]
pub(super) struct Key {
    pub id: Option<String>,
    pub algorithm: Algorithm,
    pub decoding: DecodingKey,
}

/// It shows nothing of the key.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// Checks tokens. Equal to another one if both are made from the same.
pub struct JwtVerifier {
    config: JwtConfig,
    keys: Vec<Key>,
    /// Further keys, which are fetched.
    jwks: Option<ArcSwap<Jwks>>,
    /// Of everything but the algorithm, which is the key's.
    validation: Validation,
}

impl fmt::Debug for JwtVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JwtVerifier").field(&self.config).finish()
    }
}

impl PartialEq for JwtVerifier {
    fn eq(&self, other: &Self) -> bool {
        self.config == other.config && self.jwks() == other.jwks()
    }
}

#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    sub: Option<serde_json::Value>,
    #[serde(default)]
    exp: Option<serde_json::Value>,
    #[serde(default)]
    channels: Option<serde_json::Value>,
    #[serde(default)]
    subscribe: Option<serde_json::Value>,
    #[serde(default)]
    publish: Option<serde_json::Value>,
    #[serde(default)]
    channel: Option<serde_json::Value>,
    #[serde(default)]
    jti: Option<serde_json::Value>,
    #[serde(default)]
    iat: Option<serde_json::Value>,
    #[serde(flatten)]
    others: serde_json::Map<String, serde_json::Value>,
}

impl JwtVerifier {
    /// A verifier with these keys.
    ///
    /// # Errors
    /// The number of the key, from 0, that cannot be used, and why.
    pub fn new(config: JwtConfig) -> Result<Self, (usize, String)> {
        let keys = config.keys.iter().enumerate().map(|(at, key)| {
            let decoding = decoding_key(key).map_err(|why| (at, why))?;
            Ok(Key { id: key.id.clone(), algorithm: key.algorithm, decoding })
        });
        let mut validation = Validation::default();
        validation.required_spec_claims.clear();
        validation.leeway = config.leeway.as_secs();
        validation.validate_nbf = true;
        validation.validate_aud = config.audience.is_some();
        if let Some(issuer) = &config.issuer {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        if let Some(audience) = &config.audience {
            validation.set_audience(&[audience]);
            validation.required_spec_claims.insert("aud".to_owned());
        }
        Ok(Self { keys: keys.collect::<Result<_, _>>()?, jwks: None, validation, config })
    }

    /// The same with further keys from a set.
    #[must_use]
    pub fn with_jwks(self, jwks: Jwks) -> Self {
        Self { jwks: Some(ArcSwap::from_pointee(jwks)), ..self }
    }

    fn jwks(&self) -> Option<Jwks> {
        self.jwks.as_ref().map(|jwks| (**jwks.load()).clone())
    }

    /// Begins to fetch keys, if there are any to fetch; those of `former` are taken over if they are of the same set.
    pub fn start(&self, former: Option<&Self>, runtime: &Handle) {
        let Some(place) = &self.jwks else { return };
        if let Some(known) = former.and_then(Self::jwks)
            && known == **place.load()
        {
            place.store(Arc::new(known));
        }
        place.load().start(runtime);
    }

    /// Looks for the key of a token that was refused for want of one, if it may be that a set has it now. Afterwards the
    /// token may be good. Never takes longer than a fetch may.
    ///
    /// Cancel: safe.
    pub async fn look_for_key(&self, token: &Token) {
        let Some(jwks) = self.jwks() else { return };
        let Ok(header) = decode_header(token.reveal()) else { return };
        // A set has no symmetric keys, so nobody makes it be fetched by a token that says it is signed with one.
        let symmetric = header.alg.family() == AlgorithmFamily::Hmac;
        let known = |keys: &[Key]| header.kid.is_some() && keys.iter().any(|key| key.id == header.kid);
        if !symmetric && !known(&self.keys) && !known(&jwks.keys()) {
            jwks.look_again().await;
        }
    }

    /// Who the bearer is.
    ///
    /// # Errors
    /// What is wrong with the token.
    pub fn verify(&self, token: &Token) -> Result<Identity, Refusal> {
        self.identity(self.claims(token)?)
    }

    /// What the bearer may subscribe to.
    ///
    /// # Errors
    /// What is wrong with the token.
    pub fn verify_subscription(&self, token: &Token) -> Result<SubscriptionToken, Refusal> {
        let claims = self.claims(token)?;
        let channel = match &claims.channel {
            None => return Err(Refusal::ForConnection),
            Some(serde_json::Value::String(channel)) if Target::parse(channel).is_ok() => channel.clone(),
            Some(_) => return Err(Refusal::Claim("channel")),
        };
        let user_id = match &claims.sub {
            None => String::new(),
            Some(serde_json::Value::String(user)) if user.is_empty() || is_user(user) => user.clone(),
            Some(_) => return Err(Refusal::Claim("sub")),
        };
        let (expires_unix_ms, stamp) = (self.expires(&claims), stamp(claims.jti, claims.iat.as_ref())?);
        Ok(SubscriptionToken { user_id, channel, expires_unix_ms, stamp })
    }

    /// The claims of a token that is good.
    fn claims(&self, token: &Token) -> Result<Claims, Refusal> {
        let token = token.reveal();
        if token.len() > LONGEST {
            return Err(Refusal::TooLong);
        }
        let header = decode_header(token).map_err(|_| Refusal::Malformed)?;
        // RFC 7515 section 4.1.11: what must be understood is not understood here.
        if header.crit.is_some() {
            return Err(Refusal::Malformed);
        }
        let jwks = self.jwks();
        let fetched = jwks.as_ref().map(Jwks::keys).unwrap_or_default();
        let away = jwks.is_some_and(|jwks| !jwks.is_there());
        let mut refusal = if away { Refusal::KeysAway } else { Refusal::NoKey };
        for Key { id, algorithm, decoding } in self.keys.iter().chain(fetched.iter()) {
            let named = id.is_none() || header.kid.is_none() || *id == header.kid;
            if !named || *algorithm != header.alg {
                continue;
            }
            let mut validation = self.validation.clone();
            validation.algorithms = vec![*algorithm];
            match decode::<Claims>(token, decoding, &validation) {
                Ok(data) => return Ok(data.claims),
                Err(error) => match refusal_of(error.kind()) {
                    Refusal::Signature => refusal = Refusal::Signature,
                    other => return Err(other),
                },
            }
        }
        Err(refusal)
    }

    fn identity(&self, mut claims: Claims) -> Result<Identity, Refusal> {
        if claims.channel.is_some() {
            return Err(Refusal::ForSubscription);
        }
        let expires_unix_ms = self.expires(&claims);
        let user_id = match claims.sub {
            Some(serde_json::Value::String(user)) if is_user(&user) => user,
            _ => return Err(Refusal::Claim("sub")),
        };
        let channels = names(claims.channels, "channels")?;
        claims.others.retain(|name, _| !RESERVED_CLAIMS.contains(&name.as_str()));
        let grants = Grants {
            subscribe: patterns(claims.subscribe, "subscribe")?,
            publish: patterns(claims.publish, "publish")?,
            claims: OtherClaims::of(&claims.others),
        };
        let stamp = stamp(claims.jti, claims.iat.as_ref())?;
        Ok(Identity { user_id, expires_unix_ms, channels, grants, stamp })
    }

    /// Until when the token is good: `exp` was checked with the same leeway.
    fn expires(&self, claims: &Claims) -> Option<u64> {
        let leeway_ms = self.config.leeway.as_secs() * 1_000;
        let expires = claims.exp.as_ref().and_then(serde_json::Value::as_f64);
        expires.map(|exp| ((exp * 1_000.0) as u64).saturating_add(leeway_ms))
    }
}

/// By what a token can be revoked. A name that cannot be read must not be one that cannot be revoked.
fn stamp(jti: Option<serde_json::Value>, iat: Option<&serde_json::Value>) -> Result<Stamp, Refusal> {
    let token_id = match jti {
        None | Some(serde_json::Value::Null) => None,
        Some(serde_json::Value::String(id)) => Some(id.into()),
        Some(_) => return Err(Refusal::Claim("jti")),
    };
    let issued = iat.and_then(serde_json::Value::as_f64);
    Ok(Stamp { token_id, issued_unix_ms: issued.map(|at| (at * 1_000.0) as u64) })
}

/// The names that a claim lists; none if it is not there.
fn names(claim: Option<serde_json::Value>, name: &'static str) -> Result<Vec<String>, Refusal> {
    let Some(claim) = claim else { return Ok(Vec::new()) };
    let names: Vec<String> = serde_json::from_value(claim).map_err(|_| Refusal::Claim(name))?;
    if names.len() > MOST_CHANNELS { Err(Refusal::Claim(name)) } else { Ok(names) }
}

/// The channels and patterns that a claim lists: a right that cannot be read is no right, and must not look like one.
fn patterns(claim: Option<serde_json::Value>, name: &'static str) -> Result<Vec<String>, Refusal> {
    let patterns = names(claim, name)?;
    let sound = patterns.iter().all(|pattern| Target::parse(pattern).is_ok());
    if sound { Ok(patterns) } else { Err(Refusal::Claim(name)) }
}

/// Whether this can be a user id: one is told to others and becomes part of names.
pub(crate) fn is_user(user: &str) -> bool {
    (1..=LONGEST_USER).contains(&user.len()) && !user.contains(char::is_control)
}

fn decoding_key(key: &JwtKey) -> Result<DecodingKey, String> {
    let family = key.algorithm.family();
    let unfit = |error: jsonwebtoken::errors::Error| {
        format!("is not a public key in PEM that {:?} can be checked with: {error}", key.algorithm)
    };
    match (&key.material, family) {
        (KeyMaterial::Secret(secret), AlgorithmFamily::Hmac) => {
            // RFC 7518 section 3.2: as long as the hash at least.
            let least = match key.algorithm {
                Algorithm::HS384 => 48,
                Algorithm::HS512 => 64,
                _ => 32,
            };
            if secret.len() < least {
                return Err(format!(
                    "has {} bytes, {:?} needs {least} at least (RFC 7518)",
                    secret.len(),
                    key.algorithm
                ));
            }
            Ok(DecodingKey::from_secret(secret))
        }
        (KeyMaterial::PublicPem(pem), AlgorithmFamily::Rsa) => DecodingKey::from_rsa_pem(pem).map_err(unfit),
        (KeyMaterial::PublicPem(pem), AlgorithmFamily::Ec) => DecodingKey::from_ec_pem(pem).map_err(unfit),
        (KeyMaterial::PublicPem(pem), AlgorithmFamily::Ed) => DecodingKey::from_ed_pem(pem).map_err(unfit),
        (KeyMaterial::Secret(_), _) => {
            Err(format!("is a secret, but {:?} needs a public key", key.algorithm))
        }
        (KeyMaterial::PublicPem(_), _) => {
            Err(format!("is a public key, but {:?} needs a secret", key.algorithm))
        }
    }
}

fn refusal_of(kind: &ErrorKind) -> Refusal {
    match kind {
        ErrorKind::ExpiredSignature => Refusal::Expired,
        ErrorKind::ImmatureSignature => Refusal::NotYetValid,
        ErrorKind::InvalidIssuer => Refusal::Issuer,
        ErrorKind::InvalidAudience => Refusal::Audience,
        ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => match claim.as_str()
        {
            "iss" => Refusal::Issuer,
            "aud" => Refusal::Audience,
            "nbf" => Refusal::Claim("nbf"),
            _ => Refusal::Claim("exp"),
        },
        ErrorKind::InvalidSignature
        | ErrorKind::InvalidEcdsaKey
        | ErrorKind::InvalidEddsaKey
        | ErrorKind::InvalidRsaKey(_) => Refusal::Signature,
        _ => Refusal::Malformed,
    }
}

#[cfg(test)]
#[path = "jwt_tests.rs"]
mod tests;
