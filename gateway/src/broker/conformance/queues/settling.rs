//! Acks and nacks, of the right ones and of others.

use std::time::Duration;

use super::{super::context::Context, Worker};
use crate::broker::queue::{DeliveryId, QueueName, Settle, Settled};

/// Two workers of one queue with a job each, of a long visibility.
async fn two(cx: &Context, queue: &QueueName) -> [Worker; 2] {
    let workers = [cx.worker(0, queue, 1).await, cx.worker(1, queue, 1).await];
    for text in ["one", "two"] {
        cx.enqueue(0, &queue.channel, text).await;
    }
    workers
}

pub(in super::super) async fn a_second_ack_is_told_apart(cx: Context) {
    let queue = cx.queue("work", "a");
    let worker = cx.worker(0, &queue, 1).await;
    cx.enqueue(0, &queue.channel, "one").await;
    let job = worker.expect("one", 1).await;
    worker.ack(&job).await;
    for settle in [Settle::Ack, Settle::Nack { delay: Duration::ZERO }, Settle::Extend { by: None }] {
        assert_eq!(worker.settle(&job, settle).await, Settled::Gone, "{settle:?}");
        assert_eq!(worker.settle_at(cx.node(1).as_ref(), &job, settle).await, Settled::Gone, "{settle:?}");
    }
    worker.quiet().await;
    cx.counts(&queue, [0, 0, 0, 0]).await;
}

pub(in super::super) async fn the_delivery_of_another_session_is_told_apart(cx: Context) {
    let queue = cx.queue("work", "a");
    let [worker, other] = two(&cx, &queue).await;
    let (job, _others) = (worker.next().await, other.next().await);
    for settle in [Settle::Ack, Settle::Nack { delay: Duration::ZERO }, Settle::Extend { by: None }] {
        assert_eq!(other.settle(&job, settle).await, Settled::NotYours, "{settle:?}");
    }
    cx.counts(&queue, [0, 2, 0, 0]).await;
    worker.ack(&job).await;
}

pub(in super::super) async fn a_job_given_back_comes_again_with_the_next_attempt(cx: Context) {
    let queue = cx.queue("work", "a");
    let worker = cx.worker(1, &queue, 1).await;
    cx.enqueue(0, &queue.channel, "one").await;
    let first = worker.expect("one", 1).await;
    worker.nack(&first, Duration::ZERO).await;
    let second = worker.expect("one", 2).await;
    assert_eq!(second.id, DeliveryId { attempt: 2, ..first.id.clone() });
    assert_eq!(second.publication, first.publication);
    worker.ack(&second).await;
    worker.quiet().await;
    cx.counts(&queue, [0, 0, 0, 0]).await;
}

pub(in super::super) async fn a_former_delivery_changes_nothing(cx: Context) {
    let queue = cx.queue("work", "a");
    let worker = cx.worker(0, &queue, 1).await;
    cx.enqueue(0, &queue.channel, "one").await;
    let former = worker.expect("one", 1).await;
    worker.nack(&former, Duration::ZERO).await;
    let latest = worker.expect("one", 2).await;
    let nack = Settle::Nack { delay: Duration::ZERO };
    for settle in [Settle::Ack, nack, Settle::Extend { by: None }] {
        assert_eq!(worker.settle(&former, settle).await, Settled::Expired, "{settle:?}");
    }
    worker.quiet().await;
    cx.counts(&queue, [0, 1, 0, 0]).await;
    // Given back, and not handed out again yet: it is nobody's.
    worker.nack(&latest, Duration::from_secs(100)).await;
    for settle in [Settle::Ack, nack, Settle::Extend { by: None }] {
        assert_eq!(worker.settle(&latest, settle).await, Settled::Expired, "{settle:?}");
    }
    cx.counts(&queue, [0, 0, 1, 0]).await;
}

pub(in super::super) async fn each_delivery_is_answered_in_its_place(cx: Context) {
    let queue = cx.queue("work", "a");
    let [worker, other] = two(&cx, &queue).await;
    let (job, others) = (worker.next().await, other.next().await);
    let never = DeliveryId { job: "1-1".to_owned(), ..job.id.clone() };
    let ids = [&job.id, &others.id, &job.id, &never];
    let deliveries: Vec<_> = ids.into_iter().map(|id| (id.clone(), Settle::Ack)).collect();
    let answer = cx.node(1).settle(&queue, &worker.session, deliveries.clone()).await.unwrap();
    assert_eq!(answer, [Settled::Done, Settled::NotYours, Settled::Gone, Settled::Gone]);
    // Said again, it is answered and changes nothing.
    let answer = cx.node(0).settle(&queue, &worker.session, deliveries).await.unwrap();
    assert_eq!(answer, [Settled::Gone, Settled::NotYours, Settled::Gone, Settled::Gone]);
    assert_eq!(cx.node(0).settle(&queue, &worker.session, Vec::new()).await.unwrap(), []);
    let nowhere = cx.queue("work", "nowhere");
    let id = DeliveryId { queue: nowhere.clone(), ..job.id.clone() };
    let answer = cx.node(0).settle(&nowhere, &worker.session, vec![(id, Settle::Ack)]).await.unwrap();
    assert_eq!(answer, [Settled::Gone]);
    other.ack(&others).await;
}

pub(in super::super) async fn a_delivery_is_settled_through_any_node(cx: Context) {
    let queue = cx.queue("work", "a");
    let worker = cx.worker(0, &queue, 1).await;
    for text in ["one", "two", "three"] {
        cx.enqueue(0, &queue.channel, text).await;
    }
    let elsewhere = cx.node(1).as_ref();
    let one = worker.expect("one", 1).await;
    assert_eq!(worker.settle_at(elsewhere, &one, Settle::Ack).await, Settled::Done);
    // Its credit is free again all the same.
    let two = worker.expect("two", 1).await;
    let nack = Settle::Nack { delay: Duration::from_secs(100) };
    assert_eq!(worker.settle_at(elsewhere, &two, nack).await, Settled::Done);
    let three = worker.expect("three", 1).await;
    assert_eq!(worker.settle_at(elsewhere, &three, Settle::Extend { by: None }).await, Settled::Done);
    cx.counts(&queue, [0, 1, 1, 0]).await;
    worker.ack(&three).await;
}

pub(in super::super) async fn what_is_released_goes_to_another_at_once(cx: Context) {
    let queue = cx.queue("work", "a");
    let worker = cx.worker(0, &queue, 1).await;
    cx.enqueue(1, &queue.channel, "one").await;
    let former = worker.expect("one", 1).await;
    let other = cx.worker(1, &queue, 1).await;
    worker.stop(true);
    let job = other.expect("one", 2).await;
    assert_eq!(worker.settle(&former, Settle::Ack).await, Settled::Expired);
    other.ack(&job).await;
    cx.counts(&queue, [0, 0, 0, 0]).await;
}

pub(in super::super) async fn who_stopped_may_still_settle_through_any_node(cx: Context) {
    let queue = cx.queue("work", "a");
    let worker = cx.worker(0, &queue, 2).await;
    for text in ["one", "two"] {
        cx.enqueue(1, &queue.channel, text).await;
    }
    let (one, two) = (worker.expect("one", 1).await, worker.expect("two", 1).await);
    let other = cx.worker(1, &queue, 2).await;
    worker.stop(false);
    other.quiet().await;
    cx.counts(&queue, [0, 2, 0, 0]).await;
    assert_eq!(worker.settle_at(cx.node(1).as_ref(), &one, Settle::Ack).await, Settled::Done);
    worker.nack(&two, Duration::ZERO).await;
    let again = other.expect("two", 2).await;
    other.ack(&again).await;
    cx.counts(&queue, [0, 0, 0, 0]).await;
}
