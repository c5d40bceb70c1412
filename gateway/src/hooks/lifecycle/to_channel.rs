//! Telling whoever subscribes to the system channel: events of sessions and channels as CloudEvents, published like any
//! others. The id of the event is the idempotency key, so that one that is told twice is stored once.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use metrics::counter;
use prost::Message as _;
use serde_json::{Value, json};
use streamgate_proto::{
    cloudevent::SPEC_VERSION,
    cloudevents::{Attr, CloudEvent, CloudEventAttributeValue, Data},
    wkt::Timestamp,
};

use super::{dropped, event::Fact, held::Told, in_order::Audience};
use crate::{
    broker::{Broker, BrokerError, Publish, Stored},
    channel::Channel,
    policy::Policies,
    session::sound,
    telemetry::metrics::CLIENT_EVENTS,
};

/// The source of all of them.
const SOURCE: &str = "/streamgate";
/// What becomes of an event.
const OUTCOMES: [&str; 2] = ["published", "repeated"];

/// Where events are published.
pub struct SystemChannel {
    broker: Arc<dyn Broker>,
    channel: Channel,
    policies: Policies,
}

impl SystemChannel {
    /// The channel `channel`, with the settings that `policies` have for it.
    #[must_use]
    pub fn new(broker: Arc<dyn Broker>, channel: Channel, policies: Policies) -> Self {
        for outcome in OUTCOMES {
            counter!(CLIENT_EVENTS, "outcome" => outcome).increment(0);
        }
        Self { broker, channel, policies }
    }
}

impl Audience for SystemChannel {
    async fn tell(&self, fact: &Fact) -> Told {
        // Subscriptions are for backends alone.
        let Some(event) = cloud_event(fact) else { return Told::Taken };
        let policy = self.policies.of(self.channel.as_str());
        if let Err(error) = sound(&self.channel, &policy, &event) {
            tracing::warn!(channel = %self.channel, %error, "an event is not fit for the system channel");
            dropped("refused", 1);
            return Told::Taken;
        }
        let publish = Publish {
            channel: self.channel.clone(),
            stored: Stored {
                id: Bytes::copy_from_slice(uuid::Uuid::new_v4().as_bytes()),
                event: event.encode_to_vec().into(),
                ..Stored::default()
            },
            user_id: String::new(),
            idempotency_key: Some(event.id),
            transient: policy.transient,
            job: crate::broker::queue::JobOptions::default(),
        };
        match self.broker.publish(publish).await {
            Ok(published) => {
                let outcome = OUTCOMES[usize::from(published.duplicate)];
                counter!(CLIENT_EVENTS, "outcome" => outcome).increment(1);
                Told::Taken
            }
            // It never fits.
            Err(error @ BrokerError::MemoryLimit { .. }) => {
                tracing::warn!(channel = %self.channel, %error, "an event cannot be published");
                dropped("refused", 1);
                Told::Taken
            }
            Err(error) => {
                tracing::debug!(channel = %self.channel, %error, "an event is published later");
                Told::Away
            }
        }
    }
}

/// The CloudEvent of what happened; `None` if the channel is not told of that.
fn cloud_event(fact: &Fact) -> Option<CloudEvent> {
    let (kind, event_id, data) = match fact {
        Fact::Connected(event) => (
            "client.registered",
            &event.event_id,
            client(&event.session_id, &event.user_id, &event.client_id, &event.client_type),
        ),
        Fact::Disconnected(event) => {
            let mut data = client(&event.session_id, &event.user_id, &event.client_id, &event.client_type);
            data["code"] = event.code.into();
            data["reason"] = event.reason.clone().into();
            ("client.deregistered", &event.event_id, data)
        }
        Fact::Occupied(event) => ("channel.occupied", &event.event_id, json!({"channel": event.channel})),
        Fact::Vacated(event) => ("channel.vacated", &event.event_id, json!({"channel": event.channel})),
        Fact::Subscribed(_) | Fact::Unsubscribed(_) => return None,
    };
    let text = |text: &str| Attr::CeString(text.to_owned());
    let attributes = [
        ("subject", text(fact.subject())),
        ("time", Attr::CeTimestamp(timestamp(fact.time_ms()))),
        ("datacontenttype", text("application/json")),
    ];
    let named = |(name, attr): (&str, Attr)| (name.to_owned(), CloudEventAttributeValue { attr: Some(attr) });
    Some(CloudEvent {
        id: event_id.clone(),
        source: SOURCE.to_owned(),
        spec_version: SPEC_VERSION.to_owned(),
        r#type: format!("io.streamgate.{kind}"),
        attributes: attributes.into_iter().map(named).collect::<BTreeMap<_, _>>(),
        data: Some(Data::TextData(data.to_string())),
    })
}

fn client(session_id: &str, user_id: &str, client_id: &str, client_type: &str) -> Value {
    json!({"session_id": session_id, "user_id": user_id, "client_id": client_id, "client_type": client_type})
}

fn timestamp(ms: u64) -> Timestamp {
    let seconds = i64::try_from(ms / 1_000).unwrap_or(i64::MAX);
    // Below a second.
    let nanos = i32::try_from(ms % 1_000).unwrap_or(0) * 1_000_000;
    Timestamp { seconds, nanos }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        broker::{HistoryQuery, memory::MemoryBroker, memory::MemoryOptions},
        error::CloseCode,
        hooks::{Happening, Who, lifecycle::event::Event},
    };
    use streamgate_proto::cloudevent;

    fn fact(happening: Happening<'_>) -> Fact {
        let who = Who { session_id: "s", user_id: "ann", client_id: "phone", client_type: "web" };
        let stored = Event::new(who, 1_792_000_000_007, happening).stored;
        super::super::event::Stored::decode(&stored[..]).unwrap().fact.unwrap()
    }

    fn data(event: &CloudEvent) -> Value {
        let Some(Data::TextData(text)) = &event.data else { panic!("{event:?}") };
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn an_event_says_who_and_when_and_why() {
        let ended = cloud_event(&fact(Happening::Disconnected(CloseCode::IdleTimeout, "si\"lent"))).unwrap();
        cloudevent::validate(&ended).unwrap();
        assert_eq!((&*ended.r#type, &*ended.source), ("io.streamgate.client.deregistered", "/streamgate"));
        let expected = json!({
            "session_id": "s", "user_id": "ann", "client_id": "phone", "client_type": "web", "code": 3511, "reason": "si\"lent"
        });
        assert_eq!(data(&ended), expected);
        let attr = |name: &str| ended.attributes[name].attr.clone().unwrap();
        assert_eq!(attr("subject"), Attr::CeString("s".into()));
        assert_eq!(attr("time"), Attr::CeTimestamp(Timestamp { seconds: 1_792_000_000, nanos: 7_000_000 }));
        assert_eq!(attr("datacontenttype"), Attr::CeString("application/json".into()));
        assert_eq!(cloud_event(&fact(Happening::Subscribed("a"))), None);
    }

    #[tokio::test]
    async fn what_is_told_twice_is_stored_once() {
        let policies = Policies::default();
        let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new(policies.clone(), MemoryOptions::default()));
        let channel = Channel::parse("$events").unwrap();
        let system = SystemChannel::new(broker.clone(), channel.clone(), policies);
        let (first, second) = (fact(Happening::Connected), fact(Happening::Connected));
        for fact in [&first, &second, &first] {
            assert_eq!(system.tell(fact).await, Told::Taken);
        }
        let query = HistoryQuery { channel, since: None, limit: None, reverse: false };
        assert_eq!(broker.history(query).await.unwrap().publications.len(), 2);
        broker.shutdown().await;
        assert_eq!(system.tell(&second).await, Told::Away);
    }
}
