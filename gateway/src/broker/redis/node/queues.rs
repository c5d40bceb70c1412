//! Work queues: the task of the channel's partition takes what belongs to consumers, the rest needs no order.

use futures_util::future::FutureExt as _;
use tokio::sync::oneshot;

use super::{Answer, RedisBroker, answered, failed};
use crate::broker::{
    BrokerError, SinkId,
    queue::{
        Consume, ConsumerId, DeliveryId, QueueName, QueuePage, QueueQuery, QueueStats, QueuedJob, Queues,
        Settle, Settled, Shelf,
    },
    redis::queues::{Admin, Request, queues},
};

impl RedisBroker {
    fn ask_desk(&self, queue: &QueueName, request: Request) -> Result<(), BrokerError> {
        let desk =
            self.desks.get(self.keys.partition_of(queue.channel.as_str())).ok_or(BrokerError::Stopped)?;
        desk.send(request).map_err(|_| BrokerError::Stopped)
    }

    fn admin(&self, partition: usize) -> Result<Admin, BrokerError> {
        Ok(Admin { caller: self.caller(partition)?, inbox_max: self.inbox_max })
    }

    fn admin_of(&self, queue: &QueueName) -> Result<Admin, BrokerError> {
        self.admin(self.keys.partition_of(queue.channel.as_str()))
    }
}

impl Queues for RedisBroker {
    fn consume(&self, sink: SinkId, consume: Consume) -> Answer<()> {
        let (reply, answer) = oneshot::channel();
        let queue = consume.queue.clone();
        let asked = self
            .must_have_started()
            .and_then(|()| self.ask_desk(&queue, Request::Consume { sink, consume, reply }));
        asked.map_or_else(failed, |()| answered(answer))
    }

    fn stop_consuming(&self, queue: &QueueName, consumer: ConsumerId, release: bool) {
        // A broker that is stopped has no consumers left.
        let _ = self.ask_desk(queue, Request::Stop { queue: queue.clone(), consumer, release });
    }

    fn settle(
        &self,
        queue: &QueueName,
        session: &str,
        deliveries: Vec<(DeliveryId, Settle)>,
    ) -> Answer<Vec<Settled>> {
        let (reply, answer) = oneshot::channel();
        let (queue, session) = (queue.clone(), session.to_owned());
        let asked = self.must_have_started().and_then(|()| {
            self.ask_desk(&queue.clone(), Request::Settle { queue, session, deliveries, reply })
        });
        asked.map_or_else(failed, |()| answered(answer))
    }

    fn queue_stats(&self, queue: &QueueName) -> Answer<Option<QueueStats>> {
        let (admin, queue) = (self.admin_of(queue), queue.clone());
        async move { admin?.stats(&queue).await }.boxed()
    }

    fn queues(&self, query: QueueQuery) -> Answer<QueuePage> {
        let admins: Result<Vec<_>, _> =
            (0..self.keys.partitions()).map(|number| self.admin(number)).collect();
        async move { queues(admins?, query).await }.boxed()
    }

    fn peek(&self, queue: &QueueName, shelf: Shelf, limit: usize) -> Answer<Vec<QueuedJob>> {
        let (admin, queue) = (self.admin_of(queue), queue.clone());
        async move { admin?.peek(&queue, shelf, limit).await }.boxed()
    }

    fn redrive(&self, queue: &QueueName, limit: u64) -> Answer<u64> {
        let (admin, queue) = (self.admin_of(queue), queue.clone());
        let max_length = self.policies.of(queue.channel.as_str()).queue.max_length;
        async move { admin?.redrive(&queue, limit, max_length).await }.boxed()
    }

    fn purge(&self, queue: &QueueName, shelf: Shelf) -> Answer<u64> {
        let (admin, queue) = (self.admin_of(queue), queue.clone());
        async move { admin?.purge(&queue, Some(shelf)).await }.boxed()
    }

    fn remove_group(&self, queue: &QueueName) -> Answer<()> {
        let (admin, queue) = (self.admin_of(queue), queue.clone());
        async move { admin?.purge(&queue, None).await.map(drop) }.boxed()
    }
}
