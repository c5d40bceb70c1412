//! Ordering keys: one at a time, in order.

use std::time::Duration;

use tokio::{select, time::Instant};

use super::{
    super::context::{Context, text},
    policies::VISIBLE,
};
use crate::broker::queue::{JobOptions, QueueStats, Shelf};

pub(in super::super) async fn jobs_with_one_key_are_handled_one_at_a_time(cx: Context) {
    let queue = cx.queue("work", "a");
    let worker = cx.worker(0, &queue, 10).await;
    for (text, key) in [("k1", "k"), ("k2", "k"), ("l1", "l"), ("k3", "k"), ("l2", "l")] {
        cx.enqueue_keyed(0, &queue.channel, text, key).await;
    }
    cx.enqueue(1, &queue.channel, "free").await;
    let k1 = worker.expect("k1", 1).await;
    worker.work("l1").await;
    let rest = [worker.next().await, worker.next().await];
    let mut texts = rest.each_ref().map(|job| text(&job.publication));
    texts.sort_unstable();
    assert_eq!(texts, ["free", "l2"]);
    worker.quiet().await;
    // What waits for its turn waits for a consumer.
    let QueueStats { ready, in_flight, .. } = cx.stats(1, &queue).await;
    assert_eq!((ready, in_flight), (2, 3));
    worker.ack(&k1).await;
    worker.work("k2").await;
    worker.work("k3").await;
    for job in rest {
        worker.ack(&job).await;
    }
    cx.counts(&queue, [0, 0, 0, 0]).await;
}

pub(in super::super) async fn one_key_is_in_order_over_consumers_of_two_nodes(cx: Context) {
    const JOBS: usize = 12;
    let queue = cx.queue("work", "a");
    let workers = [cx.worker(0, &queue, 5).await, cx.worker(1, &queue, 5).await];
    for n in 0..JOBS {
        cx.enqueue_keyed(n, &queue.channel, &n.to_string(), "k").await;
    }
    for n in 0..JOBS {
        let (job, worker) = select! {
            job = workers[0].next() => (job, &workers[0]),
            job = workers[1].next() => (job, &workers[1]),
        };
        assert_eq!((text(&job.publication), job.id.attempt), (n.to_string(), 1));
        let stats = cx.stats(n, &queue).await;
        assert_eq!((stats.in_flight, stats.ready), (1, (JOBS - n - 1) as u64));
        worker.ack(&job).await;
    }
}

pub(in super::super) async fn a_job_given_back_with_a_delay_holds_up_its_key(cx: Context) {
    let queue = cx.queue("work", "a");
    let worker = cx.worker(1, &queue, 10).await;
    for text in ["k1", "k2"] {
        cx.enqueue_keyed(0, &queue.channel, text, "k").await;
    }
    let first = worker.expect("k1", 1).await;
    let start = Instant::now();
    worker.nack(&first, VISIBLE).await;
    let again = worker.expect("k1", 2).await;
    assert!(start.elapsed() >= VISIBLE * 9 / 10, "{:?}", start.elapsed());
    worker.quiet().await;
    worker.nack(&again, Duration::ZERO).await;
    let again = worker.expect("k1", 3).await;
    worker.ack(&again).await;
    worker.work("k2").await;
}

pub(in super::super) async fn a_job_out_of_time_holds_up_its_key(cx: Context) {
    let queue = cx.queue("jobs", "a");
    let worker = cx.worker(0, &queue, 10).await;
    for text in ["k1", "k2"] {
        cx.enqueue_keyed(0, &queue.channel, text, "k").await;
    }
    worker.expect("k1", 1).await;
    let again = worker.expect("k1", 2).await;
    worker.ack(&again).await;
    worker.work("k2").await;
}

pub(in super::super) async fn when_the_first_dies_the_next_goes(cx: Context) {
    let queue = cx.queue("fragile", "a");
    let worker = cx.worker(0, &queue, 10).await;
    for text in ["k1", "k2", "k3"] {
        cx.enqueue_keyed(0, &queue.channel, text, "k").await;
    }
    let first = worker.expect("k1", 1).await;
    worker.quiet().await;
    worker.nack(&first, Duration::ZERO).await;
    let second = worker.expect("k2", 1).await;
    // One that is redriven is behind those that came meanwhile.
    assert_eq!(cx.node(1).redrive(&queue, 1).await.unwrap(), 1);
    worker.ack(&second).await;
    worker.work("k3").await;
    worker.work("k1").await;
}

pub(in super::super) async fn a_delayed_job_holds_up_its_key(cx: Context) {
    let queue = cx.queue("work", "a");
    let worker = cx.worker(1, &queue, 10).await;
    let start = Instant::now();
    let options = JobOptions { delay: Some(VISIBLE), ordering_key: Some("k".to_owned()) };
    cx.enqueue_with(&queue.channel, "k1", options).await;
    cx.enqueue_keyed(0, &queue.channel, "k2", "k").await;
    worker.work("k1").await;
    assert!(start.elapsed() >= VISIBLE * 9 / 10, "{:?}", start.elapsed());
    worker.work("k2").await;
}

pub(in super::super) async fn when_the_first_is_purged_the_next_goes(cx: Context) {
    let queue = cx.queue("work", "a");
    let worker = cx.worker(0, &queue, 10).await;
    let options = JobOptions { delay: Some(Duration::from_secs(100)), ordering_key: Some("k".to_owned()) };
    cx.enqueue_with(&queue.channel, "k1", options).await;
    cx.enqueue_keyed(1, &queue.channel, "k2", "k").await;
    cx.enqueue_keyed(1, &queue.channel, "k3", "k").await;
    worker.quiet().await;
    assert_eq!(cx.node(1).purge(&queue, Shelf::Delayed).await.unwrap(), 1);
    worker.expect("k2", 1).await;
    assert_eq!(cx.node(1).purge(&queue, Shelf::InFlight).await.unwrap(), 1);
    worker.work("k3").await;
}
