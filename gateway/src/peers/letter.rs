//! The words between nodes. A node of another version may know more or fewer of them: what is not known is answered
//! with `NOT_SUPPORTED`.

use streamgate_proto::{cloudevents::CloudEvent, shared};

use crate::error::{ClientError, ErrorCode};

/// What goes through an inbox.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Letter {
    /// Names the ask among those of its node.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Who wrote it.
    #[prost(uint64, tag = "2")]
    pub from: u64,
    /// What it says; none: it is not known here.
    #[prost(oneof = "Body", tags = "3, 4, 5")]
    pub body: Option<Body>,
}

/// What a letter says.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Body {
    /// Do this, and answer.
    #[prost(message, tag = "3")]
    Ask(AskBody),
    /// The answer to the ask with that id.
    #[prost(message, tag = "4")]
    Answer(AnswerBody),
    /// Nobody waits for the answer any more.
    #[prost(bool, tag = "5")]
    Drop(bool),
}

/// An ask and its time.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AskBody {
    /// How long the asker waits, in ms.
    #[prost(uint64, tag = "1")]
    pub timeout_ms: u64,
    /// What; none: it is not known here.
    #[prost(oneof = "Ask", tags = "2, 3, 4, 5, 6, 7, 8, 9")]
    pub ask: Option<Ask>,
}

/// What a node can be asked.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Ask {
    /// Have a client of yours answer a call.
    #[prost(message, tag = "2")]
    Call(CallAsk),
    /// Ask your subscribers of a channel.
    #[prost(message, tag = "3")]
    Survey(SurveyAsk),
    /// Close sessions.
    #[prost(message, tag = "4")]
    Disconnect(DisconnectAsk),
    /// Subscribe sessions.
    #[prost(message, tag = "5")]
    Subscribe(SubscribeAsk),
    /// Unsubscribe sessions.
    #[prost(message, tag = "6")]
    Unsubscribe(SubscribeAsk),
    /// Hand an event to sessions.
    #[prost(message, tag = "7")]
    Send(SendAsk),
    /// Tell of your sessions.
    #[prost(message, tag = "8")]
    Sessions(SessionsAsk),
    /// Close a connection whose session goes on elsewhere.
    #[prost(message, tag = "9")]
    Yield(YieldAsk),
}

/// A session or all sessions of a user.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Who {
    /// Which.
    #[prost(oneof = "who::Of", tags = "1, 2")]
    pub of: Option<who::Of>,
}

/// Parts of [`Who`].
pub mod who {
    /// Session or user.
    #[derive(Clone, PartialEq, Eq, prost::Oneof)]
    pub enum Of {
        /// The session with this id.
        #[prost(string, tag = "1")]
        Session(String),
        /// Every session of this user.
        #[prost(string, tag = "2")]
        User(String),
    }
}

impl Who {
    /// One session.
    #[must_use]
    pub fn session(id: impl Into<String>) -> Self {
        Self { of: Some(who::Of::Session(id.into())) }
    }

    /// All sessions of a user.
    #[must_use]
    pub fn user(id: impl Into<String>) -> Self {
        Self { of: Some(who::Of::User(id.into())) }
    }
}

/// A call for a client.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CallAsk {
    /// Which client.
    #[prost(oneof = "CallTarget", tags = "1, 2")]
    pub target: Option<CallTarget>,
    /// Channel that the caller named.
    #[prost(string, tag = "3")]
    pub channel: String,
    /// Method that the caller named.
    #[prost(string, tag = "4")]
    pub method: String,
    /// The request.
    #[prost(message, optional, tag = "5")]
    pub event: Option<CloudEvent>,
    /// Whether the server itself calls, which needs no offer.
    #[prost(bool, tag = "6")]
    pub by_server: bool,
}

/// Which client is to answer a call.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum CallTarget {
    /// One of those who offer the method.
    #[prost(bool, tag = "1")]
    Responder(bool),
    /// Who.
    #[prost(message, tag = "2")]
    Who(Who),
}

/// A question to subscribers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SurveyAsk {
    /// Whose subscribers.
    #[prost(string, tag = "1")]
    pub channel: String,
    /// The question.
    #[prost(message, optional, tag = "2")]
    pub event: Option<CloudEvent>,
    /// Answers that are wanted, and subscribers that are asked, at most.
    #[prost(uint64, tag = "3")]
    pub most: u64,
    /// How long the subscribers have, in ms: less than the asker waits.
    #[prost(uint64, tag = "4")]
    pub timeout_ms: u64,
    /// Bytes of answers that are wanted at most; 0: whoever asks does not say.
    #[prost(uint64, tag = "5")]
    pub bytes: u64,
}

/// Sessions to close.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DisconnectAsk {
    /// Which.
    #[prost(message, repeated, tag = "1")]
    pub who: Vec<Who>,
    /// Close code.
    #[prost(uint32, tag = "2")]
    pub code: u32,
    /// Close reason.
    #[prost(string, tag = "3")]
    pub reason: String,
}

/// Channels for sessions.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SubscribeAsk {
    /// Which sessions.
    #[prost(message, optional, tag = "1")]
    pub who: Option<Who>,
    /// Channels or patterns.
    #[prost(string, repeated, tag = "2")]
    pub channels: Vec<String>,
}

/// An event for sessions.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SendAsk {
    /// Which sessions.
    #[prost(message, optional, tag = "1")]
    pub who: Option<Who>,
    /// Channel that it is shown with.
    #[prost(string, tag = "2")]
    pub channel: String,
    /// The event.
    #[prost(message, optional, tag = "3")]
    pub event: Option<CloudEvent>,
}

/// A page of a node's sessions.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SessionsAsk {
    /// Only of this user, if it is not empty.
    #[prost(string, tag = "1")]
    pub user: String,
    /// Only of this type of client, if it is not empty.
    #[prost(string, tag = "2")]
    pub client_type: String,
    /// [`SessionsAnswer::next`] of the page before; empty: the first page.
    #[prost(string, tag = "3")]
    pub after: String,
    /// Greatest number of sessions.
    #[prost(uint32, tag = "4")]
    pub limit: u32,
}

/// A session that has another connection now.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct YieldAsk {
    /// Which.
    #[prost(string, tag = "1")]
    pub session: String,
    /// Of that connection: those of earlier tenures are to be closed.
    #[prost(uint32, tag = "2")]
    pub tenure: u32,
}

/// An answer or why there is none.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AnswerBody {
    /// Why there is none.
    #[prost(message, optional, tag = "1")]
    pub error: Option<shared::Error>,
    /// The answer; none: an error, or it is not known here.
    #[prost(oneof = "Answer", tags = "2, 3, 4, 5, 6, 7, 8")]
    pub answer: Option<Answer>,
}

/// What a node answers.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Answer {
    /// Of a call.
    #[prost(message, tag = "2")]
    Called(CloudEvent),
    /// Of a survey.
    #[prost(message, tag = "3")]
    Surveyed(SurveyAnswers),
    /// Of a disconnect, in the order of the ask; or of a send or a yield, with one count.
    #[prost(message, tag = "4")]
    Counted(Counts),
    /// Of a subscribe or an unsubscribe.
    #[prost(message, tag = "5")]
    Subscribed(SubscribeAnswer),
    /// Of a question for sessions.
    #[prost(message, tag = "6")]
    Sessions(SessionsAnswer),
    /// Of a call: no client of the node answers such calls, none was given it.
    #[prost(bool, tag = "7")]
    Nobody(bool),
    /// Of a call: clients of the node answer such calls, but none has room for it. None was given it.
    #[prost(bool, tag = "8")]
    Busy(bool),
}

/// Sessions that were found.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Counts {
    /// How many.
    #[prost(uint32, repeated, tag = "1")]
    pub counts: Vec<u32>,
}

/// What subscribers answered.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SurveyAnswers {
    /// Those that came in time.
    #[prost(message, repeated, tag = "1")]
    pub outcomes: Vec<Outcome>,
    /// How many were asked.
    #[prost(uint64, tag = "2")]
    pub asked: u64,
    /// There were more answers than are told.
    #[prost(bool, tag = "3")]
    pub truncated: bool,
}

/// What one session answered.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Outcome {
    /// Who.
    #[prost(string, tag = "1")]
    pub session_id: String,
    /// The answer.
    #[prost(message, optional, tag = "2")]
    pub event: Option<CloudEvent>,
    /// Why there is none.
    #[prost(message, optional, tag = "3")]
    pub error: Option<shared::Error>,
}

/// What became of channels for sessions.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SubscribeAnswer {
    /// Sessions that were found.
    #[prost(uint32, tag = "1")]
    pub sessions: u32,
    /// In the order of the ask: why a channel failed, for one of the sessions at least; a default one is none.
    #[prost(message, repeated, tag = "2")]
    pub errors: Vec<shared::Error>,
}

/// A page of sessions.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SessionsAnswer {
    /// In no order that means anything.
    #[prost(message, repeated, tag = "1")]
    pub sessions: Vec<SessionInfo>,
    /// What to ask with for the next page; empty: there is none.
    #[prost(string, tag = "2")]
    pub next: String,
}

/// What is known of a session.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SessionInfo {
    /// Its public id.
    #[prost(string, tag = "1")]
    pub session_id: String,
    /// Authenticated user.
    #[prost(string, tag = "2")]
    pub user_id: String,
    /// What the client calls itself.
    #[prost(string, tag = "3")]
    pub client_id: String,
    /// Kind of client.
    #[prost(string, tag = "4")]
    pub client_type: String,
    /// Milliseconds since the Unix epoch.
    #[prost(uint64, tag = "5")]
    pub connected_at: u64,
    /// How it is connected.
    #[prost(string, tag = "6")]
    pub transport: String,
    /// Number of its subscriptions.
    #[prost(uint32, tag = "7")]
    pub subscriptions: u32,
}

impl AnswerBody {
    /// The letter form of an outcome.
    #[must_use]
    pub fn of(outcome: Result<Answer, ClientError>) -> Self {
        match outcome {
            Ok(answer) => Self { error: None, answer: Some(answer) },
            Err(error) => Self { error: Some(error.to_wire()), answer: None },
        }
    }

    /// The outcome itself.
    ///
    /// # Errors
    /// What the other node says, or that it speaks of something that is not known here.
    pub fn outcome(self) -> Result<Answer, ClientError> {
        match (self.error, self.answer) {
            (Some(error), _) => Err(ClientError::from_wire(error)),
            (None, Some(answer)) => Ok(answer),
            (None, None) => Err(unknown()),
        }
    }
}

/// A node of another version speaks.
pub(super) fn unknown() -> ClientError {
    ClientError::new(ErrorCode::NotSupported, "a node of another version does not know that")
}
