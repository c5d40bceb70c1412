//! What clients and servers say to each other, in bytes: requests out, events in.
//!
//! A dialect has no state and does no I/O. [`streamgate`] speaks the protocol of Streamgate in either encoding, [`table`]
//! that of any other server whose frames are text, by a file that lists them.

pub mod streamgate;
pub mod table;

use ::streamgate_proto::Encoding;

use crate::load::stamp::Stamp;

/// How a server is spoken to.
#[derive(Debug, Clone)]
pub enum Dialect {
    /// Streamgate's own protocol.
    Streamgate(Encoding),
    /// Another server's, from a table.
    Table(std::sync::Arc<table::Table>),
}

/// Where a subscription starts, and what of it is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subscription {
    /// Channel or pattern.
    pub channel: String,
    /// Recovers from here (exact channel).
    pub cursor: Option<Position>,
    /// Joins and leaves are wanted.
    pub presence: bool,
    /// Not to be seen in presence.
    pub ephemeral: bool,
}

/// A place in a channel's history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Position {
    /// The epoch, opaque.
    pub epoch: String,
    /// The offset in it, from 1.
    pub offset: u64,
}

/// What a client asks for.
#[derive(Debug, Clone)]
pub enum Request<'a> {
    /// The first frame, with subscriptions; answered by [`Event::Connected`].
    Connect {
        /// What the client says of itself.
        client: &'a str,
        /// Proves who it is; empty: anonymous.
        token: &'a str,
        /// Subscribed at once.
        subscriptions: &'a [Subscription],
    },
    /// More subscriptions; answered by [`Event::Done`].
    Subscribe {
        /// All or none.
        subscriptions: &'a [Subscription],
    },
    /// Fewer; answered by [`Event::Done`].
    Unsubscribe {
        /// Channels or patterns.
        channels: &'a [String],
    },
    /// A publication of `size` bytes that begins with the stamp; answered by [`Event::Acked`].
    Publish {
        /// Where to.
        channel: &'a str,
        /// Who, which and when.
        stamp: Stamp,
        /// Bytes of the payload, at least [`Stamp::LENGTH`].
        size: usize,
    },
    /// A page of history; answered by [`Event::Page`].
    History {
        /// Of which channel.
        channel: &'a str,
        /// After this position; from the oldest if `None`.
        since: Option<&'a Position>,
        /// At most so many.
        limit: i32,
    },
    /// Who is there; answered by [`Event::Members`].
    Presence {
        /// In which channel.
        channel: &'a str,
    },
    /// Offers to answer calls; answered by [`Event::Done`].
    Serve {
        /// Of these methods.
        methods: &'a [String],
    },
    /// A call with a payload as that of a publication; answered by [`Event::Replied`].
    Call {
        /// Where to.
        channel: &'a str,
        /// What is called.
        method: &'a str,
        /// Who, which and when.
        stamp: Stamp,
        /// Bytes of the payload.
        size: usize,
    },
    /// The answer to [`Event::Called`]: what came.
    Reply {
        /// The call's own name.
        call: &'a str,
        /// As it came.
        stamp: Stamp,
        /// Bytes of the payload.
        size: usize,
    },
    /// The answer to [`Event::Ping`].
    Pong,
}

/// What a server said. `id` is that of the request.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Connected, with the subscriptions asked for.
    Connected,
    /// A request that has no other answer is done.
    Done {
        /// Of the request.
        id: u64,
    },
    /// A publication is accepted.
    Acked {
        /// Of the request.
        id: u64,
    },
    /// A request is refused.
    Refused {
        /// Of the request; 0 if it names none.
        id: u64,
        /// The error's code or text.
        code: String,
    },
    /// A publication that was subscribed to. One without a stamp is somebody else's and never told.
    Delivery(Stamp),
    /// The same with its place; instead of [`Event::Delivery`] where [`Detail::Positions`] is asked for.
    Placed {
        /// Its stamp.
        stamp: Stamp,
        /// Its channel.
        channel: String,
        /// Its position, if the channel has history.
        position: Option<Position>,
    },
    /// A subscription has caught up.
    Recovered {
        /// Which one.
        channel: String,
        /// Where it stands.
        position: Option<Position>,
        /// Why something is missing, if it is.
        gap: Option<String>,
    },
    /// Continuity was lost.
    Gap {
        /// In which channel.
        channel: String,
    },
    /// A page of history.
    Page {
        /// Of the request.
        id: u64,
        /// The stamps of its messages, in order.
        stamps: Vec<Stamp>,
        /// Cut off before its end.
        truncated: bool,
    },
    /// Members of a channel.
    Members {
        /// Of the request.
        id: u64,
        /// How many there are.
        count: u64,
    },
    /// Somebody came or went.
    Presence {
        /// In which channel.
        channel: String,
        /// True for a join.
        joined: bool,
        /// What the client said of itself when it connected.
        client: String,
    },
    /// Somebody calls a method that was offered; to be answered by [`Request::Reply`].
    Called {
        /// The call's own name.
        call: String,
        /// What came with it.
        stamp: Stamp,
    },
    /// The answer to a call.
    Replied {
        /// Of the request.
        id: u64,
        /// What came back; none: something else.
        stamp: Option<Stamp>,
    },
    /// To be answered by [`Request::Pong`].
    Ping,
    /// The server asks to reconnect elsewhere.
    Leave,
}

/// Tells events, one by one, to what it is given.
pub type Telling<'a> = &'a mut dyn FnMut(&mut dyn FnMut(Event));

/// How closely publications are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Only their stamps: [`Event::Delivery`].
    Stamps,
    /// Channels and positions, too: [`Event::Placed`]. Costs a whole decoding.
    Positions,
}

/// A frame that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("a frame from the server that is not understood: {reason}: {start}")]
pub struct Unreadable {
    /// Why.
    pub reason: String,
    /// How it begins.
    pub start: String,
}

impl Dialect {
    /// The WebSocket subprotocol to offer.
    pub fn subprotocol(&self) -> Option<&str> {
        match self {
            Self::Streamgate(Encoding::Json) => Some("messageloop+json"),
            Self::Streamgate(Encoding::Protobuf) => Some("messageloop+proto"),
            Self::Table(table) => table.subprotocol.as_deref(),
        }
    }

    /// True if [`Request::Connect`] takes subscriptions. Else it is sent without, and they are subscribed to by
    /// [`Request::Subscribe`] after [`Event::Connected`].
    pub fn subscribes_in_connect(&self) -> bool {
        matches!(self, Self::Streamgate(_))
    }

    /// How many subscriptions or channels one request may name. The caller sends more of them in several requests, each in
    /// a frame and with an id of its own, and so gets an answer to each.
    pub fn subscriptions_at_once(&self) -> usize {
        match self {
            Self::Streamgate(_) => usize::MAX,
            Self::Table(_) => 1,
        }
    }

    /// True if frames are binary, else they are text.
    pub fn binary(&self) -> bool {
        matches!(self, Self::Streamgate(Encoding::Protobuf))
    }

    /// Appends a request to `out`: the payload of one frame. `id` names it in the answer and is not 0. Where nothing
    /// is appended, nothing is to be sent.
    ///
    /// # Errors
    /// The dialect has no such request, or the request names more than [`Dialect::subscriptions_at_once`]; `out` is then as
    /// it was.
    pub fn write(&self, id: u64, request: &Request<'_>, out: &mut Vec<u8>) -> anyhow::Result<()> {
        match self {
            Self::Streamgate(encoding) => streamgate::write(*encoding, id, request, out),
            Self::Table(table) => table.write(id, request, out),
        }
    }

    /// Reads a frame; tells its events in order. A table knows no positions: it tells [`Event::Delivery`] whatever
    /// `detail` asks for.
    ///
    /// # Errors
    /// [`Unreadable`], if the frame is none of this dialect.
    pub fn read(&self, frame: &[u8], detail: Detail, tell: &mut dyn FnMut(Event)) -> Result<(), Unreadable> {
        match self {
            Self::Streamgate(encoding) => streamgate::read(*encoding, frame, detail, tell),
            Self::Table(table) => table.read(frame, tell),
        }
    }
}

impl Unreadable {
    /// Of this frame.
    pub fn new(reason: impl ToString, frame: &[u8]) -> Self {
        let start = String::from_utf8_lossy(&frame[..frame.len().min(200)]).into_owned();
        Self { reason: reason.to_string(), start }
    }
}
