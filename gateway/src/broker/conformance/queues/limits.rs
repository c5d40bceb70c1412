//! Full queues, and publishes that are repeated.

use std::time::Duration;

use super::{
    super::context::{Context, all_of, message, text},
    job,
};
use crate::broker::{
    BrokerError, Publish, Published, Start,
    queue::{Group, JobOptions, QueueName, Shelf},
};

fn full(group: &str, limit: u64) -> Result<Published, BrokerError> {
    Err(BrokerError::QueueFull { group: group.to_owned(), limit })
}

pub(in super::super) async fn a_full_queue_refuses_until_a_job_is_settled(cx: Context) {
    let queue = cx.queue("tiny", "a");
    let next = |text: &str| Publish { idempotency_key: Some("key".into()), ..message(&queue.channel, text) };
    let later = JobOptions { delay: Some(Duration::from_secs(100)), ..JobOptions::default() };
    cx.enqueue_with(&queue.channel, "later", later.clone()).await;
    for text in ["one", "two", "three", "four"] {
        cx.enqueue(1, &queue.channel, text).await;
    }
    for node in 0..2 {
        assert_eq!(cx.node(node).publish(next("five")).await, full("default", 5));
        let late = job(&queue.channel, "five", later.clone());
        assert_eq!(cx.node(node).publish(late).await, full("default", 5));
    }
    // What a consumer has counts as well.
    let worker = cx.worker(0, &queue, 1).await;
    let one = worker.expect("one", 1).await;
    assert_eq!(cx.node(1).publish(next("five")).await, full("default", 5));
    worker.ack(&one).await;
    // What was refused has left no trace of its key.
    let taken = cx.node(1).publish(next("five")).await.unwrap();
    assert_eq!(taken, Published { position: None, duplicate: false });
    assert_eq!(cx.node(1).publish(message(&queue.channel, "six")).await, full("default", 5));
    for text in ["two", "three", "four", "five"] {
        worker.work(text).await;
    }
    worker.quiet().await;
}

pub(in super::super) async fn the_dead_do_not_count(cx: Context) {
    let queue = cx.queue("tiny", "a");
    let worker = cx.worker(0, &queue, 1).await;
    cx.enqueue(0, &queue.channel, "bad").await;
    for attempt in 1..=3 {
        let bad = worker.expect("bad", attempt).await;
        worker.nack(&bad, Duration::ZERO).await;
    }
    cx.counts(&queue, [0, 0, 0, 1]).await;
    worker.stop(true);
    for n in 0..5 {
        cx.enqueue(n, &queue.channel, "x").await;
    }
    assert_eq!(cx.node(0).publish(message(&queue.channel, "x")).await, full("default", 5));
    // There is no room for it.
    assert_eq!(cx.node(0).redrive(&queue, 10).await.unwrap(), 0);
    assert_eq!(cx.node(0).purge(&queue, Shelf::Ready).await.unwrap(), 5);
    assert_eq!(cx.node(0).redrive(&queue, 10).await.unwrap(), 1);
    cx.counts(&queue, [1, 0, 0, 0]).await;
}

pub(in super::super) async fn a_full_group_refuses_for_everybody(cx: Context) {
    let channel = cx.channel("narrow", "a");
    let group = |name| QueueName { channel: channel.clone(), group: Group::parse(name).unwrap() };
    let (slow, quick) = (group("slow"), group("quick"));
    let listener = cx.listener(1);
    listener.channel(&channel, Start::Live).await;
    cx.worker(0, &slow, 1).await;
    let worker = cx.worker(1, &quick, 1).await;
    for text in ["one", "two"] {
        cx.publish(0, &channel, text).await;
        worker.work(text).await;
        assert_eq!(listener.next_text().await, text);
    }
    assert_eq!(cx.node(1).publish(message(&channel, "three")).await, full("slow", 2));
    worker.quiet().await;
    let history = cx.history(0, all_of(&channel)).await;
    assert_eq!(history.publications.iter().map(|entry| text(entry)).collect::<Vec<_>>(), ["one", "two"]);
    assert!(listener.recorder.drain().is_empty());
    cx.node(1).remove_group(&slow).await.unwrap();
    cx.publish(1, &channel, "three").await;
    worker.work("three").await;
}

pub(in super::super) async fn a_repeated_publish_enqueues_once(cx: Context) {
    let queue = cx.queue("work", "a");
    let worker = cx.worker(0, &queue, 10).await;
    let publish = || Publish { idempotency_key: Some("key".into()), ..message(&queue.channel, "one") };
    for node in 0..6 {
        let answer = cx.node(node).publish(publish()).await.unwrap();
        assert_eq!(answer, Published { position: None, duplicate: node > 0 });
    }
    worker.work("one").await;
    // Also once it is done.
    assert!(cx.node(1).publish(publish()).await.unwrap().duplicate);
    worker.quiet().await;
    cx.counts(&queue, [0, 0, 0, 0]).await;
}
