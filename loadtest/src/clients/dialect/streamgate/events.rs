//! Envelopes as events.

use streamgate_proto::{
    cloudevents::{CloudEvent, Data},
    v1::{self, Message, OutboundMessage, RecoverComplete, outbound_message::Envelope},
};

use super::super::{Detail, Event, Position};
use crate::load::stamp::Stamp;

/// Tells the events of an envelope, in order. One that a load client has no use for tells nothing.
pub fn events(message: &OutboundMessage, detail: Detail, tell: &mut dyn FnMut(Event)) {
    let Some(envelope) = &message.envelope else { return };
    let id = request_id(message.id.as_bytes());
    let event = match envelope {
        Envelope::Publication(publication) => {
            publication.messages.iter().filter_map(|message| delivery(message, detail)).for_each(tell);
            return;
        }
        Envelope::PublishAck(_) => Event::Acked { id },
        Envelope::Error(error) => Event::Refused { id, code: error.code.clone() },
        Envelope::Connected(_) => Event::Connected,
        Envelope::SubscribeAck(_) | Envelope::UnsubscribeAck(_) | Envelope::Ok(_) => Event::Done { id },
        Envelope::Ping(_) => Event::Ping,
        Envelope::RecoverComplete(complete) => recovered(complete),
        Envelope::Gap(gap) => Event::Gap { channel: gap.channel.clone() },
        Envelope::History(page) => {
            let stamps = page.messages.iter().filter_map(stamp).collect();
            Event::Page { id, stamps, truncated: page.truncated }
        }
        Envelope::Presence(presence) => Event::Members { id, count: presence.count },
        Envelope::PresenceEvent(event) => Event::Presence {
            channel: event.channel.clone(),
            joined: event.action == "join",
            client: event.member.as_ref().map(|member| member.client_id.clone()).unwrap_or_default(),
        },
        Envelope::RpcCall(call) => match call.payload.as_ref().and_then(stamp_of) {
            Some(stamp) => Event::Called { call: call.request_id.clone(), stamp },
            None => return,
        },
        Envelope::RpcReply(reply) => Event::Replied { id, stamp: stamp_of(reply) },
        Envelope::Reconnect(_) => Event::Leave,
        Envelope::Pong(_)
        | Envelope::SubRefreshAck(_)
        | Envelope::SurveyRequest(_)
        | Envelope::SurveyResponse(_)
        | Envelope::SurveyResult(_) => return,
    };
    tell(event);
}

/// The number in an envelope's id; 0 if it is none of ours: what answers no request has an id that the server made.
pub(super) fn request_id(text: &[u8]) -> u64 {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn delivery(message: &Message, detail: Detail) -> Option<Event> {
    let stamp = stamp(message)?;
    Some(match detail {
        Detail::Stamps => Event::Delivery(stamp),
        Detail::Positions => Event::Placed {
            stamp,
            channel: message.channel.clone(),
            position: message.position.as_ref().map(position),
        },
    })
}

/// The stamp that a payload begins with.
fn stamp(message: &Message) -> Option<Stamp> {
    stamp_of(message.payload.as_ref()?)
}

/// The stamp of an event's payload, if that begins with one.
pub fn stamp_of(event: &CloudEvent) -> Option<Stamp> {
    match event.data.as_ref()? {
        Data::TextData(text) => Stamp::parse(text.as_bytes()),
        Data::BinaryData(_) | Data::ProtoData(_) => None,
    }
}

/// Whatever makes a recovery less than whole is its gap: an error first, since nothing was recovered then.
fn recovered(complete: &RecoverComplete) -> Event {
    let gap = match &complete.error {
        Some(error) => Some(error.code.clone()),
        None if complete.gap => Some(complete.gap_reason.clone()),
        None => complete.truncated.then(|| "TRUNCATED".to_owned()),
    };
    Event::Recovered {
        channel: complete.channel.clone(),
        position: complete.position.as_ref().map(position),
        gap,
    }
}

fn position(position: &v1::Position) -> Position {
    Position { epoch: position.epoch.clone(), offset: position.offset }
}
