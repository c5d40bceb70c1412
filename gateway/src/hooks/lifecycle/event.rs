//! What happened to a session or a channel, as it is stored.

use prost::Message as _;
use streamgate_proto::proxy::{
    OnChannelOccupiedRequest, OnChannelVacatedRequest, OnConnectedRequest, OnDisconnectedRequest,
    OnSubscribedRequest, OnUnsubscribedRequest,
};

use crate::{broker::Occupancy, error::CloseCode};

/// Whose session.
#[derive(Debug, Clone, Copy)]
pub struct Who<'a> {
    /// The session,
    pub session_id: &'a str,
    /// its user, empty if anonymous,
    pub user_id: &'a str,
    /// and what the client says of itself,
    pub client_id: &'a str,
    /// and of its kind.
    pub client_type: &'a str,
}

/// What happened.
#[derive(Debug, Clone, Copy)]
pub enum Happening<'a> {
    /// The session began, or goes on here.
    Connected,
    /// It subscribed to this channel or pattern.
    Subscribed(&'a str),
    /// It is no longer subscribed, and goes on.
    Unsubscribed(&'a str),
    /// It ended, and with it its subscriptions.
    Disconnected(CloseCode, &'a str),
}

/// The stored form of a [`Fact`]; `None`: nothing that is known here.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Stored {
    #[prost(oneof = "Fact", tags = "1, 2, 3, 4, 5, 6")]
    pub fact: Option<Fact>,
}

/// What backends are told, in the words in which they are.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Fact {
    #[prost(message, tag = "1")]
    Connected(OnConnectedRequest),
    #[prost(message, tag = "2")]
    Subscribed(OnSubscribedRequest),
    #[prost(message, tag = "3")]
    Unsubscribed(OnUnsubscribedRequest),
    #[prost(message, tag = "4")]
    Disconnected(OnDisconnectedRequest),
    #[prost(message, tag = "5")]
    Occupied(OnChannelOccupiedRequest),
    #[prost(message, tag = "6")]
    Vacated(OnChannelVacatedRequest),
}

/// An event of a session on its way into storage.
#[derive(Debug)]
pub(super) struct Event {
    pub session_id: String,
    /// Whether it is about a subscription, and not about the session itself.
    pub of_subscription: bool,
    pub stored: Vec<u8>,
}

impl Event {
    pub fn new(who: Who<'_>, time_ms: u64, happening: Happening<'_>) -> Self {
        let fact = Fact::of_session(who, time_ms, happening);
        let of_subscription = matches!(fact, Fact::Subscribed(_) | Fact::Unsubscribed(_));
        Self { session_id: who.session_id.to_owned(), of_subscription, stored: fact.to_stored() }
    }
}

impl Fact {
    fn of_session(who: Who<'_>, time_ms: u64, happening: Happening<'_>) -> Self {
        let session_id = who.session_id.to_owned();
        // Who is anonymous has no name, whatever the client says.
        let (user_id, username) = (who.user_id.to_owned(), who.user_id.to_owned());
        let (client_id, client_type) = (who.client_id.to_owned(), who.client_type.to_owned());
        let event_id = uuid::Uuid::new_v4().to_string();
        match happening {
            Happening::Connected => Self::Connected(OnConnectedRequest {
                session_id,
                username,
                user_id,
                client_id,
                event_id,
                time_ms,
                client_type,
            }),
            Happening::Subscribed(channel) => Self::Subscribed(OnSubscribedRequest {
                session_id,
                channel: channel.to_owned(),
                username,
                user_id,
                client_id,
                event_id,
                time_ms,
            }),
            Happening::Unsubscribed(channel) => Self::Unsubscribed(OnUnsubscribedRequest {
                session_id,
                channel: channel.to_owned(),
                username,
                user_id,
                client_id,
                event_id,
                time_ms,
            }),
            Happening::Disconnected(code, reason) => Self::Disconnected(OnDisconnectedRequest {
                session_id,
                username,
                user_id,
                client_id,
                event_id,
                time_ms,
                code: u32::from(code.code()),
                reason: reason.to_owned(),
                client_type,
            }),
        }
    }

    /// What a broker has recorded of a channel; `event_id` is the same however often that is read.
    pub fn of_channel(told: Occupancy, event_id: String) -> Self {
        let (channel, time_ms) = (told.channel.as_str().to_owned(), told.time_ms);
        match told.occupied {
            true => Self::Occupied(OnChannelOccupiedRequest { channel, event_id, time_ms }),
            false => Self::Vacated(OnChannelVacatedRequest { channel, event_id, time_ms }),
        }
    }

    pub fn to_stored(&self) -> Vec<u8> {
        Stored { fact: Some(self.clone()) }.encode_to_vec()
    }

    /// The session or the channel that it is about: what is told of one of them is told in order.
    pub fn subject(&self) -> &str {
        match self {
            Self::Connected(event) => &event.session_id,
            Self::Subscribed(event) => &event.session_id,
            Self::Unsubscribed(event) => &event.session_id,
            Self::Disconnected(event) => &event.session_id,
            Self::Occupied(event) => &event.channel,
            Self::Vacated(event) => &event.channel,
        }
    }

    /// When it happened, milliseconds since the Unix epoch.
    pub fn time_ms(&self) -> u64 {
        match self {
            Self::Connected(event) => event.time_ms,
            Self::Subscribed(event) => event.time_ms,
            Self::Unsubscribed(event) => event.time_ms,
            Self::Disconnected(event) => event.time_ms,
            Self::Occupied(event) => event.time_ms,
            Self::Vacated(event) => event.time_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Channel;

    fn read(stored: &[u8]) -> Fact {
        Stored::decode(stored).unwrap().fact.unwrap()
    }

    #[test]
    fn what_is_stored_says_whose_it_is_and_what_happened() {
        let who = Who { session_id: "s", user_id: "ann", client_id: "phone", client_type: "web" };
        for (happening, of_subscription) in [
            (Happening::Connected, false),
            (Happening::Subscribed("a"), true),
            (Happening::Unsubscribed("a.*"), true),
            (Happening::Disconnected(CloseCode::IdleTimeout, "silent"), false),
        ] {
            let event = Event::new(who, 7, happening);
            let fact = read(&event.stored);
            assert_eq!((event.session_id.as_str(), fact.subject(), fact.time_ms()), ("s", "s", 7));
            assert_eq!(event.of_subscription, of_subscription);
            if let Fact::Disconnected(ended) = fact {
                assert_eq!(
                    (ended.code, ended.reason.as_str(), ended.username.as_str(), ended.client_type.as_str()),
                    (3511, "silent", "ann", "web")
                );
                assert!(!ended.event_id.is_empty());
            }
        }
        assert_eq!(Stored::decode(&b""[..]).unwrap().fact, None);
    }

    #[test]
    fn what_is_stored_of_a_channel_keeps_its_id() {
        let told = |occupied| Occupancy { channel: Channel::parse("a").unwrap(), occupied, time_ms: 7 };
        let occupied = read(&Fact::of_channel(told(true), "id".into()).to_stored());
        assert_eq!((occupied.subject(), occupied.time_ms()), ("a", 7));
        assert!(matches!(occupied, Fact::Occupied(event) if event.event_id == "id"));
        assert!(matches!(read(&Fact::of_channel(told(false), "id".into()).to_stored()), Fact::Vacated(_)));
    }
}
