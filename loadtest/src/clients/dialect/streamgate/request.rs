//! Requests as envelopes.

use streamgate_proto::{
    cloudevent::SPEC_VERSION,
    cloudevents::{Attr, CloudEvent, CloudEventAttributeValue, Data},
    v1::{
        self, Connect, HistoryRequest, InboundMessage, Pong, PresenceQuery, RpcResult, RpcServe, Subscribe,
        Unsubscribe, inbound_message::Envelope, rpc_result::Outcome,
    },
};

use super::super::{Position, Request, Subscription};
use crate::load::stamp::Stamp;

/// What a client lists to be spoken to in the extended schema.
const EXTENSION: &str = "streamgate.v1";

/// The envelope of a request.
pub fn request(id: u64, request: &Request<'_>) -> InboundMessage {
    let mut message = InboundMessage { id: id.to_string(), ..InboundMessage::default() };
    message.envelope = Some(match *request {
        Request::Connect { client, token, subscriptions } => Envelope::Connect(Connect {
            client_id: client.to_owned(),
            token: token.to_owned(),
            caps: vec![EXTENSION.to_owned()],
            subscriptions: subscriptions.iter().map(subscription).collect(),
            ..Connect::default()
        }),
        Request::Subscribe { subscriptions } => {
            Envelope::Subscribe(Subscribe { subscriptions: subscriptions.iter().map(subscription).collect() })
        }
        Request::Unsubscribe { channels } => {
            let named =
                |channel: &String| v1::Subscription { channel: channel.clone(), ..Default::default() };
            Envelope::Unsubscribe(Unsubscribe { subscriptions: channels.iter().map(named).collect() })
        }
        Request::Publish { channel, stamp, size } => {
            message.channel = channel.to_owned();
            Envelope::Publish(event(stamp, size))
        }
        Request::History { channel, since, limit } => Envelope::History(HistoryRequest {
            channel: channel.to_owned(),
            since: since.map(position),
            limit,
            reverse: false,
        }),
        Request::Presence { channel } => {
            Envelope::PresenceQuery(PresenceQuery { channel: channel.to_owned() })
        }
        Request::Serve { methods } => Envelope::RpcServe(RpcServe { methods: methods.to_vec() }),
        Request::Call { channel, method, stamp, size } => {
            message.channel = channel.to_owned();
            message.method = method.to_owned();
            Envelope::RpcRequest(event(stamp, size))
        }
        Request::Reply { call, stamp, size } => Envelope::RpcResult(RpcResult {
            request_id: call.to_owned(),
            outcome: Some(Outcome::Payload(event(stamp, size))),
        }),
        Request::Pong => Envelope::Pong(Pong {}),
    });
    message
}

fn subscription(wanted: &Subscription) -> v1::Subscription {
    v1::Subscription {
        channel: wanted.channel.clone(),
        ephemeral: wanted.ephemeral,
        recover: wanted.cursor.is_some(),
        cursor: wanted.cursor.as_ref().map(position),
        presence: wanted.presence,
        ..Default::default()
    }
}

fn position(position: &Position) -> v1::Position {
    v1::Position { epoch: position.epoch.clone(), offset: position.offset }
}

/// An event as a small application would send it: text, with its content type.
fn event(stamp: Stamp, size: usize) -> CloudEvent {
    let mut text = String::with_capacity(size.max(Stamp::LENGTH));
    stamp.write(size, &mut text);
    let content_type = CloudEventAttributeValue { attr: Some(Attr::CeString("text/plain".to_owned())) };
    CloudEvent {
        // Unique as the stamp is, but not to be taken for one.
        id: format!("{:x}-{:x}-{:x}", stamp.stream, stamp.sequence, stamp.due),
        source: "/load".to_owned(),
        spec_version: SPEC_VERSION.to_owned(),
        r#type: "load.tick".to_owned(),
        attributes: [("datacontenttype".to_owned(), content_type)].into(),
        data: Some(Data::TextData(text)),
    }
}
