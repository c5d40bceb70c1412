//! Session records.

use super::context::{Context, eventually};
use crate::broker::{Kept, SessionRecord};

fn record(user: &str) -> SessionRecord {
    SessionRecord {
        secret_hash: (0..=255).collect(),
        user_id: user.into(),
        subscriptions: vec!["a.b".into(), "a.**".into(), "message".into()],
        ephemeral: vec!["a.b".into()],
        watching: vec!["a.**".into()],
    }
}

async fn loaded(cx: &Context, node: usize, session: &str) -> Option<SessionRecord> {
    cx.node(node).load_session(session).await.unwrap().map(|loaded| loaded.record)
}

pub(super) async fn any_node_loads_what_was_saved_last(cx: Context) {
    let session = cx.name("session", "x");
    assert_eq!(loaded(&cx, 1, &session).await, None);
    for user in ["first", "second", ""] {
        cx.node(0).save_session(&session, 1, record(user), 60_000).await.unwrap();
        assert_eq!(loaded(&cx, 1, &session).await, Some(record(user)));
    }
    let empty = SessionRecord::default();
    let other = format!("{session} {{}} \u{e9}");
    cx.node(1).save_session(&other, 1, empty.clone(), 60_000).await.unwrap();
    assert_eq!(loaded(&cx, 0, &other).await, Some(empty));
    assert_eq!(loaded(&cx, 0, &session).await, Some(record("")));
}

pub(super) async fn records_expire(cx: Context) {
    let session = cx.name("session", "x");
    cx.node(0).save_session(&session, 1, record("user"), 60_000).await.unwrap();
    cx.node(0).save_session(&session, 1, record("user"), 300).await.unwrap();
    eventually(|| async { loaded(&cx, 1, &session).await.is_none().then_some(()) }).await;
}

pub(super) async fn who_resumes_later_has_the_session_whoever_saves_first(cx: Context) {
    let session = cx.name("session", "x");
    let (first, second) = (cx.node(0).node(), cx.node(1).node());
    let tenure = async |node: usize| cx.node(node).load_session(&session).await.unwrap().unwrap().tenure;
    let save = async |node: usize, tenure: u32, user: &str| {
        cx.node(node).save_session(&session, tenure, record(user), 60_000).await.unwrap()
    };
    assert_eq!(save(0, 1, "begun").await, Kept::Held { former: None });
    let (early, late) = (tenure(1).await, tenure(0).await);
    assert!(1 < early && early < late, "{early} {late}");
    assert_eq!(save(0, 1, "still").await, Kept::Held { former: None }, "who only asks takes nothing");
    assert_eq!(save(1, early, "early").await, Kept::Held { former: first });
    assert_eq!(save(1, early, "again").await, Kept::Held { former: first }, "an answer may have been lost");
    assert_eq!(save(0, 1, "begun").await, Kept::Lost);
    assert_eq!(save(0, late, "late").await, Kept::Held { former: second });
    for (node, former) in [(1, early), (0, 1)] {
        assert_eq!(save(node, former, "former").await, Kept::Lost);
    }
    assert_eq!(loaded(&cx, 1, &session).await, Some(record("late")));
    assert_eq!(cx.node(1).find_session(&session).await, Ok(first));
    assert!(tenure(1).await > late);
}

pub(super) async fn a_record_that_storage_lost_is_kept_anew_by_whoever_has_the_session(cx: Context) {
    let session = cx.name("session", "x");
    cx.node(0).save_session(&session, 1, record("user"), 200).await.unwrap();
    let tenure = cx.node(1).load_session(&session).await.unwrap().unwrap().tenure;
    eventually(|| async { loaded(&cx, 1, &session).await.is_none().then_some(()) }).await;
    let kept = cx.node(1).save_session(&session, tenure, record("user"), 60_000).await;
    assert_eq!(kept, Ok(Kept::Held { former: None }));
    assert_eq!(cx.node(0).save_session(&session, 1, record("user"), 60_000).await, Ok(Kept::Lost));
    assert!(cx.node(0).load_session(&session).await.unwrap().unwrap().tenure > tenure);
}
