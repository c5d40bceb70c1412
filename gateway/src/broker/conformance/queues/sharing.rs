//! Who gets a job, how many at a time, and in what order.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;

use super::super::context::{Context, text};

pub(in super::super) async fn each_job_goes_to_one_consumer_only(cx: Context) {
    const JOBS: usize = 90;
    let queue = cx.queue("work", "a");
    let done = Arc::new(AtomicUsize::new(0));
    let mut tasks = Vec::new();
    for node in 0..4 {
        let (worker, done) = (cx.worker(node, &queue, 3).await, done.clone());
        tasks.push(tokio::spawn(async move {
            let mut texts = Vec::new();
            while done.load(Ordering::SeqCst) < JOBS {
                let Some(job) = worker.next_within(Duration::from_millis(50)).await else { continue };
                assert_eq!(job.id.attempt, 1);
                worker.ack(&job).await;
                texts.push(text(&job.publication));
                done.fetch_add(1, Ordering::SeqCst);
            }
            worker.quiet().await;
            texts
        }));
    }
    let publish = |n: usize| {
        let (cx, channel) = (cx.clone(), queue.channel.clone());
        async move { cx.enqueue(n, &channel, &format!("{n:03}")).await }
    };
    let answers = join_all((0..JOBS).map(publish)).await;
    assert!(answers.iter().all(|answer| answer.position.is_none() && !answer.duplicate));
    let handled = join_all(tasks).await.into_iter().map(Result::unwrap);
    let mut texts: Vec<String> = handled.flatten().collect();
    texts.sort_unstable();
    assert_eq!(texts, (0..JOBS).map(|n| format!("{n:03}")).collect::<Vec<_>>());
    cx.counts(&queue, [0, 0, 0, 0]).await;
}

pub(in super::super) async fn consumers_of_both_nodes_share(cx: Context) {
    let queue = cx.queue("work", "a");
    let workers = [cx.worker(0, &queue, 1).await, cx.worker(1, &queue, 1).await];
    for text in ["one", "two", "three"] {
        cx.enqueue(0, &queue.channel, text).await;
    }
    let first = workers[0].next().await;
    let second = workers[1].next().await;
    assert_ne!(first.id, second.id);
    for worker in &workers {
        worker.quiet().await;
    }
    workers[1].ack(&second).await;
    workers[1].expect("three", 1).await;
    workers[0].quiet().await;
}

pub(in super::super) async fn jobs_published_before_any_consumer_wait_for_one(cx: Context) {
    let queue = cx.queue("work", "a");
    for (node, text) in ["one", "two", "three"].iter().enumerate() {
        cx.enqueue(node, &queue.channel, text).await;
    }
    cx.counts(&queue, [3, 0, 0, 0]).await;
    let worker = cx.worker(1, &queue, 3).await;
    for text in ["one", "two", "three"] {
        worker.work(text).await;
    }
    worker.quiet().await;
}

pub(in super::super) async fn credit_bounds_what_is_unsettled_and_an_ack_brings_the_next(cx: Context) {
    let queue = cx.queue("work", "a");
    let worker = cx.worker(1, &queue, 2).await;
    for text in ["one", "two", "three", "four"] {
        cx.enqueue(0, &queue.channel, text).await;
    }
    let (one, two) = (worker.expect("one", 1).await, worker.expect("two", 1).await);
    worker.quiet().await;
    cx.counts(&queue, [2, 2, 0, 0]).await;
    worker.ack(&two).await;
    worker.expect("three", 1).await;
    worker.quiet().await;
    worker.ack(&one).await;
    worker.expect("four", 1).await;
    cx.counts(&queue, [0, 2, 0, 0]).await;
}

pub(in super::super) async fn jobs_are_first_handed_out_in_the_order_of_their_publishes(cx: Context) {
    let queue = cx.queue("work", "a");
    let worker = cx.worker(0, &queue, 100).await;
    for n in 0..40 {
        cx.enqueue(n, &queue.channel, &n.to_string()).await;
    }
    for n in 0..40 {
        worker.expect(&n.to_string(), 1).await;
    }
}

pub(in super::super) async fn who_stopped_gets_nothing_more(cx: Context) {
    let queue = cx.queue("work", "a");
    let worker = cx.worker(0, &queue, 5).await;
    cx.enqueue(1, &queue.channel, "one").await;
    worker.work("one").await;
    worker.stop(true);
    cx.no_consumers(&queue).await;
    cx.enqueue(1, &queue.channel, "two").await;
    worker.quiet().await;
    cx.counts(&queue, [1, 0, 0, 0]).await;
    worker.consume(5).await;
    worker.work("two").await;
}
