//! What sessions make of tokens.

use std::{sync::Arc, time::Duration};

use streamgate_proto::v1::{self, Refresh};

use super::{
    In, out,
    tests::{Client, closed, connect, error_code, sent},
    *,
};
use crate::{
    auth::{Algorithm, Authenticator, Identity, JwtConfig, JwtKey, JwtVerifier, KeyMaterial, Refusal},
    policy::{ChannelPolicy, Limits, Policies},
};

/// A client of a node with a key; what its tokens say is made up.
fn locked(presented: Option<&str>) -> Client {
    let key = JwtKey { id: None, algorithm: Algorithm::HS256, material: KeyMaterial::Secret(vec![7; 32]) };
    let jwt = JwtVerifier::new(JwtConfig { keys: vec![key], ..JwtConfig::default() }).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let settings = Settings::new(Policies::new(Vec::new(), ChannelPolicy::default()), Limits::default())
        .authenticator(Authenticator::jwt(Arc::new(jwt), false, runtime.handle().clone()));
    let mut client = Client::with(settings.clone());
    let arrival = Arrival { token: presented.and_then(Token::new), ..Arrival::default() };
    client.session = Session::new(settings, client.now, arrival);
    client
}

fn showing(token: &str, channels: &[&str]) -> In {
    In::Connect(v1::Connect { token: token.into(), ..connect(true, channels) })
}

/// The token that is to be checked, and what for.
fn asked(fx: Effects) -> (String, Asking) {
    match fx.into_iter().next() {
        Some(Effect::Authenticate { credential, asking }) => (credential.token.reveal().to_owned(), asking),
        other => panic!("{other:?}"),
    }
}

fn told(client: &mut Client, asking: Asking, outcome: Result<Identity, Refusal>) -> Effects {
    let mut fx = Effects::new();
    client.session.authenticated(client.now, asking, outcome, &mut fx);
    fx
}

fn ann(client: &Client, seconds: u64) -> Identity {
    let expires_unix_ms = Some(client.now.unix_ms + seconds * 1_000);
    Identity { user_id: "ann".into(), expires_unix_ms, ..Identity::default() }
}

fn connected(client: &mut Client, seconds: u64) {
    let (_, asking) = asked(client.say("1", showing("t", &[])));
    let identity = ann(client, seconds);
    told(client, asking, Ok(identity));
    assert!(client.session.is_open());
}

fn pass(client: &mut Client, time: Duration) -> Effects {
    let ms = u64::try_from(time.as_millis()).unwrap();
    client.now = Now { mono_ms: client.now.mono_ms + ms, unix_ms: client.now.unix_ms + ms };
    client.session.heard(client.now);
    let mut fx = Effects::new();
    client.session.tick(client.now, &mut fx);
    fx
}

#[test]
fn the_frame_goes_before_the_connection_and_nothing_is_refused_at_once() {
    let (token, _) = asked(locked(Some("header")).say("1", showing("frame", &[])));
    assert_eq!(token, "frame");
    let (token, _) = asked(locked(Some("header")).say("1", showing("", &[])));
    assert_eq!(token, "header");
    let fx = locked(None).say("1", showing("", &[]));
    assert_eq!((error_code(&fx).as_str(), closed(&fx)), ("AUTH_ERROR", Some(CloseCode::InvalidToken)));
}

#[test]
fn what_the_client_says_meanwhile_waits_and_ends_with_a_refusal() {
    let mut client = locked(None);
    let (_, asking) = asked(client.say("1", showing("t", &[])));
    assert!(client.say("2", In::Ping(v1::Ping {})).is_empty());
    let identity = ann(&client, 60);
    let fx = told(&mut client, asking, Ok(identity));
    let ids: Vec<_> = sent(&fx).iter().map(|frame| frame.id.clone()).collect();
    assert_eq!(ids, ["1", "2"]);

    let mut client = locked(None);
    let (_, asking) = asked(client.say("1", showing("t", &[])));
    client.say("2", In::Ping(v1::Ping {}));
    let fx = told(&mut client, asking, Err(Refusal::Signature));
    assert_eq!((sent(&fx).len(), closed(&fx)), (1, Some(CloseCode::InvalidToken)));
}

#[test]
fn an_answer_for_a_client_that_is_gone_changes_nothing() {
    let mut client = locked(None);
    let (_, asking) = asked(client.say("1", showing("t", &["a"])));
    client.session.disconnected();
    let identity = ann(&client, 60);
    assert!(told(&mut client, asking, Ok(identity)).is_empty());
    assert!(!client.session.is_open());
}

#[test]
fn a_session_is_closed_when_its_token_ends_and_looked_at_no_later() {
    let mut client = locked(None);
    connected(&mut client, 60);
    let mut fx = Effects::new();
    let next = client.session.tick(client.now, &mut fx);
    assert!(next <= client.now.mono_ms + 60_000);
    assert_eq!(closed(&pass(&mut client, Duration::from_secs(59))), None);
    assert_eq!(closed(&pass(&mut client, Duration::from_secs(1))), Some(CloseCode::InvalidToken));
}

#[test]
fn a_refresh_puts_the_end_off_only_for_the_same_user() {
    let mut client = locked(None);
    let In::Connect(connect) = showing("t", &[]) else { panic!() };
    let connect = v1::Connect { client_type: "phone".into(), ..connect };
    let (_, asking) = asked(client.say("1", In::Connect(connect)));
    let identity = ann(&client, 60);
    told(&mut client, asking, Ok(identity));
    let refresh = || In::Refresh(Refresh { token: "next".into() });
    let fx = client.say("2", refresh());
    let Some(Effect::Authenticate { credential, .. }) = fx.first() else { panic!("{fx:?}") };
    // As at the connect: a backend may decide by it.
    assert_eq!(credential.client_type, "phone");
    let (_, asking) = asked(fx);
    let bob = Identity { user_id: "bob".into(), ..Identity::default() };
    assert_eq!(error_code(&told(&mut client, asking, Ok(bob))), "AUTH_ERROR");
    let (_, asking) = asked(client.say("3", refresh()));
    assert_eq!(error_code(&told(&mut client, asking, Err(Refusal::Expired))), "AUTH_ERROR");
    let (_, asking) = asked(client.say("4", refresh()));
    let identity = ann(&client, 600);
    let fx = told(&mut client, asking, Ok(identity));
    assert!(matches!(sent(&fx)[0].envelope, Some(out::Envelope::Ok(_))));
    assert_eq!(closed(&pass(&mut client, Duration::from_secs(599))), None);
    assert_eq!(closed(&pass(&mut client, Duration::from_secs(1))), Some(CloseCode::InvalidToken));
}
