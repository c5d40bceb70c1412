//! Recovery of one channel whose history was lost, and of cursors that no history gave out.

use super::context::{Context, all_of, eventually};
use crate::{
    broker::{GapReason, HistoryQuery},
    position::Position,
};

pub(super) async fn an_expired_history_is_reported_and_its_successor_is_a_new_epoch(cx: Context) {
    let channel = cx.channel("short", "a");
    let before = cx.fill(&channel, 3).await;
    cx.gone(&channel).await;
    let listener = cx.listener(1);
    let (offsets, gap) = eventually(|| async {
        let answer = listener.recover(&channel, before[0]).await;
        (answer.1 == Some(GapReason::Expired)).then_some(answer)
    })
    .await;
    assert_eq!((offsets, gap), (vec![], Some(GapReason::Expired)));
    let first = cx.publish(0, &channel, "new").await;
    assert!(first.epoch > before[0].epoch && first.offset == 1, "{first} after {before:?}");
    assert_eq!(listener.next_position().await, first);
    assert_eq!(listener.recover(&channel, before[2]).await, (vec![1], Some(GapReason::EpochReset)));
}

pub(super) async fn a_history_that_expired_after_an_empty_cursor_is_reported(cx: Context) {
    let channel = cx.channel("short", "a");
    let empty = cx.end(0, &channel).await;
    cx.fill(&channel, 3).await;
    cx.gone(&channel).await;
    let listener = cx.listener(1);
    eventually(|| async {
        let answer = listener.recover(&channel, empty).await;
        (answer == (vec![], Some(GapReason::Expired))).then_some(())
    })
    .await;
}

pub(super) async fn a_removed_history_is_reported_and_its_successor_is_a_new_epoch(cx: Context) {
    let channel = cx.channel("keep", "a");
    let before = cx.fill(&channel, 3).await;
    cx.node(0).remove_history(channel.clone()).await.unwrap();
    assert!(cx.all(&channel).await.publications.is_empty());
    assert_eq!(cx.all(&channel).await.position, None);
    let listener = cx.listener(1);
    assert_eq!(listener.recover(&channel, before[1]).await, (vec![], Some(GapReason::Expired)));
    let end = cx.end(0, &channel).await;
    assert!(end.offset == 0 && end.epoch >= before[0].epoch, "{end}");

    let after = cx.fill(&channel, 2).await;
    assert!(after[0].epoch > before[0].epoch && after[0].offset == 1, "{after:?} after {before:?}");
    for position in &after {
        assert_eq!(listener.next_position().await, *position);
    }
    let reset = Some(GapReason::EpochReset);
    assert_eq!(listener.recover(&channel, before[1]).await, (vec![1, 2], reset));
    assert_eq!(listener.recover(&channel, after[0]).await, (vec![2], None));
    let since = cx.history(1, HistoryQuery { since: Some(before[1]), ..all_of(&channel) }).await;
    assert!(since.truncated && since.publications.len() == 2);
}

pub(super) async fn removing_what_does_not_exist_is_no_error(cx: Context) {
    let channel = cx.channel("keep", "a");
    cx.node(0).remove_history(channel.clone()).await.unwrap();
    assert_eq!(cx.publish(1, &channel, "x").await.offset, 1);
    cx.node(0).remove_history(channel.clone()).await.unwrap();
    cx.node(1).remove_history(channel).await.unwrap();
}

pub(super) async fn unknown_epochs_are_reset_and_replay_everything(cx: Context) {
    let channel = cx.channel("keep", "a");
    let listener = cx.listener(1);
    let reset = Some(GapReason::EpochReset);
    let unknown = [
        Position { epoch: 0, offset: 0 },
        Position { epoch: 0, offset: 2 },
        Position { epoch: u64::MAX, offset: 2 },
        Position { epoch: u64::MAX, offset: u64::MAX },
    ];
    for cursor in unknown {
        assert_eq!(listener.recover(&channel, cursor).await, (vec![], reset), "{cursor}");
    }
    let positions = cx.fill(&channel, 5).await;
    let epoch = positions[0].epoch;
    let old = [Position { epoch: epoch - 1, offset: 3 }, Position { epoch: 1, offset: u64::MAX }];
    for cursor in unknown.into_iter().chain(old) {
        assert_eq!(listener.recover(&channel, cursor).await, ((1..=5).collect(), reset), "{cursor}");
    }
}

pub(super) async fn an_offset_past_the_end_is_reset(cx: Context) {
    let channel = cx.channel("keep", "a");
    let positions = cx.fill(&channel, 5).await;
    let listener = cx.listener(1);
    for offset in [6, 1_000, u64::MAX] {
        let cursor = Position { offset, ..positions[0] };
        assert_eq!(
            listener.recover(&channel, cursor).await,
            (vec![], Some(GapReason::EpochReset)),
            "{cursor}"
        );
    }
}

pub(super) async fn a_history_that_was_born_and_removed_unseen_is_reported_to_a_cursor_from_before(
    cx: Context,
) {
    let channel = cx.channel("keep", "a");
    let cursor = cx.end(0, &channel).await;
    cx.publish(0, &channel, "lost").await;
    cx.node(0).remove_history(channel.clone()).await.unwrap();
    // Nobody looks at the channel before it is born again.
    cx.publish(1, &channel, "kept").await;
    assert_eq!(cx.listener(1).recover(&channel, cursor).await, (vec![1], Some(GapReason::Expired)));
    // Who came in between has missed nothing.
    let empty = cx.channel("keep", "b");
    cx.publish(0, &empty, "lost").await;
    cx.node(0).remove_history(empty.clone()).await.unwrap();
    let cursor = cx.end(1, &empty).await;
    cx.publish(1, &empty, "kept").await;
    assert_eq!(cx.listener(0).recover(&empty, cursor).await, (vec![1], None));
}
