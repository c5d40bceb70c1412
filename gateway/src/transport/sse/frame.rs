//! The text of a stream, and how it travels from the shard, which makes it once for all, to the outlet of one client.
//!
//! A publication is the same text for everybody, but for its id:
//!
//! ```text
//! +-----+----------+------+----------+--------------+--------------------+
//! | `P` | len (16) | name | len (16) | place or ""  | data: {...}\n\n    |
//! +-----+----------+------+----------+--------------+--------------------+
//! ```
//!
//! Everything else is rare, and travels as its envelope behind an `E`.

use bytes::{Buf, Bytes};
use prost::Message as _;
use streamgate_proto::{
    EncodeError,
    v1::{OutboundMessage, outbound_message::Envelope},
};

use crate::transport::{
    cloudevents::{Notice, write_message},
    cursor::encoded,
};

const PUBLICATION: u8 = b'P';
const ENVELOPE: u8 = b'E';

/// What the shard hands to the outlet.
#[derive(Debug, PartialEq)]
pub(super) enum Packed {
    /// A publication: the channel's name as it stands in a cursor, its place if it has one, and the text behind its id.
    Publication { name: String, place: Option<String>, text: Bytes },
    /// Something that the server says itself.
    Envelope(Box<OutboundMessage>),
}

/// Appends what a frame of the server says; nothing, if it says nothing to such a client.
///
/// # Errors
/// JSON cannot carry the event.
pub(in crate::transport) fn frame(frame: &OutboundMessage, buffer: &mut Vec<u8>) -> Result<(), EncodeError> {
    let Some(Envelope::Publication(publication)) = &frame.envelope else {
        if Notice::of(frame).is_some() {
            buffer.push(ENVELOPE);
            frame.encode_raw(buffer);
        }
        return Ok(());
    };
    let [message] = &publication.messages[..] else {
        let reason = format!("{} events do not fit into one frame", publication.messages.len());
        return Err(EncodeError::Json { reason });
    };
    buffer.push(PUBLICATION);
    let place = message.position.as_ref().map(|at| format!("{}:{}", at.epoch, at.offset));
    for text in [encoded(&message.channel), place.unwrap_or_default()] {
        // A name has at most 255 bytes, three times as many encoded.
        buffer.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
        buffer.extend_from_slice(text.as_bytes());
    }
    let mut json = Vec::with_capacity(256);
    write_message(message, &mut json)?;
    data(&json, buffer);
    buffer.push(b'\n');
    Ok(())
}

/// Unpacks what [`frame`] made; `None` if it is none of these.
pub(super) fn unpack(mut frame: Bytes) -> Option<Packed> {
    match frame.try_get_u8().ok()? {
        PUBLICATION => {
            let name = text(&mut frame)?;
            let place = Some(text(&mut frame)?).filter(|place| !place.is_empty());
            Some(Packed::Publication { name, place, text: frame })
        }
        ENVELOPE => Some(Packed::Envelope(Box::new(OutboundMessage::decode(frame).ok()?))),
        _ => None,
    }
}

fn text(frame: &mut Bytes) -> Option<String> {
    let len = usize::from(frame.try_get_u16().ok()?);
    (frame.len() >= len).then(|| frame.split_to(len)).and_then(|text| String::from_utf8(text.into()).ok())
}

/// Appends `data` lines: the reader joins them with line feeds, which in JSON are white space like what they stand for.
pub(super) fn data(json: &[u8], buffer: &mut Vec<u8>) {
    for line in json.split(|byte| matches!(byte, b'\n' | b'\r')) {
        buffer.extend_from_slice(b"data: ");
        buffer.extend_from_slice(line);
        buffer.push(b'\n');
    }
}

/// A notice as an event of its own name. What is lost is called `gap`, whatever tells it.
pub(super) fn notice(notice: &Notice, time_ms: u64) -> Result<Vec<u8>, EncodeError> {
    let name = match notice.kind {
        _ if notice.tells_of_loss() => "gap",
        // An EventSource has an event of that name for its own troubles.
        "error" => "failure",
        kind => kind,
    };
    let mut json = Vec::with_capacity(256);
    notice.write(time_ms, &mut json)?;
    let mut text = format!("event: {name}\n").into_bytes();
    data(&json, &mut text);
    text.push(b'\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use streamgate_proto::{
        cloudevents::{Attr, CloudEvent, CloudEventAttributeValue, Data},
        v1::{Gap, Message, Ping, Position, Publication, RecoverComplete},
    };

    use super::*;

    fn packed(envelope: Envelope) -> Option<Packed> {
        let mut buffer = Vec::new();
        let message = OutboundMessage { envelope: Some(envelope), ..OutboundMessage::default() };
        frame(&message, &mut buffer).unwrap();
        (!buffer.is_empty()).then(|| unpack(buffer.into()).unwrap())
    }

    fn message(position: Option<Position>) -> Envelope {
        let json = Attr::CeString("application/json".into());
        let event = CloudEvent {
            id: "1".into(),
            source: "/s".into(),
            spec_version: "1.0".into(),
            r#type: "t".into(),
            attributes: [("datacontenttype".to_owned(), CloudEventAttributeValue { attr: Some(json) })]
                .into(),
            data: Some(Data::TextData("{\n \"a\":\r\n1}".into())),
        };
        let message =
            Message { channel: "a.ü".into(), payload: Some(event), position, ..Message::default() };
        Envelope::Publication(Publication { messages: vec![message] })
    }

    #[test]
    fn a_publication_is_its_place_and_its_text_without_line_breaks_inside() {
        let position = Position { epoch: "17".into(), offset: 4 };
        let Some(Packed::Publication { name, place, text }) = packed(message(Some(position))) else {
            panic!()
        };
        assert_eq!((&*name, place.as_deref()), ("a.%C3%BC", Some("17:4")));
        let text = std::str::from_utf8(&text).unwrap();
        assert!(text.ends_with("\n\n") && !text.contains('\r'), "{text:?}");
        let lines: Vec<_> = text.trim_end().split('\n').collect();
        assert!(lines.len() == 4 && lines.iter().all(|line| line.starts_with("data: ")), "{lines:?}");
        let joined = lines.iter().map(|line| &line[6..]).collect::<Vec<_>>().join("\n");
        let event: serde_json::Value = serde_json::from_str(&joined).unwrap();
        assert_eq!((&event["data"]["a"], &event["sgchannel"]), (&1.into(), &"a.ü".into()));
    }

    #[test]
    fn without_a_position_there_is_no_place() {
        assert!(matches!(packed(message(None)), Some(Packed::Publication { place: None, .. })));
    }

    #[test]
    fn what_is_lost_is_a_gap_whatever_tells_it() {
        let text = |envelope| {
            let frame = OutboundMessage { envelope: Some(envelope), ..OutboundMessage::default() };
            String::from_utf8(notice(&Notice::of(&frame).unwrap(), 0).unwrap()).unwrap()
        };
        let complete = |gap| Envelope::RecoverComplete(RecoverComplete { gap, ..RecoverComplete::default() });
        assert!(text(Envelope::Gap(Gap::default())).starts_with("event: gap\n"));
        assert!(text(complete(true)).starts_with("event: gap\n"));
        assert!(text(complete(false)).starts_with("event: recovered\n"));
        assert!(text(Envelope::Error(Default::default())).starts_with("event: failure\n"));
    }

    #[test]
    fn what_such_a_client_cannot_mean_is_not_said() {
        assert_eq!(packed(Envelope::Ping(Ping::default())), None);
        assert_eq!(unpack(Bytes::from_static(b"P\0")), None);
        assert_eq!(unpack(Bytes::new()), None);
    }
}
