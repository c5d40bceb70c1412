//! Publishes, in the order of calls.

use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use super::{Answer, answered, failed};
use crate::{
    broker::{
        BrokerError, BrokerStatus, Publish, Published,
        redis::{
            combiner::Waiting,
            keys::{Keys, idempotency_record},
            partition::{Partition, Request},
        },
    },
    policy::Policies,
};

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Publisher {
    pub partitions: Arc<[Partition]>,
    pub keys: Arc<Keys>,
    pub policies: Policies,
    pub status: watch::Receiver<BrokerStatus>,
}

impl Publisher {
    /// Publishes, once the node has its place in Redis.
    pub fn publish(&self, publish: Publish) -> Answer<Published> {
        self.enqueue(publish).map_or_else(failed, answered)
    }

    fn enqueue(
        &self,
        publish: Publish,
    ) -> Result<oneshot::Receiver<Result<Published, BrokerError>>, BrokerError> {
        must_have_started(&self.status)?;
        let number = self.keys.partition_of(publish.channel.as_str());
        let partition = self.partitions.get(number).ok_or(BrokerError::Stopped)?;
        let blob = publish.stored.to_bytes();
        let permit = partition.admit(blob.len() + publish.channel.as_str().len())?;
        let record = publish
            .idempotency_key
            .map(|key| idempotency_record(&publish.user_id, publish.channel.as_str(), &key));
        let (reply, answer) = oneshot::channel();
        partition.send(Request::Publish(Waiting {
            policy: self.policies.of(publish.channel.as_str()),
            channel: publish.channel,
            blob,
            transient: publish.transient,
            record,
            job: publish.job,
            reply,
            _permit: permit,
        }))?;
        Ok(answer)
    }
}

/// Whether the node has its place in Redis. While it is away its partitions refuse at once what needs their link;
/// without the reader alone, publishes go on and deliveries wait in the inboxes.
pub(super) fn must_have_started(status: &watch::Receiver<BrokerStatus>) -> Result<(), BrokerError> {
    match &*status.borrow() {
        BrokerStatus::Ready | BrokerStatus::Away(_) => Ok(()),
        BrokerStatus::Starting(reason) | BrokerStatus::Refused(reason) => {
            Err(BrokerError::NotAvailable { reason: reason.clone(), sent: false })
        }
        BrokerStatus::Stopped => Err(BrokerError::Stopped),
    }
}
