//! What an address asks for: the channels of its query, and from where.

use streamgate_proto::v1::{Connect, InboundMessage, inbound_message::Envelope};

use crate::{
    channel::Target,
    error::ClientError,
    session::EXTENDED,
    transport::cursor::{Cursor, only},
};

/// The query of `/ws` and `/sse`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Asked {
    /// Each once, in their order.
    pub targets: Vec<Target>,
    /// From where.
    pub cursor: Cursor,
    client_id: String,
}

impl Asked {
    /// Reads `channel` (any number), `since` (a cursor; or one for each channel, in their order), `last_event_id` and
    /// `client_id`; everything else is somebody else's. `last` is what a client that comes back says by itself: it is later
    /// than what the address says.
    ///
    /// # Errors
    /// `BAD_REQUEST`, for a name that is no channel and no pattern, or a cursor that is none.
    pub fn of_query(query: Option<&str>, last: Option<&str>) -> Result<Self, ClientError> {
        let mut asked = Self::default();
        let (mut named, mut since, mut last_in_query) = (Vec::new(), Vec::new(), None);
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match &*name {
                "channel" => named.push(Target::parse(&value)?),
                "since" => since.push(value.into_owned()),
                "last_event_id" => last_in_query = Some(value.into_owned()),
                "client_id" => asked.client_id = value.into_owned(),
                _ => {}
            }
        }
        if since.len() > 1 && since.len() != named.len() {
            let text = format!(
                "`since` is given {} times for {} channels: once for all, or once for each",
                since.len(),
                named.len()
            );
            return Err(ClientError::bad_request(text));
        }
        let alone = only(&named);
        for (at, text) in since.iter().enumerate() {
            let of = if since.len() == 1 { alone } else { named.get(at) };
            asked.cursor.merge(Cursor::parse(text, of)?);
        }
        if let Some(text) = last.map(str::to_owned).or(last_in_query).filter(|text| !text.is_empty()) {
            asked.cursor = Cursor::parse(&text, alone)?;
        }
        for target in named {
            if !asked.targets.contains(&target) {
                asked.targets.push(target);
            }
        }
        Ok(asked)
    }

    /// The connect that it stands for.
    #[must_use]
    pub fn connect(&self, client_type: &str) -> InboundMessage {
        let subscriptions = self.targets.iter().map(|target| self.cursor.subscription(target)).collect();
        InboundMessage {
            envelope: Some(Envelope::Connect(Connect {
                client_id: self.client_id.clone(),
                client_type: client_type.to_owned(),
                subscriptions,
                caps: vec![EXTENDED.to_owned()],
                ..Connect::default()
            })),
            ..InboundMessage::default()
        }
    }

    /// The one channel that it names, if it is one and no pattern.
    #[must_use]
    pub fn channel(&self) -> Option<&str> {
        match only(&self.targets) {
            Some(Target::Channel(channel)) => Some(channel.as_str()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(query: &str) -> Asked {
        Asked::of_query(Some(query), None).unwrap()
    }

    fn cursor(query: &str, last: Option<&str>) -> String {
        Asked::of_query(Some(query), last).unwrap().cursor.text(None)
    }

    #[test]
    fn the_query_is_the_connect() {
        let asked =
            asked("channel=a&channel=b.*&x=1&access_token=t&client_id=me&channel=a&since=a%3D1:2,b.*%3Dm");
        let Some(Envelope::Connect(connect)) = asked.connect("sse").envelope else { panic!() };
        assert_eq!(
            (&*connect.client_id, &*connect.client_type, connect.token.is_empty()),
            ("me", "sse", true)
        );
        let names: Vec<_> = connect.subscriptions.iter().map(|one| (&*one.channel, one.recover)).collect();
        assert_eq!(names, [("a", true), ("b.*", true)]);
        assert_eq!(asked.channel(), None);
    }

    #[test]
    fn since_is_one_for_all_or_one_for_each() {
        assert_eq!(cursor("channel=a&since=1:2", None), "a=1:2");
        assert_eq!(cursor("channel=a&channel=b&since=1:2&since=3:4", None), "a=1:2,b=3:4");
        assert_eq!(cursor("channel=a&channel=b&since=b%3D3:4", None), "b=3:4");
        assert_eq!(cursor("channel=a&channel=b&since=&since=3:4", None), "b=3:4");
        for bad in ["channel=a&channel=b&since=1:2", "channel=a&since=1:1&since=1:2", "channel=a.*&since=1:2"]
        {
            assert!(Asked::of_query(Some(bad), None).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_a_client_that_comes_back_says_is_later_than_its_address() {
        assert_eq!(cursor("channel=a&since=1:2&last_event_id=1:3", None), "a=1:3");
        assert_eq!(cursor("channel=a&since=1:2&last_event_id=1:3", Some("1:4")), "a=1:4");
        assert_eq!(cursor("channel=a&since=1:2", Some("")), "a=1:2");
    }

    #[test]
    fn names_that_are_none_are_refused() {
        for bad in ["channel=", "channel=a..b", "channel=a+b", "channel=a*", "channel=a&since=x"] {
            assert!(Asked::of_query(Some(bad), None).is_err(), "{bad}");
        }
        assert_eq!(asked("").targets, []);
    }
}
