//! What a session wants done.

use std::collections::BTreeMap;

use streamgate_proto::{cloudevents::CloudEvent, v1::OutboundMessage};

use super::{Judging, screen::Grant};
use crate::{
    broker::{HistoryQuery, NodeId, PatternCursors, Publish, SessionRecord, Start, SubscribeTo},
    channel::{Channel, Target},
    client_headers::ClientHeaders,
    error::{ClientError, CloseCode},
    hooks::Credential,
    policy::rights::Asked,
};

/// Effects in the order in which they are to be carried out.
pub type Effects = Vec<Effect>;

/// What the answer to a request carries back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplyTo {
    /// `id` of the request, or a fresh one where the server speaks first.
    pub id: String,
    /// `metadata` of the request.
    pub metadata: BTreeMap<String, String>,
}

impl ReplyTo {
    /// For frames that answer nothing.
    #[must_use]
    pub fn fresh() -> Self {
        Self { id: uuid::Uuid::new_v4().to_string(), metadata: BTreeMap::new() }
    }
}

/// One thing to do. Operations come back to the session by the method named at each.
#[derive(Debug)]
pub enum Effect {
    /// Write this frame.
    Send(Box<OutboundMessage>),
    /// Write this frame, a page of history or a list of members, as soon as there is room for it, then [`super::Session::page_sent`].
    SendPage(Box<OutboundMessage>),
    /// Connect succeeded: others can find the session, and deadlines change.
    Opened,
    /// Ping below the protocol, if the transport can.
    TransportPing,
    /// Publish, then [`super::Session::publish_done`].
    Publish {
        /// Goes back with the result.
        reply: ReplyTo,
        /// What.
        publish: Box<Publish>,
    },
    /// Note that a publish was refused; its error is sent apart from this.
    PublishRefused,
    /// Subscribe all, then [`super::Session::subscribe_done`] or [`super::Session::subscribe_failed`].
    Subscribe(Box<SubscribeBatch>),
    /// Forget these subscriptions, open or not.
    Unsubscribe(Vec<u32>),
    /// Read, then [`super::Session::history_done`].
    History {
        /// Goes back with the result.
        reply: ReplyTo,
        /// What.
        query: HistoryQuery,
    },
    /// Ask who is on a channel, then [`super::Session::presence_done`].
    Presence {
        /// Goes back with the result.
        reply: ReplyTo,
        /// Whose members.
        channel: Channel,
        /// How many of them at most.
        limit: usize,
    },
    /// Check a token, then [`super::Session::authenticated`].
    Authenticate {
        /// What the client showed.
        credential: Box<Credential>,
        /// Goes back with the result.
        asking: Asking,
    },
    /// Ask whether the client may, then [`super::Session::judged`].
    Judge(Box<Judging>),
    /// Ask whether the client may publish this, then [`super::Session::publish_judged`].
    AskPublish {
        /// Goes back with the verdict.
        number: u64,
        /// Who, and where.
        asked: Box<Asked>,
        /// What.
        event: Box<CloudEvent>,
    },
    /// Load the session of a resume token, then [`super::Session::session_loaded`].
    LoadSession {
        /// Its id.
        session: String,
        /// Goes back with the result.
        connecting: Box<super::connect::Connecting>,
    },
    /// Deadlines changed: check them anew.
    Deadlines,
    /// Keep the record, then [`super::Session::saved`].
    SaveSession {
        /// Its id.
        session: String,
        /// Of this connection.
        tenure: u32,
        /// What to keep.
        record: SessionRecord,
        /// For how long.
        ttl_ms: u64,
    },
    /// Have a call answered, then [`super::Session::rpc_done`].
    Rpc {
        /// Goes back with the result.
        reply: ReplyTo,
        /// What.
        request: Box<RpcRequest>,
    },
    /// Offer to answer calls of these methods, in place of what was offered before, then [`super::Session::serving`].
    Serve {
        /// Goes back with the result; none: the client did not ask for it, and is not told.
        reply: Option<ReplyTo>,
        /// Patterns.
        methods: Vec<String>,
    },
    /// The client answers a call that it was given.
    RpcResult {
        /// Which.
        request_id: String,
        /// How.
        outcome: Result<CloudEvent, ClientError>,
    },
    /// Ask the subscribers of a channel, then [`super::Session::survey_done`].
    Survey(Box<Survey>),
    /// The client answers a survey.
    SurveyAnswer {
        /// Which.
        request_id: String,
        /// How.
        outcome: Result<CloudEvent, ClientError>,
    },
    /// What became of something that the server itself asked the session to do.
    Told {
        /// Of what.
        ticket: Ticket,
        /// What.
        outcome: Result<(), ClientError>,
    },
    /// Have the connection closed that the session had before, on this node.
    Yield {
        /// Where that was.
        node: NodeId,
        /// The session.
        session: String,
        /// Of this connection.
        tenure: u32,
    },
    /// The session goes on over another connection: nobody is told that it ends with this one.
    GoesOn,
    /// Close the connection; the last effect.
    Close {
        /// Code on the wire.
        code: CloseCode,
        /// Text on the wire.
        reason: String,
    },
}

impl Effect {
    pub(super) fn send(frame: OutboundMessage) -> Self {
        Self::Send(Box::new(frame))
    }
}

/// Names something that the server asked a session to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// What a token was shown for.
#[derive(Debug)]
pub enum Asking {
    /// To connect.
    Connect(Box<super::connect::Connecting>),
    /// To stay.
    Refresh(ReplyTo),
}

/// A call from a client.
#[derive(Debug, Clone)]
pub struct RpcRequest {
    /// Channel of the envelope, else the event's source.
    pub channel: String,
    /// Method of the envelope, else the event's type.
    pub method: String,
    /// The payload.
    pub event: CloudEvent,
    /// How long the caller waits at most; 0: the server's own limit.
    pub timeout_ms: u64,
    /// Who calls: the session,
    pub session_id: String,
    /// what the client says of itself,
    pub client_id: String,
    /// and the authenticated user, empty if anonymous.
    pub user_id: String,
    /// Headers that the client came with, as far as a backend wants them.
    pub headers: ClientHeaders,
}

/// A survey that a client asks for.
#[derive(Debug)]
pub struct Survey {
    /// Goes back with the result.
    pub reply: ReplyTo,
    /// What the client calls the survey.
    pub request_id: String,
    /// Whose subscribers.
    pub channel: Channel,
    /// The question.
    pub event: CloudEvent,
    /// How long the client waits at most, in ms; 0: the server's own limit.
    pub timeout_ms: u64,
}

/// Subscriptions that succeed or fail together.
#[derive(Debug)]
pub struct SubscribeBatch {
    /// Of the request.
    pub reply: ReplyTo,
    /// Set if the batch belongs to a connect.
    pub connecting: Option<Box<super::connect::Connecting>>,
    /// Set if it is the server that subscribes the session.
    pub ticket: Option<Ticket>,
    /// The new subscriptions, none twice.
    pub items: Vec<Item>,
    /// Held already, with another part in presence from now on.
    pub changes: Vec<Change>,
    /// Requested again while held: acknowledged as they are.
    pub(super) known: Vec<Target>,
}

/// One subscription of a batch.
#[derive(Debug)]
pub struct Item {
    /// Names the subscription towards the shard; never used again within the session.
    pub slot: u32,
    /// Channel or pattern.
    pub target: Target,
    /// Where to start.
    pub wish: Wish,
    /// Not in presence.
    pub ephemeral: bool,
    /// Makes its session a member of the channel.
    pub member: bool,
    /// Wants to be told of joins and leaves.
    pub watch: bool,
    /// The subscription to the same target that ends for this one. What the two have in common in presence goes on.
    pub former: Option<u32>,
    /// That one was open.
    pub(super) replaces: bool,
    /// By what it is allowed.
    pub(super) grant: Grant,
}

/// A new part in presence for a subscription that is open and goes on.
#[derive(Debug)]
pub struct Change {
    /// The subscription.
    pub slot: u32,
    /// Channel or pattern.
    pub target: Target,
    /// Not in presence.
    pub ephemeral: bool,
    /// Makes its session a member of the channel.
    pub member: bool,
    /// Wants to be told of joins and leaves.
    pub watch: bool,
}

/// Where a subscription is to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// With the next publication; nothing announces it.
    Live,
    /// With the past; ends with `recover_complete`.
    Past(Start<PatternCursors>),
    /// Live, as recovery is refused for this reason, which `recover_complete` tells.
    Refused(&'static str),
}

impl Item {
    /// The broker's request for this item. For a channel the cursor is the one entry of the cursors.
    #[must_use]
    pub fn request(&self) -> SubscribeTo {
        let start = match &self.wish {
            Wish::Past(start) => start.clone(),
            Wish::Live | Wish::Refused(_) => Start::Live,
        };
        subscribe_to(&self.target, start)
    }
}

/// The broker's request for `target`; without a cursor a channel starts live.
#[must_use]
pub fn subscribe_to(target: &Target, start: Start<PatternCursors>) -> SubscribeTo {
    match target {
        Target::Pattern(pattern) => SubscribeTo::Pattern { pattern: pattern.clone(), start },
        Target::Channel(channel) => {
            let start = match start {
                Start::Live => Start::Live,
                Start::From(from) => Start::From(from),
                Start::After(cursors) => {
                    cursors.channels.get(channel).copied().map_or(Start::Live, Start::After)
                }
            };
            SubscribeTo::Channel { channel: channel.clone(), start }
        }
    }
}
