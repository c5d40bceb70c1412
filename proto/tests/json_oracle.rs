//! Our JSON against prost-reflect's, in both directions, for every message type of the schema.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

mod schema;

use bytes::Bytes;
use prost::{Message, Name};
use prost_reflect::DynamicMessage;
use schema::{Choices, from_json, generate, own_messages, pool, to_json};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use streamgate_proto::{DecodeError, EncodeError, cloudevents, json, proxy, server, shared, v1};

/// One message type of ours, erased: protobuf to JSON and back.
struct OwnType {
    name: String,
    to_json: fn(&[u8]) -> Result<Bytes, EncodeError>,
    from_json: fn(&[u8]) -> Result<Vec<u8>, DecodeError>,
}

fn own<M: Message + Name + Default + Serialize + DeserializeOwned>() -> OwnType {
    OwnType {
        name: M::full_name(),
        to_json: |bytes| json::encode(&M::decode(bytes).expect("the oracle's protobuf decodes")),
        from_json: |text| json::decode::<M>(text).map(|message| message.encode_to_vec()),
    }
}

macro_rules! own_types {
    ($($package:ident :: { $($message:ident),* $(,)? })*) => { vec![$($(own::<$package::$message>()),*),*] };
}

fn own_types() -> Vec<OwnType> {
    own_types! {
        cloudevents::{ CloudEvent, CloudEventAttributeValue, CloudEventBatch }
        shared::{ Error }
        v1::{
            Ack, Connect, Connected, Delivery, Extend, Gap, HistoryRequest, HistoryResponse, InboundMessage,
            Member, Message, Nack, Ok, OutboundMessage, Ping, Pong, Position, Presence, PresenceEvent,
            PresenceQuery, Publication, PublishAck, PublishOptions, Publisher, Queue, Reconnect,
            RecoverComplete, Refresh, RpcCall, RpcResult, RpcServe, StartFrom, SubRefresh, SubRefreshAck,
            Subscribe, SubscribeAck, Subscription, SurveyAnswer, SurveyRequest, SurveyResponse, SurveyResult,
            Unsubscribe, UnsubscribeAck,
        }
        server::{
            BroadcastRequest, BroadcastResponse, CallRequest, CallResponse, ChannelInfo, ChannelResult,
            ChannelsRequest, ChannelsResponse, Destination, DisconnectRequest, DisconnectResponse,
            DisconnectResult, HistoryRequest, HistoryResponse, NodeInfo, NodesRequest, NodesResponse,
            PresenceRequest, PresenceResponse, Publication, PublicationOptions, PublishRequest,
            PublishResponse, PublishResult, RemoveHistoryRequest, RemoveHistoryResponse, RevokeRequest,
            RevokeResponse, SessionInfo, SessionsRequest, SessionsResponse, SubscribeRequest,
            SubscribeResponse, SurveyRequest, SurveyResponse, SurveyResult, UnsubscribeRequest,
            UnsubscribeResponse,
        }
        proxy::{
            AuthenticateRequest, AuthenticateResponse, OnChannelOccupiedRequest, OnChannelOccupiedResponse,
            OnChannelVacatedRequest, OnChannelVacatedResponse, OnConnectedRequest, OnConnectedResponse,
            OnDisconnectedRequest, OnDisconnectedResponse, OnSubscribedRequest, OnSubscribedResponse,
            OnUnsubscribedRequest, OnUnsubscribedResponse, PublishAclRequest, PublishAclResponse, RpcRequest, RpcResponse, SubscribeAclRequest,
            SubscribeAclResponse, UserInfo,
        }
    }
}

/// Prost names types in Rust's case; compare without.
fn key(name: &str) -> String {
    name.to_ascii_lowercase()
}

/// JSON does not tell 5 from 5.0, serde_json does.
fn normal(text: &[u8]) -> Value {
    fn visit(value: &mut Value) {
        match value {
            Value::Number(number) => *value = serde_json::json!(number.as_f64()),
            Value::Array(items) => items.iter_mut().for_each(visit),
            Value::Object(members) => members.values_mut().for_each(visit),
            _ => {}
        }
    }
    let mut value = serde_json::from_slice(text).unwrap();
    visit(&mut value);
    value
}

fn check(own: &OwnType, message: &DynamicMessage) {
    let descriptor = prost_reflect::ReflectMessage::descriptor(message);
    let canonical = to_json(message, true);

    let ours = (own.to_json)(&message.encode_to_vec()).unwrap();
    assert_eq!(normal(&ours), normal(canonical.as_bytes()), "{}: not canonical", own.name);
    assert!(
        &from_json(&descriptor, &ours).unwrap() == message,
        "{}: the oracle reads it otherwise: {ours:?}",
        own.name
    );

    for text in [canonical, to_json(message, false)] {
        let bytes =
            (own.from_json)(text.as_bytes()).unwrap_or_else(|error| panic!("{}: {error}: {text}", own.name));
        let read = DynamicMessage::decode(descriptor.clone(), bytes.as_slice()).unwrap();
        assert!(&read == message, "{}: read otherwise than the oracle: {text}", own.name);
    }
}

#[test]
fn every_message_type_is_checked() {
    let mut ours: Vec<_> = own_types().iter().map(|own| key(&own.name)).collect();
    let mut schema: Vec<_> = own_messages(&pool()).iter().map(|message| key(message.full_name())).collect();
    ours.sort();
    schema.sort();
    assert_eq!(ours, schema);
}

#[test]
fn full_messages_of_every_type_agree_with_the_oracle() {
    let messages = own_messages(&pool());
    for own in own_types() {
        let descriptor = messages.iter().find(|message| key(message.full_name()) == key(&own.name)).unwrap();
        check(&own, &DynamicMessage::new(descriptor.clone()));
        for member in 0..40 {
            check(&own, &generate(descriptor, &mut Choices::Full(member)));
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn generated_messages_of_every_type_agree_with_the_oracle(
        entropy in proptest::collection::vec(proptest::num::u8::ANY, 0..400),
    ) {
        let messages = own_messages(&pool());
        for own in own_types() {
            let descriptor = messages.iter().find(|message| key(message.full_name()) == key(&own.name)).unwrap();
            check(&own, &generate(descriptor, &mut Choices::Bytes(&entropy)));
        }
    }
}
