//! Publications, gaps and errors in the words of the protocol.

use prost::Message as _;
use streamgate_proto::{
    cloudevents::CloudEvent,
    downgrade_to_v1,
    v1::{self, Gap, OutboundMessage, RecoverComplete, outbound_message as out},
};

use super::{Now, subscribe::wire_position};
use crate::{
    broker::{GapReason, Publication},
    channel::{Channel, Target},
    error::{ClientError, ErrorCode},
    position::Position,
};

/// One publication as a message.
///
/// # Errors
/// [`ErrorCode::Internal`] if the stored event cannot be read.
pub fn message(publication: &Publication, replay: bool) -> Result<v1::Message, ClientError> {
    let payload = CloudEvent::decode(publication.stored.event.clone()).map_err(|error| {
        ClientError::new(ErrorCode::Internal, format!("a stored event is damaged: {error}"))
    })?;
    let publisher = publication.stored.publisher.as_ref().map(|publisher| v1::Publisher {
        client_id: publisher.client_id.clone(),
        user_id: publisher.user_id.clone(),
    });
    Ok(v1::Message {
        id: uuid::Uuid::from_slice(&publication.stored.id).unwrap_or_default().to_string(),
        channel: publication.channel.as_str().to_owned(),
        offset: publication.position.map_or(0, |position| position.offset),
        payload: Some(payload),
        position: publication.position.map(wire_position),
        replay,
        publisher,
        delivery: None,
    })
}

/// The frame that delivers one publication; the same for every subscriber who knows the extended schema or does not.
///
/// # Errors
/// [`ErrorCode::Internal`] if the stored event cannot be read.
pub fn publication_frame(
    publication: &Publication,
    extended: bool,
    replay: bool,
    now: Now,
) -> Result<OutboundMessage, ClientError> {
    let message = message(publication, replay)?;
    let id = message.id.clone();
    let envelope = out::Envelope::Publication(v1::Publication { messages: vec![message] });
    let mut frame =
        OutboundMessage { id, time: now.unix_ms, envelope: Some(envelope), ..OutboundMessage::default() };
    if !extended {
        downgrade_to_v1(&mut frame)
            .map_err(|error| ClientError::new(ErrorCode::Internal, error.to_string()))?;
    }
    Ok(frame)
}

/// The frame that tells an extended client that continuity is lost while live.
#[must_use]
pub fn gap_frame(
    channel: &Channel,
    position: Option<Position>,
    reason: GapReason,
    now: Now,
) -> OutboundMessage {
    fresh(
        now,
        out::Envelope::Gap(Gap {
            channel: channel.as_str().to_owned(),
            position: position.map(wire_position),
            gap_reason: reason.as_str().to_owned(),
        }),
    )
}

/// What ends a recovery.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Where live publications go on.
    pub position: Option<Position>,
    /// Of a pattern: its marker, which takes the place of the position.
    pub marker: Option<String>,
    /// More was missed than is replayed.
    pub truncated: bool,
    /// Why something is missing.
    pub gap: Option<GapReason>,
    /// Why there was no recovery at all.
    pub refused: Option<&'static str>,
}

/// The frame that ends the recovery of `target`.
#[must_use]
pub fn recover_complete_frame(target: &Target, recovered: Recovered, now: Now) -> OutboundMessage {
    let position = match recovered.marker {
        Some(marker) => Some(v1::Position { epoch: marker, offset: 0 }),
        None => recovered.position.map(wire_position),
    };
    let error = recovered.refused.map(|why| ClientError::new(ErrorCode::AclError, why).to_wire());
    fresh(
        now,
        out::Envelope::RecoverComplete(RecoverComplete {
            channel: target.as_str().to_owned(),
            position,
            truncated: recovered.truncated,
            gap: recovered.gap.is_some(),
            gap_reason: recovered.gap.map(|reason| reason.as_str().to_owned()).unwrap_or_default(),
            error,
        }),
    )
}

/// A frame that answers nothing.
pub(super) fn fresh(now: Now, envelope: out::Envelope) -> OutboundMessage {
    OutboundMessage {
        id: uuid::Uuid::new_v4().to_string(),
        time: now.unix_ms,
        envelope: Some(envelope),
        ..OutboundMessage::default()
    }
}
