//! Subprotocol choice.

use hyper::header::{HeaderMap, SEC_WEBSOCKET_PROTOCOL};

/// A subprotocol that the server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subprotocol {
    /// `messageloop+json`: JSON envelopes in text frames.
    MessageLoopJson,
    /// `messageloop+proto`: protobuf envelopes in binary frames.
    MessageLoopProto,
    /// `cloudevents.json`: one event of CloudEvents in each text frame.
    CloudEventsJson,
    /// `messageloop`: the same as `messageloop+json`.
    MessageLoop,
}

impl Subprotocol {
    const ALL: [Self; 4] =
        [Self::MessageLoopJson, Self::MessageLoopProto, Self::MessageLoop, Self::CloudEventsJson];

    /// The name in `Sec-WebSocket-Protocol`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MessageLoopJson => "messageloop+json",
            Self::MessageLoopProto => "messageloop+proto",
            Self::MessageLoop => "messageloop",
            Self::CloudEventsJson => "cloudevents.json",
        }
    }

    /// Whether messages are protobuf in binary frames; else they are JSON in text frames.
    #[must_use]
    pub fn is_binary(self) -> bool {
        self == Self::MessageLoopProto
    }

    /// The first of the client's offers, in its order, that the server knows.
    ///
    /// `None` when it offers none or only unknown ones. Then the response names no subprotocol (RFC 6455
    /// section 4.2.2 leaves it to the client whether it goes on) and JSON is spoken.
    #[must_use]
    pub fn choose(headers: &HeaderMap) -> Option<Self> {
        let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
        let mut offers = values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
        offers.find_map(|offer| Self::ALL.into_iter().find(|known| known.name() == offer.trim()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(values: &[&'static str]) -> Option<Subprotocol> {
        let values = values.iter().map(|value| (SEC_WEBSOCKET_PROTOCOL, value.parse().unwrap()));
        Subprotocol::choose(&values.collect())
    }

    #[test]
    fn first_known_offer_wins_in_the_clients_order() {
        let (json, proto) = (Subprotocol::MessageLoopJson, Subprotocol::MessageLoopProto);
        assert_eq!(choose(&["messageloop+proto, messageloop+json"]), Some(proto));
        assert_eq!(choose(&["messageloop+json,messageloop+proto"]), Some(json));
        assert_eq!(choose(&["mqtt,  messageloop ,messageloop+proto"]), Some(Subprotocol::MessageLoop));
        assert_eq!(choose(&["mqtt", "messageloop+proto"]), Some(proto), "headers may repeat");
    }

    #[test]
    fn no_known_offer_chooses_none() {
        assert_eq!(choose(&[]), None);
        assert_eq!(choose(&["mqtt, MessageLoop, messageloop+xml,"]), None);
    }
}
