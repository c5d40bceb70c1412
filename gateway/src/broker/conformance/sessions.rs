//! Session records.

use super::context::{Context, eventually};
use crate::broker::SessionRecord;

fn record(user: &str) -> SessionRecord {
    SessionRecord {
        secret_hash: (0..=255).collect(),
        user_id: user.into(),
        subscriptions: vec!["a.b".into(), "a.**".into(), "message".into()],
        ephemeral: vec!["a.b".into()],
        watching: vec!["a.**".into()],
    }
}

pub(super) async fn any_node_loads_what_was_saved_last(cx: Context) {
    let session = cx.name("session", "x");
    assert_eq!(cx.node(1).load_session(&session).await, Ok(None));
    for user in ["first", "second", ""] {
        cx.node(0).save_session(&session, record(user), 60_000).await.unwrap();
        assert_eq!(cx.node(1).load_session(&session).await, Ok(Some(record(user))));
    }
    let empty = SessionRecord::default();
    let other = format!("{session} {{}} \u{e9}");
    cx.node(1).save_session(&other, empty.clone(), 60_000).await.unwrap();
    assert_eq!(cx.node(0).load_session(&other).await, Ok(Some(empty)));
    assert_eq!(cx.node(0).load_session(&session).await, Ok(Some(record(""))));
}

pub(super) async fn records_expire(cx: Context) {
    let session = cx.name("session", "x");
    cx.node(0).save_session(&session, record("user"), 60_000).await.unwrap();
    cx.node(0).save_session(&session, record("user"), 300).await.unwrap();
    eventually(|| async { cx.node(1).load_session(&session).await.unwrap().is_none().then_some(()) }).await;
}
