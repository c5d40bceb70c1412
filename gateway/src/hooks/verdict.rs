//! Backends that tell who a client is.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use streamgate_proto::proxy::{AuthenticateRequest, AuthenticateResponse, UserInfo};

use super::{HookError, Hooks, backend::Backend, routes::Routes};
use crate::{
    auth::{Claims, Grants, Identity, Refusal, Stamp, Token, is_user},
    channel::Target,
    client_headers::ClientHeaders,
};

/// Bytes of the longest token that a backend is asked about.
const LONGEST: usize = 16 * 1024;
/// Channels that a backend may subscribe a client to.
const MOST_CHANNELS: usize = 128;

/// What a client shows, and says of itself.
#[derive(Debug, Clone)]
pub struct Credential {
    /// To be checked.
    pub token: Token,
    /// What the client says of itself: its id,
    pub client_id: String,
    /// and its kind.
    pub client_type: String,
    /// The session that asks.
    pub session_id: String,
    /// Headers that it came with.
    pub headers: ClientHeaders,
}

impl Hooks {
    /// Whether there is a backend that tells who clients are.
    #[must_use]
    pub fn authenticates(&self) -> bool {
        self.backend(Routes::authenticate).is_some()
    }

    /// Asks who the client is (`Authenticate`).
    ///
    /// # Errors
    /// [`Refusal::Backend`] if the backend says no, [`Refusal::NoVerdict`] if it says nothing that can be used.
    #[must_use]
    pub fn authenticate(&self, credential: Credential) -> BoxFuture<'static, Result<Identity, Refusal>> {
        let Some(backend) = self.backend(Routes::authenticate) else {
            return Box::pin(async { Err(Refusal::NoVerdict) });
        };
        let asked = self.run(async move { Ok(ask(&backend, credential).await) });
        Box::pin(async move { asked.await.unwrap_or(Err(Refusal::Stopped)) })
    }
}

async fn ask(backend: &Backend, credential: Credential) -> Result<Identity, Refusal> {
    if credential.token.reveal().len() > LONGEST {
        return Err(Refusal::TooLong);
    }
    // The backend says it by what it knew then.
    let asked_ms = now_ms();
    let question = AuthenticateRequest {
        username: credential.client_id.clone(),
        password: credential.token.reveal().to_owned(),
        client_type: credential.client_type,
        client_id: credential.client_id,
        session_id: credential.session_id,
    };
    match backend.ask(&question, &credential.headers, Duration::MAX).await {
        Ok(answer) => identity(answer, asked_ms).inspect_err(|refusal| {
            tracing::debug!(backend = backend.name(), %refusal, "the backend lets a client not in");
        }),
        Err(HookError::Refused { .. }) => Err(Refusal::Backend),
        Err(error) => {
            tracing::warn!(backend = backend.name(), %error, "a client cannot be let in: its token cannot be checked");
            Err(Refusal::NoVerdict)
        }
    }
}

/// Who the answer says that the client is.
fn identity(answer: AuthenticateResponse, asked_ms: u64) -> Result<Identity, Refusal> {
    if answer.error.is_some() {
        return Err(Refusal::Backend);
    }
    let info: UserInfo = answer.user_info.ok_or(Refusal::NoVerdict)?;
    // Backends of before may know their users by name only.
    let user_id = if info.id.is_empty() { info.username } else { info.id };
    if !is_user(&user_id) || info.channels.len() > MOST_CHANNELS {
        return Err(Refusal::NoVerdict);
    }
    let expires_unix_ms = (info.expires_at > 0).then_some(info.expires_at);
    if expires_unix_ms.is_some_and(|at| at <= now_ms()) {
        return Err(Refusal::Expired);
    }
    // A right that cannot be read is no right, and must not look like one.
    let sound = |patterns: &[String]| {
        patterns.len() <= MOST_CHANNELS && patterns.iter().all(|pattern| Target::parse(pattern).is_ok())
    };
    if !sound(&info.subscribe) || !sound(&info.publish) {
        return Err(Refusal::NoVerdict);
    }
    let grants = Grants { subscribe: info.subscribe, publish: info.publish, claims: Claims::default() };
    let stamp = Stamp { token_id: None, issued_unix_ms: Some(asked_ms) };
    Ok(Identity { user_id, expires_unix_ms, channels: info.channels, grants, stamp })
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use streamgate_proto::shared;

    use super::*;

    fn answer(info: UserInfo) -> AuthenticateResponse {
        AuthenticateResponse { error: None, user_info: Some(info) }
    }

    #[test]
    fn a_user_needs_a_name_and_time() {
        let info = UserInfo { id: "ann".into(), channels: vec!["news".into()], ..UserInfo::default() };
        let expected =
            Identity { user_id: "ann".into(), channels: vec!["news".into()], ..Identity::default() };
        let got = identity(answer(info.clone()), 0)
            .map(|identity| Identity { stamp: Stamp::default(), ..identity });
        assert_eq!(got, Ok(expected));
        // What it says is as old as the question: a revocation since then is younger.
        assert_eq!(identity(answer(info.clone()), 7).unwrap().stamp.issued_unix_ms, Some(7));
        let named = UserInfo { username: "bob".into(), ..UserInfo::default() };
        assert_eq!(identity(answer(named), 0).unwrap().user_id, "bob");
        let past = UserInfo { expires_at: 1, ..info.clone() };
        assert_eq!(identity(answer(past), 0), Err(Refusal::Expired));
        for unusable in [
            UserInfo::default(),
            UserInfo { id: "a\nb".into(), ..UserInfo::default() },
            UserInfo { id: "a".repeat(256), ..UserInfo::default() },
            UserInfo { channels: vec![String::new(); 129], ..info },
        ] {
            assert_eq!(identity(answer(unusable), 0), Err(Refusal::NoVerdict));
        }
        assert_eq!(identity(AuthenticateResponse::default(), 0), Err(Refusal::NoVerdict));
    }

    #[test]
    fn a_backend_that_says_no_is_believed_whatever_else_it_says() {
        let mut answer = answer(UserInfo { id: "ann".into(), ..UserInfo::default() });
        answer.error = Some(shared::Error::default());
        assert_eq!(identity(answer, 0), Err(Refusal::Backend));
    }
}
