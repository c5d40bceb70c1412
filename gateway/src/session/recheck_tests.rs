//! What sessions make of rights that a token brings, and of those that change.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use streamgate_proto::{
    cloudevents::CloudEvent,
    v1::{self, OutboundMessage, Subscription},
};

use super::{
    In, out,
    rights_tests::{
        allow, answered, away, client, connected, deny, done, event, judging, names, no, publish, rule,
        settings, want,
    },
    tests::{Client, batch, closed, connect, error_code, sent, subscription},
    *,
};
use crate::{
    auth::{
        Algorithm, Authenticator, Identity, JwtConfig, JwtKey, JwtVerifier, KeyMaterial, Refusal,
        SubscriptionToken,
    },
    broker::{LoadedSession, SessionRecord},
    policy::{
        Limits,
        rights::{Action, Effect as RuleEffect, Rule, Who},
    },
};

/// With a key: tokens are looked at; what they say is made up.
pub(super) fn locked(rules: Vec<Rule>) -> Settings {
    let key = JwtKey { id: None, algorithm: Algorithm::HS256, material: KeyMaterial::Secret(vec![7; 32]) };
    let jwt = JwtVerifier::new(JwtConfig { keys: vec![key], ..JwtConfig::default() }).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    settings(rules).authenticator(Authenticator::jwt(Arc::new(jwt), true, runtime.handle().clone()))
}

/// As `ann`, whose token says this.
pub(super) fn known(settings: Settings, identity: Identity) -> Client {
    let mut client = Client::with(settings);
    let fx = client.say("1", In::Connect(v1::Connect { token: "t".into(), ..connect(true, &[]) }));
    let fx = told(&mut client, fx, identity);
    assert!(closed(&fx).is_none());
    client
}

pub(super) fn ann() -> Identity {
    Identity { user_id: "ann".into(), ..Identity::default() }
}

pub(super) fn told(client: &mut Client, fx: Effects, identity: Identity) -> Effects {
    let Some(Effect::Authenticate { asking, .. }) = fx.into_iter().next() else {
        panic!("no token is checked")
    };
    let mut fx = Effects::new();
    client.session.authenticated(client.now, asking, Ok(identity), &mut fx);
    fx
}

pub(super) fn held(client: &mut Client, wanted: &[Subscription]) {
    let fx = want(client, wanted);
    let batch = batch(fx);
    done(client, batch);
}

fn pass(client: &mut Client, time: Duration) -> (Effects, u64) {
    let ms = u64::try_from(time.as_millis()).unwrap();
    client.now = Now { mono_ms: client.now.mono_ms + ms, unix_ms: client.now.unix_ms + ms };
    client.session.heard(client.now);
    let mut fx = Effects::new();
    let next = client.session.tick(client.now, &mut fx);
    (fx, next)
}

fn subscription_token(channel: &str, user_id: &str, expires_unix_ms: Option<u64>) -> Answer {
    Answer::Token(SubscriptionToken {
        user_id: user_id.into(),
        channel: channel.into(),
        expires_unix_ms,
        stamp: crate::auth::Stamp::default(),
    })
}

pub(super) fn with_token(channel: &str) -> Subscription {
    Subscription { token: "s".into(), ..subscription(channel) }
}

#[test]
fn the_token_of_a_subscription_allows_it_until_it_ends_and_never_what_is_denied() {
    let rules = || vec![allow("none", Who::Any), deny("secret")];
    let mut client = known(locked(rules()), ann());
    assert_eq!(error_code(&want(&mut client, &[with_token("secret")])), "ACL_ERROR");
    let in_a_minute = client.now.unix_ms + 60_000;
    let asked = judging(want(&mut client, &[with_token("a")]));
    assert!(asked.questions[0].token.is_some() && !asked.questions[0].hook);
    let fx = answered(&mut client, asked, vec![Ok(subscription_token("a", "ann", Some(in_a_minute)))]);
    let opened = batch(fx);
    assert!(matches!(done(&mut client, opened).last(), Some(Effect::Opened)), "deadlines change");
    let (_, next) = pass(&mut client, Duration::from_secs(50));
    assert!(next <= client.now.mono_ms + 10_000, "{next}");
    // Held, it needs no token to be asked for again; another token puts the end off.
    assert!(matches!(want(&mut client, &[subscription("a")])[..], [Effect::Send(_), Effect::Opened]));
    let asked = judging(want(&mut client, &[with_token("a")]));
    answered(&mut client, asked, vec![Ok(subscription_token("a", "ann", Some(in_a_minute + 60_000)))]);
    assert_eq!(closed(&pass(&mut client, Duration::from_secs(69)).0), None);
    assert_eq!(closed(&pass(&mut client, Duration::from_secs(1)).0), Some(CloseCode::PermissionDenied));
}

#[test]
fn a_token_that_is_not_good_for_this_subscription_is_refused_even_where_none_is_needed() {
    let mut client = known(locked(Vec::new()), ann());
    let now = client.now.unix_ms;
    let bad = [
        Ok(subscription_token("b", "ann", None)),
        Ok(subscription_token("a.*", "ann", None)),
        Ok(subscription_token("a", "bob", None)),
        Ok(subscription_token("a", "", None)),
        Ok(subscription_token("a", "ann", Some(now))),
        Err(bad_token("a", &Refusal::Signature)),
    ];
    for answer in bad {
        let text = format!("{answer:?}");
        let asked = judging(want(&mut client, &[with_token("a")]));
        assert_eq!(error_code(&answered(&mut client, asked, vec![answer])), "ACL_ERROR", "{text}");
    }
    let mut nobody = connected(locked(Vec::new()), true);
    let asked = judging(want(&mut nobody, &[with_token("a")]));
    let fx = answered(&mut nobody, asked, vec![Ok(subscription_token("a", "", None))]);
    assert_eq!(names(&batch(fx)), ["a"], "one for anonymous clients");
}

#[test]
fn a_token_may_be_for_the_backend_where_one_is_asked() {
    let mut client = known(locked(vec![allow("**", Who::Hook)]), ann());
    let asked = judging(want(&mut client, &[with_token("a")]));
    let question = &asked.questions[0];
    assert!(question.token.is_some() && question.hook && question.asked.token == "s");
}

#[test]
fn another_token_of_the_connection_changes_rights_and_closes_who_lost_one() {
    let rules = vec![allow("open", Who::Any)];
    let with = |subscribe: &[&str], publish: &[&str]| {
        let texts = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let grants = Grants { subscribe: texts(subscribe), publish: texts(publish), ..Grants::default() };
        Identity { grants, ..ann() }
    };
    let mut client = known(locked(rules), with(&["a.**"], &["a.in"]));
    held(&mut client, &[subscription("a.*"), subscription("open")]);
    assert!(matches!(publish(&mut client, "a.in", "1")[..], [Effect::Publish { .. }]));
    let refresh = |client: &mut Client, identity| {
        let fx = client.say("9", In::Refresh(v1::Refresh { token: "n".into() }));
        told(client, fx, identity)
    };
    let fx = refresh(&mut client, with(&["a.*"], &[]));
    assert_eq!(closed(&fx), None);
    assert_eq!(publish(&mut client, "a.in", "2").len(), 2, "refused");
    let fx = refresh(&mut client, with(&["a.b"], &[]));
    assert!(matches!(sent(&fx)[0].envelope, Some(out::Envelope::Ok(_))));
    assert_eq!(closed(&fx), Some(CloseCode::PermissionDenied));
}

#[test]
fn another_table_closes_who_lost_a_right_at_the_next_tick_and_asks_about_what_is_left_to_a_backend() {
    let settings = settings(vec![allow("**", Who::Any)]);
    let watching = Subscription { presence: true, ..subscription("b") };
    let fresh = || {
        let mut client = connected(settings.clone(), true);
        held(&mut client, &[subscription("a"), watching.clone()]);
        client
    };
    let (mut one, mut two, mut three) = (fresh(), fresh(), fresh());
    settings
        .rights
        .replace(vec![allow("**", Who::Any), rule("b", &[Action::Presence], Who::Any, RuleEffect::Deny)]);
    assert_eq!(closed(&pass(&mut one, Duration::ZERO).0), Some(CloseCode::PermissionDenied));
    settings.rights.replace(vec![allow("b", Who::Any), allow("a", Who::Hook)]);
    for (client, answer, code) in
        [(&mut two, Err(no()), Some(CloseCode::PermissionDenied)), (&mut three, Ok(Answer::Hook), None)]
    {
        let asked = judging(pass(client, Duration::ZERO).0);
        assert_eq!(asked.questions.len(), 1);
        // No answer is no loss, and is asked again.
        assert_eq!(closed(&answered(client, asked, vec![Err(away())])), None);
        let asked = judging(pass(client, Duration::ZERO).0);
        assert_eq!(closed(&answered(client, asked, vec![answer])), code);
        if code.is_none() {
            settings.rights.replace(vec![allow("**", Who::Hook)]);
            let asked = judging(pass(client, Duration::ZERO).0);
            assert!(
                asked.questions.iter().all(|question| question.asked.channel == "b"),
                "what is allowed stays so"
            );
        }
    }
}

#[test]
fn sub_refresh_asks_again_about_what_it_names() {
    let mut client = client(vec![allow("open", Who::Any), allow("asked.**", Who::Hook)]);
    let asked = judging(want(&mut client, &[subscription("open"), subscription("asked.a")]));
    let fx = answered(&mut client, asked, vec![Ok(Answer::Hook)]);
    let opened = batch(fx);
    done(&mut client, opened);
    let refresh = |client: &mut Client, names: &[&str]| {
        let channels = names.iter().map(|name| (*name).to_owned()).collect();
        client.say("8", In::SubRefresh(v1::SubRefresh { channels }))
    };
    let acked = |fx: &Effects| {
        matches!(sent(fx)[..], [OutboundMessage { envelope: Some(out::Envelope::SubRefreshAck(_)), .. }])
    };
    assert!(acked(&refresh(&mut client, &["open", "asked.unknown"])));
    assert_eq!(error_code(&refresh(&mut client, &["a..b"])), "BAD_REQUEST");
    let asked = judging(refresh(&mut client, &["asked.a", "open"]));
    assert_eq!(asked.questions.len(), 1);
    assert!(acked(&answered(&mut client, asked, vec![Ok(Answer::Hook)])));
    let asked = judging(refresh(&mut client, &["asked.a"]));
    assert_eq!(error_code(&answered(&mut client, asked, vec![Err(away())])), "PROXY_ERROR");
    let asked = judging(refresh(&mut client, &["asked.a"]));
    let fx = answered(&mut client, asked, vec![Err(no())]);
    assert_eq!(closed(&fx), Some(CloseCode::PermissionDenied));
}

#[test]
fn claims_subscribe_by_themselves_unless_denied_and_what_is_brought_back_is_left_out() {
    let identity = Identity { channels: vec!["mine".into(), "secret".into()], ..ann() };
    let rules = vec![allow("open", Who::Any), deny("secret")];
    let mut client = Client::with(locked(rules));
    let token = ResumeToken::fresh(&uuid::Uuid::new_v4().to_string());
    let resume_token = token.wire();
    let fx =
        client.say("1", In::Connect(v1::Connect { token: "t".into(), resume_token, ..connect(true, &[]) }));
    let fx = told(&mut client, fx, identity);
    let Some(Effect::LoadSession { connecting, .. }) = fx.into_iter().next() else {
        panic!("nothing is loaded")
    };
    let record = SessionRecord {
        secret_hash: token.secret_hash(),
        user_id: "ann".into(),
        subscriptions: vec!["open".into(), "gone".into()],
        ..SessionRecord::default()
    };
    let mut fx = Effects::new();
    client.session.session_loaded(
        client.now,
        *connecting,
        Ok(Some(LoadedSession { record, tenure: 7 })),
        &mut fx,
    );
    assert_eq!(names(&batch(fx)), ["mine", "open"]);
}

#[test]
fn rules_look_at_the_claims_of_the_token() {
    let serde_json::Value::Object(claims) = serde_json::json!({"groups": ["x", "y"]}) else { unreachable!() };
    let grants = Grants { claims: crate::auth::Claims::of(&claims), ..Grants::default() };
    let who = Who::Claims(BTreeMap::from([("groups".to_owned(), vec!["y".to_owned()])]));
    let rules = vec![allow("**", who)];
    let mut client = known(locked(rules.clone()), Identity { grants, ..ann() });
    assert_eq!(batch(want(&mut client, &[subscription("a")])).items.len(), 1);
    let mut other = known(locked(rules), ann());
    assert_eq!(error_code(&want(&mut other, &[subscription("a")])), "ACL_ERROR");
}

#[test]
fn a_user_has_so_many_connections_and_publishes_and_no_more() {
    let limits = Limits {
        connections_per_user: Some(2),
        publishes_per_second_per_user: Some(3),
        calls_per_second: 2,
        ..Limits::default()
    };
    let settings = locked(Vec::new());
    settings.limits.store(Arc::new(limits));
    let (mut one, mut two) = (known(settings.clone(), ann()), known(settings.clone(), ann()));
    let mut third = Client::with(settings.clone());
    let fx = third.say("1", In::Connect(v1::Connect { token: "t".into(), ..connect(true, &[]) }));
    assert_eq!(closed(&told(&mut third, fx, ann())), Some(CloseCode::ConnectionLimit));
    let went = (0..4)
        .filter(|n| {
            let client = if n % 2 == 0 { &mut one } else { &mut two };
            matches!(publish(client, "a", "1")[..], [Effect::Publish { .. }])
        })
        .count();
    assert_eq!(went, 3);
    let call = || In::RpcRequest(CloudEvent { source: "a".into(), ..event("r") });
    let calls: Vec<_> = (0..3).map(|_| one.say("r", call())).collect();
    assert!(matches!(calls[1][..], [Effect::Rpc { .. }]));
    assert_eq!(error_code(&calls[2]), "RATE_LIMITED");
    // Whoever has gone counts no more.
    let mut fx = Effects::new();
    one.session.close(CloseCode::Normal, "", &mut fx);
    drop(two);
    let again = [known(settings.clone(), ann()), known(settings.clone(), ann())];
    drop(again);
    assert!(settings.users.is_empty());
}
