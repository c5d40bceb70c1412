//! What sessions make of tokens that are revoked.

use streamgate_proto::v1;

use super::{
    In,
    recheck_tests::{ann, held, known, locked, told, with_token},
    rights_tests::{allow, answered, done, judging, want},
    tests::{Client, batch, closed, connect, error_code, subscription},
    *,
};
use crate::{
    auth::{Identity, RevokedTokens, SubscriptionToken},
    broker::{Revocation, Revocations, Revoked},
    policy::rights::Who,
};

/// Revokes from `at_ms` on, for long.
fn revoke(settings: &Settings, what: Revoked, at_ms: u64) {
    let entry = Revocation { what, at_ms, until_ms: u64::MAX };
    settings.revoked.take_over(Revocations { version: at_ms, entries: vec![entry] }, at_ms);
}

fn stamp(id: &str, issued_unix_ms: u64) -> Stamp {
    Stamp { token_id: Some(id.into()), issued_unix_ms: Some(issued_unix_ms) }
}

fn token(channel: &str, id: &str) -> Answer {
    Answer::Token(SubscriptionToken {
        user_id: "ann".into(),
        channel: channel.into(),
        expires_unix_ms: None,
        stamp: stamp(id, 5),
    })
}

fn look(client: &mut Client) -> Effects {
    let mut fx = Effects::new();
    client.session.check_revoked(client.now, &mut fx);
    fx
}

#[test]
fn a_subscription_that_is_held_ends_when_its_token_is_revoked_and_others_stay() {
    let settings = locked(vec![allow("open", Who::Any)]);
    let mut client = known(settings.clone(), ann());
    held(&mut client, &[subscription("open")]);
    let asked = judging(want(&mut client, &[with_token("a")]));
    let fx = answered(&mut client, asked, vec![Ok(token("a", "t1"))]);
    done(&mut client, batch(fx));
    // Asked for again without a token it is still held by that one.
    want(&mut client, &[subscription("a")]);
    revoke(&settings, Revoked::Token("t2".into()), 10);
    assert!(look(&mut client).is_empty());
    revoke(&settings, Revoked::Token("t1".into()), 20);
    let fx = look(&mut client);
    assert_eq!(closed(&fx), Some(CloseCode::PermissionDenied));
    let Some(Effect::Close { reason, .. }) = fx.last() else { panic!("{fx:?}") };
    assert!(reason.contains("to a is revoked"), "{reason}");
}

#[test]
fn it_ends_also_where_no_token_is_needed_and_while_it_is_under_way() {
    let settings = locked(vec![allow("**", Who::Any)]);
    let mut client = known(settings.clone(), ann());
    let asked = judging(want(&mut client, &[with_token("a")]));
    // The broker has not answered yet.
    batch(answered(&mut client, asked, vec![Ok(token("a", "t1"))]));
    revoke(&settings, Revoked::User("ann".into()), 10);
    // The connection's own token is younger than that.
    let identity = Identity { stamp: stamp("c", 11), ..ann() };
    client.session.take_identity(identity);
    assert_eq!(closed(&look(&mut client)), Some(CloseCode::PermissionDenied));
}

#[test]
fn a_token_that_is_revoked_brings_no_subscription() {
    let settings = locked(Vec::new());
    let mut client = known(settings.clone(), ann());
    let asked = judging(want(&mut client, &[with_token("a")]));
    // While it was being checked.
    revoke(&settings, Revoked::Token("t1".into()), 10);
    let fx = answered(&mut client, asked, vec![Ok(token("a", "t1"))]);
    assert_eq!(error_code(&fx), "ACL_ERROR");
    let asked = judging(want(&mut client, &[with_token("a")]));
    let fx = answered(&mut client, asked, vec![Ok(token("a", "t2"))]);
    assert_eq!(batch(fx).items.len(), 1);
}

#[test]
fn what_a_backend_said_before_a_revocation_lets_nobody_in_and_what_it_says_after_it_does() {
    for (asked_ms, revoked_ms, code) in
        [(5, 10, Some(CloseCode::InvalidToken)), (10, 10, Some(CloseCode::InvalidToken)), (11, 10, None)]
    {
        let settings = locked(Vec::new());
        let mut client = Client::with(settings.clone());
        let fx = client.say("1", In::Connect(v1::Connect { token: "t".into(), ..connect(true, &[]) }));
        revoke(&settings, Revoked::User("ann".into()), revoked_ms);
        let verdict = Stamp { token_id: None, issued_unix_ms: Some(asked_ms) };
        let fx = told(&mut client, fx, Identity { stamp: verdict, ..ann() });
        assert_eq!(closed(&fx), code, "asked at {asked_ms}, revoked at {revoked_ms}");
        assert_eq!(client.session.is_open(), code.is_none());
    }
}

#[test]
fn nobody_with_a_user_is_let_in_before_the_list_was_read_and_may_try_again() {
    let settings = locked(Vec::new()).revoked(RevokedTokens::unread());
    let mut client = Client::with(settings.clone());
    let with_token = || In::Connect(v1::Connect { token: "t".into(), ..connect(true, &[]) });
    let fx = client.say("1", with_token());
    let fx = told(&mut client, fx, ann());
    assert_eq!((error_code(&fx).as_str(), closed(&fx)), ("NOT_AVAILABLE", None));
    assert!(client.session.is_new());
    // Who has no token has none that could be revoked.
    let mut nobody = Client::with(settings.clone());
    nobody.say("1", In::Connect(connect(true, &[])));
    assert!(nobody.session.is_open());
    settings.revoked.take_over(Revocations::default(), 1);
    let fx = client.say("2", with_token());
    assert_eq!(closed(&told(&mut client, fx, ann())), None);
    assert!(client.session.is_open());
}
