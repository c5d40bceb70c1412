//! Batches: all of it or nothing, in its order, also where a backend is asked about each event.

use streamgate_proto::{cloudevents::CloudEvent, v1::OutboundMessage};

use super::{
    out,
    publish_batch::BatchItem,
    rights_tests::{allow, client, connected, deny, event, no, publish, settings},
    tests::{Client, closed, connect, sent},
    *,
};
use crate::policy::{
    Limits,
    rights::{Action, Effect as RuleEffect, Rule, Who},
};

fn items(ids: &[&str]) -> Vec<BatchItem> {
    let reply = |id: &str| ReplyTo { id: id.to_owned(), ..ReplyTo::default() };
    let item = |id: &&str| BatchItem { reply: reply(id), event: event(id), key: String::new() };
    ids.iter().map(item).collect()
}

fn batch(client: &mut Client, ids: &[&str]) -> Effects {
    let mut fx = Effects::new();
    client.session.publish_batch(client.now, "a", items(ids), &mut fx);
    fx
}

fn hooked() -> Rule {
    super::rights_tests::rule("**", &Action::ALL, Who::Hook, RuleEffect::Allow)
}

/// Ids of the requests that are published.
fn published(fx: &Effects) -> Vec<&str> {
    fx.iter()
        .filter_map(|effect| if let Effect::Publish { reply, .. } = effect { Some(&*reply.id) } else { None })
        .collect()
}

/// Ids of the requests that are refused, with the text and number of their error.
fn refused(fx: &Effects) -> Vec<(&str, &str, Option<f64>)> {
    let index = |error: &streamgate_proto::shared::Error| {
        let value = error.metadata.as_ref()?.fields.get("index")?.kind.as_ref()?;
        match value {
            streamgate_proto::wkt::value::Kind::NumberValue(index) => Some(*index),
            _ => None,
        }
    };
    let of = |frame: &&OutboundMessage| matches!(frame.envelope, Some(out::Envelope::Error(_)));
    let frames = sent(fx).into_iter().filter(of);
    frames
        .map(|frame| match &frame.envelope {
            Some(out::Envelope::Error(error)) => (&*frame.id, &*error.message, index(error)),
            _ => unreachable!(),
        })
        .collect()
}

fn asked(fx: &Effects) -> Vec<(u64, CloudEvent)> {
    fx.iter()
        .filter_map(|effect| match effect {
            Effect::AskPublish { number, event, .. } => Some((*number, (**event).clone())),
            _ => None,
        })
        .collect()
}

fn verdict(client: &mut Client, number: u64, verdict: Result<CloudEvent, ClientError>) -> Effects {
    let mut fx = Effects::new();
    client.session.publish_judged(client.now, number, verdict, &mut fx);
    fx
}

#[test]
fn what_is_sound_and_allowed_is_published_in_its_order() {
    let mut client = client(vec![allow("**", Who::Any)]);
    assert_eq!(published(&batch(&mut client, &["1", "2", "3"])), ["1", "2", "3"]);
    assert!(batch(&mut client, &[]).is_empty());
}

#[test]
fn one_event_that_is_not_sound_is_the_error_of_all() {
    let mut client = client(vec![allow("**", Who::Any)]);
    let mut bad = items(&["1", "2", "3"]);
    bad[1].event.source.clear();
    let mut fx = Effects::new();
    client.session.publish_batch(client.now, "a", bad, &mut fx);
    assert!(published(&fx).is_empty());
    let refused = refused(&fx);
    assert_eq!(
        refused.iter().map(|(id, _, index)| (*id, *index)).collect::<Vec<_>>(),
        [("1", Some(1.0)), ("2", Some(1.0)), ("3", Some(1.0))]
    );
    assert!(refused[0].1.starts_with("events[1]: "), "{refused:?}");
}

#[test]
fn without_the_right_or_the_rate_nothing_is_published() {
    let mut denied = client(vec![deny("**")]);
    assert_eq!(refused(&batch(&mut denied, &["1", "2"])).len(), 2);
    let limits = Limits { publishes_per_second: 3, ..Limits::default() };
    let settings = settings(vec![allow("**", Who::Any)]);
    settings.limits.store(std::sync::Arc::new(limits));
    let mut client = connected(settings, true);
    let fx = batch(&mut client, &["1", "2", "3", "4"]);
    assert!(published(&fx).is_empty());
    assert!(refused(&fx)[0].1.contains("events[3]"), "{:?}", refused(&fx));
    assert!(published(&batch(&mut client, &["5"])).is_empty(), "trying again at once does not get it in");
}

#[test]
fn a_batch_leaves_when_a_backend_has_allowed_all_of_it_and_what_follows_waits() {
    let mut client = client(vec![hooked()]);
    let questions = asked(&batch(&mut client, &["1", "2"]));
    let later = asked(&publish(&mut client, "a", "later"));
    assert!(verdict(&mut client, later[0].0, Ok(event("later"))).is_empty());
    assert!(verdict(&mut client, questions[1].0, Ok(event("2"))).is_empty());
    let fx = verdict(&mut client, questions[0].0, Ok(event("1")));
    assert_eq!(published(&fx), ["1", "2", "later"]);
}

#[test]
fn one_refusal_of_a_backend_is_that_of_the_batch_whatever_was_or_will_be_allowed() {
    let mut client = client(vec![hooked()]);
    let questions = asked(&batch(&mut client, &["1", "2", "3"]));
    let later = asked(&publish(&mut client, "a", "later"));
    assert!(verdict(&mut client, questions[0].0, Ok(event("1"))).is_empty());
    let fx = verdict(&mut client, questions[1].0, Err(no()));
    assert!(published(&fx).is_empty());
    let mut told = refused(&fx);
    told.sort_unstable_by_key(|(id, ..)| *id);
    assert_eq!(
        told.iter().map(|(id, _, index)| (*id, *index)).collect::<Vec<_>>(),
        [("1", Some(1.0)), ("2", Some(1.0)), ("3", Some(1.0))]
    );
    // The verdict that comes late changes nothing, and who was behind it is free.
    assert!(verdict(&mut client, questions[2].0, Ok(event("3"))).is_empty());
    assert_eq!(published(&verdict(&mut client, later[0].0, Ok(event("later")))), ["later"]);
}

#[test]
fn clients_of_requests_are_known_to_nobody_and_keep_nothing() {
    let arrival = Arrival { manner: Manner::Requests, ..Arrival::default() };
    let mut client = Client::with(settings(vec![allow("**", Who::Any)]));
    client.session = Session::new(settings(vec![allow("**", Who::Any)]), client.now, arrival);
    let fx = client.say("1", In::Connect(connect(true, &[])));
    assert!(client.session.is_open() && !client.session.is_public());
    assert!(!fx.iter().any(|effect| matches!(effect, Effect::SaveSession { .. } | Effect::Opened)), "{fx:?}");
}

#[test]
fn who_speaks_events_alone_is_closed_where_its_connect_fails() {
    let arrival = Arrival { manner: Manner::Events, ..Arrival::default() };
    let mut client = Client::with(settings(Vec::new()));
    client.session = Session::new(settings(vec![deny("**")]), client.now, arrival);
    let fx = client.say("1", In::Connect(connect(true, &["a"])));
    assert_eq!(closed(&fx), Some(CloseCode::PermissionDenied));
}
