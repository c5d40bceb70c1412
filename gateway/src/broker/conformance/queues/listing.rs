//! The list of queues, and how they are doing.

use std::time::Duration;

use tokio::time::sleep;

use super::super::context::Context;
use crate::{
    broker::queue::{Group, JobOptions, QueueName, QueuePage, QueueQuery, QueueStats},
    channel::Target,
};

/// All queues of a target, page by page; every page must keep its limit and its order.
async fn listed(cx: &Context, node: usize, target: &str, limit: usize) -> Vec<(QueueName, QueueStats)> {
    let channels = Some(Target::parse(target).unwrap());
    let (mut after, mut all) = (None, Vec::new());
    loop {
        let query = QueueQuery { channels: channels.clone(), after: after.clone(), limit };
        let QueuePage { queues, more } = cx.node(node).queues(query).await.unwrap();
        assert!(queues.len() <= limit && queues.is_sorted_by(|a, b| a.0 < b.0), "{queues:?}");
        assert!(!more || !queues.is_empty());
        assert!(queues.iter().all(|(name, _)| after.as_ref().is_none_or(|after| after < name)));
        after = queues.last().map(|(name, _)| name.clone()).or(after);
        all.extend(queues);
        if !more {
            return all;
        }
    }
}

pub(in super::super) async fn queues_are_listed_page_by_page(cx: Context) {
    let mut names = Vec::new();
    for n in 0..6 {
        let queue = cx.queue("work", &format!("n{n}"));
        cx.enqueue(n, &queue.channel, "x").await;
        let audit = QueueName { group: Group::parse("audit").unwrap(), ..queue.clone() };
        cx.worker(n, &audit, 1).await;
        names.extend([audit, queue]);
    }
    names.sort_unstable();
    for limit in [1, 5, 12, 100] {
        let listed = listed(&cx, 1, &cx.name("work", "**"), limit).await;
        assert_eq!(listed.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), names, "{limit}");
        let ready = |name: &QueueName| u64::from(name.group == Group::default());
        assert!(listed.iter().all(|(name, stats)| stats.ready == ready(name)), "{listed:?}");
    }
    // All queues of the storage: those of this case are among them.
    let after = Some(names[3].clone());
    let page = cx.node(0).queues(QueueQuery { channels: None, after, limit: 2 }).await.unwrap();
    let page: Vec<_> = page.queues.into_iter().map(|(name, _)| name).collect();
    assert_eq!(page, names[4..6]);
}

pub(in super::super) async fn a_target_chooses_among_queues(cx: Context) {
    for name in ["a", "a.b", "a.b.c", "b.b"] {
        cx.enqueue(0, &cx.channel("work", name), "x").await;
    }
    for (target, expected) in [
        ("a", &["a"][..]),
        ("a.*", &["a.b"]),
        ("a.**", &["a", "a.b", "a.b.c"]),
        ("*.b", &["a.b", "b.b"]),
        ("c.**", &[]),
    ] {
        for limit in [1, 10] {
            let listed = listed(&cx, 1, &cx.name("work", target), limit).await;
            let channels: Vec<_> = listed.into_iter().map(|(name, _)| name.channel).collect();
            let expected: Vec<_> = expected.iter().map(|name| cx.channel("work", name)).collect();
            assert_eq!(channels, expected, "{target} {limit}");
        }
    }
}

pub(in super::super) async fn statistics_count_every_job_where_it_is(cx: Context) {
    let queue = cx.queue("work", "a");
    assert_eq!(cx.stats(0, &queue).await, QueueStats::default());
    let group = QueueName { group: Group::parse("none").unwrap(), ..queue.clone() };
    assert_eq!(cx.node(0).queue_stats(&group).await.unwrap(), None);
    let worker = cx.worker(0, &queue, 2).await;
    cx.enqueue(0, &queue.channel, "bad").await;
    for attempt in 1..=3 {
        let bad = worker.expect("bad", attempt).await;
        worker.nack(&bad, Duration::ZERO).await;
    }
    for text in ["one", "two", "three", "four", "five"] {
        cx.enqueue(1, &queue.channel, text).await;
    }
    let (one, two) = (worker.expect("one", 1).await, worker.expect("two", 1).await);
    let later = JobOptions { delay: Some(Duration::from_secs(100)), ..JobOptions::default() };
    cx.enqueue_with(&queue.channel, "later", later).await;
    cx.counts(&queue, [3, 2, 1, 1]).await;
    let other = cx.worker(1, &queue, 1).await;
    other.expect("three", 1).await;
    cx.counts(&queue, [2, 3, 1, 1]).await;
    let stats = cx.stats(1, &queue).await;
    assert_eq!(stats.consumers, 2);

    // The age is that of the oldest one, wherever it is.
    sleep(Duration::from_millis(300)).await;
    let older = cx.stats(0, &queue).await.oldest_age_ms;
    assert!(older >= stats.oldest_age_ms + 250, "{older} {}", stats.oldest_age_ms);
    worker.nack(&two, Duration::from_secs(100)).await;
    worker.expect("four", 1).await;
    cx.counts(&queue, [1, 3, 2, 1]).await;
    worker.ack(&one).await;
    worker.expect("five", 1).await;
    cx.counts(&queue, [0, 3, 2, 1]).await;
    assert_eq!(listed(&cx, 0, &cx.name("work", "a"), 9).await.len(), 1);
}
