//! Work queues on Redis.

use super::{Answer, RedisBroker, failed};
use crate::broker::{
    BrokerError, SinkId,
    queue::{
        Consume, ConsumerId, DeliveryId, QueueName, QueuePage, QueueQuery, QueueStats, QueuedJob, Queues,
        Settle, Settled, Shelf,
    },
};

impl Queues for RedisBroker {
    fn consume(&self, _: SinkId, _: Consume) -> Answer<()> {
        failed(BrokerError::Stopped)
    }
    fn stop_consuming(&self, _: &QueueName, _: ConsumerId, _: bool) {}
    fn settle(&self, _: &QueueName, _: &str, _: Vec<(DeliveryId, Settle)>) -> Answer<Vec<Settled>> {
        failed(BrokerError::Stopped)
    }
    fn queue_stats(&self, _: &QueueName) -> Answer<Option<QueueStats>> {
        failed(BrokerError::Stopped)
    }
    fn queues(&self, _: QueueQuery) -> Answer<QueuePage> {
        failed(BrokerError::Stopped)
    }
    fn peek(&self, _: &QueueName, _: Shelf, _: usize) -> Answer<Vec<QueuedJob>> {
        failed(BrokerError::Stopped)
    }
    fn redrive(&self, _: &QueueName, _: u64) -> Answer<u64> {
        failed(BrokerError::Stopped)
    }
    fn purge(&self, _: &QueueName, _: Shelf) -> Answer<u64> {
        failed(BrokerError::Stopped)
    }
    fn remove_group(&self, _: &QueueName) -> Answer<()> {
        failed(BrokerError::Stopped)
    }
}
