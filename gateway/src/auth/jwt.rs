//! JSON Web Tokens (RFC 7519), signed (RFC 7515) with keys that are configured.
//!
//! Claims: `sub` is the user; `exp` and `nbf` are checked if they are there, `iss` and `aud` if they are configured, and are
//! needed then; `channels` are subscribed to at connect.

use std::{fmt, time::Duration};

pub use jsonwebtoken::Algorithm;
use jsonwebtoken::{AlgorithmFamily, DecodingKey, Validation, decode, decode_header, errors::ErrorKind};
use serde::Deserialize;

use super::{Identity, Refusal, Token};

/// Bytes of the longest token that is looked at.
const LONGEST: usize = 16 * 1024;
/// Bytes of the longest user id.
const LONGEST_USER: usize = 255;
/// Channels that a token may subscribe to.
const MOST_CHANNELS: usize = 128;

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

/// Checks tokens. Equal to another one if both are made from the same.
pub struct JwtVerifier {
    config: JwtConfig,
    keys: Vec<(Option<String>, Algorithm, DecodingKey)>,
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
        self.config == other.config
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
}

impl JwtVerifier {
    /// A verifier with these keys.
    ///
    /// # Errors
    /// The number of the key, from 0, that cannot be used, and why.
    pub fn new(config: JwtConfig) -> Result<Self, (usize, String)> {
        let keys = config.keys.iter().enumerate().map(|(at, key)| {
            let decoding = decoding_key(key).map_err(|why| (at, why))?;
            Ok((key.id.clone(), key.algorithm, decoding))
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
        Ok(Self { keys: keys.collect::<Result<_, _>>()?, validation, config })
    }

    /// Who the bearer is.
    ///
    /// # Errors
    /// What is wrong with the token.
    pub fn verify(&self, token: &Token) -> Result<Identity, Refusal> {
        let token = token.reveal();
        if token.len() > LONGEST {
            return Err(Refusal::TooLong);
        }
        let header = decode_header(token).map_err(|_| Refusal::Malformed)?;
        // RFC 7515 section 4.1.11: what must be understood is not understood here.
        if header.crit.is_some() {
            return Err(Refusal::Malformed);
        }
        let mut refusal = Refusal::NoKey;
        for (id, algorithm, key) in &self.keys {
            let named = id.is_none() || header.kid.is_none() || *id == header.kid;
            if !named || *algorithm != header.alg {
                continue;
            }
            let mut validation = self.validation.clone();
            validation.algorithms = vec![*algorithm];
            match decode::<Claims>(token, key, &validation) {
                Ok(data) => return self.identity(data.claims),
                Err(error) => match refusal_of(error.kind()) {
                    Refusal::Signature => refusal = Refusal::Signature,
                    other => return Err(other),
                },
            }
        }
        Err(refusal)
    }

    fn identity(&self, claims: Claims) -> Result<Identity, Refusal> {
        let user_id = match claims.sub {
            Some(serde_json::Value::String(user)) if is_user(&user) => user,
            _ => return Err(Refusal::Claim("sub")),
        };
        let channels = match claims.channels {
            None => Vec::new(),
            Some(channels) => {
                let channels: Vec<String> =
                    serde_json::from_value(channels).map_err(|_| Refusal::Claim("channels"))?;
                if channels.len() > MOST_CHANNELS {
                    return Err(Refusal::Claim("channels"));
                }
                channels
            }
        };
        // The token is good until then: `exp` was checked with the same leeway.
        let leeway_ms = self.config.leeway.as_secs() * 1_000;
        let expires = claims.exp.as_ref().and_then(serde_json::Value::as_f64);
        let expires_unix_ms = expires.map(|exp| ((exp * 1_000.0) as u64).saturating_add(leeway_ms));
        Ok(Identity { user_id, expires_unix_ms, channels })
    }
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
