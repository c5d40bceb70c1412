//! Visibility timeouts and delays.

use std::time::Duration;

use tokio::{select, time::Instant};

use super::{
    super::context::{Context, PATIENCE, text},
    policies::VISIBLE,
};
use crate::broker::queue::{JobOptions, Settle, Settled};

/// Later than a time after `start`, but for the roundings of two clocks.
fn later_than(time: Duration, start: Instant) {
    assert!(start.elapsed() >= time * 9 / 10, "{:?} instead of at least {time:?}", start.elapsed());
}

pub(in super::super) async fn what_is_not_acked_in_time_is_handed_out_again(cx: Context) {
    let queue = cx.queue("jobs", "a");
    let workers = [cx.worker(0, &queue, 1).await, cx.worker(1, &queue, 1).await];
    let start = Instant::now();
    cx.enqueue(0, &queue.channel, "one").await;
    let (first, had) = select! {
        job = workers[0].next() => (job, 0),
        job = workers[1].next() => (job, 1),
    };
    assert_eq!(first.id.attempt, 1);
    assert!(first.deadline_ms >= first.publication.time_ms + 1_000);
    let (second, has) = select! {
        job = workers[0].next() => (job, 0),
        job = workers[1].next() => (job, 1),
    };
    later_than(VISIBLE, start);
    assert_eq!((text(&second.publication).as_str(), second.id.attempt), ("one", 2));
    assert_eq!(second.id.job, first.id.job);
    assert!(second.deadline_ms >= first.deadline_ms + 1_000);
    assert_eq!(workers[had].settle(&first, Settle::Ack).await, Settled::Expired);
    workers[has].ack(&second).await;
    cx.counts(&queue, [0, 0, 0, 0]).await;
}

pub(in super::super) async fn what_is_out_of_time_counts_no_more_as_credit(cx: Context) {
    let queue = cx.queue("jobs", "a");
    let worker = cx.worker(1, &queue, 1).await;
    let start = Instant::now();
    for text in ["one", "two"] {
        cx.enqueue(0, &queue.channel, text).await;
    }
    worker.expect("one", 1).await;
    // Whichever of the two it is.
    let next = worker.next().await;
    later_than(VISIBLE, start);
    assert_eq!(worker.settle(&next, Settle::Ack).await, Settled::Done);
}

pub(in super::super) async fn who_needs_more_time_gets_it(cx: Context) {
    let queue = cx.queue("jobs", "a");
    let worker = cx.worker(0, &queue, 1).await;
    cx.enqueue(0, &queue.channel, "one").await;
    let first = worker.expect("one", 1).await;
    let other = cx.worker(1, &queue, 1).await;
    let extended = Instant::now();
    let by = Some(VISIBLE * 2);
    assert_eq!(worker.settle(&first, Settle::Extend { by }).await, Settled::Done);
    let (next, had) = select! {
        job = worker.next() => (job, &worker),
        job = other.next() => (job, &other),
    };
    later_than(VISIBLE * 2, extended);
    assert_eq!(next.id.attempt, 2);
    // By as much as the queue gives.
    let extended = Instant::now();
    assert_eq!(had.settle(&next, Settle::Extend { by: None }).await, Settled::Done);
    let (last, had) = select! {
        job = worker.next() => (job, &worker),
        job = other.next() => (job, &other),
    };
    later_than(VISIBLE, extended);
    assert_eq!(last.id.attempt, 3);
    had.ack(&last).await;
    cx.counts(&queue, [0, 0, 0, 0]).await;
}

pub(in super::super) async fn an_ack_is_late_only_once_somebody_else_has_the_job(cx: Context) {
    let queue = cx.queue("jobs", "a");
    let worker = cx.worker(0, &queue, 1).await;
    cx.enqueue(0, &queue.channel, "one").await;
    let job = worker.expect("one", 1).await;
    worker.stop(false);
    cx.counts(&queue, [1, 0, 0, 0]).await;
    assert_eq!(worker.settle_at(cx.node(1).as_ref(), &job, Settle::Ack).await, Settled::Done);
    let other = cx.worker(1, &queue, 1).await;
    other.quiet().await;
    cx.counts(&queue, [0, 0, 0, 0]).await;
}

pub(in super::super) async fn what_is_not_released_is_handed_out_at_its_deadline(cx: Context) {
    let queue = cx.queue("jobs", "a");
    let worker = cx.worker(0, &queue, 1).await;
    let start = Instant::now();
    cx.enqueue(0, &queue.channel, "one").await;
    let former = worker.expect("one", 1).await;
    worker.stop(false);
    let other = cx.worker(1, &queue, 1).await;
    let job = other.expect("one", 2).await;
    later_than(VISIBLE, start);
    assert_eq!(worker.settle(&former, Settle::Ack).await, Settled::Expired);
    other.ack(&job).await;
}

pub(in super::super) async fn a_delayed_job_is_not_handed_out_before_its_time(cx: Context) {
    const DELAY: Duration = Duration::from_millis(1_500);
    let queue = cx.queue("work", "a");
    let worker = cx.worker(1, &queue, 5).await;
    let start = Instant::now();
    let options = JobOptions { delay: Some(DELAY), ..JobOptions::default() };
    cx.enqueue_with(&queue.channel, "later", options).await;
    cx.enqueue(0, &queue.channel, "now").await;
    worker.work("now").await;
    let stats = cx.stats(1, &queue).await;
    // Under load its time may have come meanwhile.
    assert!(stats.delayed == 1 || start.elapsed() >= DELAY, "{stats:?}");
    let job = worker.expect("later", 1).await;
    later_than(DELAY, start);
    worker.ack(&job).await;
    cx.counts(&queue, [0, 0, 0, 0]).await;
}

pub(in super::super) async fn a_job_given_back_with_a_delay_waits(cx: Context) {
    let queue = cx.queue("work", "a");
    let worker = cx.worker(0, &queue, 1).await;
    for text in ["one", "two"] {
        cx.enqueue(1, &queue.channel, text).await;
    }
    let one = worker.expect("one", 1).await;
    let start = Instant::now();
    worker.nack(&one, VISIBLE).await;
    // Its credit is free meanwhile.
    worker.work("two").await;
    let one = worker.expect("one", 2).await;
    later_than(VISIBLE, start);
    worker.ack(&one).await;
}

pub(in super::super) async fn delayed_jobs_come_in_the_order_of_their_times(cx: Context) {
    let queue = cx.queue("work", "a");
    for (text, seconds) in [("third", 3), ("second", 2), ("first", 1)] {
        let options = JobOptions { delay: Some(Duration::from_secs(seconds)), ..JobOptions::default() };
        cx.enqueue_with(&queue.channel, text, options).await;
    }
    let worker = cx.worker(1, &queue, 1).await;
    let start = Instant::now();
    for text in ["first", "second", "third"] {
        worker.work(text).await;
    }
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
}
