//! Sessions: who is connected where, and what is done to them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::Stream;
use streamgate_proto::server as wire;
use tonic::{Request, Response, Status};

use super::{
    api::{ApiClient, Stub, outcome},
    pages::{Page, all},
};
use crate::error::Error;

/// A session, or a user with all sessions that are there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Who {
    /// By its public id.
    Session(String),
    /// By the authenticated user's id.
    User(String),
}

impl Who {
    /// This session.
    pub fn session(id: impl Into<String>) -> Self {
        Self::Session(id.into())
    }

    /// This user.
    pub fn user(id: impl Into<String>) -> Self {
        Self::User(id.into())
    }

    /// `session_id` and `user_id` of a request.
    pub(super) fn into_ids(self) -> (String, String) {
        match self {
            Self::Session(id) => (id, String::new()),
            Self::User(id) => (String::new(), id),
        }
    }

    fn of_ids(session_id: String, user_id: String) -> Self {
        if session_id.is_empty() { Self::User(user_id) } else { Self::Session(session_id) }
    }
}

/// Which sessions to list: those that all of these fit. Empty fits every session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionsQuery {
    /// Of this user.
    pub user_id: String,
    /// Of clients of this kind.
    pub client_type: String,
    /// On this node, by its id.
    pub node: String,
    /// At most so many on a page, up to 5,000; 0: 1,000.
    pub limit: u32,
    /// [`Page::next`] of the page before; empty: the first page.
    pub page_token: String,
}

/// What became of one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelResult {
    /// The channel or pattern.
    pub channel: String,
    /// `NOT_FOUND`: no such session, or none of the user.
    pub outcome: Result<(), Error>,
}

/// How connections are closed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Close {
    /// From 3000 to 4999; 0: 3503, after which clients do not come back.
    pub code: u16,
    /// Up to 123 bytes.
    pub reason: String,
}

/// What became of one session, or of those of one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DisconnectResult {
    /// Who.
    pub who: Who,
    /// How many sessions were closed. `NOT_FOUND`: there are none.
    pub outcome: Result<u32, Error>,
}

/// Tokens to refuse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revocation {
    /// All tokens of this user that were issued until now.
    User(String),
    /// The token with this id (`jti`).
    Token(String),
}

impl ApiClient {
    /// A page of the sessions of all nodes.
    ///
    /// # Errors
    /// See [`ApiClient`].
    pub async fn sessions(&self, query: SessionsQuery) -> Result<Page<wire::SessionInfo>, Error> {
        let SessionsQuery { user_id, client_type, node, limit, page_token } = query;
        let request = wire::SessionsRequest { user_id, client_type, node, limit, page_token };
        let page: wire::SessionsResponse =
            self.ask("sessions", self.timeout, request, |mut api, request| async move {
                api.sessions(request).await
            })
            .await?;
        Ok(Page::new(page.sessions, page.next_page_token))
    }

    /// All of these sessions, page after page as they are taken. An error ends it.
    pub fn all_sessions(
        &self,
        query: SessionsQuery,
    ) -> impl Stream<Item = Result<wire::SessionInfo, Error>> + Send + use<> {
        let api = self.clone();
        all(query.page_token.clone(), move |page_token| {
            let (api, query) = (api.clone(), SessionsQuery { page_token, ..query.clone() });
            async move { api.sessions(query).await }
        })
    }

    /// Subscribes to channels and patterns.
    ///
    /// # Errors
    /// See [`ApiClient`].
    pub async fn subscribe(
        &self,
        who: Who,
        channels: impl IntoIterator<Item: Into<String>>,
    ) -> Result<Vec<ChannelResult>, Error> {
        let ask = |session_id, user_id, channels| wire::SubscribeRequest { session_id, user_id, channels };
        let send = |mut api: Stub, request| async move { api.subscribe(request).await };
        self.change("subscribe", (who, channels), ask, send, |answer: wire::SubscribeResponse| answer.items)
            .await
    }

    /// Unsubscribes from channels and patterns.
    ///
    /// # Errors
    /// See [`ApiClient`].
    pub async fn unsubscribe(
        &self,
        who: Who,
        channels: impl IntoIterator<Item: Into<String>>,
    ) -> Result<Vec<ChannelResult>, Error> {
        let ask = |session_id, user_id, channels| wire::UnsubscribeRequest { session_id, user_id, channels };
        let send = |mut api: Stub, request| async move { api.unsubscribe(request).await };
        self.change("unsubscribe", (who, channels), ask, send, |answer: wire::UnsubscribeResponse| {
            answer.items
        })
        .await
    }

    /// Subscribes or unsubscribes: the two have messages of their own that say the same.
    async fn change<Q, A, F>(
        &self,
        what: &'static str,
        (who, channels): (Who, impl IntoIterator<Item: Into<String>>),
        ask: impl FnOnce(String, String, Vec<String>) -> Q,
        send: impl FnOnce(Stub, Request<Q>) -> F,
        items: impl FnOnce(A) -> Vec<wire::ChannelResult>,
    ) -> Result<Vec<ChannelResult>, Error>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let (session_id, user_id) = who.into_ids();
        let request = ask(session_id, user_id, channels.into_iter().map(Into::into).collect());
        let answer = self.ask(what, self.timeout, request, send).await?;
        Ok(items(answer).into_iter().map(ChannelResult::from).collect())
    }

    /// Closes connections. The results are first by session, then by user.
    ///
    /// # Errors
    /// See [`ApiClient`].
    pub async fn disconnect(
        &self,
        who: impl IntoIterator<Item = Who>,
        close: Close,
    ) -> Result<Vec<DisconnectResult>, Error> {
        let mut request = wire::DisconnectRequest {
            code: u32::from(close.code),
            reason: close.reason,
            ..wire::DisconnectRequest::default()
        };
        for who in who {
            match who {
                Who::Session(id) => request.sessions.push(id),
                Who::User(id) => request.users.push(id),
            }
        }
        let answer: wire::DisconnectResponse = self
            .ask("disconnect", self.timeout, request, |mut api, request| async move {
                api.disconnect(request).await
            })
            .await?;
        Ok(answer.items.into_iter().map(DisconnectResult::from).collect())
    }

    /// The nodes that are alive, in no order.
    ///
    /// # Errors
    /// See [`ApiClient`].
    pub async fn nodes(&self) -> Result<Vec<wire::NodeInfo>, Error> {
        let request = wire::NodesRequest {};
        let answer: wire::NodesResponse = self
            .ask("nodes", self.timeout, request, |mut api, request| async move { api.nodes(request).await })
            .await?;
        Ok(answer.nodes)
    }

    /// Has tokens refused on every node, for so long (up to 366 days): until the last of them ends by itself. Their sessions
    /// are closed. Returns until when.
    ///
    /// # Errors
    /// See [`ApiClient`]; [`Error::Invalid`] if there is no such time.
    pub async fn revoke(&self, what: Revocation, time: Duration) -> Result<SystemTime, Error> {
        let end = SystemTime::now().checked_add(time);
        let end = end.ok_or_else(|| Error::Invalid("a revocation for ever is not possible".to_owned()))?;
        let until = end.duration_since(UNIX_EPOCH).unwrap_or_default();
        let until = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        let (user_id, token_id) = match what {
            Revocation::User(id) => (id, String::new()),
            Revocation::Token(id) => (String::new(), id),
        };
        let request = wire::RevokeRequest { user_id, token_id, until };
        let wire::RevokeResponse {} = self
            .ask("revoke", self.timeout, request, |mut api, request| async move { api.revoke(request).await })
            .await?;
        Ok(end)
    }
}

impl From<wire::ChannelResult> for ChannelResult {
    fn from(result: wire::ChannelResult) -> Self {
        Self { channel: result.channel, outcome: outcome(result.error, ()) }
    }
}

impl From<wire::DisconnectResult> for DisconnectResult {
    fn from(result: wire::DisconnectResult) -> Self {
        Self {
            who: Who::of_ids(result.session_id, result.user_id),
            outcome: outcome(result.error, result.closed),
        }
    }
}
