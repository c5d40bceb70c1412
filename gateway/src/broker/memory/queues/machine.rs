//! One queue as a state machine: times and requests in, jobs to hand out and the next time of need out.
//!
//! No clock, no locks, no sinks. Whoever changes it calls [`Machine::tick`] before and [`Machine::hand_out`] after.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::{
    consumers::{Consumers, Recipient},
    job::{Entry, Holder, JobNumber, State},
    keys::Keys,
};
use crate::{
    broker::{
        Publication, SinkId,
        queue::{Consume, ConsumerId, DeliveryId, JobOptions, QueueStats, QueuedJob, Settle, Settled, Shelf},
    },
    policy::QueuePolicy,
};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Machine {
    /// All that are neither settled nor dead.
    jobs: BTreeMap<JobNumber, Entry>,
    /// Those that the next consumer may have.
    ready: BTreeSet<JobNumber>,
    /// Deadlines and ends of delays.
    due: BTreeSet<(u64, JobNumber)>,
    in_flight: usize,
    keys: Keys,
    consumers: Consumers,
    /// The oldest first.
    dead: VecDeque<(JobNumber, Entry)>,
    /// Of those that died since they were last taken.
    letters: Vec<Arc<Publication>>,
    /// Dead jobs that had to go since that was last asked.
    dropped: u64,
    /// Of all jobs, the dead included.
    bytes: usize,
}

/// A job that is handed out.
#[derive(Debug, Clone)]
pub(super) struct Handed {
    pub number: JobNumber,
    pub attempt: u32,
    pub deadline_ms: u64,
    pub to: Recipient,
    pub publication: Arc<Publication>,
}

impl Machine {
    /// Bytes of its jobs.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Jobs that are neither settled nor dead.
    pub fn len(&self) -> u64 {
        self.jobs.len() as u64
    }

    /// Whether there is nothing in it and nobody at it.
    pub fn is_idle(&self) -> bool {
        self.jobs.is_empty() && self.dead.is_empty() && self.consumers.len() == 0
    }

    /// When [`Self::tick`] has something to do next.
    pub fn due_ms(&self) -> Option<u64> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes what died since it was last asked.
    pub fn take_letters(&mut self) -> Vec<Arc<Publication>> {
        std::mem::take(&mut self.letters)
    }

    /// How many dead jobs had to go since it was last asked.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// Adds a job; `number` is higher than that of any before.
    pub fn push(
        &mut self,
        number: JobNumber,
        publication: Arc<Publication>,
        options: &JobOptions,
        now_ms: u64,
    ) {
        let state = match options.delay.filter(|delay| !delay.is_zero()) {
            Some(delay) => State::Delayed(later(now_ms, delay)),
            None => State::Ready,
        };
        let key = self.keys.enter(options.ordering_key.as_deref(), number);
        let entry = Entry::new(publication, key, State::Ready);
        self.bytes += entry.bytes();
        self.jobs.insert(number, entry);
        self.put(number, state);
    }

    /// Does what `now_ms` brings: delays end, deadlines pass, and jobs die of their last one.
    pub fn tick(&mut self, policy: &QueuePolicy, now_ms: u64) {
        while let Some((_, number)) = self.due.first().copied().filter(|(at, _)| *at <= now_ms) {
            let Some(entry) = self.jobs.get(&number) else { break };
            let late = entry.holder.clone().filter(|_| matches!(entry.state, State::InFlight(_)));
            match late {
                Some(holder) => {
                    self.give_back(number, State::Ready, policy);
                    self.consumers.put_back(holder.consumer, number);
                    if let Some(entry) = self.jobs.get_mut(&number) {
                        entry.holder = Some(holder);
                    }
                }
                None => self.put(number, State::Ready),
            }
        }
    }

    /// Hands out what there is as far as there is credit.
    pub fn hand_out(&mut self, policy: &QueuePolicy, now_ms: u64) -> Vec<Handed> {
        // At least a moment, or it would be handed out again and again right now.
        let visible = policy.visibility_timeout.max(Duration::from_millis(1));
        let mut handed = Vec::new();
        while self.consumers.any_free() {
            let Some(number) = self.ready.first().copied() else { break };
            let Some(to) = self.consumers.give(number) else { break };
            let deadline_ms = later(now_ms, visible);
            self.put(number, State::InFlight(deadline_ms));
            let Some(entry) = self.jobs.get_mut(&number) else { break };
            entry.attempts = entry.attempts.saturating_add(1);
            entry.holder = Some(Holder { consumer: to.consumer, session: to.session.clone() });
            let (attempt, publication) = (entry.attempts, entry.publication.clone());
            handed.push(Handed { number, attempt, deadline_ms, to, publication });
        }
        handed
    }

    /// Adds or changes a consumer.
    pub fn consume(&mut self, sink: SinkId, consume: &Consume) {
        self.consumers.insert(sink, consume);
    }

    /// Ends a consumer, and if `release`, gives back what it has.
    pub fn stop_consuming(&mut self, consumer: ConsumerId, release: bool, policy: &QueuePolicy) {
        let held = self.consumers.remove(consumer);
        if release {
            for number in held {
                self.give_back(number, State::Ready, policy);
            }
        }
    }

    /// Settles one delivery for `session`.
    pub fn settle(
        &mut self,
        session: &str,
        id: &DeliveryId,
        settle: Settle,
        policy: &QueuePolicy,
        now_ms: u64,
    ) -> Settled {
        let Ok(number) = id.job.parse() else { return Settled::Gone };
        let Some(entry) = self.jobs.get(&number).filter(|entry| id.attempt <= entry.attempts) else {
            return Settled::Gone;
        };
        let Some(holder) = entry.holder.as_ref().filter(|_| id.attempt == entry.attempts) else {
            return Settled::Expired;
        };
        if *holder.session != *session {
            return Settled::NotYours;
        }
        match settle {
            Settle::Ack => {
                self.remove(number);
            }
            Settle::Nack { delay } if delay.is_zero() => self.give_back(number, State::Ready, policy),
            Settle::Nack { delay } => self.give_back(number, State::Delayed(later(now_ms, delay)), policy),
            Settle::Extend { by } => {
                let by = by.unwrap_or(policy.visibility_timeout);
                let consumer = holder.consumer;
                self.put(number, State::InFlight(later(now_ms, by)));
                self.consumers.hold(consumer, number);
            }
        }
        Settled::Done
    }

    /// How it is doing.
    pub fn stats(&self, now_ms: u64) -> QueueStats {
        let count = |n: usize| n as u64;
        // Jobs are numbered as they are published, but for those that were dead meanwhile.
        let oldest_ms = self.jobs.values().next().map_or(now_ms, |entry| entry.publication.time_ms);
        QueueStats {
            ready: count(self.jobs.len() - self.due.len()),
            in_flight: count(self.in_flight),
            delayed: count(self.due.len() - self.in_flight),
            dead: count(self.dead.len()),
            oldest_age_ms: now_ms.saturating_sub(oldest_ms),
            consumers: count(self.consumers.len()),
        }
    }

    /// The first jobs of a shelf.
    pub fn peek(&self, shelf: Shelf, limit: usize) -> Vec<QueuedJob> {
        if shelf == Shelf::Dead {
            return self.dead.iter().take(limit).map(|(number, entry)| entry.show(*number)).collect();
        }
        let on = self.jobs.iter().filter(|(_, entry)| entry.state.shelf() == shelf);
        on.take(limit).map(|(number, entry)| entry.show(*number)).collect()
    }

    /// Enqueues dead jobs anew, as far as there is room; `number` gives each its new name.
    pub fn redrive(
        &mut self,
        limit: u64,
        policy: &QueuePolicy,
        now_ms: u64,
        mut number: impl FnMut() -> JobNumber,
    ) -> u64 {
        let count = limit.min(policy.max_length.saturating_sub(self.len())).min(self.dead.len() as u64);
        for _ in 0..count {
            let Some((_, entry)) = self.dead.pop_front() else { break };
            self.bytes -= entry.bytes();
            let options = JobOptions { delay: None, ordering_key: entry.key.as_deref().map(str::to_owned) };
            self.push(number(), entry.publication, &options, now_ms);
        }
        count
    }

    /// Removes all of a shelf.
    pub fn purge(&mut self, shelf: Shelf) -> u64 {
        if shelf == Shelf::Dead {
            let count = self.dead.len();
            self.bytes -= self.dead.drain(..).map(|(_, entry)| entry.bytes()).sum::<usize>();
            return count as u64;
        }
        let on = self.jobs.iter().filter(|(_, entry)| entry.state.shelf() == shelf);
        let numbers: Vec<JobNumber> = on.map(|(number, _)| *number).collect();
        for number in &numbers {
            self.remove(*number);
        }
        numbers.len() as u64
    }

    /// Changes where a job is, with all that follows from where it was.
    fn put(&mut self, number: JobNumber, state: State) {
        let Some(entry) = self.jobs.get_mut(&number) else { return };
        let former = std::mem::replace(&mut entry.state, state);
        if let Some(at) = former.due_ms() {
            self.due.remove(&(at, number));
        }
        if let Some(at) = state.due_ms() {
            self.due.insert((at, number));
        }
        self.in_flight -= usize::from(matches!(former, State::InFlight(_)));
        self.in_flight += usize::from(matches!(state, State::InFlight(_)));
        if state == State::Ready && self.keys.is_first(entry.key.as_deref(), number) {
            self.ready.insert(number);
        } else {
            self.ready.remove(&number);
        }
    }

    /// Ends the latest delivery of a job: it goes to `state`, or dies if it is out of attempts.
    fn give_back(&mut self, number: JobNumber, state: State, policy: &QueuePolicy) {
        let Some(entry) = self.jobs.get_mut(&number) else { return };
        if entry.attempts >= policy.max_attempts.max(1) {
            self.die(number, policy);
            return;
        }
        if let Some(holder) = entry.holder.take() {
            self.consumers.free(holder.consumer, number);
        }
        self.put(number, state);
    }

    fn die(&mut self, number: JobNumber, policy: &QueuePolicy) {
        let Some(entry) = self.remove(number) else { return };
        self.letters.push(entry.publication.clone());
        self.bytes += entry.bytes();
        self.dead.push_back((number, entry));
        while self.dead.len() as u64 > policy.max_dead {
            if let Some((_, entry)) = self.dead.pop_front() {
                self.bytes -= entry.bytes();
                self.dropped += 1;
            }
        }
    }

    /// Removes a job that is not dead from everywhere; the next of its key has its turn.
    fn remove(&mut self, number: JobNumber) -> Option<Entry> {
        // Out of the times and counts first.
        self.put(number, State::Ready);
        let entry = self.jobs.remove(&number)?;
        self.ready.remove(&number);
        self.bytes -= entry.bytes();
        if let Some(holder) = &entry.holder {
            self.consumers.free(holder.consumer, number);
        }
        if let Some(next) = self.keys.leave(entry.key.as_deref(), number)
            && self.jobs.get(&next).is_some_and(|entry| entry.state == State::Ready)
        {
            self.ready.insert(next);
        }
        Some(entry)
    }
}

fn later(now_ms: u64, by: Duration) -> u64 {
    now_ms.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX))
}
