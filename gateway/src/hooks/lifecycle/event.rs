//! What happened to a session, as it is stored.

use prost::Message as _;
use streamgate_proto::proxy::{
    OnConnectedRequest, OnDisconnectedRequest, OnSubscribedRequest, OnUnsubscribedRequest,
};

use crate::error::CloseCode;

/// Whose session.
#[derive(Debug, Clone, Copy)]
pub struct Who<'a> {
    /// The session,
    pub session_id: &'a str,
    /// its user, empty if anonymous,
    pub user_id: &'a str,
    /// and what the client says of itself.
    pub client_id: &'a str,
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

/// One of the four, under the tag that says which.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Stored {
    #[prost(message, tag = "1")]
    pub connected: Option<OnConnectedRequest>,
    #[prost(message, tag = "2")]
    pub subscribed: Option<OnSubscribedRequest>,
    #[prost(message, tag = "3")]
    pub unsubscribed: Option<OnUnsubscribedRequest>,
    #[prost(message, tag = "4")]
    pub disconnected: Option<OnDisconnectedRequest>,
}

/// An event on its way into storage.
#[derive(Debug)]
pub(super) struct Event {
    pub session_id: String,
    pub stored: Vec<u8>,
}

impl Event {
    pub fn new(who: Who<'_>, time_ms: u64, happening: Happening<'_>) -> Self {
        let session_id = who.session_id.to_owned();
        // Who is anonymous has no name, whatever the client says.
        let (user_id, username) = (who.user_id.to_owned(), who.user_id.to_owned());
        let client_id = who.client_id.to_owned();
        let event_id = uuid::Uuid::new_v4().to_string();
        let mut stored = Stored::default();
        match happening {
            Happening::Connected => {
                stored.connected =
                    Some(OnConnectedRequest { session_id, username, user_id, client_id, event_id, time_ms });
            }
            Happening::Subscribed(channel) => {
                let channel = channel.to_owned();
                stored.subscribed = Some(OnSubscribedRequest {
                    session_id,
                    channel,
                    username,
                    user_id,
                    client_id,
                    event_id,
                    time_ms,
                });
            }
            Happening::Unsubscribed(channel) => {
                let channel = channel.to_owned();
                stored.unsubscribed = Some(OnUnsubscribedRequest {
                    session_id,
                    channel,
                    username,
                    user_id,
                    client_id,
                    event_id,
                    time_ms,
                });
            }
            Happening::Disconnected(code, reason) => {
                stored.disconnected = Some(OnDisconnectedRequest {
                    session_id,
                    username,
                    user_id,
                    client_id,
                    event_id,
                    time_ms,
                    code: u32::from(code.code()),
                    reason: reason.to_owned(),
                });
            }
        }
        Self { session_id: who.session_id.to_owned(), stored: stored.encode_to_vec() }
    }
}

impl Stored {
    /// The session, and when it happened; `None` if nothing is known of what this is.
    pub fn of(&self) -> Option<(&str, u64)> {
        let connected = self.connected.as_ref().map(|event| (event.session_id.as_str(), event.time_ms));
        let subscribed = self.subscribed.as_ref().map(|event| (event.session_id.as_str(), event.time_ms));
        let unsubscribed = self.unsubscribed.as_ref().map(|event| (event.session_id.as_str(), event.time_ms));
        let disconnected = self.disconnected.as_ref().map(|event| (event.session_id.as_str(), event.time_ms));
        connected.or(subscribed).or(unsubscribed).or(disconnected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_says_whose_it_is_and_what_happened() {
        let who = Who { session_id: "s", user_id: "ann", client_id: "phone" };
        for happening in [
            Happening::Connected,
            Happening::Subscribed("a"),
            Happening::Unsubscribed("a.*"),
            Happening::Disconnected(CloseCode::IdleTimeout, "silent"),
        ] {
            let event = Event::new(who, 7, happening);
            let stored = Stored::decode(&event.stored[..]).unwrap();
            assert_eq!((event.session_id.as_str(), stored.of()), ("s", Some(("s", 7))));
            if let Some(ended) = stored.disconnected {
                assert_eq!(
                    (ended.code, ended.reason.as_str(), ended.username.as_str()),
                    (3511, "silent", "ann")
                );
                assert!(!ended.event_id.is_empty());
            }
        }
        assert_eq!(Stored::default().of(), None);
    }
}
