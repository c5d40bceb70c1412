//! Recovery of one channel whose history still lives.

use super::context::{Context, SMALL, only_position, replayed};
use crate::{
    broker::{GapReason, Start},
    position::Position,
};

pub(super) async fn a_cursor_replays_exactly_what_came_after(cx: Context) {
    let channel = cx.channel("keep", "a");
    let positions = cx.fill(&channel, 10).await;
    let listener = cx.listener(1);
    let subscribed = listener.channel(&channel, Start::After(positions[2])).await;
    assert_eq!(only_position(&subscribed, &channel), positions[9]);
    let catchup = subscribed.catchup.unwrap();
    assert_eq!(replayed(&catchup, &channel), ((4..=10).collect(), None));
    let of_history = cx.all(&channel).await.publications;
    assert_eq!(catchup.channels[0].publications, of_history[3..]);
    cx.publish(0, &channel, "live").await;
    assert_eq!(listener.next_position().await.offset, 11);
}

pub(super) async fn nothing_missed_replays_nothing(cx: Context) {
    let channel = cx.channel("keep", "a");
    let positions = cx.fill(&channel, 3).await;
    let subscribed = cx.listener(1).channel(&channel, Start::After(positions[2])).await;
    assert_eq!(only_position(&subscribed, &channel), positions[2]);
    assert!(subscribed.catchup.unwrap().channels.is_empty());
    assert!(cx.listener(1).channel(&channel, Start::Live).await.catchup.is_none());
}

pub(super) async fn long_replays_are_complete(cx: Context) {
    let channel = cx.channel("keep", "a");
    let positions = cx.fill(&channel, 990).await;
    let listener = cx.listener(1);
    for seen in [1, 489, 490, 491] {
        let cursor = positions[seen - 1];
        let expected = (cursor.offset + 1..=990).collect();
        assert_eq!(listener.recover(&channel, cursor).await, (expected, None));
    }
}

pub(super) async fn a_cursor_of_an_empty_channel_replays_everything(cx: Context) {
    let channel = cx.channel("keep", "a");
    let empty = cx.end(0, &channel).await;
    assert_eq!(empty.offset, 0);
    let positions = cx.fill(&channel, 5).await;
    assert!(positions[0] > empty);
    assert_eq!(cx.listener(1).recover(&channel, empty).await, ((1..=5).collect(), None));
    // Offset 0 of the history's own epoch means the same.
    let zero = Position { offset: 0, ..positions[0] };
    assert_eq!(cx.listener(1).recover(&channel, zero).await, ((1..=5).collect(), None));
}

pub(super) async fn a_cursor_of_a_channel_that_never_existed_missed_nothing(cx: Context) {
    let channel = cx.channel("keep", "a");
    let empty = cx.end(0, &channel).await;
    let listener = cx.listener(1);
    assert_eq!(listener.recover(&channel, empty).await, (vec![], None));
    assert!(cx.publish(0, &channel, "live").await > empty);
    assert_eq!(listener.next_position().await.offset, 1);
}

pub(super) async fn a_trimmed_head_is_reported_and_the_rest_replayed(cx: Context) {
    let channel = cx.channel("small", "a");
    let positions = cx.fill(&channel, 30).await;
    let kept: Vec<u64> = (31 - SMALL..=30).collect();
    let listener = cx.listener(1);
    for (cursor, gap) in [
        (positions[4], Some(GapReason::HeadTrimmed)),
        (positions[18], Some(GapReason::HeadTrimmed)),
        // The entry of the cursor itself is not needed.
        (positions[19], None),
    ] {
        assert_eq!(listener.recover(&channel, cursor).await, (kept.clone(), gap), "{cursor}");
    }
    cx.publish(0, &channel, "live").await;
    assert_eq!(listener.next_position().await.offset, 31);
}

pub(super) async fn a_trimmed_head_is_reported_to_a_cursor_of_an_empty_channel(cx: Context) {
    let channel = cx.channel("small", "a");
    let empty = cx.end(0, &channel).await;
    cx.fill(&channel, 30).await;
    let kept = (31 - SMALL..=30).collect();
    assert_eq!(cx.listener(1).recover(&channel, empty).await, (kept, Some(GapReason::HeadTrimmed)));
}
