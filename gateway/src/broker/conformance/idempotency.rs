//! Repeated publishes.

use futures_util::future::join_all;
use tokio::time::Instant;

use super::context::{Context, SHORT, eventually, message};
use crate::{
    broker::{Publish, Published, Start},
    channel::Channel,
};

fn keyed(channel: &Channel, user: &str, key: &str) -> Publish {
    Publish {
        user_id: user.to_owned(),
        idempotency_key: Some(key.to_owned()),
        ..message(channel, &format!("{user} {key}"))
    }
}

pub(super) async fn two_hundred_retries_through_two_nodes_are_one_publication(cx: Context) {
    let channel = cx.channel("keep", "a");
    let listener = cx.listener(1);
    listener.channel(&channel, Start::Live).await;
    let retries = (0..200).map(|n| {
        let publish = cx.node(n).publish(keyed(&channel, "user", "key"));
        tokio::spawn(async move { publish.await.unwrap() })
    });
    let answers: Vec<Published> = join_all(retries).await.into_iter().map(Result::unwrap).collect();
    let position = answers[0].position.unwrap();
    assert_eq!(position.offset, 1);
    assert!(answers.iter().all(|answer| answer.position == Some(position)));
    assert_eq!(answers.iter().filter(|answer| !answer.duplicate).count(), 1);
    let next = cx.publish(0, &channel, "next").await;
    assert_eq!(next.offset, 2);
    assert_eq!(listener.next_position().await, position);
    assert_eq!(listener.next_position().await, next);
    assert_eq!(cx.all(&channel).await.publications.len(), 2);
}

pub(super) async fn keys_are_scoped_by_user_and_channel(cx: Context) {
    let (channel, other) = (cx.channel("keep", "a"), cx.channel("keep", "a.b"));
    // Scopes that spell the same text when they are only strung together.
    let (around, inside) = (format!("{channel}z"), format!("z{channel}y"));
    let scopes = [
        ("ab", "c"),
        ("a", "bc"),
        ("", "abc"),
        ("abc", ""),
        ("a:b", "c"),
        ("a", "b:c"),
        ("\u{fc}", "\0"),
        ("", &inside),
        (&around, "y"),
        ("", "q"),
        ("", ".bq"),
    ];
    for (offset, (user, key)) in (1..).zip(scopes) {
        let first = cx.node(0).publish(keyed(&channel, user, key)).await.unwrap();
        assert!(!first.duplicate && first.position.unwrap().offset == offset, "{user:?} {key:?}");
        let repeat = cx.node(1).publish(keyed(&channel, user, key)).await.unwrap();
        assert_eq!(repeat, Published { duplicate: true, ..first });
    }
    for (user, key) in scopes {
        let elsewhere = cx.node(0).publish(keyed(&other, user, key)).await.unwrap();
        assert!(!elsewhere.duplicate, "{user:?} {key:?}");
    }
}

pub(super) async fn the_window_ends(cx: Context) {
    let channel = cx.channel("brief", "a");
    let start = Instant::now();
    let first = cx.node(0).publish(keyed(&channel, "user", "key")).await.unwrap();
    // Repeats do not prolong the window.
    let again = eventually(|| async {
        let repeat = cx.node(1).publish(keyed(&channel, "user", "key")).await.unwrap();
        assert!(!repeat.duplicate || repeat.position == first.position);
        (!repeat.duplicate).then_some(repeat)
    })
    .await;
    assert!(start.elapsed() >= SHORT * 9 / 10, "{:?}", start.elapsed());
    assert_eq!(again.position.unwrap().offset, 2);
}

pub(super) async fn keys_work_without_history(cx: Context) {
    let listener = cx.listener(1);
    for (channel, transient) in [
        (cx.channel("none", "a"), false),
        (cx.channel("transient", "a"), false),
        (cx.channel("keep", "a"), true),
    ] {
        listener.channel(&channel, Start::Live).await;
        let publish = || Publish { transient, ..keyed(&channel, "user", "key") };
        let first = cx.node(0).publish(publish()).await.unwrap();
        assert_eq!(first, Published { position: None, duplicate: false });
        let repeat = cx.node(1).publish(publish()).await.unwrap();
        assert_eq!(repeat, Published { position: None, duplicate: true });
        cx.node(0).publish(Publish { transient, ..message(&channel, "next") }).await.unwrap();
        assert_eq!(listener.next_text().await, "user key");
        assert_eq!(listener.next_text().await, "next");
    }
}
