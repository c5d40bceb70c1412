//! What only the memory broker promises of queues: its budget, its timer, and what it forgets.

use std::{sync::Arc, time::Duration};

use tokio::{runtime::Handle, sync::mpsc, task::yield_now, time};

use crate::{
    broker::{
        Broker as _, BrokerError, Delivery, Publish, Sink, SinkId, Stored,
        memory::{MemoryBroker, MemoryOptions},
        queue::{
            Consume, ConsumerId, Group, Job, JobOptions, QueueName, QueueQuery, QueueStats, Queues as _,
            Settle, Settled, Shelf,
        },
    },
    channel::Channel,
    policy::{ChannelPolicy, Policies, PolicyRule, QueuePolicy},
};

const VISIBLE: Duration = Duration::from_secs(30);

/// Channels `jobs.…` are queues whose jobs die of their second deadline; `loop` is one that is its own dead letter channel.
fn broker(max_bytes: usize) -> MemoryBroker {
    let queue = QueuePolicy { channel_is_queue: true, max_attempts: 2, ..QueuePolicy::default() };
    let own = QueuePolicy { dead_letter: Some(name("loop").channel), max_attempts: 1, ..queue.clone() };
    let rule = |pattern: &str, queue| {
        let policy = Arc::new(ChannelPolicy { queue, ..ChannelPolicy::default() });
        PolicyRule { pattern: pattern.into(), policy }
    };
    let policies = Policies::new(vec![rule("jobs.**", queue), rule("loop", own)], ChannelPolicy::default());
    MemoryBroker::new(policies, MemoryOptions { max_bytes, ..MemoryOptions::default() })
}

fn name(channel: &str) -> QueueName {
    QueueName { channel: Channel::parse(channel).unwrap(), group: Group::default() }
}

fn job(channel: &str, size: usize, delay: Duration) -> Publish {
    Publish {
        channel: Channel::parse(channel).unwrap(),
        stored: Stored { id: vec![1; 16].into(), event: vec![7; size].into(), ..Stored::default() },
        user_id: String::new(),
        idempotency_key: None,
        transient: false,
        job: JobOptions { delay: Some(delay), ordering_key: None },
    }
}

struct Jobs(mpsc::UnboundedSender<Arc<Job>>);

impl Sink for Jobs {
    fn deliver(&self, delivery: Delivery) {
        if let Delivery::Job(job) = delivery {
            self.0.send(job).unwrap();
        }
    }
}

/// A consumer of the session `s`; its jobs come out of the channel.
async fn consume(broker: &MemoryBroker, queue: &QueueName, credit: u32) -> mpsc::UnboundedReceiver<Arc<Job>> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let sink = broker.attach(Arc::new(Jobs(sender)));
    let (queue, consumer) = (queue.clone(), ConsumerId(u64::from(sink.0)));
    broker.consume(sink, Consume { queue, consumer, session: "s".into(), credit }).await.unwrap();
    receiver
}

async fn settle(broker: &MemoryBroker, job: &Job, settle: Settle) -> Settled {
    broker.settle(&job.id.queue, "s", vec![(job.id.clone(), settle)]).await.unwrap()[0]
}

#[tokio::test(start_paused = true)]
async fn jobs_are_never_evicted_and_history_is() {
    let (broker, queue) = (broker(100_000), name("jobs.a"));
    let publish = |channel| broker.publish(job(channel, 1_000, Duration::ZERO));
    while broker.used_bytes() < 90_000 {
        publish("history").await.unwrap();
    }
    let mut taken = 0;
    let refused = loop {
        match publish("jobs.a").await {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
        assert!(broker.used_bytes() <= 100_000);
    };
    assert!(matches!(refused, BrokerError::MemoryLimit { used, .. } if used > 95_000), "{refused}");
    assert!(taken > 50, "{taken}");
    assert_eq!(broker.queue_stats(&queue).await.unwrap().unwrap().ready, taken);
    let mut jobs = consume(&broker, &queue, 1_000).await;
    let first = jobs.recv().await.unwrap();
    for _ in 1..taken {
        assert_eq!(settle(&broker, &jobs.recv().await.unwrap(), Settle::Ack).await, Settled::Done);
    }
    assert_eq!(settle(&broker, &first, Settle::Ack).await, Settled::Done);
    publish("jobs.a").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_group_that_does_not_fit_is_refused() {
    let broker = broker(2_000);
    let consume = |channel: &str| {
        let (queue, consumer) = (name(channel), ConsumerId(1));
        broker.consume(SinkId(0), Consume { queue, consumer, session: "s".into(), credit: 1 })
    };
    consume("a").await.unwrap();
    assert!(matches!(consume("b").await, Err(BrokerError::MemoryLimit { .. })));
    consume("a").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn memory_queues_are_served_at_the_very_time() {
    let (broker, queue) = (broker(1_000_000), name("jobs.a"));
    let mut jobs = consume(&broker, &queue, 5).await;
    let start = time::Instant::now();
    broker.publish(job("jobs.a", 1, Duration::from_secs(40))).await.unwrap();
    // One that is due before the one that is waited for.
    broker.publish(job("jobs.a", 1, Duration::from_secs(5))).await.unwrap();
    let rounded = |start: time::Instant| (start.elapsed() + Duration::from_millis(5)).as_secs();
    let mut seen = Vec::new();
    for _ in 0..4 {
        let job = jobs.recv().await.unwrap();
        seen.push((rounded(start), job.id.attempt));
    }
    assert_eq!(seen, [(5, 1), (35, 2), (40, 1), (70, 2)]);
    time::sleep(VISIBLE * 2).await;
    let stats = broker.queue_stats(&queue).await.unwrap().unwrap();
    assert_eq!((stats.dead, stats.in_flight, stats.ready), (2, 0, 0));
    assert!(jobs.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn the_timer_ends_with_the_broker() {
    for stop in [true, false] {
        let broker = broker(1_000_000);
        broker.publish(job("jobs.a", 1, Duration::from_secs(40))).await.unwrap();
        let _jobs = consume(&broker, &name("jobs.a"), 5).await;
        yield_now().await;
        assert_eq!(Handle::current().metrics().num_alive_tasks(), 2);
        if stop {
            broker.shutdown().await;
            let asked = broker.queue_stats(&name("jobs.a")).await;
            assert_eq!(asked, Err(BrokerError::Stopped));
            broker.stop_consuming(&name("jobs.a"), ConsumerId(0), true);
        }
        drop(broker);
        time::sleep(Duration::from_millis(10)).await;
        assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_default_group_is_forgotten() {
    let (broker, queue) = (broker(1_000_000), name("jobs.a"));
    let all = || broker.queues(QueueQuery { channels: None, after: None, limit: 10 });
    let mut jobs = consume(&broker, &queue, 5).await;
    broker.publish(job("jobs.a", 1, Duration::ZERO)).await.unwrap();
    settle(&broker, &jobs.recv().await.unwrap(), Settle::Ack).await;
    time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(all().await.unwrap().queues.len(), 1);
    broker.stop_consuming(&queue, ConsumerId(0), true);
    time::sleep(Duration::from_secs(3_600)).await;
    assert!(all().await.unwrap().queues.is_empty());
    assert_eq!(broker.queue_stats(&queue).await.unwrap(), Some(QueueStats::default()));
    assert_eq!(broker.used_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_queue_is_not_its_own_dead_letter_channel() {
    let (broker, queue) = (broker(1_000_000), name("loop"));
    let mut jobs = consume(&broker, &queue, 1).await;
    broker.publish(job("loop", 1, Duration::ZERO)).await.unwrap();
    let job = jobs.recv().await.unwrap();
    assert_eq!(settle(&broker, &job, Settle::Nack { delay: Duration::ZERO }).await, Settled::Done);
    let stats = broker.queue_stats(&queue).await.unwrap().unwrap();
    assert_eq!((stats.dead, stats.ready, stats.in_flight), (1, 0, 0));
    assert_eq!(broker.peek(&queue, Shelf::Dead, 9).await.unwrap().len(), 1);
}
