//! What only the memory broker promises: its budget, and what it knows beyond the conformance suite.

use std::time::Duration;

use super::*;
use crate::{
    broker::{Catchup, ChannelCatchup, From, GapReason, PatternCursors, Start, Stored},
    channel::Pattern,
    policy::{ChannelPolicy, PolicyRule},
    position::Position,
};

fn broker(max_bytes: usize) -> MemoryBroker {
    let none = ChannelPolicy { history_size: 0, ..ChannelPolicy::default() };
    let rules = vec![PolicyRule { pattern: "none.**".into(), policy: Arc::new(none) }];
    let policies = Policies::new(rules, ChannelPolicy::default());
    MemoryBroker::new(policies, MemoryOptions { max_bytes, ..MemoryOptions::default() })
}

fn channel(name: &str) -> Channel {
    Channel::parse(name).unwrap()
}

fn event(name: &str, size: usize) -> Publish {
    Publish {
        channel: channel(name),
        stored: Stored { id: vec![1; 16].into(), event: vec![7; size].into(), ..Stored::default() },
        user_id: String::new(),
        idempotency_key: None,
        transient: false,
        job: crate::broker::queue::JobOptions::default(),
    }
}

async fn publish(broker: &MemoryBroker, name: &str, size: usize) -> Position {
    broker.publish(event(name, size)).await.unwrap().position.unwrap()
}

async fn after(broker: &MemoryBroker, name: &str, cursor: Position) -> (Vec<u64>, Option<GapReason>) {
    let to = SubscribeTo::Channel { channel: channel(name), start: Start::After(cursor) };
    let answer = broker.subscribe(SinkId(0), Subscribe { to }).await.unwrap();
    flat(answer.catchup.unwrap(), name)
}

fn flat(catchup: Catchup, name: &str) -> (Vec<u64>, Option<GapReason>) {
    let of = catchup.channels.into_iter().find(|item| item.channel.as_str() == name);
    of.map_or_else(Default::default, |item| {
        (item.publications.iter().map(|p| p.position.unwrap().offset).collect(), item.reason())
    })
}

async fn by_pattern(broker: &MemoryBroker, start: Start<PatternCursors>) -> Subscribed {
    let to = SubscribeTo::Pattern { pattern: Pattern::parse("p.**").unwrap(), start };
    broker.subscribe(SinkId(0), Subscribe { to }).await.unwrap()
}

async fn ttl_passes() {
    time::advance(ChannelPolicy::default().history_ttl).await;
}

#[tokio::test(start_paused = true)]
async fn short_of_memory_the_largest_history_loses_its_head() {
    let broker = broker(100_000);
    let small = publish(&broker, "small", 1_000).await;
    let first = publish(&broker, "large", 1_000).await;
    for _ in 0..300 {
        publish(&broker, "large", 1_000).await;
        assert!(broker.used_bytes() <= 100_000);
    }
    assert!(broker.used_bytes() > 90_000);
    assert_eq!(after(&broker, "small", Position { offset: 0, ..small }).await, (vec![1], None));
    let (offsets, gap) = after(&broker, "large", first).await;
    assert_eq!(gap, Some(GapReason::HeadTrimmed));
    assert!(offsets.len() > 50 && offsets.last() == Some(&301));
    assert!(offsets.windows(2).all(|two| two[1] == two[0] + 1));
}

#[tokio::test(start_paused = true)]
async fn expired_history_goes_before_living_history() {
    let broker = broker(100_000);
    for _ in 0..60 {
        publish(&broker, "old", 1_000).await;
    }
    ttl_passes().await;
    let first = publish(&broker, "new", 1_000).await;
    for _ in 0..60 {
        publish(&broker, "new", 1_000).await;
    }
    let (offsets, gap) = after(&broker, "new", first).await;
    assert_eq!((offsets.len(), gap), (60, None));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_fit_is_refused_and_evicts_nothing() {
    let broker = broker(100_000);
    let first = publish(&broker, "a", 50_000).await;
    let refused = broker.publish(event("a", 100_000)).await.unwrap_err();
    assert!(matches!(refused, BrokerError::MemoryLimit { limit: 100_000, used: 0, need } if need > 100_000));
    assert_eq!(after(&broker, "a", Position { offset: 0, ..first }).await, (vec![1], None));
}

#[tokio::test(start_paused = true)]
async fn idempotency_records_are_never_evicted_but_expire() {
    let broker = broker(20_000);
    let keyed = |n: usize| Publish { idempotency_key: Some(n.to_string()), ..event("none.a", 0) };
    let mut taken = 0;
    while broker.publish(keyed(taken)).await.is_ok() {
        taken += 1;
    }
    assert!(taken > 50, "{taken}");
    assert!(broker.publish(keyed(0)).await.unwrap().duplicate);
    let refused = broker.publish(keyed(taken)).await.unwrap_err();
    assert!(matches!(refused, BrokerError::MemoryLimit { used, .. } if used > 15_000));
    time::advance(ChannelPolicy::default().idempotency_window).await;
    assert!(!broker.publish(keyed(taken)).await.unwrap().duplicate);
}

#[tokio::test(start_paused = true)]
async fn many_channels_stay_within_the_budget_and_forgotten_ones_are_not_taken_for_new() {
    let broker = broker(50_000);
    let never = by_pattern(&broker, Start::Live).await;
    for n in 0..1_000 {
        time::advance(Duration::from_millis(1)).await;
        publish(&broker, &format!("p.{n}"), 10).await;
        assert!(broker.used_bytes() <= 50_000);
    }
    let cursors = PatternCursors { marker: never.marker, ..PatternCursors::default() };
    let catchup = by_pattern(&broker, Start::After(cursors)).await.catchup.unwrap();
    assert!(catchup.truncated);
    // The oldest went first, and only as many as had to.
    let kept = |n: &usize| flat(catchup.clone(), &format!("p.{n}")).0 == [1];
    let count = (0..1_000).filter(kept).count();
    assert!(count > 30 && (1_000 - count..1_000).all(|n| kept(&n)), "{count}");
}

#[tokio::test(start_paused = true)]
async fn the_sweeper_gives_memory_back() {
    let broker = broker(1_000_000);
    publish(&broker, "a", 10_000).await;
    let keyed = Publish { idempotency_key: Some("k".into()), ..event("none.a", 0) };
    broker.publish(keyed).await.unwrap();
    broker.save_session("s", 1, SessionRecord::default(), 1_000).await.unwrap();
    let before = broker.used_bytes();
    // Paused time goes on by itself only while everybody waits: the sweeper has then run.
    time::sleep(ChannelPolicy::default().history_ttl + Duration::from_secs(2)).await;
    assert!(before > 10_000 && broker.used_bytes() < 500, "{before} {}", broker.used_bytes());
    time::sleep(Duration::from_secs(25 * 60 * 60)).await;
    assert_eq!(broker.used_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_history_that_came_and_went_since_offset_zero_is_expired() {
    let broker = broker(1_000_000);
    let to = SubscribeTo::Channel { channel: channel("p.a"), start: Start::Live };
    let empty = broker.subscribe(SinkId(0), Subscribe { to }).await.unwrap().positions[0].1;
    let marker = by_pattern(&broker, Start::Live).await.marker;
    assert_eq!(empty.offset, 0);
    publish(&broker, "p.a", 1).await;
    ttl_passes().await;
    assert_eq!(after(&broker, "p.a", empty).await, (vec![], Some(GapReason::Expired)));
    publish(&broker, "p.a", 1).await;
    assert_eq!(after(&broker, "p.a", empty).await, (vec![1], Some(GapReason::Expired)));
    let cursors = PatternCursors { marker, ..PatternCursors::default() };
    let catchup = by_pattern(&broker, Start::After(cursors)).await.catchup.unwrap();
    assert_eq!(flat(catchup, "p.a"), (vec![1], Some(GapReason::Expired)));
}

#[tokio::test(start_paused = true)]
async fn an_old_channel_without_cursor_cannot_be_proven() {
    let broker = broker(1_000_000);
    publish(&broker, "p.old", 1).await;
    let marker = by_pattern(&broker, Start::Live).await.marker;
    let cursors = PatternCursors { marker, ..PatternCursors::default() };
    let catchup = by_pattern(&broker, Start::After(cursors)).await.catchup.unwrap();
    assert!(catchup.truncated && catchup.channels.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_patterns_replay_is_bounded_and_says_so() {
    let broker = broker(64 * 1024 * 1024);
    for n in 0..11_000 {
        publish(&broker, &format!("p.{}", n % 11), 1).await;
    }
    let answer = by_pattern(&broker, Start::From(From::Start)).await;
    let catchup = answer.catchup.unwrap();
    assert!(catchup.truncated);
    assert_eq!(catchup.channels.iter().map(|item| item.publications.len()).sum::<usize>(), 10_000);
    let cut: Vec<_> = catchup.channels.iter().filter_map(ChannelCatchup::reason).collect();
    assert_eq!(cut, [GapReason::Truncated]);
}

#[tokio::test(start_paused = true)]
async fn a_cursor_without_a_history_to_go_with_is_a_gap() {
    let broker = broker(1_000_000);
    let gap = Some(GapReason::Expired);
    assert_eq!(after(&broker, "none.a", Position { epoch: 5, offset: 5 }).await, (vec![], gap));
}

#[tokio::test(start_paused = true)]
async fn a_stopped_broker_says_so() {
    let broker = broker(1_000_000);
    broker.shutdown().await;
    assert_eq!(*broker.status().borrow(), BrokerStatus::Stopped);
    assert_eq!(broker.publish(event("a", 1)).await, Err(BrokerError::Stopped));
}
