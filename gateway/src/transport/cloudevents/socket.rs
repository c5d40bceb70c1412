//! The WebSocket subprotocol `cloudevents.json`: every frame, either way, is one event.

use std::collections::BTreeMap;

use streamgate_proto::{
    EncodeError,
    v1::{
        InboundMessage, Message, OutboundMessage, PublishOptions, inbound_message::Envelope as In,
        outbound_message::Envelope as Out,
    },
};

use super::{json::write_event, notice::Notice, parse::structured};

/// Appends what a frame of the server says as one event; nothing, if it says nothing to such a client.
///
/// # Errors
/// JSON cannot carry the event.
pub fn write(frame: &OutboundMessage, buffer: &mut Vec<u8>) -> Result<(), EncodeError> {
    if let Some(Out::Publication(publication)) = &frame.envelope {
        return match &publication.messages[..] {
            [message] => write_message(message, buffer),
            several => {
                let reason = format!("{} events do not fit into one frame", several.len());
                Err(EncodeError::Json { reason })
            }
        };
    }
    Notice::of(frame).map_or(Ok(()), |notice| notice.write(frame.time, buffer))
}

/// Appends a published event, with where it was published and where it stands there.
///
/// # Errors
/// JSON cannot carry the event.
pub fn write_message(message: &Message, buffer: &mut Vec<u8>) -> Result<(), EncodeError> {
    let Some(event) = &message.payload else {
        return Err(EncodeError::Json { reason: "a message without an event".to_owned() });
    };
    let channel = ("sgchannel", message.channel.as_str());
    match &message.position {
        None => write_event(event, &[channel], buffer),
        Some(at) => {
            let offset = at.offset.to_string();
            write_event(event, &[channel, ("sgepoch", &at.epoch), ("sgoffset", &offset)], buffer)
        }
    }
}

/// The request that a client's frame is: to publish an event. Without `sgchannel` it goes to `only`, the one channel that the
/// client's address names.
///
/// # Errors
/// What is wrong with it, fit for the client.
pub fn read(text: &[u8], only: Option<&str>) -> Result<InboundMessage, String> {
    let mut sent = structured(text).map_err(|error| error.message)?;
    let channel = sent.own.remove("sgchannel").or_else(|| only.map(str::to_owned));
    let Some(channel) = channel.filter(|channel| !channel.is_empty()) else {
        return Err("the event needs `sgchannel`: the address does not name exactly one channel".to_owned());
    };
    let idempotency_key = sent.own.remove("sgidempotencykey").unwrap_or_default();
    Ok(InboundMessage {
        id: sent.event.id.clone(),
        channel,
        metadata: BTreeMap::from([("source".to_owned(), sent.event.source.clone())]),
        publish_options: Some(PublishOptions { idempotency_key, ..PublishOptions::default() }),
        envelope: Some(In::Publish(sent.event)),
        ..InboundMessage::default()
    })
}
