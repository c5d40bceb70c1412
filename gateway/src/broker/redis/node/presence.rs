//! What the broker asks its partitions for presence, in the order of calls.

use futures_util::future::{FutureExt as _, join_all};
use tokio::sync::oneshot;

use super::{Answer, RedisBroker, answered};
use crate::{
    broker::{BrokerError, Member, Owner, PresencePage, SinkId, redis::partition::Request},
    channel::{Channel, Target},
};

impl RedisBroker {
    pub(super) fn enqueue_join(
        &self,
        channel: Channel,
        member: Member,
        owner: Owner,
    ) -> Result<oneshot::Receiver<Result<(), BrokerError>>, BrokerError> {
        let session = &member.session_id;
        // In Redis a session's name ends with a space.
        if session.is_empty() || session.contains(|c: char| c.is_ascii_whitespace() || c == '\u{b}') {
            return Err(BrokerError::Refused(format!("{session:?} cannot be the name of a session")));
        }
        let partition = self.partition_of(channel.as_str())?;
        let (reply, answer) = oneshot::channel();
        partition.send(Request::Join { channel, member, owner, reply })?;
        Ok(answer)
    }

    pub(super) fn enqueue_query(
        &self,
        channel: Channel,
        limit: usize,
    ) -> Result<oneshot::Receiver<Result<PresencePage, BrokerError>>, BrokerError> {
        self.must_have_started()?;
        let partition = self.partition_of(channel.as_str())?;
        let permit = partition.admit(channel.as_str().len())?;
        let (reply, answer) = oneshot::channel();
        partition.send(Request::Members { channel, limit, reply, permit })?;
        Ok(answer)
    }

    pub(super) fn enqueue_watch(&self, sink: SinkId, target: &Target) -> Result<Answer<()>, BrokerError> {
        self.must_have_started()?;
        let mut answers = Vec::new();
        for partition in self.partitions_of(target) {
            let permit = partition.admit(target.as_str().len())?;
            let (reply, answer) = oneshot::channel();
            partition.send(Request::Watch { sink, target: target.clone(), reply, permit })?;
            answers.push(answered(answer));
        }
        Ok(async move { join_all(answers).await.into_iter().collect() }.boxed())
    }
}
