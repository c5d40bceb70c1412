//! A consumer that does what a case says.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::super::context::{Context, Listener, PATIENCE, eventually, message, text};
use crate::{
    broker::{
        Broker, Delivery, Publish, Published,
        queue::{
            Consume, ConsumerId, DeliveryId, Group, Job, JobOptions, QueueName, QueueStats, Settle, Settled,
        },
    },
    channel::Channel,
};

/// How long is waited for what must not come.
pub(super) const QUIET: Duration = Duration::from_millis(300);

/// One consumer of a queue, with its jobs.
pub(super) struct Worker {
    listener: Listener,
    queue: QueueName,
    consumer: ConsumerId,
    pub(super) session: String,
}

impl Context {
    /// The default group of a channel of this case.
    pub(super) fn queue(&self, policy: &str, rest: &str) -> QueueName {
        QueueName { channel: self.channel(policy, rest), group: Group::default() }
    }

    /// A consumer of a session of its own, at a node.
    pub(super) async fn worker(&self, node: usize, queue: &QueueName, credit: u32) -> Worker {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let consumer = ConsumerId(LAST.fetch_add(1, Ordering::Relaxed) + 1);
        let session = format!("worker-{}-{}", queue.channel, consumer.0);
        let worker = Worker { listener: self.listener(node), queue: queue.clone(), consumer, session };
        worker.consume(credit).await;
        worker
    }

    /// Publishes a job as it comes, through a node.
    pub(super) async fn enqueue(&self, node: usize, channel: &Channel, text: &str) -> Published {
        self.node(node).publish(message(channel, text)).await.unwrap()
    }

    /// Publishes a job with options, through the first node.
    pub(super) async fn enqueue_with(&self, channel: &Channel, text: &str, options: JobOptions) {
        let published = self.node(0).publish(job(channel, text, options)).await.unwrap();
        assert!(!published.duplicate);
    }

    /// Publishes a job with an ordering key.
    pub(super) async fn enqueue_keyed(&self, node: usize, channel: &Channel, text: &str, key: &str) {
        let options = JobOptions { ordering_key: Some(key.to_owned()), ..JobOptions::default() };
        self.node(node).publish(job(channel, text, options)).await.unwrap();
    }

    /// How a queue is doing, as a node sees it; all zero if there is none.
    pub(super) async fn stats(&self, node: usize, queue: &QueueName) -> QueueStats {
        self.node(node).queue_stats(queue).await.unwrap().unwrap_or_default()
    }

    /// Waits until the numbers of jobs (ready, in flight, delayed, dead) are these at both nodes.
    pub(super) async fn counts(&self, queue: &QueueName, expected: [u64; 4]) {
        for node in 0..2 {
            let mut last = None;
            let deadline = tokio::time::Instant::now() + PATIENCE;
            while last != Some(expected) {
                assert!(tokio::time::Instant::now() < deadline, "{last:?} instead of {expected:?}");
                let QueueStats { ready, in_flight, delayed, dead, .. } = self.stats(node, queue).await;
                last = Some([ready, in_flight, delayed, dead]);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// Waits until nobody consumes any more.
    pub(super) async fn no_consumers(&self, queue: &QueueName) {
        eventually(|| async { (self.stats(1, queue).await.consumers == 0).then_some(()) }).await;
    }
}

impl Worker {
    /// Consumes, again if it did before.
    pub(super) async fn consume(&self, credit: u32) {
        let (queue, session) = (self.queue.clone(), self.session.clone());
        let consume = Consume { queue, consumer: self.consumer, session, credit };
        self.listener.node.consume(self.listener.id, consume).await.unwrap();
    }

    /// The next job, if it comes in time.
    pub(super) async fn next_within(&self, patience: Duration) -> Option<Arc<Job>> {
        match self.listener.recorder.next(patience).await? {
            Delivery::Job(job) => {
                assert_eq!((job.consumer, &job.id.queue), (self.consumer, &self.queue));
                assert_eq!(job.publication.channel, self.queue.channel);
                assert_eq!(DeliveryId::parse(&job.id.to_string()).as_ref(), Ok(&job.id));
                Some(job)
            }
            other => panic!("{other:?} instead of a job"),
        }
    }

    /// The next job, which must come.
    pub(super) async fn next(&self) -> Arc<Job> {
        self.next_within(PATIENCE).await.unwrap_or_else(|| panic!("no job within {PATIENCE:?}"))
    }

    /// The next job, which must be this one, in that attempt.
    pub(super) async fn expect(&self, expected: &str, attempt: u32) -> Arc<Job> {
        let job = self.next().await;
        assert_eq!((text(&job.publication).as_str(), job.id.attempt), (expected, attempt));
        job
    }

    /// Nothing comes for a moment.
    pub(super) async fn quiet(&self) {
        if let Some(job) = self.next_within(QUIET).await {
            panic!("{job:?} where no job should come");
        }
    }

    /// Settles one delivery at the own node.
    pub(super) async fn settle(&self, job: &Job, settle: Settle) -> Settled {
        self.settle_at(self.listener.node.as_ref(), job, settle).await
    }

    /// Settles one delivery at a node.
    pub(super) async fn settle_at(&self, node: &dyn Broker, job: &Job, settle: Settle) -> Settled {
        let answer = node.settle(&self.queue, &self.session, vec![(job.id.clone(), settle)]).await.unwrap();
        let [settled] = answer.as_slice() else { panic!("{answer:?} for one delivery") };
        *settled
    }

    /// Acks, which must be possible.
    pub(super) async fn ack(&self, job: &Job) {
        assert_eq!(self.settle(job, Settle::Ack).await, Settled::Done, "{job:?}");
    }

    /// Gives back, which must be possible.
    pub(super) async fn nack(&self, job: &Job, delay: Duration) {
        assert_eq!(self.settle(job, Settle::Nack { delay }).await, Settled::Done, "{job:?}");
    }

    /// Takes and acks the next job, which must be this one in its first attempt.
    pub(super) async fn work(&self, expected: &str) {
        let job = self.expect(expected, 1).await;
        self.ack(&job).await;
    }

    /// Consumes no more.
    pub(super) fn stop(&self, release: bool) {
        self.listener.node.stop_consuming(&self.queue, self.consumer, release);
    }
}

/// A publish of `text` with options.
pub(super) fn job(channel: &Channel, text: &str, options: JobOptions) -> Publish {
    Publish { job: options, ..message(channel, text) }
}
