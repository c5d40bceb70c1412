//! Minting the JSON Web Tokens (RFC 7519) that the gateway takes with `auth.jwt`.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{AlgorithmFamily, EncodingKey, Header, encode};
use serde_json::{Map, Value, json};

pub use jsonwebtoken::Algorithm;

use crate::error::Error;

/// Claims that [`ConnectionToken::claim`] does not set: they have a meaning, and a place of their own.
const RESERVED: [&str; 11] =
    ["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "channels", "channel", "subscribe", "publish"];

/// Signs tokens with one key.
///
/// ```
/// use std::time::Duration;
/// use streamgate_client::server::{Algorithm, ConnectionToken, SubscriptionToken, TokenMinter};
///
/// # fn example(secret: &[u8]) -> Result<(), streamgate_client::Error> {
/// let minter = TokenMinter::with_secret(Algorithm::HS256, secret)?.issuer("shop");
///
/// let connection = ConnectionToken::new("ann").expires_in(Duration::from_secs(3600)).subscribe("orders.ann.**");
/// let token = minter.connection(&connection)?;
///
/// let subscription = SubscriptionToken::new("room.blue").user("ann").expires_in(Duration::from_secs(60));
/// let token = minter.subscription(&subscription)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TokenMinter {
    header: Header,
    key: EncodingKey,
    issuer: Option<String>,
    audience: Option<String>,
}

impl fmt::Debug for TokenMinter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenMinter")
            .field("algorithm", &self.header.alg)
            .field("key_id", &self.header.kid)
            .finish_non_exhaustive()
    }
}

impl TokenMinter {
    /// With a secret for HS256, HS384 or HS512, as long as the hash at least (RFC 7518 section 3.2): 32, 48 or 64 bytes.
    ///
    /// # Errors
    /// [`Error::Invalid`]: the algorithm takes no secret, or a longer one.
    pub fn with_secret(algorithm: Algorithm, secret: &[u8]) -> Result<Self, Error> {
        let least = match algorithm {
            Algorithm::HS256 => 32,
            Algorithm::HS384 => 48,
            Algorithm::HS512 => 64,
            other => return Err(Error::Invalid(format!("{other:?} takes a private key, not a secret"))),
        };
        if secret.len() < least {
            let text = format!("the secret has {} bytes, {algorithm:?} needs {least} at least", secret.len());
            return Err(Error::Invalid(text));
        }
        Self::new(algorithm, EncodingKey::from_secret(secret))
    }

    /// With a private key in PEM, for RS, PS (PKCS #1 or #8), ES and `EdDSA` (PKCS #8).
    ///
    /// # Errors
    /// [`Error::Invalid`]: it is no key that the algorithm can sign with.
    pub fn with_private_pem(algorithm: Algorithm, pem: &[u8]) -> Result<Self, Error> {
        let key = match algorithm.family() {
            AlgorithmFamily::Hmac => {
                return Err(Error::Invalid(format!("{algorithm:?} takes a secret, not a private key")));
            }
            AlgorithmFamily::Rsa => EncodingKey::from_rsa_pem(pem),
            AlgorithmFamily::Ec => EncodingKey::from_ec_pem(pem),
            AlgorithmFamily::Ed => EncodingKey::from_ed_pem(pem),
        };
        Self::new(algorithm, key.map_err(|error| unfit(algorithm, &error))?)
    }

    /// Tries the key at once: that it is of another curve would be found out only by signing.
    fn new(algorithm: Algorithm, key: EncodingKey) -> Result<Self, Error> {
        let header = Header::new(algorithm);
        encode(&header, &json!({}), &key).map_err(|error| unfit(algorithm, &error))?;
        Ok(Self { header, key, issuer: None, audience: None })
    }

    /// What tokens call the key (`kid`).
    #[must_use]
    pub fn key_id(mut self, id: impl Into<String>) -> Self {
        self.header.kid = Some(id.into());
        self
    }

    /// Who issues the tokens (`iss`).
    #[must_use]
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.issuer = Some(issuer.into());
        self
    }

    /// Whom the tokens are for (`aud`).
    #[must_use]
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audience = Some(audience.into());
        self
    }

    /// A token to connect with.
    ///
    /// # Errors
    /// [`Error::Invalid`]: there is no user, or a claim has a name with a meaning of its own.
    pub fn connection(&self, token: &ConnectionToken) -> Result<String, Error> {
        if token.user.is_empty() {
            return Err(Error::Invalid("a token to connect with needs a user".to_owned()));
        }
        if let Some((name, _)) = token.claims.iter().find(|(name, _)| RESERVED.contains(&name.as_str())) {
            return Err(Error::Invalid(format!(
                "the claim `{name}` has a meaning: it is not one of your own"
            )));
        }
        let mut claims = token.claims.clone();
        claims.insert("sub".to_owned(), json!(token.user));
        let id = token.id.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        claims.insert("jti".to_owned(), json!(id));
        for (name, list) in
            [("channels", &token.channels), ("subscribe", &token.subscribe), ("publish", &token.publish)]
        {
            if !list.is_empty() {
                claims.insert(name.to_owned(), json!(list));
            }
        }
        self.sign(claims, token.lifetime)
    }

    /// A token for one subscription.
    ///
    /// # Errors
    /// [`Error::Invalid`]: there is no channel.
    pub fn subscription(&self, token: &SubscriptionToken) -> Result<String, Error> {
        if token.channel.is_empty() {
            return Err(Error::Invalid("a token for a subscription needs a channel".to_owned()));
        }
        let mut claims = Map::new();
        claims.insert("channel".to_owned(), json!(token.channel));
        if !token.user.is_empty() {
            claims.insert("sub".to_owned(), json!(token.user));
        }
        self.sign(claims, token.lifetime)
    }

    fn sign(&self, mut claims: Map<String, Value>, lifetime: Option<Duration>) -> Result<String, Error> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        claims.insert("iat".to_owned(), json!(now.as_secs()));
        if let Some(lifetime) = lifetime {
            claims.insert("exp".to_owned(), json!(now.saturating_add(lifetime).as_secs()));
        }
        for (name, value) in [("iss", &self.issuer), ("aud", &self.audience)] {
            if let Some(value) = value {
                claims.insert(name.to_owned(), json!(value));
            }
        }
        encode(&self.header, &claims, &self.key).map_err(|error| unfit(self.header.alg, &error))
    }
}

/// The error does not show the key.
fn unfit(algorithm: Algorithm, error: &jsonwebtoken::errors::Error) -> Error {
    Error::Invalid(format!("this is no key that {algorithm:?} can sign with: {error}"))
}

/// What a token to connect with says. Issued now, with a random id (`jti`), good for ever unless it says otherwise.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConnectionToken {
    user: String,
    lifetime: Option<Duration>,
    id: Option<String>,
    channels: Vec<String>,
    subscribe: Vec<String>,
    publish: Vec<String>,
    claims: Map<String, Value>,
}

impl ConnectionToken {
    /// For this user (`sub`).
    pub fn new(user: impl Into<String>) -> Self {
        Self { user: user.into(), ..Self::default() }
    }

    /// Good for so long, to the second (`exp`). The session ends then, unless the client refreshes its token.
    #[must_use]
    pub fn expires_in(mut self, time: Duration) -> Self {
        self.lifetime = Some(time);
        self
    }

    /// By which this token alone can be revoked (`jti`; default: random).
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// A channel or pattern that the client is subscribed to without asking (`channels`).
    #[must_use]
    pub fn channel(mut self, channel: impl Into<String>) -> Self {
        self.channels.push(channel.into());
        self
    }

    /// A channel or pattern that it may subscribe to (`subscribe`).
    #[must_use]
    pub fn subscribe(mut self, channel: impl Into<String>) -> Self {
        self.subscribe.push(channel.into());
        self
    }

    /// A channel or pattern that it may publish to (`publish`).
    #[must_use]
    pub fn publish(mut self, channel: impl Into<String>) -> Self {
        self.publish.push(channel.into());
        self
    }

    /// Another claim, for the gateway's rules to look at.
    #[must_use]
    pub fn claim(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.claims.insert(name.into(), value.into());
        self
    }
}

/// What a token for one subscription says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubscriptionToken {
    channel: String,
    user: String,
    lifetime: Option<Duration>,
}

impl SubscriptionToken {
    /// For a subscription to this channel or pattern, letter for letter, by somebody anonymous.
    pub fn new(channel: impl Into<String>) -> Self {
        Self { channel: channel.into(), ..Self::default() }
    }

    /// By this user.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = user.into();
        self
    }

    /// Good for so long, to the second; the subscription ends then.
    #[must_use]
    pub fn expires_in(mut self, time: Duration) -> Self {
        self.lifetime = Some(time);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"a secret of at least thirty-two bytes";

    fn message(outcome: Result<impl fmt::Debug, Error>) -> String {
        outcome.unwrap_err().to_string()
    }

    #[test]
    fn keys_that_do_not_fit_are_refused_at_once_and_shown_nowhere() {
        let short = message(TokenMinter::with_secret(Algorithm::HS512, SECRET));
        assert_eq!(short, "the secret has 37 bytes, HS512 needs 64 at least");
        assert!(message(TokenMinter::with_secret(Algorithm::ES256, SECRET)).contains("private key"));
        assert!(message(TokenMinter::with_private_pem(Algorithm::HS256, SECRET)).contains("a secret"));
        let wrong = message(TokenMinter::with_private_pem(Algorithm::EdDSA, SECRET));
        assert!(wrong.contains("EdDSA") && !wrong.contains("thirty-two"), "{wrong}");
        let minter = TokenMinter::with_secret(Algorithm::HS256, SECRET).unwrap().key_id("k");
        assert_eq!(format!("{minter:?}"), "TokenMinter { algorithm: HS256, key_id: Some(\"k\"), .. }");
    }

    #[test]
    fn claims_with_a_meaning_are_not_ones_own() {
        let minter = TokenMinter::with_secret(Algorithm::HS256, SECRET).unwrap();
        assert!(message(minter.connection(&ConnectionToken::new("ann").claim("exp", 1))).contains("`exp`"));
        assert!(message(minter.connection(&ConnectionToken::new(""))).contains("user"));
        assert!(message(minter.subscription(&SubscriptionToken::default())).contains("channel"));
    }
}
