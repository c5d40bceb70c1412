//! What is asked of queues, with their policies and the budget of bytes.

use super::{machine::Machine, registry::Registry};
use crate::{
    broker::{
        BrokerError, SinkId,
        memory::store::Store,
        queue::{Consume, DeliveryId, Group, QueueName, QueuePage, QueueQuery, QueueStats, Settle, Settled},
    },
    channel::{Channel, Target, glob},
    policy::QueuePolicy,
};

impl Store {
    /// Changes or looks at a queue; `None` if there is none.
    pub(super) fn with_queue<T>(
        &mut self,
        name: &QueueName,
        now_ms: u64,
        work: impl FnOnce(&mut Machine, &QueuePolicy) -> T,
    ) -> Option<T> {
        let policy = self.policies.of(name.channel.as_str());
        self.queues.with(name, &policy.queue, now_ms, |machine, _| work(machine, &policy.queue))
    }

    pub(super) fn consume(
        &mut self,
        sink: SinkId,
        consume: &Consume,
        now_ms: u64,
    ) -> Result<(), BrokerError> {
        if !self.queues.contains(&consume.queue) {
            self.make_room(Registry::queue_bytes(&consume.queue), now_ms)?;
            self.queues.create(&consume.queue, now_ms);
        }
        self.with_queue(&consume.queue, now_ms, |machine, _| machine.consume(sink, consume));
        Ok(())
    }

    pub(super) fn settle(
        &mut self,
        queue: &QueueName,
        session: &str,
        deliveries: &[(DeliveryId, Settle)],
        now_ms: u64,
    ) -> Vec<Settled> {
        let settled = self.with_queue(queue, now_ms, |machine, policy| {
            let one = |(id, settle): &(DeliveryId, Settle)| {
                if id.queue == *queue {
                    machine.settle(session, id, *settle, policy, now_ms)
                } else {
                    Settled::Gone
                }
            };
            deliveries.iter().map(one).collect()
        });
        settled.unwrap_or_else(|| vec![Settled::Gone; deliveries.len()])
    }

    /// How a queue is doing. The default group of a queue channel is always there, even when it was forgotten.
    pub(super) fn queue_stats(&mut self, queue: &QueueName, now_ms: u64) -> Option<QueueStats> {
        let stats = self.with_queue(queue, now_ms, |machine, _| machine.stats(now_ms));
        stats.or_else(|| {
            let policy = self.policies.of(queue.channel.as_str());
            let always = policy.queue.channel_is_queue && queue.group == Group::default();
            always.then(QueueStats::default)
        })
    }

    pub(super) fn redrive(&mut self, queue: &QueueName, limit: u64, now_ms: u64) -> u64 {
        let policy = self.policies.of(queue.channel.as_str());
        let redriven = self.queues.with(queue, &policy.queue, now_ms, |machine, number| {
            machine.redrive(limit, &policy.queue, now_ms, number)
        });
        redriven.unwrap_or_default()
    }

    pub(super) fn queue_page(&mut self, query: &QueueQuery, now_ms: u64) -> QueuePage {
        let prefix = match &query.channels {
            None => "",
            Some(Target::Channel(channel)) => channel.as_str(),
            Some(Target::Pattern(pattern)) => pattern.literal_prefix(),
        };
        let wanted = |name: &QueueName| {
            query.channels.as_ref().is_none_or(|target| glob(target.as_str(), name.channel.as_str()))
        };
        let names = self.queues.names(prefix, query.after.as_ref()).filter(wanted);
        let mut names: Vec<QueueName> = names.take(query.limit.saturating_add(1)).collect();
        let more = names.len() > query.limit;
        names.truncate(query.limit);
        let with_stats = |name: QueueName| {
            let stats = self.with_queue(&name, now_ms, |machine, _| machine.stats(now_ms))?;
            Some((name, stats))
        };
        QueuePage { queues: names.into_iter().filter_map(with_stats).collect(), more }
    }

    /// Brings the queues that are due up to date.
    pub(super) fn run_due_queues(&mut self, now_ms: u64) {
        while let Some(name) = self.queues.next_due(now_ms) {
            self.with_queue(&name, now_ms, |_, _| ());
        }
    }

    /// Forgets queues that nobody would miss.
    pub(in crate::broker::memory) fn forget_idle_queues(&mut self, now_ms: u64) {
        let policies = &self.policies;
        let is_queue = |channel: &Channel| policies.of(channel.as_str()).queue.channel_is_queue;
        self.queues.forget_idle(is_queue, now_ms);
    }
}
