//! The session without sockets or clocks: frames in, effects out.

use std::time::Duration;

use streamgate_proto::{
    cloudevents::CloudEvent,
    v1::{self, Connect, InboundMessage, OutboundMessage, Subscription},
};

use super::{In, out, *};
use crate::{
    broker::{BrokerError, Published, Start, Subscribed},
    channel::Channel,
    policy::{ChannelPolicy, Limits, Policies},
    position::Position,
};

pub(super) struct Client {
    pub session: Session,
    pub now: Now,
}

impl Client {
    pub fn new(limits: Limits) -> Self {
        Self::with(Settings::new(Policies::new(Vec::new(), ChannelPolicy::default()), limits))
    }

    pub fn with(settings: Settings) -> Self {
        let now = Now { mono_ms: 1_000, unix_ms: 1_767_225_600_000 };
        Self { session: Session::new(settings, now, Arrival::default()), now }
    }

    pub fn say(&mut self, id: &str, envelope: In) -> Effects {
        let frame = InboundMessage { id: id.into(), envelope: Some(envelope), ..InboundMessage::default() };
        let mut fx = Effects::new();
        self.session.receive(self.now, frame, &mut fx);
        fx
    }

    pub fn connected(extended: bool) -> Self {
        let mut client = Self::new(Limits::default());
        client.say("1", In::Connect(connect(extended, &[])));
        assert!(client.session.is_open());
        client
    }

    fn after(&mut self, time: Duration) -> Effects {
        self.now.mono_ms += u64::try_from(time.as_millis()).unwrap();
        let mut fx = Effects::new();
        self.session.tick(self.now, &mut fx);
        fx
    }
}

pub(super) fn connect(extended: bool, channels: &[&str]) -> Connect {
    let caps = if extended { vec![EXTENDED.to_owned()] } else { Vec::new() };
    Connect {
        caps,
        subscriptions: channels.iter().map(|name| subscription(name)).collect(),
        ..Connect::default()
    }
}

pub(super) fn subscription(channel: &str) -> Subscription {
    Subscription { channel: channel.into(), ..Subscription::default() }
}

fn subscribe(channels: &[&str]) -> In {
    In::Subscribe(v1::Subscribe { subscriptions: channels.iter().map(|name| subscription(name)).collect() })
}

fn event() -> CloudEvent {
    CloudEvent {
        id: "e1".into(),
        source: "room.blue".into(),
        spec_version: "1.0".into(),
        r#type: "t".into(),
        ..CloudEvent::default()
    }
}

pub(super) fn sent(fx: &Effects) -> Vec<&OutboundMessage> {
    fx.iter()
        .filter_map(|effect| match effect {
            Effect::Send(frame) | Effect::SendPage(frame) => Some(&**frame),
            _ => None,
        })
        .collect()
}

pub(super) fn closed(fx: &Effects) -> Option<CloseCode> {
    fx.iter().find_map(|effect| if let Effect::Close { code, .. } = effect { Some(*code) } else { None })
}

pub(super) fn error_code(fx: &Effects) -> String {
    match &sent(fx)[..] {
        [OutboundMessage { envelope: Some(out::Envelope::Error(error)), .. }] => error.code.clone(),
        other => panic!("one error is expected: {other:?}"),
    }
}

pub(super) fn batch(fx: Effects) -> SubscribeBatch {
    fx.into_iter()
        .find_map(|effect| if let Effect::Subscribe(batch) = effect { Some(*batch) } else { None })
        .unwrap()
}

#[test]
fn what_comes_before_connect_closes_with_3502_and_a_second_connect_with_3501() {
    let mut client = Client::new(Limits::default());
    assert_eq!(closed(&client.say("1", In::Ping(v1::Ping {}))), Some(CloseCode::Stale));
    let mut client = Client::connected(false);
    assert_eq!(closed(&client.say("2", In::Connect(connect(false, &[])))), Some(CloseCode::BadRequest));
    assert!(client.say("3", In::Ping(v1::Ping {})).is_empty(), "nothing follows a close");
}

#[test]
fn a_client_that_says_nothing_is_closed_when_the_connect_deadline_has_passed() {
    let mut client = Client::new(Limits::default());
    assert_eq!(closed(&client.after(Duration::from_millis(9_999))), None);
    assert_eq!(closed(&client.after(Duration::from_millis(1))), Some(CloseCode::Stale));
}

#[test]
fn frames_that_follow_connect_wait_until_it_is_answered() {
    let mut client = Client::new(Limits::default());
    let fx = client.say("1", In::Connect(connect(true, &["a"])));
    let batch = batch(fx);
    assert!(client.say("2", In::Ping(v1::Ping {})).is_empty());
    let mut fx = Effects::new();
    let at = Position { epoch: 7, offset: 3 };
    let answer = Subscribed { positions: vec![(Channel::parse("a").unwrap(), at)], ..Subscribed::default() };
    client.session.subscribe_done(client.now, batch, &[answer], &mut fx);
    let frames = sent(&fx);
    let Some(out::Envelope::Connected(connected)) = &frames[0].envelope else { panic!("{frames:?}") };
    assert_eq!(connected.subscriptions[0].cursor, Some(v1::Position { epoch: "7".into(), offset: 3 }));
    assert!(matches!(frames[1].envelope, Some(out::Envelope::Pong(_))) && frames[1].id == "2");
}

#[test]
fn a_v1_client_gets_no_field_beyond_v1() {
    let mut client = Client::new(Limits::default());
    let batch = batch(client.say("1", In::Connect(connect(false, &["a"]))));
    let mut fx = Effects::new();
    let at = Position { epoch: 7, offset: 3 };
    let answer = Subscribed { positions: vec![(Channel::parse("a").unwrap(), at)], ..Subscribed::default() };
    client.session.subscribe_done(client.now, batch, &[answer], &mut fx);
    let Some(out::Envelope::Connected(connected)) = &sent(&fx)[0].envelope else { panic!("{fx:?}") };
    assert_eq!(connected.subscriptions, [subscription("a")]);
    assert!(connected.resume_token.is_empty() && connected.caps.is_empty());
    let mut fx = Effects::new();
    let published = Published { position: Some(at), duplicate: true };
    client.session.publish_done(client.now, ReplyTo::default(), Ok(published), &mut fx);
    let Some(out::Envelope::PublishAck(ack)) = &sent(&fx)[0].envelope else { panic!("{fx:?}") };
    assert_eq!(*ack, v1::PublishAck { offset: 3, ..v1::PublishAck::default() });
}

#[test]
fn a_batch_with_one_bad_channel_subscribes_nothing() {
    let mut client = Client::connected(true);
    let fx = client.say("2", subscribe(&["a", "b..c"]));
    assert_eq!(error_code(&fx), "BAD_REQUEST");
    assert!(client.session.subscriptions.is_empty());
}

#[test]
fn a_batch_that_the_broker_refuses_leaves_nothing_behind() {
    let mut client = Client::connected(true);
    let batch = batch(client.say("2", subscribe(&["a", "b.*"])));
    let mut fx = Effects::new();
    let error = BrokerError::NotAvailable { reason: "away".into(), sent: false };
    client.session.subscribe_failed(client.now, batch, &error, &mut fx);
    assert_eq!(error_code(&fx), "NOT_AVAILABLE");
    assert!(matches!(&fx[0], Effect::Unsubscribe(slots) if slots.len() == 2));
    assert!(client.session.subscriptions.is_empty());
}

#[test]
fn one_subscription_too_many_closes_with_3505() {
    let limits = Limits { subscriptions_per_client: 2, ..Limits::default() };
    let mut client = Client::new(limits);
    client.say("1", In::Connect(connect(true, &[])));
    assert_eq!(closed(&client.say("2", subscribe(&["a", "b"]))), None);
    assert_eq!(closed(&client.say("3", subscribe(&["a"]))), None, "held already");
    assert_eq!(closed(&client.say("4", subscribe(&["c"]))), Some(CloseCode::ChannelLimit));
}

#[test]
fn cursors_become_the_start_and_a_patterns_marker_travels_under_its_own_name() {
    let mut client = Client::connected(true);
    let cursor = |epoch: &str, offset| v1::Position { epoch: epoch.into(), offset };
    let wanted = Subscription {
        channel: "a.*".into(),
        recover: true,
        cursors: [("a.*".to_owned(), cursor("m1", 0)), ("a.b".to_owned(), cursor("7", 3))].into(),
        ..Subscription::default()
    };
    let fx = client.say("2", In::Subscribe(v1::Subscribe { subscriptions: vec![wanted] }));
    let Wish::Past(Start::After(cursors)) = &batch(fx).items[0].wish else { panic!("not a recovery") };
    assert_eq!(cursors.marker.as_deref(), Some("m1"));
    assert_eq!(cursors.channels["a.b"], Position { epoch: 7, offset: 3 });
    let stranger = Subscription {
        channel: "b.*".into(),
        recover: true,
        cursors: [("a.b".to_owned(), cursor("7", 3))].into(),
        ..Subscription::default()
    };
    let fx = client.say("3", In::Subscribe(v1::Subscribe { subscriptions: vec![stranger] }));
    assert_eq!(error_code(&fx), "BAD_REQUEST");
}

#[test]
fn twenty_undecodable_frames_in_a_row_close_with_3509_and_a_good_one_starts_anew() {
    let mut client = Client::connected(false);
    let bad = |client: &mut Client| {
        let mut fx = Effects::new();
        client.session.undecodable(client.now, "garbage", &mut fx);
        fx
    };
    for _ in 0..19 {
        assert_eq!(error_code(&bad(&mut client)), "BAD_REQUEST");
    }
    client.say("2", In::Ping(v1::Ping {}));
    for _ in 0..19 {
        assert_eq!(closed(&bad(&mut client)), None);
    }
    assert_eq!(closed(&bad(&mut client)), Some(CloseCode::TooManyErrors));
}

#[test]
fn silence_is_answered_with_pings_and_then_ends_the_session() {
    let mut client = Client::connected(true);
    let fx = client.after(Duration::from_secs(25));
    assert!(matches!(sent(&fx)[0].envelope, Some(out::Envelope::Ping(_))));
    assert_eq!(closed(&client.after(Duration::from_secs(49))), None);
    assert_eq!(closed(&client.after(Duration::from_secs(1))), Some(CloseCode::IdleTimeout));
    let mut client = Client::connected(false);
    assert!(matches!(client.after(Duration::from_secs(25))[..], [Effect::TransportPing]));
    assert_eq!(closed(&client.after(Duration::from_secs(275))), Some(CloseCode::IdleTimeout));
}

#[test]
fn a_time_to_live_is_stored_with_the_event_and_bounded() {
    let publish = |extended: bool, ttl_ms| {
        let mut client = Client::connected(extended);
        let options = v1::PublishOptions { ttl_ms, ..v1::PublishOptions::default() };
        let frame = InboundMessage {
            id: "2".into(),
            publish_options: Some(options),
            envelope: Some(In::Publish(event())),
            ..InboundMessage::default()
        };
        let mut fx = Effects::new();
        client.session.receive(client.now, frame, &mut fx);
        fx
    };
    let stored = |fx: &Effects| match fx.first() {
        Some(Effect::Publish { publish, .. }) => publish.stored.ttl_ms,
        _ => panic!("{fx:?}"),
    };
    let greatest = 365 * 86_400_000;
    assert_eq!((stored(&publish(true, 0)), stored(&publish(true, 7))), (0, 7));
    assert_eq!(stored(&publish(true, greatest)), greatest);
    assert_eq!(error_code(&publish(true, greatest + 1)), "BAD_REQUEST");
    assert_eq!(stored(&publish(false, 7)), 0, "its schema does not have the field");
}

#[test]
fn publishes_are_checked_at_the_edge() {
    let mut client = Client::connected(true);
    let fx = client.say("2", In::Publish(event()));
    let Some(Effect::Publish { publish, .. }) = fx.first() else { panic!("{fx:?}") };
    assert_eq!(publish.channel.as_str(), "room.blue", "the source, as the envelope names no channel");
    assert_eq!(
        error_code(&client.say("3", In::Publish(CloudEvent { id: String::new(), ..event() }))),
        "BAD_REQUEST"
    );
    assert_eq!(
        error_code(&client.say("4", In::Publish(CloudEvent { source: "a.*".into(), ..event() }))),
        "BAD_REQUEST"
    );
    let large = streamgate_proto::cloudevents::Data::TextData("x".repeat(64 * 1024));
    assert_eq!(
        error_code(&client.say("5", In::Publish(CloudEvent { data: Some(large), ..event() }))),
        "TOO_LARGE"
    );
}

#[test]
fn a_subscription_that_could_not_be_renewed_ends_the_connection_for_the_old_one_is_gone() {
    let mut client = Client::connected(true);
    let opened = batch(client.say("2", subscribe(&["a"])));
    let mut fx = Effects::new();
    client.session.subscribe_done(client.now, opened, &[Subscribed::default()], &mut fx);
    let again = Subscription { recover: true, ..subscription("a") };
    let renewed = batch(client.say("3", In::Subscribe(v1::Subscribe { subscriptions: vec![again] })));
    let mut fx = Effects::new();
    let error = BrokerError::NotAvailable { reason: "away".into(), sent: false };
    client.session.subscribe_failed(client.now, renewed, &error, &mut fx);
    assert_eq!(error_code(&fx), "NOT_AVAILABLE");
    assert_eq!(closed(&fx), Some(CloseCode::NotAvailable));
}

#[test]
fn a_subscription_is_not_acknowledged_on_the_strength_of_one_that_is_still_under_way() {
    let mut client = Client::connected(true);
    batch(client.say("2", subscribe(&["a"])));
    assert_eq!(batch(client.say("3", subscribe(&["a"]))).items.len(), 1);
}

#[test]
fn a_client_that_changes_its_subscriptions_all_the_time_is_saved_ten_times_a_second() {
    let mut client = Client::connected(true);
    let saves =
        |fx: &Effects| fx.iter().filter(|effect| matches!(effect, Effect::SaveSession { .. })).count();
    let mut saved = 0;
    for round in 0..40 {
        let opened = batch(client.say("2", subscribe(&[&format!("a{round}")])));
        let mut fx = Effects::new();
        client.session.subscribe_done(client.now, opened, &[Subscribed::default()], &mut fx);
        saved += saves(&fx);
    }
    assert_eq!(saved, 9, "the connect was saved, too");
    assert_eq!(saves(&client.after(Duration::from_secs(1))), 1);
    assert_eq!(saves(&client.after(Duration::from_secs(1))), 0);
}

#[test]
fn only_so_many_pages_of_history_are_read_for_one_client_at_a_time() {
    let mut client = Client::connected(true);
    let request = || In::History(v1::HistoryRequest { channel: "a".into(), limit: -1, ..Default::default() });
    for _ in 0..16 {
        assert!(matches!(client.say("2", request())[..], [Effect::History { .. }]));
    }
    assert_eq!(error_code(&client.say("3", request())), "RATE_LIMITED");
    let mut fx = Effects::new();
    client.session.history_done(client.now, ReplyTo::default(), Ok(Default::default()), &mut fx);
    assert!(matches!(fx[..], [Effect::SendPage(_)]));
    assert_eq!(error_code(&client.say("4", request())), "RATE_LIMITED", "it waits for room");
    client.session.page_sent();
    assert!(matches!(client.say("4", request())[..], [Effect::History { .. }]));
}

#[test]
fn a_subscription_that_was_acked_late_and_could_not_be_renewed_ends_the_connection() {
    let mut client = Client::connected(true);
    let first = batch(client.say("2", subscribe(&["a"])));
    let second = batch(client.say("3", subscribe(&["a"])));
    let mut fx = Effects::new();
    client.session.subscribe_done(client.now, first, &[Subscribed::default()], &mut fx);
    assert_eq!(sent(&fx).len(), 1, "the first one is acknowledged");
    fx.clear();
    let error = BrokerError::NotAvailable { reason: "away".into(), sent: false };
    client.session.subscribe_failed(client.now, second, &error, &mut fx);
    assert_eq!(closed(&fx), Some(CloseCode::NotAvailable));
}
