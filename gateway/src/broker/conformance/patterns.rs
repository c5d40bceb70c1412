//! Subscriptions to patterns.

use std::collections::{BTreeMap, HashMap};

use futures_util::future::join_all;

use super::context::{Context, SMALL, eventually, replayed};
use crate::{
    broker::{From, GapReason, PatternCursors, Start},
    channel::{Channel, Pattern},
    position::Position,
};

/// Publishes to every channel, twice, and checks that the pattern's listener gets exactly those it should.
async fn matches(cx: &Context, pattern: &Pattern, channels: &[Channel], expected: &[&Channel]) {
    let (listener, witness) = (cx.listener(1), cx.listener(1));
    listener.pattern(pattern, Start::Live).await;
    for channel in channels {
        witness.channel(channel, Start::Live).await;
    }
    for _ in 0..2 {
        for channel in channels {
            cx.publish(0, channel, "x").await;
        }
        for _ in channels {
            witness.next().await;
        }
    }
    let mut seen: BTreeMap<Channel, u32> = BTreeMap::new();
    for _ in 0..2 * expected.len() {
        *seen.entry(listener.next().await.channel.clone()).or_default() += 1;
    }
    assert_eq!(seen, expected.iter().map(|channel| ((*channel).clone(), 2)).collect(), "{pattern}");
    assert!(listener.recorder.drain().is_empty(), "{pattern}");
    listener.unsubscribe(pattern.as_str());
}

pub(super) async fn stars_match_what_they_say(cx: Context) {
    let names = ["a", "a.b", "a.b.c", "a.c", "ab", "b.a"];
    let channels = names.map(|name| cx.channel("keep", name));
    for (pattern, expected) in [
        ("a.*", vec!["a.b", "a.c"]),
        ("a.**", vec!["a", "a.b", "a.b.c", "a.c"]),
        ("*", vec!["a", "ab"]),
        ("*.b.*", vec!["a.b.c"]),
        ("a.*.c", vec!["a.b.c"]),
        ("a.b.**", vec!["a.b", "a.b.c"]),
    ] {
        let expected: Vec<_> = names
            .iter()
            .zip(&channels)
            .filter(|(name, _)| expected.contains(name))
            .map(|both| both.1)
            .collect();
        matches(&cx, &cx.pattern("keep", pattern), &channels, &expected).await;
    }
}

pub(super) async fn patterns_that_start_with_a_star_match(cx: Context) {
    let channels = [cx.channel("keep", "a"), cx.channel("keep", "b"), cx.channel("small", "a")];
    let [keep_a, _, small_a] = &channels;
    matches(&cx, &cx.pattern("*", "a"), &channels, &[keep_a, small_a]).await;
    matches(&cx, &cx.pattern("*", "a.**"), &channels, &[keep_a, small_a]).await;
    let cursors = PatternCursors { marker: None, channels: HashMap::new() };
    let subscribed = cx.listener(1).pattern(&cx.pattern("*", "a"), Start::After(cursors)).await;
    assert_eq!(subscribed.positions.len(), 2, "{:?}", subscribed.positions);
}

pub(super) async fn a_pattern_ends_when_it_is_unsubscribed(cx: Context) {
    let channel = cx.channel("keep", "a.b");
    let (listener, witness) = (cx.listener(1), cx.listener(1));
    witness.channel(&channel, Start::Live).await;
    listener.pattern(&cx.pattern("keep", "a.*"), Start::Live).await;
    listener.pattern(&cx.pattern("keep", "a.**"), Start::Live).await;
    listener.unsubscribe(cx.pattern("keep", "a.*").as_str());
    let position = cx.publish(0, &channel, "x").await;
    assert_eq!(listener.next_position().await, position);
    witness.next().await;
    listener.unsubscribe(cx.pattern("keep", "a.**").as_str());
    eventually(|| async {
        listener.recorder.drain();
        let position = cx.publish(0, &channel, "unheard").await;
        assert_eq!(witness.next_position().await, position);
        listener.recorder.drain().is_empty().then_some(())
    })
    .await;
}

pub(super) async fn recovery_replays_by_cursor_and_includes_new_channels(cx: Context) {
    let pattern = cx.pattern("keep", "p.**");
    let [a, b, born, other] = ["p.a", "p.b.c", "p.born", "q"].map(|name| cx.channel("keep", name));
    let (at_a, at_b) = (cx.fill(&a, 5).await, cx.fill(&b, 5).await);
    let live = cx.listener(0).pattern(&pattern, Start::Live).await;
    let positions: HashMap<_, _> = live.positions.into_iter().collect();
    assert_eq!(positions, HashMap::from([(a.clone(), at_a[4]), (b.clone(), at_b[4])]));
    assert!(live.catchup.is_none());

    cx.fill(&a, 3).await;
    cx.fill(&born, 2).await;
    cx.fill(&other, 2).await;
    let listener = cx.listener(1);
    let cursors = PatternCursors { marker: live.marker, channels: positions };
    let subscribed = listener.pattern(&pattern, Start::After(cursors)).await;
    assert_eq!(subscribed.positions.len(), 3);
    let catchup = subscribed.catchup.unwrap();
    assert!(!catchup.truncated);
    assert_eq!(catchup.channels.len(), 2, "{:?}", catchup.channels);
    assert_eq!(replayed(&catchup, &a), (vec![6, 7, 8], None));
    assert_eq!(replayed(&catchup, &born), (vec![1, 2], None));
    for (channel, offset) in [(&a, 9), (&b, 6), (&born, 3)] {
        assert_eq!(cx.publish(0, channel, "live").await.offset, offset);
        let publication = listener.next().await;
        assert_eq!((&publication.channel, publication.position.unwrap().offset), (channel, offset));
    }
}

pub(super) async fn recovery_reports_gaps_by_channel(cx: Context) {
    let pattern = cx.pattern("small", "p.*");
    let names = ["p.trimmed", "p.reset", "p.removed", "p.whole", "p.born"];
    let [trimmed, reset, removed, whole, born] = names.map(|name| cx.channel("small", name));
    let mut cursors = HashMap::new();
    for channel in [&trimmed, &reset, &removed, &whole] {
        cursors.insert(channel.clone(), cx.fill(channel, 2).await[1]);
    }
    let marker = cx.listener(0).pattern(&pattern, Start::Live).await.marker;
    cursors.insert(reset.clone(), Position { epoch: 0, offset: 2 });
    cx.fill(&trimmed, 20).await;
    cx.fill(&born, 20).await;
    cx.node(0).remove_history(removed.clone()).await.unwrap();

    let cursors = PatternCursors { marker, channels: cursors };
    let catchup = cx.listener(1).pattern(&pattern, Start::After(cursors)).await.catchup.unwrap();
    let head = Some(GapReason::HeadTrimmed);
    assert_eq!(replayed(&catchup, &trimmed), ((23 - SMALL..=22).collect(), head));
    assert_eq!(replayed(&catchup, &born), ((21 - SMALL..=20).collect(), head));
    assert_eq!(replayed(&catchup, &reset), (vec![1, 2], Some(GapReason::EpochReset)));
    assert_eq!(replayed(&catchup, &removed), (vec![], Some(GapReason::Expired)));
    assert_eq!(replayed(&catchup, &whole), (vec![], None));
}

pub(super) async fn a_pattern_starts_from_any_point(cx: Context) {
    let pattern = cx.pattern("keep", "p.*");
    let channels = ["p.a", "p.b", "p.c"].map(|name| cx.channel("keep", name));
    for channel in &channels {
        cx.fill(channel, 5).await;
    }
    let listener = cx.listener(1);
    for (from, first) in [
        (From::Start, 1),
        (From::Last(2), 4),
        (From::TimeMs(0), 1),
        (From::TimeMs(u64::MAX), 6),
        (From::Last(0), 6),
    ] {
        let catchup = listener.pattern(&pattern, Start::From(from)).await.catchup.unwrap();
        for channel in &channels {
            assert_eq!(replayed(&catchup, channel), ((first..=5).collect(), None), "{from:?}");
        }
    }
    cx.publish(0, &channels[1], "live").await;
    assert_eq!(listener.next_position().await.offset, 6);
}

pub(super) async fn positions_of_a_pattern_are_bounded(cx: Context) {
    let channels: Vec<_> = (0..1_100).map(|n| cx.channel("keep", &format!("p.{n}"))).collect();
    join_all(channels.iter().map(|channel| cx.publish(0, channel, "x"))).await;
    let subscribed = cx.listener(1).pattern(&cx.pattern("keep", "p.*"), Start::Live).await;
    assert!(subscribed.positions.len() <= 1_000 && subscribed.positions.len() > 500);
    assert!(subscribed.positions.iter().all(|(_, position)| position.offset == 1));
}
