//! Subscriptions that start at a point of the history.

use super::context::{Context, SMALL, eventually};
use crate::broker::{From, Start};

pub(super) async fn from_the_start(cx: Context) {
    let (channel, small) = (cx.channel("keep", "a"), cx.channel("small", "a"));
    cx.fill(&channel, 5).await;
    cx.fill(&small, 25).await;
    let listener = cx.listener(1);
    assert_eq!(listener.start(&channel, Start::From(From::Start)).await, ((1..=5).collect(), None));
    cx.publish(0, &channel, "live").await;
    assert_eq!(listener.next_position().await.offset, 6);
    // What was trimmed was never seen: nothing is missing.
    let kept = (26 - SMALL..=25).collect();
    assert_eq!(listener.start(&small, Start::From(From::Start)).await, (kept, None));
}

pub(super) async fn from_the_last_entries(cx: Context) {
    let channel = cx.channel("keep", "a");
    cx.fill(&channel, 5).await;
    let listener = cx.listener(1);
    for (last, first) in [(0, 6), (1, 5), (3, 3), (5, 1), (6, 1), (u64::MAX, 1)] {
        let answer = listener.start(&channel, Start::From(From::Last(last))).await;
        assert_eq!(answer, ((first..=5).collect(), None), "{last}");
    }
}

pub(super) async fn from_a_time(cx: Context) {
    let channel = cx.channel("keep", "a");
    // Goes on until three entries have three different times.
    eventually(|| async {
        cx.publish(0, &channel, "x").await;
        let mut times: Vec<_> =
            cx.all(&channel).await.publications.iter().map(|entry| entry.time_ms).collect();
        times.dedup();
        (times.len() > 2).then_some(())
    })
    .await;
    let entries = cx.all(&channel).await.publications;
    let first = entries[0].time_ms;
    let last = entries[entries.len() - 1].time_ms;
    let listener = cx.listener(1);
    for time_ms in [0, first - 1, first, first + 1, last, last + 1, u64::MAX] {
        let expected: Vec<u64> = entries
            .iter()
            .filter(|entry| entry.time_ms >= time_ms)
            .map(|entry| entry.position.unwrap().offset)
            .collect();
        let answer = listener.start(&channel, Start::From(From::TimeMs(time_ms))).await;
        assert_eq!(answer, (expected, None), "{time_ms}");
    }
}

pub(super) async fn from_any_point_of_an_empty_channel_is_nothing(cx: Context) {
    let listener = cx.listener(1);
    for (n, from) in [From::Start, From::Last(3), From::TimeMs(1)].into_iter().enumerate() {
        let channel = cx.channel("keep", &n.to_string());
        assert_eq!(listener.start(&channel, Start::From(from)).await, (vec![], None));
        cx.publish(0, &channel, "live").await;
        assert_eq!(listener.next_position().await.offset, 1);
    }
}
