//! Groups: on queue channels and on ordinary ones.

use super::super::context::{Context, all_of, offsets};
use crate::broker::{
    Start,
    queue::{Group, QueueName, Settle, Settled},
};

impl Context {
    fn group(&self, policy: &str, rest: &str, group: &str) -> QueueName {
        QueueName { channel: self.channel(policy, rest), group: Group::parse(group).unwrap() }
    }
}

pub(in super::super) async fn a_group_on_an_ordinary_channel_takes_nothing_from_subscribers(cx: Context) {
    let group = cx.group("keep", "a", "mail");
    let channel = &group.channel;
    let early = cx.publish(0, channel, "early").await;
    let listener = cx.listener(1);
    listener.channel(channel, Start::Live).await;
    let workers = [cx.worker(0, &group, 1).await, cx.worker(1, &group, 1).await];
    let one = cx.publish(0, channel, "one").await;
    let two = cx.publish(1, channel, "two").await;
    assert_eq!((listener.next_position().await, listener.next_position().await), (one, two));
    let jobs = [workers[0].next().await, workers[1].next().await];
    let mut positions = jobs.each_ref().map(|job| job.publication.position.unwrap());
    positions.sort_unstable();
    assert_eq!(positions, [one, two]);
    for (worker, job) in workers.iter().zip(&jobs) {
        worker.ack(job).await;
        // Nor is there anything of before the group began.
        worker.quiet().await;
    }
    assert_eq!(offsets(&cx.history(0, all_of(channel)).await.publications), [1, 2, 3]);
    assert_eq!(listener.recover(channel, early).await, (vec![2, 3], None));
    assert!(listener.recorder.drain().is_empty());
}

pub(in super::super) async fn the_backlog_of_a_group_waits_while_it_has_no_consumer(cx: Context) {
    let group = cx.group("none", "a", "mail");
    let worker = cx.worker(0, &group, 2).await;
    worker.stop(true);
    cx.no_consumers(&group).await;
    for text in ["one", "two"] {
        cx.enqueue(1, &group.channel, text).await;
    }
    cx.counts(&group, [2, 0, 0, 0]).await;
    let worker = cx.worker(1, &group, 2).await;
    worker.work("one").await;
    worker.work("two").await;
}

pub(in super::super) async fn each_group_gets_a_job_of_its_own(cx: Context) {
    let (mail, audit) = (cx.group("keep", "a", "mail"), cx.group("keep", "a", "audit"));
    // The channel before has a group of the same name.
    let near = cx.worker(0, &cx.group("keep", "a.b", "mail"), 1).await;
    let workers = [cx.worker(0, &mail, 1).await, cx.worker(1, &audit, 1).await];
    cx.publish(0, &mail.channel, "one").await;
    let jobs = [workers[0].expect("one", 1).await, workers[1].expect("one", 1).await];
    workers[0].ack(&jobs[0]).await;
    cx.counts(&audit, [0, 1, 0, 0]).await;
    workers[1].ack(&jobs[1]).await;
    near.quiet().await;
}

pub(in super::super) async fn a_queue_channel_has_a_group_that_nobody_began_and_takes_others(cx: Context) {
    let (queue, audit) = (cx.queue("work", "a"), cx.group("work", "a", "audit"));
    cx.enqueue(0, &queue.channel, "one").await;
    let auditor = cx.worker(1, &audit, 5).await;
    cx.enqueue(0, &queue.channel, "two").await;
    auditor.work("two").await;
    let worker = cx.worker(0, &queue, 5).await;
    worker.work("one").await;
    worker.work("two").await;
}

pub(in super::super) async fn a_queue_channel_keeps_no_history_and_delivers_to_no_subscriber(cx: Context) {
    let queue = cx.queue("work", "a");
    let listener = cx.listener(1);
    let subscribed = listener.channel(&queue.channel, Start::Live).await;
    assert!(subscribed.positions.is_empty(), "{:?}", subscribed.positions);
    listener.pattern(&cx.pattern("work", "**"), Start::Live).await;
    let worker = cx.worker(0, &queue, 1).await;
    assert_eq!(cx.enqueue(1, &queue.channel, "one").await.position, None);
    let job = worker.expect("one", 1).await;
    assert_eq!(job.publication.position, None);
    worker.ack(&job).await;
    let page = cx.history(1, all_of(&queue.channel)).await;
    assert!(page.publications.is_empty() && page.position.is_none());
    let stray = listener.recorder.next(super::QUIET).await;
    assert!(stray.is_none(), "{stray:?}");
}

pub(in super::super) async fn a_group_that_is_removed_is_gone_with_its_jobs(cx: Context) {
    let group = cx.group("keep", "a", "mail");
    let worker = cx.worker(0, &group, 1).await;
    for text in ["one", "two"] {
        cx.publish(0, &group.channel, text).await;
    }
    let one = worker.expect("one", 1).await;
    cx.node(1).remove_group(&group).await.unwrap();
    assert_eq!(cx.node(0).queue_stats(&group).await.unwrap(), None);
    assert_eq!(worker.settle(&one, Settle::Ack).await, Settled::Gone);
    cx.publish(0, &group.channel, "three").await;
    worker.quiet().await;
    assert_eq!(cx.node(1).queue_stats(&group).await.unwrap(), None);
    worker.consume(1).await;
    cx.publish(1, &group.channel, "four").await;
    worker.work("four").await;
    // To remove what is not there is no error.
    cx.node(1).remove_group(&cx.group("keep", "a", "other")).await.unwrap();
}

pub(in super::super) async fn a_removed_default_group_is_there_again_with_the_next_publish(cx: Context) {
    let queue = cx.queue("work", "a");
    cx.enqueue(0, &queue.channel, "one").await;
    cx.node(1).remove_group(&queue).await.unwrap();
    cx.counts(&queue, [0, 0, 0, 0]).await;
    cx.enqueue(0, &queue.channel, "two").await;
    let worker = cx.worker(1, &queue, 5).await;
    worker.work("two").await;
    worker.quiet().await;
}
