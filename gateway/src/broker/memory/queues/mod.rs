//! Work queues in memory.
//!
//! Owns: the [`Machine`](machine::Machine) that each queue is, all of them with when they are due, and the task that
//! wakes up then. Never does: keep time, lock or deliver inside a queue.
//!
//! Invariants: jobs count as bytes and are never evicted; a queue is brought up to date before anybody looks at it, so
//! that nothing but the hour of a redelivery depends on the task.

mod consumers;
mod job;
mod keys;
mod machine;
#[cfg(test)]
mod machine_tests;
mod outcome;
mod registry;
mod store;
#[cfg(test)]
mod tests;
mod timer;

use futures_util::future::BoxFuture;

pub(super) use registry::Registry;
pub(super) use timer::run;

use super::MemoryBroker;
use crate::broker::{
    BrokerError, SinkId,
    queue::{
        Consume, ConsumerId, DeliveryId, QueueName, QueuePage, QueueQuery, QueueStats, QueuedJob, Queues,
        Settle, Settled, Shelf,
    },
};

type Answer<T> = BoxFuture<'static, Result<T, BrokerError>>;

impl Queues for MemoryBroker {
    fn consume(&self, sink: SinkId, consume: Consume) -> Answer<()> {
        self.now(|state, now_ms| state.store.consume(sink, &consume, now_ms))
    }

    fn stop_consuming(&self, queue: &QueueName, consumer: ConsumerId, release: bool) {
        // The work is done, or the broker stopped and has no consumers any more.
        drop(self.now(|state, now_ms| {
            state.store.with_queue(queue, now_ms, |machine, policy| {
                machine.stop_consuming(consumer, release, policy);
            });
            Ok(())
        }));
    }

    fn settle(
        &self,
        queue: &QueueName,
        session: &str,
        deliveries: Vec<(DeliveryId, Settle)>,
    ) -> Answer<Vec<Settled>> {
        self.now(|state, now_ms| Ok(state.store.settle(queue, session, &deliveries, now_ms)))
    }

    fn queue_stats(&self, queue: &QueueName) -> Answer<Option<QueueStats>> {
        self.now(|state, now_ms| Ok(state.store.queue_stats(queue, now_ms)))
    }

    fn queues(&self, query: QueueQuery) -> Answer<QueuePage> {
        self.now(|state, now_ms| Ok(state.store.queue_page(&query, now_ms)))
    }

    fn peek(&self, queue: &QueueName, shelf: Shelf, limit: usize) -> Answer<Vec<QueuedJob>> {
        self.now(|state, now_ms| {
            let jobs = state.store.with_queue(queue, now_ms, |machine, _| machine.peek(shelf, limit));
            Ok(jobs.unwrap_or_default())
        })
    }

    fn redrive(&self, queue: &QueueName, limit: u64) -> Answer<u64> {
        self.now(|state, now_ms| Ok(state.store.redrive(queue, limit, now_ms)))
    }

    fn purge(&self, queue: &QueueName, shelf: Shelf) -> Answer<u64> {
        self.now(|state, now_ms| {
            let count = state.store.with_queue(queue, now_ms, |machine, _| machine.purge(shelf));
            Ok(count.unwrap_or_default())
        })
    }

    fn remove_group(&self, queue: &QueueName) -> Answer<()> {
        self.now(|state, _| {
            state.store.queues.remove(queue);
            Ok(())
        })
    }
}
