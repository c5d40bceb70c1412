//! Who may call the API: bearers of a configured token, each for its scopes; without any token only this machine.
//!
//! Invariants: a token is kept as its SHA-256 only, and shown nowhere; every configured token is compared, each in
//! constant time, whatever the ones before said.

use std::fmt;

use hyper::{
    HeaderMap, Uri,
    header::{AUTHORIZATION, HOST},
};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

use crate::{auth::Token, error::ClientError, error::ErrorCode};

/// What a token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Publishing.
    Publish,
    /// Looking: history, presence, channels, sessions, nodes.
    Read,
    /// Changing what is there: subscriptions, connections, histories, revocations.
    Manage,
    /// Asking clients: calls and surveys.
    Call,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 4] = [Self::Publish, Self::Read, Self::Manage, Self::Call];

    /// Its name in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Read => "read",
            Self::Manage => "manage",
            Self::Call => "call",
        }
    }
}

/// A token that opens the API (an element of `api.tokens`).
#[derive(Clone, PartialEq, Eq)]
pub struct ApiToken {
    name: String,
    digest: [u8; 32],
    scopes: Vec<Scope>,
}

impl ApiToken {
    /// A token with its name, for logs, and what it is good for.
    #[must_use]
    pub fn new(name: String, secret: &str, scopes: Vec<Scope>) -> Self {
        Self { name, digest: Sha256::digest(secret).into(), scopes }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiToken")
            .field("name", &self.name)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}

/// Tells who may call what.
#[derive(Debug, Clone, Default)]
pub struct Access {
    tokens: Vec<ApiToken>,
    /// Whether only this machine can connect.
    loopback: bool,
}

impl Access {
    /// With these tokens, on a listener that is bound to loopback or not.
    #[must_use]
    pub fn new(tokens: Vec<ApiToken>, loopback: bool) -> Self {
        Self { tokens, loopback }
    }

    /// The same with other tokens.
    #[must_use]
    pub fn with_tokens(&self, tokens: Vec<ApiToken>) -> Self {
        Self { tokens, loopback: self.loopback }
    }

    /// Whether a request with this target and these headers may do what `scope` is about.
    ///
    /// # Errors
    /// [`ErrorCode::AuthError`] without a token that is known, [`ErrorCode::AclError`] if it is not good for this, or if
    /// there are no tokens and the request is not one of this machine.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap, scope: Scope) -> Result<(), ClientError> {
        if self.tokens.is_empty() {
            return self.local_only(uri, headers);
        }
        let shown =
            headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(Token::of_header);
        let Some(shown) = shown else {
            return Err(ClientError::new(
                ErrorCode::AuthError,
                "a token is needed: Authorization: Bearer TOKEN",
            ));
        };
        let Some(token) = self.find(&shown) else {
            return Err(ClientError::new(ErrorCode::AuthError, "the token is not known here"));
        };
        if token.scopes.contains(&scope) {
            return Ok(());
        }
        let text = format!("the token {:?} does not have the scope `{}`", token.name, scope.as_str());
        Err(ClientError::new(ErrorCode::AclError, text))
    }

    /// The configured token that is shown. Takes as long whichever it is, and if it is none.
    fn find(&self, shown: &Token) -> Option<&ApiToken> {
        let digest: [u8; 32] = Sha256::digest(shown.reveal()).into();
        let mut found = u32::MAX;
        for (at, token) in (0u32..).zip(&self.tokens) {
            let equal: Choice = token.digest.ct_eq(&digest);
            found = u32::conditional_select(&found, &at, equal);
        }
        self.tokens.get(usize::try_from(found).ok()?)
    }

    /// Without tokens: a page of another site can have a browser of this machine send requests, under a name of its own
    /// that it makes resolve to 127.0.0.1 (DNS rebinding). The browser then names that host.
    fn local_only(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), ClientError> {
        let refused = |text: &str| Err(ClientError::new(ErrorCode::AclError, text));
        if !self.loopback {
            return refused(
                "the API is closed: configure `api.tokens`, or have `server.http.addr` on loopback to use it without",
            );
        }
        let named = uri.authority().map(|authority| authority.as_str());
        let hosts = headers.get_all(HOST).iter().map(|value| value.to_str().unwrap_or_default());
        let mut hosts = named.into_iter().chain(hosts).peekable();
        if hosts.peek().is_some() && hosts.all(is_this_machine) {
            return Ok(());
        }
        refused(
            "without `api.tokens` the API answers only requests to localhost, 127.0.0.1 or [::1]: see the Host header",
        )
    }
}

/// Whether `host`, with or without a port, is a name of this machine that no name server has a say in.
fn is_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    };
    name.eq_ignore_ascii_case("localhost") || matches!(name, "127.0.0.1" | "[::1]")
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn code(access: &Access, pairs: &[(&'static str, &str)], scope: Scope) -> Option<ErrorCode> {
        access
            .check(&Uri::from_static("/api/v1/publish"), &headers(pairs), scope)
            .err()
            .map(|error| error.code)
    }

    #[test]
    fn a_token_opens_its_scopes_and_nothing_else() {
        let token =
            |name: &str, secret, scopes: &[Scope]| ApiToken::new(name.into(), secret, scopes.to_vec());
        let tokens = vec![
            token("first", "one", &[Scope::Publish]),
            token("second", "two", &[Scope::Read, Scope::Call]),
        ];
        for loopback in [true, false] {
            let access = Access::new(tokens.clone(), loopback);
            let bearer = |secret: &str, scope| {
                code(&access, &[("host", "x"), ("authorization", &format!("Bearer {secret}"))], scope)
            };
            assert_eq!(bearer("one", Scope::Publish), None);
            assert_eq!(bearer("two", Scope::Call), None);
            assert_eq!(bearer("one", Scope::Read), Some(ErrorCode::AclError));
            assert_eq!(bearer("two", Scope::Manage), Some(ErrorCode::AclError));
            for bad in ["three", "on", "one1", ""] {
                assert_eq!(bearer(bad, Scope::Publish), Some(ErrorCode::AuthError), "{bad}");
            }
            assert_eq!(code(&access, &[("host", "localhost")], Scope::Publish), Some(ErrorCode::AuthError));
            let basic = [("authorization", "Basic one")];
            assert_eq!(code(&access, &basic, Scope::Publish), Some(ErrorCode::AuthError));
        }
        assert!(!format!("{tokens:?}").contains("digest"));
    }

    #[test]
    fn without_tokens_only_this_machine_by_its_own_name() {
        let access = Access::new(Vec::new(), true);
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:8080"] {
            assert_eq!(code(&access, &[("host", host)], Scope::Manage), None, "{host}");
        }
        for host in
            ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8080", "::1", "", "0.0.0.0"]
        {
            assert_eq!(code(&access, &[("host", host)], Scope::Read), Some(ErrorCode::AclError), "{host}");
        }
        assert_eq!(code(&access, &[], Scope::Read), Some(ErrorCode::AclError), "no host");
        let two = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(code(&access, &two, Scope::Read), Some(ErrorCode::AclError), "two hosts");
        let absolute = Uri::from_static("http://evil.example/api/v1/publish");
        assert!(access.check(&absolute, &headers(&[("host", "localhost")]), Scope::Read).is_err());
        let h2 = Uri::from_static("http://127.0.0.1:8080/api/v1/publish");
        assert!(access.check(&h2, &HeaderMap::new(), Scope::Read).is_ok());
    }

    #[test]
    fn without_tokens_a_listener_for_others_is_closed_and_says_what_to_do() {
        let access = Access::new(Vec::new(), false);
        let uri = Uri::from_static("/api/v1/publish");
        let error = access.check(&uri, &headers(&[("host", "localhost")]), Scope::Read).unwrap_err();
        assert_eq!(error.code, ErrorCode::AclError);
        assert!(error.message.contains("`api.tokens`"), "{error}");
    }
}
