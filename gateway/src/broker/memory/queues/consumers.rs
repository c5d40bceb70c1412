//! The consumers of one queue, and whose turn it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::job::JobNumber;
use crate::broker::{
    SinkId,
    queue::{Consume, ConsumerId},
};

/// Who is handed jobs.
#[derive(Debug, Default)]
pub(super) struct Consumers {
    all: BTreeMap<ConsumerId, Consumer>,
    /// Those with credit left, in the order of their turns.
    free: BTreeSet<(u64, ConsumerId)>,
    last_turn: u64,
}

#[derive(Debug)]
struct Consumer {
    sink: SinkId,
    session: Arc<str>,
    credit: usize,
    /// Deliveries that count as credit.
    held: BTreeSet<JobNumber>,
    /// When it was last served; lowest first.
    turn: u64,
}

/// Where a job goes.
#[derive(Debug, Clone)]
pub(super) struct Recipient {
    pub sink: SinkId,
    pub consumer: ConsumerId,
    pub session: Arc<str>,
}

impl Consumers {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether somebody has credit left.
    pub fn any_free(&self) -> bool {
        !self.free.is_empty()
    }

    /// Adds one, behind those that wait already; or changes it, with what it holds.
    pub fn insert(&mut self, sink: SinkId, consume: &Consume) {
        let held = self.all.remove(&consume.consumer).map(|former| {
            self.free.remove(&(former.turn, consume.consumer));
            former.held
        });
        self.last_turn += 1;
        let credit = usize::try_from(consume.credit.max(1)).unwrap_or(usize::MAX);
        let session = consume.session.as_str().into();
        let consumer =
            Consumer { sink, session, credit, held: held.unwrap_or_default(), turn: self.last_turn };
        self.all.insert(consume.consumer, consumer);
        self.offer(consume.consumer);
    }

    /// Removes one; answers what it holds.
    pub fn remove(&mut self, id: ConsumerId) -> BTreeSet<JobNumber> {
        let Some(consumer) = self.all.remove(&id) else { return BTreeSet::new() };
        self.free.remove(&(consumer.turn, id));
        consumer.held
    }

    /// Has the one whose turn it is hold `job`, and sends it to the end of the line.
    pub fn give(&mut self, job: JobNumber) -> Option<Recipient> {
        let (_, id) = self.free.pop_first()?;
        self.last_turn += 1;
        let consumer = self.all.get_mut(&id)?;
        consumer.turn = self.last_turn;
        consumer.held.insert(job);
        let recipient = Recipient { sink: consumer.sink, consumer: id, session: consumer.session.clone() };
        self.offer(id);
        Some(recipient)
    }

    /// `job` counts no more as the credit of one who had it.
    pub fn free(&mut self, id: ConsumerId, job: JobNumber) {
        if self.all.get_mut(&id).is_some_and(|consumer| consumer.held.remove(&job)) {
            self.offer(id);
        }
    }

    /// The same, and everybody else comes first: it let the job wait until its deadline.
    pub fn put_back(&mut self, id: ConsumerId, job: JobNumber) {
        if let Some(consumer) = self.all.get_mut(&id) {
            self.free.remove(&(consumer.turn, id));
            self.last_turn += 1;
            consumer.turn = self.last_turn;
            consumer.held.remove(&job);
            self.offer(id);
        }
    }

    /// `job` counts again: one who had it has more time.
    pub fn hold(&mut self, id: ConsumerId, job: JobNumber) {
        if let Some(consumer) = self.all.get_mut(&id) {
            consumer.held.insert(job);
            self.offer(id);
        }
    }

    /// Puts one in line if it has credit left, and takes it out if not.
    fn offer(&mut self, id: ConsumerId) {
        let Some(consumer) = self.all.get(&id) else { return };
        let place = (consumer.turn, id);
        if consumer.held.len() < consumer.credit {
            self.free.insert(place);
        } else {
            self.free.remove(&place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        broker::queue::{Group, QueueName},
        channel::Channel,
    };

    fn consume(id: u64, credit: u32) -> Consume {
        let queue = QueueName { channel: Channel::parse("a").unwrap(), group: Group::default() };
        Consume { queue, consumer: ConsumerId(id), session: format!("s{id}"), credit }
    }

    fn given(consumers: &mut Consumers, job: JobNumber) -> Option<u64> {
        consumers.give(job).map(|recipient| recipient.consumer.0)
    }

    #[test]
    fn they_are_served_in_turn_as_far_as_their_credit_goes() {
        let mut consumers = Consumers::default();
        for (id, credit) in [(1, 3), (2, 1), (3, 2)] {
            consumers.insert(SinkId(0), &consume(id, credit));
        }
        let order: Vec<_> = (0..7).map(|job| given(&mut consumers, job)).collect();
        assert_eq!(order, [Some(1), Some(2), Some(3), Some(1), Some(3), Some(1), None]);
        consumers.free(ConsumerId(3), 4);
        consumers.free(ConsumerId(2), 1);
        assert_eq!([given(&mut consumers, 7), given(&mut consumers, 8)], [Some(2), Some(3)]);
        // What it does not hold frees nothing.
        consumers.free(ConsumerId(1), 1);
        assert!(!consumers.any_free());
    }

    #[test]
    fn who_let_a_job_wait_comes_last() {
        let mut consumers = Consumers::default();
        consumers.insert(SinkId(0), &consume(1, 1));
        assert_eq!(given(&mut consumers, 1), Some(1));
        consumers.insert(SinkId(0), &consume(2, 1));
        consumers.put_back(ConsumerId(1), 1);
        assert_eq!([given(&mut consumers, 1), given(&mut consumers, 2)], [Some(2), Some(1)]);
    }

    #[test]
    fn a_new_credit_keeps_what_is_held() {
        let mut consumers = Consumers::default();
        consumers.insert(SinkId(0), &consume(1, 2));
        assert_eq!([given(&mut consumers, 1), given(&mut consumers, 2)], [Some(1), Some(1)]);
        consumers.insert(SinkId(0), &consume(1, 3));
        assert_eq!([given(&mut consumers, 3), given(&mut consumers, 4)], [Some(1), None]);
        assert_eq!(consumers.remove(ConsumerId(1)), BTreeSet::from([1, 2, 3]));
        assert_eq!((consumers.len(), consumers.any_free()), (0, false));
    }
}
