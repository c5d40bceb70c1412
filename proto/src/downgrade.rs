//! Frames for clients that know only MessageLoop v1.
//!
//! Such a client parses strictly, so a field of the extension would cost it the connection. Each
//! message type is taken apart without `..`: a field added to the schema does not compile until
//! someone decided here whether v1 knows it.

use crate::v1::{
    Connected, Message, OutboundMessage, Publication, PublishAck, Subscription, outbound_message::Envelope,
};

/// The frame is of a kind that v1 does not know: it must not be sent to a v1 client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this kind of frame is not in MessageLoop v1")]
pub struct NotInV1;

/// Removes every field that is not in v1 from a frame for a v1 client.
///
/// # Errors
/// [`NotInV1`] if the whole frame is of a kind that only `streamgate.v1` clients know; `frame` is
/// then unchanged.
pub fn downgrade_to_v1(frame: &mut OutboundMessage) -> Result<(), NotInV1> {
    let OutboundMessage { id: _, metadata: _, time: _, envelope } = frame;
    let Some(envelope) = envelope else { return Ok(()) };
    match envelope {
        Envelope::Connected(connected) => downgrade_connected(connected),
        Envelope::SubscribeAck(ack) => ack.subscriptions.iter_mut().for_each(downgrade_subscription),
        Envelope::UnsubscribeAck(ack) => ack.subscriptions.iter_mut().for_each(downgrade_subscription),
        Envelope::PublishAck(ack) => {
            let PublishAck { offset: _, position, duplicate } = ack;
            *position = None;
            *duplicate = false;
        }
        Envelope::Publication(publication) => downgrade_publication(publication),
        Envelope::Error(_)
        | Envelope::RpcReply(_)
        | Envelope::Pong(_)
        | Envelope::SubRefreshAck(_)
        | Envelope::SurveyRequest(_)
        | Envelope::SurveyResponse(_) => {}
        Envelope::Ping(_)
        | Envelope::RecoverComplete(_)
        | Envelope::Gap(_)
        | Envelope::History(_)
        | Envelope::Presence(_)
        | Envelope::PresenceEvent(_)
        | Envelope::RpcCall(_)
        | Envelope::SurveyResult(_)
        | Envelope::Reconnect(_)
        | Envelope::Ok(_) => return Err(NotInV1),
    }
    Ok(())
}

fn downgrade_connected(connected: &mut Connected) {
    let Connected {
        session_id: _,
        subscriptions,
        publications,
        caps,
        resumed,
        resume_token,
        user_id,
        ping_interval_ms,
        expires_at,
    } = connected;
    subscriptions.iter_mut().for_each(downgrade_subscription);
    publications.iter_mut().for_each(downgrade_publication);
    caps.clear();
    *resumed = false;
    resume_token.clear();
    user_id.clear();
    *ping_interval_ms = 0;
    *expires_at = 0;
}

fn downgrade_subscription(subscription: &mut Subscription) {
    let Subscription { channel: _, ephemeral: _, token: _, recover, cursor, cursors, from, presence, queue } =
        subscription;
    *recover = false;
    *cursor = None;
    cursors.clear();
    *from = None;
    *presence = false;
    *queue = None;
}

fn downgrade_publication(publication: &mut Publication) {
    let Publication { messages } = publication;
    for message in messages {
        let Message { id: _, channel: _, offset: _, payload: _, position, replay, publisher, delivery } =
            message;
        *position = None;
        *replay = false;
        *publisher = None;
        *delivery = None;
    }
}
