//! Jobs out of attempts.

use std::time::Duration;

use super::{
    super::context::{Context, text},
    policies::DEAD_LETTERS,
};
use crate::{
    broker::{
        Start,
        queue::{QueueName, Settle, Settled, Shelf},
    },
    channel::Channel,
};

/// Texts of a shelf, as a node sees it.
async fn shelf(cx: &Context, node: usize, queue: &QueueName, shelf: Shelf, limit: usize) -> Vec<String> {
    let jobs = cx.node(node).peek(queue, shelf, limit).await.unwrap();
    jobs.iter().map(|job| text(&job.publication)).collect()
}

/// Has jobs of a channel `fragile.…` die, one after the other.
async fn die(cx: &Context, queue: &QueueName, texts: &[&str]) {
    let worker = cx.worker(0, queue, 1).await;
    for text in texts {
        cx.enqueue(0, &queue.channel, text).await;
        let job = worker.expect(text, 1).await;
        worker.nack(&job, Duration::ZERO).await;
    }
    worker.stop(true);
}

pub(in super::super) async fn a_job_out_of_attempts_is_dead_until_it_is_redriven(cx: Context) {
    let queue = cx.queue("work", "a");
    let worker = cx.worker(0, &queue, 1).await;
    cx.enqueue(1, &queue.channel, "one").await;
    let mut last = worker.expect("one", 1).await;
    for attempt in 2..=3 {
        worker.nack(&last, Duration::ZERO).await;
        last = worker.expect("one", attempt).await;
    }
    // However long it should have waited.
    worker.nack(&last, Duration::from_secs(100)).await;
    worker.quiet().await;
    cx.counts(&queue, [0, 0, 0, 1]).await;
    assert_eq!(cx.stats(1, &queue).await.oldest_age_ms, 0);
    assert_eq!(worker.settle(&last, Settle::Ack).await, Settled::Gone);

    let dead = cx.node(1).peek(&queue, Shelf::Dead, 10).await.unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!((text(&dead[0].publication).as_str(), dead[0].attempts), ("one", 3));
    assert_eq!(dead[0].publication.time_ms, last.publication.time_ms);

    assert_eq!(cx.node(1).redrive(&queue, 10).await.unwrap(), 1);
    let again = worker.expect("one", 1).await;
    assert_eq!(worker.settle(&last, Settle::Ack).await, Settled::Gone);
    worker.ack(&again).await;
    cx.counts(&queue, [0, 0, 0, 0]).await;
    assert_eq!(cx.node(0).redrive(&queue, 10).await.unwrap(), 0);
}

pub(in super::super) async fn a_job_dies_of_its_last_timeout(cx: Context) {
    let queue = cx.queue("brittle", "a");
    let worker = cx.worker(1, &queue, 1).await;
    for text in ["one", "two"] {
        cx.enqueue(0, &queue.channel, text).await;
    }
    worker.expect("one", 1).await;
    // What died holds no credit.
    worker.work("two").await;
    cx.counts(&queue, [0, 0, 0, 1]).await;
    worker.quiet().await;
    assert_eq!(shelf(&cx, 0, &queue, Shelf::Dead, 10).await, ["one"]);
}

pub(in super::super) async fn only_so_many_dead_are_kept_and_the_oldest_go(cx: Context) {
    let queue = cx.queue("fragile", "a");
    die(&cx, &queue, &["one", "two", "three", "four"]).await;
    cx.counts(&queue, [0, 0, 0, 2]).await;
    assert_eq!(shelf(&cx, 0, &queue, Shelf::Dead, 10).await, ["three", "four"]);
    assert_eq!(shelf(&cx, 1, &queue, Shelf::Dead, 1).await, ["three"]);
    assert_eq!(cx.node(0).redrive(&queue, 1).await.unwrap(), 1);
    let worker = cx.worker(1, &queue, 5).await;
    worker.work("three").await;
    worker.quiet().await;
    cx.counts(&queue, [0, 0, 0, 1]).await;
}

pub(in super::super) async fn the_dead_are_published_to_the_dead_letter_channel(cx: Context) {
    let queue = cx.queue("fragile", "a");
    let listener = cx.listener(1);
    listener.channel(&Channel::parse(DEAD_LETTERS).unwrap(), Start::Live).await;
    let own = [cx.name("of", "one"), cx.name("of", "two"), cx.name("of", "three")];
    die(&cx, &queue, &own.each_ref().map(String::as_str)).await;
    // Others that use the storage have jobs that die, too.
    let mut letters = Vec::new();
    while letters.len() < own.len() {
        let letter = listener.next_text().await;
        if own.contains(&letter) {
            letters.push(letter);
        }
    }
    assert_eq!(letters, own);
}

pub(in super::super) async fn each_shelf_is_looked_at_and_purged(cx: Context) {
    let queue = cx.queue("work", "a");
    let worker = cx.worker(0, &queue, 1).await;
    for text in ["held", "ready", "ready too"] {
        cx.enqueue(0, &queue.channel, text).await;
    }
    let held = worker.expect("held", 1).await;
    let later = crate::broker::queue::JobOptions {
        delay: Some(Duration::from_secs(100)),
        ordering_key: Some("key".to_owned()),
    };
    cx.enqueue_with(&queue.channel, "later", later).await;
    cx.counts(&queue, [2, 1, 1, 0]).await;
    assert_eq!(shelf(&cx, 0, &queue, Shelf::Ready, 10).await, ["ready", "ready too"]);
    assert_eq!(shelf(&cx, 1, &queue, Shelf::Ready, 1).await, ["ready"]);
    let in_flight = cx.node(1).peek(&queue, Shelf::InFlight, 10).await.unwrap();
    assert_eq!((in_flight.len(), in_flight[0].attempts), (1, 1));
    assert_eq!((&in_flight[0].job, &in_flight[0].publication), (&held.id.job, &held.publication));
    let delayed = cx.node(1).peek(&queue, Shelf::Delayed, 10).await.unwrap();
    assert_eq!((delayed.len(), delayed[0].attempts, delayed[0].ordering_key.as_str()), (1, 0, "key"));
    assert_eq!(shelf(&cx, 1, &queue, Shelf::Dead, 10).await, [""; 0]);

    for (shelf, removed, left) in [
        (Shelf::Ready, 2, [0, 1, 1, 0]),
        (Shelf::Delayed, 1, [0, 1, 0, 0]),
        (Shelf::Dead, 0, [0, 1, 0, 0]),
        (Shelf::InFlight, 1, [0, 0, 0, 0]),
    ] {
        assert_eq!(cx.node(1).purge(&queue, shelf).await.unwrap(), removed, "{shelf:?}");
        cx.counts(&queue, left).await;
    }
    assert_eq!(worker.settle(&held, Settle::Ack).await, Settled::Gone);
    // The credit that what was purged held is free again.
    cx.enqueue(0, &queue.channel, "next").await;
    worker.work("next").await;

    let fragile = cx.queue("fragile", "a");
    die(&cx, &fragile, &["one", "two"]).await;
    assert_eq!(cx.node(0).purge(&fragile, Shelf::Dead).await.unwrap(), 2);
    cx.counts(&fragile, [0, 0, 0, 0]).await;
}
