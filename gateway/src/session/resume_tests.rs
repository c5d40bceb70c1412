//! Sessions that are brought back.

use std::time::Duration;

use streamgate_proto::v1::Connect;

use super::{
    In,
    tests::{Client, batch, closed, connect, error_code},
    *,
};
use crate::{
    broker::{BrokerError, Kept, LoadedSession, NodeId, SessionRecord},
    policy::Limits,
};

/// What a client and the broker keep of a session.
fn left_behind() -> (ResumeToken, SessionRecord) {
    let token = ResumeToken::fresh(&uuid::Uuid::new_v4().to_string());
    let record = SessionRecord {
        secret_hash: token.secret_hash(),
        subscriptions: vec!["a".into(), "b.*".into()],
        ephemeral: vec!["a".into()],
        ..SessionRecord::default()
    };
    (token, record)
}

/// Connects with the token; what is subscribed then.
fn resumes(client: &mut Client, token: &ResumeToken, record: SessionRecord) -> SubscribeBatch {
    let fx = client.say("1", In::Connect(Connect { resume_token: token.wire(), ..connect(true, &["a"]) }));
    let Some(Effect::LoadSession { session, connecting }) = fx.into_iter().next() else { panic!("no load") };
    assert_eq!(session, token.session);
    let mut fx = Effects::new();
    client.session.session_loaded(
        client.now,
        *connecting,
        Ok(Some(LoadedSession { record, tenure: 7 })),
        &mut fx,
    );
    batch(fx)
}

#[test]
fn a_resume_token_brings_the_subscriptions_back_and_a_wrong_secret_does_not() {
    let (token, record) = left_behind();
    for (resumed, record) in
        [(true, record.clone()), (false, SessionRecord { secret_hash: vec![0; 32], ..record })]
    {
        let mut client = Client::new(Limits::default());
        let items = resumes(&mut client, &token, record).items;
        let names: Vec<_> = items.iter().map(|item| item.target.to_string()).collect();
        assert_eq!(names, if resumed { vec!["a", "b.*"] } else { vec!["a"] });
        assert_eq!(client.session.id() == token.session, resumed);
    }
}

#[test]
fn the_token_of_a_living_session_is_good_for_the_whole_window_whenever_the_connection_breaks() {
    let limits = Limits { resume_window: Duration::from_secs(2), ..Limits::default() };
    let mut client = Client::new(limits);
    let saves = |fx: &Effects| {
        fx.iter().find_map(|effect| match effect {
            Effect::SaveSession { ttl_ms, .. } => Some(*ttl_ms),
            _ => None,
        })
    };
    let fx = client.say("1", In::Connect(connect(true, &[])));
    let mut good_until = client.now.mono_ms + saves(&fx).expect("saved at once");
    while client.now.mono_ms < 20_000 {
        let mut fx = Effects::new();
        let next = client.session.tick(client.now, &mut fx);
        if let Some(ttl_ms) = saves(&fx) {
            good_until = client.now.mono_ms + ttl_ms;
        }
        assert!(good_until >= next + 2_000, "at {next} the token is good until {good_until}");
        client.now.mono_ms = next;
    }
}

#[test]
fn what_a_resume_had_subscribed_before_it_failed_is_given_up_under_the_sessions_own_name() {
    let (token, record) = left_behind();
    let mut client = Client::new(Limits::default());
    let batch = resumes(&mut client, &token, record);
    let mut fx = Effects::new();
    let error = BrokerError::NotAvailable { reason: "away".into(), sent: true };
    client.session.subscribe_failed(client.now, batch, &error, &mut fx);
    assert_eq!(error_code(&fx), "NOT_AVAILABLE");
    assert!(fx.iter().any(|effect| matches!(effect, Effect::Unsubscribe(slots) if slots.len() == 2)));
    // Effects are carried out after this: members leave by the name under which they may have joined.
    assert_eq!(client.session.id(), token.session);
    client.say("2", In::Connect(connect(true, &[])));
    assert!(client.session.is_open());
    assert_ne!(client.session.id(), token.session, "it brought nothing back this time");
}

/// A client that is connected by its token.
fn resumed(limits: Limits) -> Client {
    let (token, record) = left_behind();
    let mut client = Client::new(limits);
    let batch = resumes(&mut client, &token, record);
    let mut fx = Effects::new();
    let answer = crate::broker::Subscribed::default();
    client.session.subscribe_done(client.now, batch, &vec![answer; 2], &mut fx);
    let saved = fx.iter().any(|effect| matches!(effect, Effect::SaveSession { tenure: 7, .. }));
    assert!(client.session.is_open() && saved, "{fx:?}");
    client
}

fn saved(client: &mut Client, outcome: Result<Kept, BrokerError>) -> Effects {
    let mut fx = Effects::new();
    client.session.saved(client.now, outcome, &mut fx);
    fx
}

#[test]
fn the_node_that_had_the_session_before_is_told_once() {
    let mut client = resumed(Limits::default());
    let held = Kept::Held { former: Some(NodeId(3)) };
    let fx = saved(&mut client, Ok(held));
    let [Effect::Yield { node: NodeId(3), session, tenure: 7 }] = &fx[..] else { panic!("{fx:?}") };
    assert_eq!(session, client.session.id());
    assert!(saved(&mut client, Ok(held)).is_empty());
}

#[test]
fn a_record_that_could_not_be_kept_is_kept_again_soon() {
    let mut client = resumed(Limits::default());
    let away = BrokerError::NotAvailable { reason: "away".into(), sent: true };
    let fx = saved(&mut client, Err(away));
    assert!(matches!(fx[..], [Effect::Deadlines]), "{fx:?}");
    let mut fx = Effects::new();
    let next = client.session.tick(client.now, &mut fx);
    assert!(fx.is_empty() && next == client.now.mono_ms + 2_000, "{fx:?} {next}");
    client.now.mono_ms = next;
    client.session.tick(client.now, &mut fx);
    assert!(matches!(fx[..], [Effect::SaveSession { tenure: 7, .. }]), "{fx:?}");
}

#[test]
fn a_connection_whose_session_has_a_later_one_is_closed_for_good_and_keeps_nothing_more() {
    let mut client = resumed(Limits::default());
    let fx = saved(&mut client, Ok(Kept::Lost));
    assert!(matches!(fx[..], [Effect::GoesOn, Effect::Close { .. }]), "{fx:?}");
    let code = closed(&fx).unwrap();
    assert!(code == CloseCode::ForceDisconnect && !code.reconnect());
    client.now.mono_ms += 3_600_000;
    let mut fx = Effects::new();
    client.session.tick(client.now, &mut fx);
    client.session.save_by(client.now.mono_ms, &mut fx);
    client.session.keep(client.now, &mut fx);
    assert!(fx.is_empty(), "{fx:?}");
}
