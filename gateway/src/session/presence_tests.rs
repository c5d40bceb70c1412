//! What sessions make of presence.

use std::sync::Arc;

use streamgate_proto::v1::{self, OutboundMessage, PresenceQuery, Subscription};

use super::{
    In, out,
    tests::{Client, batch, closed, connect, error_code, sent, subscription},
    *,
};
use crate::{
    broker::{BrokerError, Member, PresencePage, Subscribed},
    channel::Channel,
    policy::{ChannelPolicy, Limits, Policies, PolicyRule},
};

fn with_policies() -> Client {
    let rule = |pattern: &str, presence, join_leave| PolicyRule {
        pattern: pattern.into(),
        policy: Arc::new(ChannelPolicy { presence, join_leave, ..ChannelPolicy::default() }),
    };
    let rules = vec![rule("dark.**", false, true), rule("silent.**", true, false)];
    let settings = Settings::new(Policies::new(rules, ChannelPolicy::default()), Limits::default());
    let mut client = Client::with(settings);
    client.say("1", In::Connect(connect(true, &[])));
    client
}

fn ask(client: &mut Client, wanted: &[Subscription]) -> Effects {
    client.say("2", In::Subscribe(v1::Subscribe { subscriptions: wanted.to_vec() }))
}

fn watching(channel: &str) -> Subscription {
    Subscription { presence: true, ..subscription(channel) }
}

fn hidden(channel: &str) -> Subscription {
    Subscription { ephemeral: true, ..subscription(channel) }
}

fn done(client: &mut Client, batch: SubscribeBatch) -> Effects {
    let mut fx = Effects::new();
    let answers = vec![Subscribed::default(); batch.items.len()];
    client.session.subscribe_done(client.now, batch, &answers, &mut fx);
    fx
}

fn query(client: &mut Client, channel: &str) -> Effects {
    client.say("q", In::PresenceQuery(PresenceQuery { channel: channel.into() }))
}

fn answer(client: &mut Client, page: PresencePage) -> v1::Presence {
    let mut fx = Effects::new();
    let channel = Channel::parse("a").unwrap();
    client.session.presence_done(client.now, ReplyTo::default(), &channel, Ok(page), &mut fx);
    client.session.page_sent();
    match &sent(&fx)[..] {
        [OutboundMessage { envelope: Some(out::Envelope::Presence(presence)), .. }] => presence.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_plain_subscriptions_of_channels_with_presence_are_members() {
    let mut client = with_policies();
    let names = ["a", "a.*", "dark.a", "silent.a"];
    let wanted: Vec<_> = names.iter().map(|name| subscription(name)).chain([hidden("b")]).collect();
    let members: Vec<_> = batch(ask(&mut client, &wanted)).items.iter().map(|item| item.member).collect();
    assert_eq!(members, [true, false, false, true, false]);
}

#[test]
fn watching_where_nothing_is_announced_is_refused_by_the_name_of_the_setting() {
    let mut client = with_policies();
    for (channel, setting) in [("dark.a", "presence"), ("silent.a", "join_leave")] {
        let fx = ask(&mut client, &[watching(channel)]);
        assert_eq!(error_code(&fx), "NOT_SUPPORTED");
        let Some(out::Envelope::Error(error)) = &sent(&fx)[0].envelope else { panic!() };
        assert!(error.message.contains(channel) && error.message.contains(setting), "{error:?}");
    }
    let fx = query(&mut client, "dark.a");
    assert_eq!(error_code(&fx), "NOT_SUPPORTED");
    assert!(batch(ask(&mut client, &[watching("silent.*"), watching("a")])).items.iter().all(|i| i.watch));
}

#[test]
fn a_subscription_with_a_cursor_takes_over_from_the_one_before() {
    let mut client = Client::connected(true);
    let first = batch(ask(&mut client, &[watching("a")]));
    let slot = first.items[0].slot;
    done(&mut client, first);
    let cursor = v1::Position { epoch: "7".into(), offset: 3 };
    let again = Subscription { recover: true, cursor: Some(cursor), ..watching("a") };
    let fx = ask(&mut client, &[again]);
    assert!(!fx.iter().any(|effect| matches!(effect, Effect::Unsubscribe(_))), "it would leave");
    assert_eq!(batch(fx).items[0].former, Some(slot));
}

#[test]
fn a_held_subscription_changes_its_part_in_presence_and_goes_on() {
    let mut client = Client::connected(true);
    let first = batch(ask(&mut client, &[subscription("a")]));
    let slot = first.items[0].slot;
    done(&mut client, first);
    let wanted = Subscription { ephemeral: true, ..watching("a") };
    let change = batch(ask(&mut client, std::slice::from_ref(&wanted)));
    assert!(change.items.is_empty());
    assert_eq!(
        (change.changes[0].slot, change.changes[0].member, change.changes[0].watch),
        (slot, false, true)
    );
    let fx = done(&mut client, change);
    let Some(out::Envelope::SubscribeAck(ack)) = &sent(&fx)[0].envelope else { panic!("{fx:?}") };
    assert_eq!(ack.subscriptions, std::slice::from_ref(&wanted));
    let saved = fx.iter().find_map(|effect| match effect {
        Effect::SaveSession { record, .. } => Some((record.ephemeral.clone(), record.watching.clone())),
        _ => None,
    });
    assert_eq!(saved, Some((vec!["a".to_owned()], vec!["a".to_owned()])));
    // The same again changes nothing.
    let fx = ask(&mut client, &[wanted]);
    assert!(matches!(&sent(&fx)[0].envelope, Some(out::Envelope::SubscribeAck(_))));
    // A change that fails ends the connection: what the client knows would not hold.
    let change = batch(ask(&mut client, &[subscription("a")]));
    let mut fx = Effects::new();
    let error = BrokerError::NotAvailable { reason: "away".into(), sent: true };
    client.session.subscribe_failed(client.now, change, &error, &mut fx);
    assert_eq!(closed(&fx), Some(CloseCode::NotAvailable));
}

#[test]
fn queries_are_bounded_and_take_only_channels() {
    let mut client = Client::connected(true);
    for bad in ["", "a.*", "a..b"] {
        assert_eq!(error_code(&query(&mut client, bad)), "BAD_REQUEST", "{bad}");
    }
    for _ in 0..16 {
        assert!(matches!(query(&mut client, "a")[..], [Effect::Presence { limit: MOST_MEMBERS, .. }]));
    }
    assert_eq!(error_code(&query(&mut client, "a")), "RATE_LIMITED");
    answer(&mut client, PresencePage::default());
    assert!(matches!(query(&mut client, "a")[..], [Effect::Presence { .. }]));
    let mut old = Client::connected(false);
    assert_eq!(error_code(&query(&mut old, "a")), "NOT_SUPPORTED");
}

#[test]
fn an_answer_fits_a_frame_of_64_kib_in_json_and_says_what_it_leaves_out() {
    for odd in ["phone", "\u{1}\u{1}\u{1}\"\\\u{7f}", "ööööö", ""] {
        let name = odd.repeat(40);
        let member = |n: u32| {
            Arc::new(Member {
                session_id: uuid::Uuid::from_u128(n.into()).to_string(),
                user_id: name.clone(),
                client_id: name.clone(),
                connected_at: u64::MAX,
            })
        };
        let mut client = Client::connected(true);
        let members: Vec<_> = (0..1_000).map(member).collect();
        let presence = answer(&mut client, PresencePage { members, count: 5_000 });
        assert!(presence.truncated && presence.count == 5_000 && !presence.members.is_empty());
        let frame =
            OutboundMessage { envelope: Some(out::Envelope::Presence(presence)), ..Default::default() };
        let json = streamgate_proto::encode_outbound(streamgate_proto::Encoding::Json, &frame).unwrap();
        assert!(json.len() < 62 * 1024, "{odd:?} {}", json.len());
        if odd.is_empty() {
            assert!(json.len() > 45 * 1024, "room is left unused: {}", json.len());
        }
    }
    let one = PresencePage { members: vec![Arc::new(Member::default())], count: 1 };
    assert!(!answer(&mut Client::connected(true), one).truncated);
}

#[test]
fn a_long_name_of_a_client_is_cut_at_a_character() {
    let mut client = Client::new(Limits::default());
    let named = v1::Connect { client_id: "ä".repeat(200), ..connect(true, &[]) };
    client.say("1", In::Connect(named));
    let member = client.session.member();
    assert_eq!(member.client_id, "ä".repeat(127));
    assert_eq!((member.connected_at, member.session_id.as_str()), (client.now.unix_ms, client.session.id()));
}

#[test]
fn a_client_that_joins_and_leaves_all_the_time_is_limited() {
    let limits = Limits { new_channels_per_minute: 3, ..Limits::default() };
    let mut client = Client::new(limits);
    client.say("1", In::Connect(connect(true, &[])));
    let first = batch(ask(&mut client, &[subscription("a")]));
    done(&mut client, first);
    for wanted in [hidden("a"), subscription("a")] {
        assert_eq!(batch(ask(&mut client, &[wanted])).changes.len(), 1);
    }
    assert_eq!(error_code(&ask(&mut client, &[hidden("a")])), "RATE_LIMITED");
    // What changes nothing goes on.
    assert!(
        ask(&mut client, &[subscription("a")]).iter().all(|effect| !matches!(effect, Effect::Subscribe(_)))
    );
}
