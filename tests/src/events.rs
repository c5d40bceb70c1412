//! Events, subscriptions and requests in few words.

use streamgate_proto::{
    cloudevents::{Attr, CloudEvent, CloudEventAttributeValue, Data},
    v1::{
        Connect, HistoryRequest, InboundMessage, Position, PublishOptions, StartFrom, Subscription,
        inbound_message::Envelope, start_from::Point,
    },
};

/// An event with this id and text.
#[must_use]
pub fn text(id: &str, data: &str) -> CloudEvent {
    CloudEvent {
        id: id.into(),
        source: "/test".into(),
        spec_version: "1.0".into(),
        r#type: "test.text".into(),
        data: Some(Data::TextData(data.into())),
        ..CloudEvent::default()
    }
}

/// The event with one attribute more.
#[must_use]
pub fn with_attribute(mut event: CloudEvent, name: &str, value: Attr) -> CloudEvent {
    event.attributes.insert(name.into(), CloudEventAttributeValue { attr: Some(value) });
    event
}

/// A live subscription.
#[must_use]
pub fn live(channel: &str) -> Subscription {
    Subscription { channel: channel.into(), ..Subscription::default() }
}

/// A subscription that recovers from `cursor`.
#[must_use]
pub fn recover(channel: &str, cursor: Position) -> Subscription {
    Subscription { recover: true, cursor: Some(cursor), ..live(channel) }
}

/// A subscription to a pattern that recovers from `cursors`.
#[must_use]
pub fn recover_pattern<K: Into<String>>(
    pattern: &str,
    cursors: impl IntoIterator<Item = (K, Position)>,
) -> Subscription {
    let cursors = cursors.into_iter().map(|(name, cursor)| (name.into(), cursor)).collect();
    Subscription { recover: true, cursors, ..live(pattern) }
}

/// A subscription that starts at `point`.
#[must_use]
pub fn from(channel: &str, point: Point) -> Subscription {
    Subscription { from: Some(StartFrom { point: Some(point) }), ..live(channel) }
}

/// A connect of MessageLoop v1.
#[must_use]
pub fn v1(subscriptions: impl IntoIterator<Item = Subscription>) -> Connect {
    Connect {
        client_id: "raw".into(),
        subscriptions: subscriptions.into_iter().collect(),
        ..Connect::default()
    }
}

/// A connect that offers `streamgate.v1`.
#[must_use]
pub fn extended(subscriptions: impl IntoIterator<Item = Subscription>) -> Connect {
    Connect { caps: vec!["streamgate.v1".into()], ..v1(subscriptions) }
}

/// A frame without id.
#[must_use]
pub fn frame(envelope: Envelope) -> InboundMessage {
    InboundMessage { envelope: Some(envelope), ..InboundMessage::default() }
}

/// A publish to `channel`.
#[must_use]
pub fn publish(channel: &str, event: CloudEvent) -> InboundMessage {
    InboundMessage { channel: channel.into(), ..frame(Envelope::Publish(event)) }
}

/// A publish with options.
#[must_use]
pub fn publish_with(channel: &str, event: CloudEvent, options: PublishOptions) -> InboundMessage {
    InboundMessage { publish_options: Some(options), ..publish(channel, event) }
}

/// A request for the first `limit` messages of a channel's history.
#[must_use]
pub fn history(channel: &str, limit: i32) -> HistoryRequest {
    HistoryRequest { channel: channel.into(), limit, ..HistoryRequest::default() }
}

/// The text of an event; empty if it has none.
#[must_use]
pub fn text_of(event: &CloudEvent) -> &str {
    match &event.data {
        Some(Data::TextData(text)) => text,
        _ => "",
    }
}
