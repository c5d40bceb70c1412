//! What the bare writer says, in the shapes that a gateway gives to the same answers. Pure but for ids and the time.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use streamgate::transport::ws::{OpCode, encode_frame};
use streamgate_proto::{
    EncodeError, Encoding,
    cloudevents::CloudEvent,
    downgrade_to_v1, encode_outbound, shared,
    v1::{
        Connected, Message, OutboundMessage, Position, Publication, PublishAck, Subscription,
        outbound_message::Envelope,
    },
};
use uuid::Uuid;

/// The capability that selects the extended schema.
pub const EXTENDED: &str = "streamgate.v1";

/// How a client is spoken to. All clients with the same form get the same bytes of a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// Also decides between text and binary frames.
    pub encoding: Encoding,
    /// Whether the client knows more than MessageLoop v1.
    pub extended: bool,
}

impl Form {
    /// All forms, those of extended clients first.
    pub const ALL: [Self; 4] = [
        Self { encoding: Encoding::Json, extended: true },
        Self { encoding: Encoding::Protobuf, extended: true },
        Self { encoding: Encoding::Json, extended: false },
        Self { encoding: Encoding::Protobuf, extended: false },
    ];

    /// Its place in [`Form::ALL`].
    pub fn index(self) -> usize {
        2 * usize::from(!self.extended) + usize::from(self.encoding == Encoding::Protobuf)
    }

    /// A message as a WebSocket frame, without what this form's clients do not know.
    ///
    /// # Errors
    /// The encoding cannot carry it.
    pub fn frame(self, mut message: OutboundMessage) -> Result<Bytes, EncodeError> {
        if !self.extended {
            // All that is said here is in v1.
            let _ = downgrade_to_v1(&mut message);
        }
        self.as_it_is(&message)
    }

    fn as_it_is(self, message: &OutboundMessage) -> Result<Bytes, EncodeError> {
        let opcode = match self.encoding {
            Encoding::Json => OpCode::Text,
            Encoding::Protobuf => OpCode::Binary,
        };
        Ok(encode_frame(opcode, &encode_outbound(self.encoding, message)?))
    }
}

/// Answers connect.
pub fn connected(id: String, subscriptions: Vec<Subscription>) -> OutboundMessage {
    let session_id = Uuid::new_v4().to_string();
    let caps = vec![EXTENDED.to_owned()];
    answer(id, Envelope::Connected(Connected { session_id, subscriptions, caps, ..Connected::default() }))
}

/// Answers publish.
pub fn publish_ack(id: String, position: Position) -> OutboundMessage {
    let offset = position.offset;
    answer(id, Envelope::PublishAck(PublishAck { offset, position: Some(position), duplicate: false }))
}

/// Refuses a request.
pub fn error(id: String, code: &str, message: &str) -> OutboundMessage {
    let error = shared::Error {
        code: code.to_owned(),
        r#type: "floor".to_owned(),
        message: message.to_owned(),
        metadata: None,
    };
    answer(id, Envelope::Error(error))
}

/// Answers a request.
pub fn answer(id: String, envelope: Envelope) -> OutboundMessage {
    OutboundMessage { id, time: unix_ms(), envelope: Some(envelope), ..OutboundMessage::default() }
}

/// A publication, built once for each form that `wanted` says is in use; in the order of [`Form::ALL`].
///
/// # Errors
/// An encoding in use cannot carry the event.
pub fn publication(
    channel: &str,
    position: Position,
    event: CloudEvent,
    wanted: [bool; 4],
) -> Result<[Option<Bytes>; 4], EncodeError> {
    let id = Uuid::new_v4().to_string();
    let message = Message {
        id: id.clone(),
        channel: channel.to_owned(),
        offset: position.offset,
        payload: Some(event),
        position: Some(position),
        ..Message::default()
    };
    let mut frame = answer(id, Envelope::Publication(Publication { messages: vec![message] }));
    let mut frames = [const { None }; 4];
    for form in Form::ALL.into_iter().filter(|form| wanted[form.index()]) {
        if !form.extended {
            // The extended ones, which come first, are made by now.
            let _ = downgrade_to_v1(&mut frame);
        }
        frames[form.index()] = Some(form.as_it_is(&frame)?);
    }
    Ok(frames)
}

/// Milliseconds since the Unix epoch.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use streamgate_proto::decode_outbound;

    use super::*;

    #[test]
    fn forms_know_their_places() {
        for (at, form) in Form::ALL.into_iter().enumerate() {
            assert_eq!(form.index(), at);
        }
    }

    #[test]
    fn each_form_that_is_wanted_gets_one_frame_with_what_it_knows() {
        let position = Position { epoch: "1767225600000".to_owned(), offset: 7 };
        let event = CloudEvent { id: "e1".to_owned(), ..CloudEvent::default() };
        let wanted = [true, false, true, true];
        let frames = publication("room.blue", position.clone(), event, wanted).unwrap();
        assert_eq!([0, 1, 2, 3].map(|at| frames[at].is_some()), wanted);
        for form in Form::ALL {
            let Some(frame) = &frames[form.index()] else { continue };
            // Short enough for a head of four bytes, long enough for more than two.
            let head = if frame[1] == 126 { 4 } else { 2 };
            let message = decode_outbound(form.encoding, &frame[head..]).unwrap();
            let Some(Envelope::Publication(publication)) = message.envelope else { panic!("a publication") };
            let [message] = &publication.messages[..] else { panic!("one message") };
            assert_eq!((message.channel.as_str(), message.offset), ("room.blue", 7));
            assert_eq!(message.position.as_ref(), form.extended.then_some(&position));
        }
    }
}
