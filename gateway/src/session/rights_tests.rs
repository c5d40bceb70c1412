//! What sessions make of rights.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use streamgate_proto::{
    cloudevents::CloudEvent,
    v1::{self, HistoryRequest, InboundMessage, PresenceQuery, PublishOptions, Subscription},
};

use super::{
    In, out,
    tests::{Client, batch, closed, connect, error_code, sent, subscription},
    *,
};
use crate::{
    broker::Subscribed,
    policy::{
        ChannelPolicy, Limits, Policies,
        rights::{Action, Actions, Arbiter, Asked, Effect as RuleEffect, Rights, Rule, RulePattern, Who},
    },
};

/// Is there, and answers nothing: the tests do.
struct Silent;

impl Arbiter for Silent {
    fn subscribe(&self, _: Asked) -> BoxFuture<'static, Result<(), ClientError>> {
        Box::pin(std::future::pending())
    }

    fn publish(&self, _: Asked, _: CloudEvent) -> BoxFuture<'static, Result<CloudEvent, ClientError>> {
        Box::pin(std::future::pending())
    }
}

pub(super) fn rule(pattern: &str, actions: &[Action], who: Who, effect: RuleEffect) -> Rule {
    let channels = vec![RulePattern::parse(pattern).unwrap()];
    Rule { channels, actions: actions.iter().copied().collect::<Actions>(), who, effect }
}

pub(super) fn allow(pattern: &str, who: Who) -> Rule {
    rule(pattern, &Action::ALL, who, RuleEffect::Allow)
}

pub(super) fn deny(pattern: &str) -> Rule {
    rule(pattern, &Action::ALL, Who::Any, RuleEffect::Deny)
}

pub(super) fn settings(rules: Vec<Rule>) -> Settings {
    Settings::new(Policies::new(Vec::new(), ChannelPolicy::default()), Limits::default())
        .rights(Rights::new(rules), Some(Arc::new(Silent)))
}

pub(super) fn client(rules: Vec<Rule>) -> Client {
    connected(settings(rules), true)
}

pub(super) fn connected(settings: Settings, extended: bool) -> Client {
    let mut client = Client::with(settings);
    client.say("1", In::Connect(connect(extended, &[])));
    assert!(client.session.is_open());
    client
}

pub(super) fn want(client: &mut Client, wanted: &[Subscription]) -> Effects {
    client.say("2", In::Subscribe(v1::Subscribe { subscriptions: wanted.to_vec() }))
}

pub(super) fn done(client: &mut Client, batch: SubscribeBatch) -> Effects {
    let mut fx = Effects::new();
    let answers = vec![Subscribed::default(); batch.items.len()];
    client.session.subscribe_done(client.now, batch, &answers, &mut fx);
    fx
}

pub(super) fn judging(fx: Effects) -> Judging {
    fx.into_iter()
        .find_map(|effect| if let Effect::Judge(judging) = effect { Some(*judging) } else { None })
        .expect("something is asked")
}

pub(super) fn answered(
    client: &mut Client,
    judging: Judging,
    answers: Vec<Result<Answer, ClientError>>,
) -> Effects {
    let mut fx = Effects::new();
    client.session.judged(client.now, judging, answers, &mut fx);
    fx
}

pub(super) fn no() -> ClientError {
    ClientError::new(ErrorCode::AclError, "the backend says no")
}

pub(super) fn away() -> ClientError {
    ClientError::new(ErrorCode::ProxyError, "the backend is away")
}

pub(super) fn names(batch: &SubscribeBatch) -> Vec<&str> {
    batch.items.iter().map(|item| item.target.as_str()).collect()
}

pub(super) fn event(id: &str) -> CloudEvent {
    CloudEvent {
        id: id.into(),
        source: "/t".into(),
        spec_version: "1.0".into(),
        r#type: "t".into(),
        ..CloudEvent::default()
    }
}

pub(super) fn publish(client: &mut Client, channel: &str, id: &str) -> Effects {
    let frame = InboundMessage {
        id: id.into(),
        channel: channel.into(),
        envelope: Some(In::Publish(event(id))),
        publish_options: Some(PublishOptions::default()),
        ..InboundMessage::default()
    };
    let mut fx = Effects::new();
    client.session.receive(client.now, frame, &mut fx);
    fx
}

#[test]
fn a_refused_batch_subscribes_nothing_and_closes_only_clients_of_v1() {
    let rules = || vec![allow("open.**", Who::Any), deny("open.secret")];
    for bad in ["other", "open.secret", "open.*", "**"] {
        let mut extended = client(rules());
        let fx = want(&mut extended, &[subscription("open.a"), subscription(bad)]);
        assert_eq!(error_code(&fx), "ACL_ERROR", "{bad}");
        assert_eq!((fx.len(), closed(&fx)), (1, None));
        assert_eq!(names(&batch(want(&mut extended, &[subscription("open.a")]))), ["open.a"]);
        let mut old = connected(settings(rules()), false);
        let fx = want(&mut old, &[subscription("open.a"), subscription(bad)]);
        assert_eq!(
            (error_code(&fx).as_str(), closed(&fx)),
            ("ACL_ERROR", Some(CloseCode::InvalidToken)),
            "{bad}"
        );
    }
}

#[test]
fn a_refused_connect_may_be_tried_again_unless_the_client_is_of_v1() {
    for (extended, code) in [(true, None), (false, Some(CloseCode::InvalidToken))] {
        let mut client = Client::with(settings(vec![deny("a")]));
        let fx = client.say("1", In::Connect(connect(extended, &["a"])));
        assert_eq!((error_code(&fx).as_str(), closed(&fx)), ("ACL_ERROR", code));
        if extended {
            client.say("1", In::Connect(connect(extended, &[])));
            assert!(client.session.is_open());
        }
    }
}

#[test]
fn a_backend_is_asked_for_what_only_it_can_allow_and_says_no_or_does_not_answer() {
    let mut client = client(vec![allow("open", Who::Any), allow("**", Who::Hook)]);
    let wanted = [subscription("open"), Subscription { token: "secret".into(), ..subscription("a.*") }];
    let asked = judging(want(&mut client, &wanted));
    let [Question { asked: question, token: None, hook: true, .. }] = &asked.questions[..] else {
        panic!("{asked:?}")
    };
    assert_eq!(
        (question.action, question.channel.as_str(), question.token.as_str()),
        (Action::Subscribe, "a.*", "secret")
    );
    assert!(!format!("{asked:?}").contains("secret"), "no log shows it");
    // Meanwhile the session goes on.
    assert_eq!(sent(&client.say("3", In::Ping(v1::Ping {}))).len(), 1);
    let fx = answered(&mut client, asked, vec![Ok(Answer::Hook)]);
    assert_eq!(names(&batch(fx)), ["open", "a.*"]);
    for (error, code) in [(no(), "ACL_ERROR"), (away(), "PROXY_ERROR")] {
        let asked = judging(want(&mut client, &[subscription("b")]));
        let fx = answered(&mut client, asked, vec![Err(error)]);
        assert_eq!((error_code(&fx).as_str(), closed(&fx)), (code, None));
    }
}

#[test]
fn without_a_backend_what_is_left_to_one_is_denied() {
    let rules = vec![allow("**", Who::Hook)];
    let mut client = connected(Settings { arbiter: None, ..settings(rules) }, true);
    assert_eq!(error_code(&want(&mut client, &[subscription("a")])), "ACL_ERROR");
    assert_eq!(error_code(&publish(&mut client, "a", "1").into_iter().skip(1).collect()), "ACL_ERROR");
}

#[test]
fn what_is_unsubscribed_while_a_backend_is_asked_is_not_subscribed() {
    let mut client = client(vec![allow("**", Who::Hook)]);
    let asked = judging(want(&mut client, &[subscription("a"), subscription("b")]));
    client.say("3", In::Unsubscribe(v1::Unsubscribe { subscriptions: vec![subscription("a")] }));
    let fx = answered(&mut client, asked, vec![Ok(Answer::Hook), Ok(Answer::Hook)]);
    let batch = batch(fx);
    assert_eq!(names(&batch), ["b"]);
    let fx = done(&mut client, batch);
    let Some(out::Envelope::SubscribeAck(ack)) = &sent(&fx)[0].envelope else { panic!("{fx:?}") };
    assert_eq!(ack.subscriptions.len(), 2, "it is acknowledged as the request that it was");
    // Wanted again afterwards, it is asked for again.
    assert_eq!(judging(want(&mut client, &[subscription("a")])).questions.len(), 1);
}

#[test]
fn rights_that_are_lost_while_a_backend_is_asked_are_not_given() {
    let settings = settings(vec![allow("**", Who::Hook)]);
    let mut client = connected(settings.clone(), true);
    let asked = judging(want(&mut client, &[subscription("a")]));
    settings.rights.replace(vec![allow("**", Who::Hook), deny("a")]);
    assert_eq!(error_code(&answered(&mut client, asked, vec![Ok(Answer::Hook)])), "ACL_ERROR");
}

#[test]
fn presence_history_and_calls_are_refused_or_asked_for() {
    let say = |client: &mut Client, envelope: &In| client.say("7", envelope.clone());
    let history = In::History(HistoryRequest { channel: "a".into(), limit: -1, ..HistoryRequest::default() });
    let requests = [
        (In::PresenceQuery(PresenceQuery { channel: "a".into() }), Action::Presence),
        (history, Action::History),
        (In::RpcRequest(CloudEvent { source: "a".into(), ..event("r") }), Action::Rpc),
    ];
    for (request, action) in requests {
        let mut denied = client(vec![rule("a", &[action], Who::Any, RuleEffect::Deny)]);
        assert_eq!(error_code(&say(&mut denied, &request)), "ACL_ERROR", "{action:?}");
        let mut asking = client(vec![rule("a", &[action], Who::Hook, RuleEffect::Allow)]);
        for (answer, code) in
            [(Ok(Answer::Hook), None), (Err(no()), Some("ACL_ERROR")), (Err(away()), Some("PROXY_ERROR"))]
        {
            let asked = judging(say(&mut asking, &request));
            assert_eq!(asked.questions[0].asked.action, action);
            let fx = answered(&mut asking, asked, vec![answer]);
            match code {
                Some(code) => assert_eq!(error_code(&fx), code),
                None => assert!(
                    matches!(fx[..], [Effect::Presence { .. } | Effect::History { .. } | Effect::Rpc { .. }]),
                    "{fx:?}"
                ),
            }
        }
    }
}

#[test]
fn watching_needs_presence_and_the_past_needs_history() {
    let rules = vec![
        rule("a", &[Action::Presence, Action::History], Who::Any, RuleEffect::Deny),
        rule("**", &[Action::Presence, Action::History], Who::Any, RuleEffect::Allow),
    ];
    let mut client = client(rules);
    let watching = |channel: &str| Subscription { presence: true, ..subscription(channel) };
    for pattern in ["a", "*", "**"] {
        assert_eq!(error_code(&want(&mut client, &[watching(pattern)])), "ACL_ERROR", "{pattern}");
    }
    assert_eq!(batch(want(&mut client, &[watching("b")])).items.len(), 1);
    // Who may not read the past is subscribed, and told that there is no recovery.
    let recovering = |channel: &str| Subscription { recover: true, ..subscription(channel) };
    for name in ["a", "**"] {
        let batch = batch(want(&mut client, &[recovering(name)]));
        assert!(matches!(batch.items[0].wish, Wish::Refused(_)), "{name}: {:?}", batch.items[0].wish);
    }
    assert!(matches!(batch(want(&mut client, &[recovering("c")])).items[0].wish, Wish::Past(_)));
}

#[test]
fn publishes_keep_their_order_while_one_is_asked_about() {
    let mut client = client(vec![allow("open", Who::Any), allow("asked", Who::Hook)]);
    let numbers: Vec<_> = ["1", "2"]
        .map(|id| match &publish(&mut client, "asked", id)[..] {
            [Effect::AskPublish { number, asked, .. }] => {
                assert_eq!((asked.action, asked.channel.as_str()), (Action::Publish, "asked"));
                *number
            }
            other => panic!("{other:?}"),
        })
        .into();
    assert!(publish(&mut client, "open", "3").is_empty(), "it waits behind them");
    let mut judged = |number, verdict| {
        let mut fx = Effects::new();
        client.session.publish_judged(client.now, number, verdict, &mut fx);
        fx
    };
    // The second is allowed first, and waits for the first.
    assert!(judged(numbers[1], Ok(event("rewritten"))).is_empty());
    let fx = judged(numbers[0], Err(no()));
    let went: Vec<_> = fx
        .iter()
        .filter_map(|effect| match effect {
            Effect::Publish { reply, publish } => Some((reply.id.as_str(), publish.stored.event.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(went.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ["2", "3"]);
    let stored = <CloudEvent as prost::Message>::decode(went[0].1.clone()).unwrap();
    assert_eq!(stored.id, "rewritten");
    assert_eq!((sent(&fx)[0].id.as_str(), error_code(&fx).as_str()), ("1", "ACL_ERROR"));
    assert!(judged(numbers[0], Ok(event("again"))).is_empty(), "a verdict counts once");
    assert!(
        matches!(publish(&mut client, "open", "4")[..], [Effect::Publish { .. }]),
        "nothing waits any more"
    );
}

#[test]
fn what_a_backend_makes_of_an_event_must_be_one() {
    let mut client = client(vec![allow("**", Who::Hook)]);
    let large = CloudEvent { id: "x".repeat(70_000), ..event("1") };
    for bad in [CloudEvent::default(), large] {
        let number = match &publish(&mut client, "a", "1")[..] {
            [Effect::AskPublish { number, .. }] => *number,
            other => panic!("{other:?}"),
        };
        let mut fx = Effects::new();
        client.session.publish_judged(client.now, number, Ok(bad), &mut fx);
        assert_eq!(
            error_code(&fx.into_iter().filter(|effect| matches!(effect, Effect::Send(_))).collect()),
            "PROXY_ERROR"
        );
    }
}

#[test]
fn publishes_that_wait_are_bounded() {
    let mut client = client(vec![allow("open", Who::Any), allow("asked", Who::Hook)]);
    publish(&mut client, "asked", "1");
    let answers: Vec<_> = (0..300).map(|_| publish(&mut client, "open", "n")).collect();
    let refused = answers.iter().filter(|fx| !fx.is_empty()).count();
    assert_eq!(refused, 300 - 255);
    assert_eq!(sent(answers.last().unwrap())[0].id, "n");
}

#[test]
fn what_others_build_can_ask_too() {
    let client = client(vec![rule("orders.*", &[Action::Serve], Who::Any, RuleEffect::Allow)]);
    use crate::policy::rights::Verdict;
    assert_eq!(client.session.may(Action::Serve, "orders.*"), Verdict::Allowed);
    assert_eq!(client.session.may(Action::Serve, "**"), Verdict::Unallowed);
    assert_eq!(client.session.may(Action::Survey, "a"), Verdict::Unallowed);
}
