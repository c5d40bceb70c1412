//! Pages of history.

use super::context::{Context, SHORT, SMALL, all_of, eventually, offsets};
use crate::{broker::HistoryQuery, position::Position};

pub(super) async fn limits_cut_and_say_so(cx: Context) {
    let channel = cx.channel("keep", "a");
    let positions = cx.fill(&channel, 10).await;
    for (limit, truncated) in [(1, true), (9, true), (10, false), (11, false), (u64::MAX, false)] {
        let page = cx.history(1, HistoryQuery { limit: Some(limit), ..all_of(&channel) }).await;
        assert_eq!(offsets(&page.publications), (1..=limit.min(10)).collect::<Vec<_>>());
        assert_eq!((page.truncated, page.position), (truncated, Some(positions[9])), "{limit}");
    }
    let page = cx.history(1, HistoryQuery { limit: Some(0), ..all_of(&channel) }).await;
    assert_eq!((page.publications.len(), page.position), (0, Some(positions[9])));
    let page = cx.all(&channel).await;
    assert_eq!((page.publications.len(), page.truncated), (10, false));
    for (entry, position) in page.publications.iter().zip(positions) {
        assert_eq!((&entry.channel, entry.position), (&channel, Some(position)));
    }
}

pub(super) async fn since_reads_what_came_after(cx: Context) {
    let channel = cx.channel("keep", "a");
    let positions = cx.fill(&channel, 10).await;
    let since = |n: usize, limit| HistoryQuery { since: Some(positions[n - 1]), limit, ..all_of(&channel) };
    let page = cx.history(1, since(4, None)).await;
    assert_eq!((offsets(&page.publications), page.truncated), ((5..=10).collect(), false));
    let page = cx.history(1, since(4, Some(2))).await;
    assert_eq!((offsets(&page.publications), page.truncated), (vec![5, 6], true));
    let page = cx.history(1, since(10, None)).await;
    assert_eq!((page.publications.len(), page.truncated), (0, false));
    assert_eq!(page.position, Some(positions[9]));
}

pub(super) async fn reverse_reads_newest_first(cx: Context) {
    let channel = cx.channel("keep", "a");
    let positions = cx.fill(&channel, 10).await;
    let reverse = |since, limit| HistoryQuery { since, limit, reverse: true, ..all_of(&channel) };
    let page = cx.history(1, reverse(None, None)).await;
    assert_eq!((offsets(&page.publications), page.truncated), ((1..=10).rev().collect(), false));
    let page = cx.history(1, reverse(None, Some(3))).await;
    assert_eq!((offsets(&page.publications), page.truncated), (vec![10, 9, 8], true));
    let page = cx.history(1, reverse(Some(positions[4]), None)).await;
    assert_eq!((offsets(&page.publications), page.truncated), (vec![4, 3, 2, 1], false));
    let page = cx.history(1, reverse(Some(positions[4]), Some(2))).await;
    assert_eq!((offsets(&page.publications), page.truncated), (vec![4, 3], true));
    assert_eq!(page.position, Some(positions[9]));
    let page = cx.history(1, reverse(Some(positions[0]), None)).await;
    assert!(page.publications.is_empty());
}

pub(super) async fn a_since_that_is_no_longer_kept_is_truncated(cx: Context) {
    let channel = cx.channel("small", "a");
    let positions = cx.fill(&channel, 30).await;
    let kept: Vec<u64> = (31 - SMALL..=30).collect();
    for (since, truncated) in [
        (positions[2], true),
        (positions[18], true),
        (positions[19], false),
        (Position { epoch: 0, offset: 4 }, true),
    ] {
        let page = cx.history(1, HistoryQuery { since: Some(since), ..all_of(&channel) }).await;
        assert_eq!((offsets(&page.publications), page.truncated), (kept.clone(), truncated), "{since}");
    }
}

pub(super) async fn more_than_the_configured_size_is_never_read(cx: Context) {
    let channel = cx.channel("small", "a");
    for published in 1..=35 {
        let end = cx.publish(published as usize, &channel, "x").await;
        let expected: Vec<u64> = (published.max(SMALL) - SMALL + 1..=published).collect();
        let page = cx.all(&channel).await;
        assert_eq!((offsets(&page.publications), page.position), (expected.clone(), Some(end)));
        let reverse = cx.history(1, HistoryQuery { reverse: true, ..all_of(&channel) }).await;
        assert_eq!(offsets(&reverse.publications), expected.into_iter().rev().collect::<Vec<_>>());
    }
}

pub(super) async fn nothing_older_than_the_configured_age_is_read(cx: Context) {
    let channel = cx.channel("short", "a");
    let ttl_ms = u64::try_from(SHORT.as_millis()).unwrap_or(u64::MAX);
    eventually(|| async {
        let end = cx.publish(0, &channel, "x").await;
        let page = cx.all(&channel).await;
        let newest = page.publications.last().unwrap();
        assert_eq!(newest.position, Some(end));
        // The page was read no earlier than its newest entry was written.
        assert!(page.publications.iter().all(|entry| newest.time_ms - entry.time_ms < ttl_ms));
        let kept = offsets(&page.publications);
        assert!(kept.windows(2).all(|two| two[1] == two[0] + 1), "{kept:?}");
        (kept[0] > 10).then_some(())
    })
    .await;
    cx.gone(&channel).await;
    assert!(cx.all(&channel).await.publications.is_empty());
}

pub(super) async fn a_channel_without_history_has_an_empty_page(cx: Context) {
    let without = cx.channel("none", "a");
    cx.node(0).publish(super::context::message(&without, "x")).await.unwrap();
    for channel in [without, cx.channel("keep", "never")] {
        let page = cx.all(&channel).await;
        assert_eq!((page.publications.len(), page.position, page.truncated), (0, None, false));
    }
}

pub(super) async fn times_never_go_back(cx: Context) {
    let channel = cx.channel("keep", "a");
    cx.fill(&channel, 200).await;
    let page = cx.all(&channel).await;
    assert!(page.publications.is_sorted_by_key(|entry| entry.time_ms));
    assert!(page.publications[0].time_ms > 1_600_000_000_000);
}
