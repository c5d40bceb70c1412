//! Subscribing while others publish: neither holes nor repeats.

use std::collections::{HashMap, HashSet};

use futures_util::future::join_all;
use tokio::task::JoinHandle;

use super::context::{Context, Listener, only_position, replayed};
use crate::{
    broker::{PatternCursors, Start},
    channel::Channel,
    position::Position,
};

/// Publications of one round.
const COUNT: u64 = 40;

/// Publishes [`COUNT`] messages through both nodes, a few at a time.
fn publisher(cx: &Context, channel: &Channel) -> JoinHandle<()> {
    let (cx, channel) = (cx.clone(), channel.clone());
    tokio::spawn(async move {
        for n in 0..COUNT / 4 {
            join_all((0..4).map(|k| cx.publish((n + k) as usize, &channel, "x"))).await;
            tokio::task::yield_now().await;
        }
    })
}

/// Awaits the publications after `after` up to the last of the round, without hole or repeat.
async fn rest(listener: &Listener, after: u64) {
    for offset in after + 1..=COUNT {
        assert_eq!(listener.next_position().await.offset, offset);
    }
}

pub(super) async fn a_live_start_has_no_hole(cx: Context) {
    let listener = cx.listener(1);
    for round in 0..50 {
        let channel = cx.channel("keep", &round.to_string());
        let publisher = publisher(&cx, &channel);
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        let start = only_position(&listener.channel(&channel, Start::Live).await, &channel);
        rest(&listener, start.offset).await;
        publisher.await.unwrap();
        listener.unsubscribe(channel.as_str());
    }
}

pub(super) async fn a_recovery_under_publishes_has_no_hole_and_no_repeat(cx: Context) {
    let listener = cx.listener(1);
    for round in 0..50 {
        let channel = cx.channel("keep", &round.to_string());
        let empty = cx.end(0, &channel).await;
        let publisher = publisher(&cx, &channel);
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        let (offsets, gap) = listener.recover(&channel, empty).await;
        assert_eq!(gap, None);
        assert!(offsets.first().is_none_or(|first| *first == 1), "{offsets:?}");
        rest(&listener, offsets.len() as u64).await;
        publisher.await.unwrap();
        listener.unsubscribe(channel.as_str());
    }
}

pub(super) async fn a_pattern_recovery_under_births_has_no_hole_and_no_repeat(cx: Context) {
    let listener = cx.listener(1);
    for round in 0..10_usize {
        let pattern = cx.pattern("keep", &format!("{round}.*"));
        let channels: Vec<_> = (0..5).map(|n| cx.channel("keep", &format!("{round}.{n}"))).collect();
        let marker = cx.listener(0).pattern(&pattern, Start::Live).await.marker;
        assert!(marker.is_some());
        let publishers: Vec<_> = channels.iter().map(|channel| publisher(&cx, channel)).collect();
        for _ in 0..round * 5 {
            tokio::task::yield_now().await;
        }
        let cursors = PatternCursors { marker, channels: HashMap::new() };
        let catchup = listener.pattern(&pattern, Start::After(cursors)).await.catchup.unwrap();
        assert!(!catchup.truncated);
        let mut seen: HashMap<&Channel, u64> = HashMap::new();
        for channel in &channels {
            let (offsets, gap) = replayed(&catchup, channel);
            assert_eq!((gap, &offsets), (None, &(1..=offsets.len() as u64).collect()));
            seen.insert(channel, offsets.len() as u64);
        }
        while seen.values().sum::<u64>() < COUNT * channels.len() as u64 {
            let publication = listener.next().await;
            let last = seen.get_mut(&publication.channel).unwrap();
            assert_eq!(publication.position.unwrap().offset, *last + 1);
            *last += 1;
        }
        join_all(publishers).await.into_iter().for_each(Result::unwrap);
        listener.unsubscribe(pattern.as_str());
    }
}

pub(super) async fn many_recoveries_of_one_channel_agree(cx: Context) {
    let channel = cx.channel("keep", "a");
    let positions = cx.fill(&channel, 100).await;
    let cursor = Position { offset: 40, ..positions[0] };
    let listeners: Vec<_> = (0..40).map(|n| cx.listener(n)).collect();
    let answers = join_all(listeners.iter().map(|listener| listener.recover(&channel, cursor))).await;
    let distinct: HashSet<_> = answers.into_iter().collect();
    assert_eq!(distinct, HashSet::from([((41..=100).collect(), None)]));
    cx.publish(0, &channel, "live").await;
    for listener in &listeners {
        assert_eq!(listener.next_position().await.offset, 101);
    }
}
