//! What the server has to say itself, as events: type `io.streamgate.*`, source `/streamgate`, data in JSON.
//!
//! They never carry `sgchannel`, and every published event does: so nobody can publish one of these.

use serde_json::{Map, Value, json};
use streamgate_proto::{
    EncodeError, json as proto_json, shared,
    v1::{OutboundMessage, PublishAck, Subscription, outbound_message::Envelope},
    wkt::Timestamp,
};

use crate::{error::CloseCode, transport::cursor::Cursor};

/// An event of the server's.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    /// What follows `io.streamgate.` in its type.
    pub kind: &'static str,
    data: Map<String, Value>,
}

impl Notice {
    fn new(kind: &'static str, data: Value) -> Self {
        let Value::Object(mut data) = data else { return Self { kind, data: Map::new() } };
        data.retain(|_, value| !value.is_null());
        Self { kind, data }
    }

    /// What a frame says; `None`: it holds a publication, or nothing that a client of events could have asked for.
    #[must_use]
    pub fn of(frame: &OutboundMessage) -> Option<Self> {
        Some(match frame.envelope.as_ref()? {
            Envelope::Connected(connected) => Self::new(
                "connected",
                json!({
                    "session_id": connected.session_id,
                    "user_id": some(&connected.user_id),
                    "expires_at": (connected.expires_at > 0).then_some(connected.expires_at),
                    "subscriptions": subscriptions(&connected.subscriptions),
                }),
            ),
            Envelope::RecoverComplete(end) => Self::new(
                "recovered",
                json!({
                    "channel": end.channel,
                    "since": end.position.as_ref().and_then(|at| since(&end.channel, at)),
                    "gap": end.gap,
                    "reason": some(&end.gap_reason),
                    "truncated": end.truncated,
                    "error": end.error.as_ref().map(|error| &error.message),
                }),
            ),
            Envelope::Gap(gap) => Self::gap(
                &gap.channel,
                gap.position.as_ref().and_then(|at| since(&gap.channel, at)),
                &gap.gap_reason,
            ),
            Envelope::PublishAck(ack) => Self::new("ack", ack_data(frame, ack)),
            Envelope::Error(error) => Self::new("error", error_data(frame, error)),
            Envelope::Reconnect(reconnect) => Self::new("reconnect", json!({"after_ms": reconnect.after_ms})),
            Envelope::SubscribeAck(ack) => {
                Self::new("subscribed", json!({"subscriptions": subscriptions(&ack.subscriptions)}))
            }
            Envelope::UnsubscribeAck(ack) => {
                Self::new("unsubscribed", json!({"subscriptions": subscriptions(&ack.subscriptions)}))
            }
            _ => return None,
        })
    }

    /// Continuity of a channel, or of a whole pattern, is lost.
    #[must_use]
    pub fn gap(channel: &str, since: Option<String>, reason: &str) -> Self {
        Self::new("gap", json!({"channel": channel, "since": since, "reason": reason}))
    }

    /// The end of a stream that has no close code of its own.
    #[must_use]
    pub fn closed(code: CloseCode, reason: &str) -> Self {
        let data = json!({"code": code.code(), "reason": reason, "reconnect": code.reconnect()});
        Self::new("closed", data)
    }

    /// Whether it tells of something that is missing.
    #[must_use]
    pub fn tells_of_loss(&self) -> bool {
        let is = |name: &str| self.data.get(name) == Some(&Value::Bool(true));
        self.kind == "gap"
            || self.kind == "recovered" && (is("gap") || is("truncated") || self.data.contains_key("error"))
    }

    /// Appends it as one JSON object; `time_ms` is since the Unix epoch.
    ///
    /// # Errors
    /// The time is none of the years 1 to 9999.
    pub fn write(&self, time_ms: u64, buffer: &mut Vec<u8>) -> Result<(), EncodeError> {
        let seconds = i64::try_from(time_ms / 1_000).unwrap_or(i64::MAX);
        let nanos = i32::try_from(time_ms % 1_000 * 1_000_000).unwrap_or(0);
        let event = json!({
            "specversion": "1.0",
            "id": uuid::Uuid::new_v4().to_string(),
            "source": "/streamgate",
            "type": format!("io.streamgate.{}", self.kind),
            "time": serde_json::to_value(Timestamp { seconds, nanos }).unwrap_or_default(),
            "datacontenttype": "application/json",
            "data": self.data,
        });
        proto_json::encode_into(&event, buffer)
    }
}

fn some(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// The place in one channel or pattern, to be brought back as `since`.
fn since(name: &str, at: &streamgate_proto::v1::Position) -> Option<String> {
    let mut cursor = Cursor::default();
    cursor.see(name, at);
    (!cursor.is_empty()).then(|| cursor.text(None))
}

fn subscriptions(acked: &[Subscription]) -> Vec<Value> {
    let one = |subscription: &Subscription| {
        let cursor = Cursor::of_ack(subscription);
        match cursor.is_empty() {
            true => json!({"channel": subscription.channel}),
            false => json!({"channel": subscription.channel, "since": cursor.text(None)}),
        }
    };
    acked.iter().map(one).collect()
}

/// The publisher knows its event by id and source.
fn ack_data(frame: &OutboundMessage, ack: &PublishAck) -> Value {
    let position = ack.position.as_ref();
    json!({
        "id": frame.id,
        "source": frame.metadata.get("source"),
        "epoch": position.map(|at| &at.epoch),
        "offset": position.map(|at| at.offset.to_string()),
        "duplicate": ack.duplicate,
    })
}

fn error_data(frame: &OutboundMessage, error: &shared::Error) -> Value {
    json!({
        "id": some(&frame.id),
        "source": frame.metadata.get("source"),
        "code": error.code,
        "type": error.r#type,
        "message": error.message,
    })
}
