//! What the server API asks of sessions and nodes, wherever they are.
//!
//! The broker has channels; who is connected where, and what is done to them, goes through [`Control`].

use std::time::Duration;

use futures_util::future::BoxFuture;
use streamgate_proto::{cloudevents::CloudEvent, v1::SurveyAnswer};

use crate::{channel::Channel, error::ClientError};

/// A session, or all sessions of a user.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Who {
    /// By its public id.
    Session(String),
    /// By the user's id, which is never empty.
    User(String),
}

/// What is to be refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Revoke {
    /// All tokens of this user.
    User(String),
    /// The token with this `jti`.
    Token(String),
}

/// Which sessions to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionQuery {
    /// Only those of this user.
    pub user_id: Option<String>,
    /// Only clients that say to be of this kind.
    pub client_type: Option<String>,
    /// Only those of this node, by [`NodeInfo::id`].
    pub node: Option<String>,
    /// At most so many; at least 1.
    pub limit: usize,
    /// [`SessionPage::next`] of the page before. It comes from outside: it may be anything.
    pub page_token: Option<String>,
}

/// One session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionInfo {
    /// Its public id.
    pub session_id: String,
    /// Authenticated user; empty: anonymous.
    pub user_id: String,
    /// What the client calls itself.
    pub client_id: String,
    /// What kind of client it says to be.
    pub client_type: String,
    /// The node that it is connected to.
    pub node: String,
    /// Milliseconds since the Unix epoch.
    pub connected_at: u64,
}

/// A page of sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionPage {
    /// The sessions, in no order.
    pub sessions: Vec<SessionInfo>,
    /// Where the next page starts, opaque; `None`: this is the last one. A page may be empty and not the last.
    pub next: Option<String>,
}

/// One node that is alive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeInfo {
    /// Names this life of the node.
    pub id: String,
    /// Its host.
    pub name: String,
    /// Version of its software.
    pub version: String,
    /// Milliseconds since the Unix epoch.
    pub started_at: u64,
    /// Client connections.
    pub connections: u64,
    /// It is the one that answers.
    pub local: bool,
}

/// What became of a survey.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SurveyOutcome {
    /// Those that came in time.
    pub answers: Vec<SurveyAnswer>,
    /// How many were asked.
    pub asked: u32,
    /// The caps cut answers off.
    pub truncated: bool,
}

/// What became of each channel, in the order of the request.
pub type ByChannel = Vec<(String, Result<(), ClientError>)>;

type Answer<T> = BoxFuture<'static, Result<T, ClientError>>;

/// Acts on sessions and nodes of the whole deployment.
///
/// Who is not connected is [`ErrorCode::NotFound`](crate::error::ErrorCode::NotFound), or a count of 0 where there is
/// one. A method starts its work before it returns; dropping the future does not undo it.
pub trait Control: Send + Sync + 'static {
    /// Closes connections; for each target, in its order, how many there were.
    fn disconnect(
        &self,
        who: Vec<Who>,
        code: u16,
        reason: String,
    ) -> BoxFuture<'static, Vec<Result<u32, ClientError>>>;

    /// Subscribes sessions to channels or patterns, as if they had asked; an error of a channel is that of the first
    /// session that could not.
    fn subscribe(&self, who: Who, channels: Vec<String>) -> Answer<ByChannel>;

    /// Ends subscriptions; one that is not there is no error.
    fn unsubscribe(&self, who: Who, channels: Vec<String>) -> Answer<ByChannel>;

    /// Hands an event to sessions without a subscription, as a message of `channel`, which is a legal name; answers to
    /// how many.
    fn send(&self, who: Who, channel: String, event: CloudEvent) -> Answer<u32>;

    /// Lists sessions.
    fn sessions(&self, query: SessionQuery) -> Answer<SessionPage>;

    /// Calls a method of one session.
    fn call(&self, who: Who, method: String, event: CloudEvent, timeout: Duration) -> Answer<CloudEvent>;

    /// Asks every subscriber of a channel; ends when all have answered or at the timeout.
    fn survey(&self, channel: Channel, event: CloudEvent, timeout: Duration) -> Answer<SurveyOutcome>;

    /// Lists the nodes that are alive.
    fn nodes(&self) -> Answer<Vec<NodeInfo>>;

    /// Has tokens refused on every node until then, and ends the sessions that came in with one.
    fn revoke(&self, what: Revoke, until_unix_ms: u64) -> Answer<()>;
}
