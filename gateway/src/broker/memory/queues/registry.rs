//! All queues: by name, by when they are due, and what comes out of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound::{Excluded, Included, Unbounded},
    sync::Arc,
};

use super::{
    job::{JobNumber, job_bytes},
    machine::{Handed, Machine},
};
use crate::{
    broker::{
        BrokerError, Publication, SinkId, Stored,
        queue::{DeliveryId, Group, Job, JobOptions, QueueName},
    },
    channel::Channel,
    policy::QueuePolicy,
    telemetry::metrics::{QUEUE_DEAD, QUEUE_DEAD_DROPPED},
};

/// Bookkeeping of one queue, but for its jobs.
const QUEUE_OVERHEAD: usize = 1_024;

/// How long the default group of a queue channel is kept with nothing in it.
const IDLE_MS: u64 = 10 * 60 * 1_000;

/// See the module.
#[derive(Debug)]
pub(in crate::broker::memory) struct Registry {
    queues: BTreeMap<Channel, BTreeMap<Group, Slot>>,
    due: BTreeSet<(u64, QueueName)>,
    last: JobNumber,
    bytes: usize,
    /// What is to be delivered.
    handed: Vec<(SinkId, Job)>,
    /// What died, with the channel it is to be published to.
    letters: Vec<(Channel, Arc<Publication>)>,
}

#[derive(Debug)]
struct Slot {
    machine: Machine,
    /// Its place in the order of times.
    due_ms: Option<u64>,
    changed_ms: u64,
}

impl Registry {
    /// Jobs are numbered from `now_ms`, so that those of a former process have other names.
    pub fn new(now_ms: u64) -> Self {
        Self {
            queues: BTreeMap::new(),
            due: BTreeSet::new(),
            last: now_ms,
            bytes: 0,
            handed: Vec::new(),
            letters: Vec::new(),
        }
    }

    /// Bytes of all queues and their jobs.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the first of them is due.
    pub fn due_ms(&self) -> Option<u64> {
        self.due.first().map(|(at, _)| *at)
    }

    /// One that is due.
    pub fn next_due(&self, now_ms: u64) -> Option<QueueName> {
        self.due.first().filter(|(at, _)| *at <= now_ms).map(|(_, name)| name.clone())
    }

    /// Takes what is to be delivered.
    pub fn take_handed(&mut self) -> Vec<(SinkId, Job)> {
        std::mem::take(&mut self.handed)
    }

    /// Takes what is to be published to dead letter channels.
    pub fn take_letters(&mut self) -> Vec<(Channel, Arc<Publication>)> {
        std::mem::take(&mut self.letters)
    }

    /// Bytes that a new queue counts.
    pub fn queue_bytes(name: &QueueName) -> usize {
        QUEUE_OVERHEAD + 2 * (name.channel.as_str().len() + name.group.as_str().len())
    }

    /// Whether there is such a queue.
    pub fn contains(&self, name: &QueueName) -> bool {
        self.queues.get(&name.channel).is_some_and(|groups| groups.contains_key(&name.group))
    }

    /// Adds a queue, unless it is there.
    pub fn create(&mut self, name: &QueueName, now_ms: u64) {
        if !self.contains(name) {
            self.bytes += Self::queue_bytes(name);
            let slot = Slot { machine: Machine::default(), due_ms: None, changed_ms: now_ms };
            self.queues.entry(name.channel.clone()).or_default().insert(name.group.clone(), slot);
        }
    }

    /// Removes a queue with all that is in it.
    pub fn remove(&mut self, name: &QueueName) {
        let Some(groups) = self.queues.get_mut(&name.channel) else { return };
        if let Some(slot) = groups.remove(&name.group) {
            self.bytes -= slot.machine.bytes() + Self::queue_bytes(name);
            if let Some(at) = slot.due_ms {
                self.due.remove(&(at, name.clone()));
            }
        }
        if groups.is_empty() {
            self.queues.remove(&name.channel);
        }
    }

    /// Changes or looks at a queue, if there is one, after it was brought up to `now_ms`; then hands out what can be.
    pub(super) fn with<T>(
        &mut self,
        name: &QueueName,
        policy: &QueuePolicy,
        now_ms: u64,
        work: impl FnOnce(&mut Machine, &mut dyn FnMut() -> JobNumber) -> T,
    ) -> Option<T> {
        let slot = self.queues.get_mut(&name.channel)?.get_mut(&name.group)?;
        let machine = &mut slot.machine;
        let before = machine.bytes();
        machine.tick(policy, now_ms);
        let last = &mut self.last;
        let answer = work(machine, &mut || {
            *last += 1;
            *last
        });
        let handed = machine.hand_out(policy, now_ms);
        self.handed.extend(handed.into_iter().map(|handed| deliver(name, handed)));
        self.letters.extend(bury(name, policy, machine));
        self.bytes = self.bytes - before + machine.bytes();
        slot.changed_ms = now_ms;
        let due_ms = machine.due_ms();
        if due_ms != slot.due_ms {
            if let Some(at) = slot.due_ms {
                self.due.remove(&(at, name.clone()));
            }
            if let Some(at) = due_ms {
                self.due.insert((at, name.clone()));
            }
            slot.due_ms = due_ms;
        }
        Some(answer)
    }

    /// The queues that a publication to `channel` goes to.
    pub fn takers(&self, channel: &Channel, policy: &QueuePolicy) -> Vec<QueueName> {
        let groups = self.queues.get(channel);
        let default = Group::default();
        let missing = policy.channel_is_queue && groups.is_none_or(|groups| !groups.contains_key(&default));
        let missing = missing.then_some(default);
        let groups = groups.into_iter().flat_map(BTreeMap::keys).cloned().chain(missing);
        groups.map(|group| QueueName { channel: channel.clone(), group }).collect()
    }

    /// Whether each of them has room for a job; answers the bytes that all those jobs will count.
    ///
    /// # Errors
    /// [`BrokerError::QueueFull`].
    pub fn room(
        &mut self,
        takers: &[QueueName],
        policy: &QueuePolicy,
        (stored, options): (&Stored, &JobOptions),
        now_ms: u64,
    ) -> Result<usize, BrokerError> {
        let mut bytes = 0;
        for taker in takers {
            let length = self.with(taker, policy, now_ms, |machine, _| machine.len());
            if length.unwrap_or(0) >= policy.max_length {
                let (group, limit) = (taker.group.as_str().to_owned(), policy.max_length);
                return Err(BrokerError::QueueFull { group, limit });
            }
            bytes += if length.is_none() { Self::queue_bytes(taker) } else { 0 };
            bytes += job_bytes(stored, options.ordering_key.as_deref());
        }
        Ok(bytes)
    }

    /// Adds a job to each of them.
    pub fn push(
        &mut self,
        takers: &[QueueName],
        policy: &QueuePolicy,
        publication: &Arc<Publication>,
        options: &JobOptions,
        now_ms: u64,
    ) {
        for taker in takers {
            self.create(taker, now_ms);
            self.with(taker, policy, now_ms, |machine, number| {
                machine.push(number(), publication.clone(), options, now_ms);
            });
        }
    }

    /// Names behind `after`, in order.
    pub fn names(&self, prefix: &str, after: Option<&QueueName>) -> impl Iterator<Item = QueueName> {
        let from_prefix = after.is_none_or(|after| after.channel.as_str() < prefix);
        let start = if from_prefix { prefix } else { after.map_or("", |after| after.channel.as_str()) };
        let channels = self
            .queues
            .range::<str, _>((Included(start), Unbounded))
            .take_while(move |(name, _)| name.as_str().starts_with(prefix));
        channels.flat_map(move |(channel, groups)| {
            let after = after.filter(|after| after.channel == *channel);
            let behind = after.map_or(Unbounded, |after| Excluded(&after.group));
            let groups = groups.range((behind, Unbounded));
            groups.map(|(group, _)| QueueName { channel: channel.clone(), group: group.clone() })
        })
    }

    /// Forgets default groups that have had nothing in them, and nobody at them, for a while. They are there again with
    /// the next job.
    pub fn forget_idle(&mut self, is_queue: impl Fn(&Channel) -> bool, now_ms: u64) {
        let group = Group::default();
        let idle = |slot: &Slot| slot.machine.is_idle() && now_ms.saturating_sub(slot.changed_ms) >= IDLE_MS;
        let default = self.queues.iter().filter(|(_, groups)| groups.get(&group).is_some_and(idle));
        let channels: Vec<Channel> =
            default.map(|(channel, _)| channel).filter(|channel| is_queue(channel)).cloned().collect();
        for channel in channels {
            self.remove(&QueueName { channel, group: group.clone() });
        }
    }
}

/// Counts what died, and says what of it is published where.
fn bury(name: &QueueName, policy: &QueuePolicy, machine: &mut Machine) -> Vec<(Channel, Arc<Publication>)> {
    let letters = machine.take_letters();
    if letters.is_empty() {
        return Vec::new();
    }
    metrics::counter!(QUEUE_DEAD).increment(letters.len() as u64);
    metrics::counter!(QUEUE_DEAD_DROPPED).increment(machine.take_dropped());
    // A queue that is its own dead letter channel would never be done with a bad job.
    let to = policy.dead_letter.as_ref().filter(|to| **to != name.channel);
    to.map_or_else(Vec::new, |to| letters.into_iter().map(|letter| (to.clone(), letter)).collect())
}

fn deliver(name: &QueueName, handed: Handed) -> (SinkId, Job) {
    let id = DeliveryId { queue: name.clone(), job: handed.number.to_string(), attempt: handed.attempt };
    let Handed { to, deadline_ms, publication, .. } = handed;
    (to.sink, Job { consumer: to.consumer, id, deadline_ms, publication })
}
