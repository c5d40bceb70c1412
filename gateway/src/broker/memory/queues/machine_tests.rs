//! A queue against a slow and simple model of what queues promise, under random calls.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use proptest::prelude::*;

use super::{job::JobNumber, machine::Machine};
use crate::{
    broker::{
        Publication, SinkId, Stored,
        queue::{
            Consume, ConsumerId, DeliveryId, Group, JobOptions, QueueName, QueueStats, Settle, Settled, Shelf,
        },
    },
    channel::Channel,
    policy::QueuePolicy,
};

const VISIBLE_MS: u64 = 100;
const MAX_ATTEMPTS: u32 = 3;
const MAX_DEAD: usize = 4;

#[derive(Debug, Clone)]
enum Call {
    Push {
        key: Option<u8>,
        delay_ms: u64,
    },
    Wait {
        ms: u64,
    },
    /// One of the deliveries ever made, by its own session or another's.
    Settle {
        which: usize,
        settle: Settle,
        own: bool,
    },
    Consume {
        consumer: u64,
        credit: u32,
    },
    Stop {
        consumer: u64,
        release: bool,
    },
    Redrive {
        limit: u64,
    },
    Purge {
        shelf: Shelf,
    },
}

fn call() -> impl Strategy<Value = Call> {
    let settle = prop_oneof![
        4 => Just(Settle::Ack),
        1 => Just(Settle::Nack { delay: Duration::ZERO }),
        1 => (1..150u64).prop_map(|ms| Settle::Nack { delay: Duration::from_millis(ms) }),
        1 => proptest::option::of(1..200u64).prop_map(|ms| Settle::Extend { by: ms.map(Duration::from_millis) }),
    ];
    let shelf =
        prop_oneof![Just(Shelf::Ready), Just(Shelf::Delayed), Just(Shelf::InFlight), Just(Shelf::Dead)];
    prop_oneof![
        8 => (proptest::option::of(0..3u8), prop_oneof![3 => Just(0), 1 => 1..150u64])
            .prop_map(|(key, delay_ms)| Call::Push { key, delay_ms }),
        4 => (0..80u64).prop_map(|ms| Call::Wait { ms }),
        // Mostly of the latest ones.
        8 => (0..12usize, settle, prop::bool::weighted(0.9))
            .prop_map(|(which, settle, own)| Call::Settle { which, settle, own }),
        3 => (0..4u64, 1..4u32).prop_map(|(consumer, credit)| Call::Consume { consumer, credit }),
        1 => (0..4u64, any::<bool>()).prop_map(|(consumer, release)| Call::Stop { consumer, release }),
        1 => (1..3u64).prop_map(|limit| Call::Redrive { limit }),
        1 => shelf.prop_map(|shelf| Call::Purge { shelf }),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Where {
    Ready,
    Delayed(u64),
    InFlight(u64),
}

#[derive(Debug, Clone)]
struct Known {
    key: Option<u8>,
    attempts: u32,
    at: Where,
    /// Whose latest delivery may be settled.
    holder: Option<u64>,
}

#[derive(Debug, Default)]
struct Model {
    live: BTreeMap<JobNumber, Known>,
    dead: Vec<(JobNumber, Option<u8>)>,
    /// Consumers with their credits, and what counts as such.
    consumers: BTreeMap<u64, (usize, BTreeSet<JobNumber>)>,
    deliveries: Vec<(DeliveryId, u64)>,
}

impl Model {
    fn first_of_its_key(&self, number: JobNumber) -> bool {
        let key = self.live[&number].key;
        key.is_none() || !self.live.range(..number).any(|(_, known)| known.key == key)
    }

    fn tick(&mut self, now_ms: u64) {
        let due = self.live.iter().filter_map(|(number, known)| match known.at {
            Where::Delayed(until) | Where::InFlight(until) => Some((until, *number)),
            Where::Ready => None,
        });
        let due: BTreeSet<_> = due.filter(|(until, _)| *until <= now_ms).collect();
        for (_, number) in due {
            match self.live[&number].at {
                Where::InFlight(_) => self.end_delivery(number, Where::Ready, true),
                _ => self.live.get_mut(&number).unwrap().at = Where::Ready,
            }
        }
    }

    fn end_delivery(&mut self, number: JobNumber, at: Where, late: bool) {
        self.let_go(number);
        let known = self.live.get_mut(&number).unwrap();
        known.at = at;
        if !late {
            known.holder = None;
        }
        if known.attempts >= MAX_ATTEMPTS {
            let known = self.live.remove(&number).unwrap();
            self.dead.push((number, known.key));
            if self.dead.len() > MAX_DEAD {
                self.dead.remove(0);
            }
        }
    }

    fn settle(&mut self, id: &DeliveryId, session: u64, settle: Settle, now_ms: u64) -> Settled {
        let number = id.job.parse().unwrap();
        let Some(known) = self.live.get_mut(&number) else { return Settled::Gone };
        match known.holder.filter(|_| id.attempt == known.attempts) {
            None => return Settled::Expired,
            Some(holder) if holder != session => return Settled::NotYours,
            Some(_) => {}
        }
        let after = |by: Duration| now_ms + by.as_millis() as u64;
        match settle {
            Settle::Ack => self.remove(number),
            Settle::Nack { delay } if delay.is_zero() => self.end_delivery(number, Where::Ready, false),
            Settle::Nack { delay } => self.end_delivery(number, Where::Delayed(after(delay)), false),
            Settle::Extend { by } => {
                known.at = Where::InFlight(after(by.unwrap_or(Duration::from_millis(VISIBLE_MS))));
                if let Some((_, held)) = self.consumers.get_mut(&session) {
                    held.insert(number);
                }
            }
        }
        Settled::Done
    }

    fn let_go(&mut self, number: JobNumber) {
        for (_, held) in self.consumers.values_mut() {
            held.remove(&number);
        }
    }

    fn remove(&mut self, number: JobNumber) {
        self.live.remove(&number);
        self.let_go(number);
    }

    fn purge(&mut self, shelf: Shelf) -> u64 {
        let on = |at: Where| match at {
            Where::Ready => Shelf::Ready,
            Where::Delayed(_) => Shelf::Delayed,
            Where::InFlight(_) => Shelf::InFlight,
        };
        if shelf == Shelf::Dead {
            return self.dead.drain(..).count() as u64;
        }
        let numbers: Vec<_> =
            self.live.iter().filter(|(_, known)| on(known.at) == shelf).map(|(number, _)| *number).collect();
        numbers.iter().for_each(|number| self.remove(*number));
        numbers.len() as u64
    }

    fn stop(&mut self, consumer: u64, release: bool) {
        let Some((_, held)) = self.consumers.remove(&consumer) else { return };
        for number in held.into_iter().filter(|_| release) {
            self.end_delivery(number, Where::Ready, false);
        }
    }

    fn stats(&self) -> QueueStats {
        let count = |of: fn(&Where) -> bool| self.live.values().filter(|known| of(&known.at)).count() as u64;
        QueueStats {
            ready: count(|at| matches!(at, Where::Ready)),
            in_flight: count(|at| matches!(at, Where::InFlight(_))),
            delayed: count(|at| matches!(at, Where::Delayed(_))),
            dead: self.dead.len() as u64,
            oldest_age_ms: 0,
            consumers: self.consumers.len() as u64,
        }
    }
}

struct Pair {
    machine: Machine,
    model: Model,
    policy: QueuePolicy,
    now_ms: u64,
    last: JobNumber,
}

fn queue() -> QueueName {
    QueueName { channel: Channel::parse("jobs").unwrap(), group: Group::default() }
}

impl Pair {
    fn new() -> Self {
        let policy = QueuePolicy {
            visibility_timeout: Duration::from_millis(VISIBLE_MS),
            max_attempts: MAX_ATTEMPTS,
            max_dead: MAX_DEAD as u64,
            ..QueuePolicy::default()
        };
        Self { machine: Machine::default(), model: Model::default(), policy, now_ms: 1_000, last: 0 }
    }

    fn apply(&mut self, call: &Call) {
        if let Call::Wait { ms } = call {
            self.now_ms += ms;
        }
        self.machine.tick(&self.policy, self.now_ms);
        self.model.tick(self.now_ms);
        match call {
            Call::Wait { .. } => {}
            Call::Push { key, delay_ms } => self.push(*key, *delay_ms),
            Call::Settle { which, settle, own } => self.settle(*which, *settle, *own),
            Call::Consume { consumer, credit } => self.consume(*consumer, *credit),
            Call::Stop { consumer, release } => {
                self.machine.stop_consuming(ConsumerId(*consumer), *release, &self.policy);
                self.model.stop(*consumer, *release);
            }
            Call::Redrive { limit } => self.redrive(*limit),
            Call::Purge { shelf } => assert_eq!(self.machine.purge(*shelf), self.model.purge(*shelf)),
        }
        self.hand_out();
        self.check();
    }

    fn push(&mut self, key: Option<u8>, delay_ms: u64) {
        self.last += 1;
        let stored = Stored { event: vec![7; 10].into(), ..Stored::default() };
        let channel = queue().channel;
        let publication = Arc::new(Publication { channel, position: None, time_ms: self.now_ms, stored });
        let delay = Some(Duration::from_millis(delay_ms));
        let options = JobOptions { delay, ordering_key: key.map(|key| key.to_string()) };
        self.machine.push(self.last, publication, &options, self.now_ms);
        let at = if delay_ms == 0 { Where::Ready } else { Where::Delayed(self.now_ms + delay_ms) };
        self.model.live.insert(self.last, Known { key, attempts: 0, at, holder: None });
    }

    fn settle(&mut self, which: usize, settle: Settle, own: bool) {
        let Some(at) = self.model.deliveries.len().checked_sub(which + 1) else { return };
        let (id, owner) = self.model.deliveries[at].clone();
        let session = if own { owner } else { owner + 1 };
        let answer = self.machine.settle(&format!("s{session}"), &id, settle, &self.policy, self.now_ms);
        assert_eq!(answer, self.model.settle(&id, session, settle, self.now_ms), "{id} {settle:?}");
    }

    fn consume(&mut self, consumer: u64, credit: u32) {
        let session = format!("s{consumer}");
        let consume = Consume { queue: queue(), consumer: ConsumerId(consumer), session, credit };
        self.machine.consume(SinkId(0), &consume);
        self.model.consumers.entry(consumer).or_default().0 = credit as usize;
    }

    fn redrive(&mut self, limit: u64) {
        let Self { machine, model, last, .. } = self;
        let count = machine.redrive(limit, &self.policy, self.now_ms, || {
            *last += 1;
            *last
        });
        assert_eq!(count, limit.min(model.dead.len() as u64));
        let first = *last - count + 1;
        for (number, (_, key)) in (first..).zip(model.dead.drain(..count as usize)) {
            model.live.insert(number, Known { key, attempts: 0, at: Where::Ready, holder: None });
        }
    }

    fn hand_out(&mut self) {
        for handed in self.machine.hand_out(&self.policy, self.now_ms) {
            let consumer = handed.to.consumer.0;
            assert!(self.model.first_of_its_key(handed.number), "{handed:?} out of turn");
            let known =
                self.model.live.get_mut(&handed.number).expect("a job that is neither settled nor dead");
            assert_eq!(known.at, Where::Ready, "{handed:?}");
            known.attempts += 1;
            assert_eq!(handed.attempt, known.attempts);
            assert_eq!(handed.deadline_ms, self.now_ms + VISIBLE_MS);
            known.at = Where::InFlight(handed.deadline_ms);
            known.holder = Some(consumer);
            let (credit, held) = self.model.consumers.get_mut(&consumer).expect("a consumer");
            held.insert(handed.number);
            assert!(held.len() <= *credit, "{handed:?} beyond {credit}");
            let id = DeliveryId { queue: queue(), job: handed.number.to_string(), attempt: handed.attempt };
            self.model.deliveries.push((id, consumer));
        }
    }

    fn check(&mut self) {
        let stats = QueueStats { oldest_age_ms: 0, ..self.machine.stats(self.now_ms) };
        assert_eq!(stats, self.model.stats());
        assert_eq!(self.machine.len(), self.model.live.len() as u64);
        let free = self.model.consumers.values().any(|(credit, held)| held.len() < *credit);
        let waiting = |(number, known): (&JobNumber, &Known)| {
            known.at == Where::Ready && self.model.first_of_its_key(*number)
        };
        assert!(!free || !self.model.live.iter().any(waiting), "credit and jobs, and nothing is handed out");
        let dead: Vec<_> = self.machine.peek(Shelf::Dead, 100).into_iter().map(|job| job.job).collect();
        assert_eq!(dead, self.model.dead.iter().map(|(number, _)| number.to_string()).collect::<Vec<_>>());
        let times = self.model.live.values().filter_map(|known| match known.at {
            Where::Ready => None,
            Where::Delayed(until) | Where::InFlight(until) => Some(until),
        });
        assert_eq!(self.machine.due_ms(), times.min());
    }

    /// Whatever happened before: somebody who acks everything gets everything, and nothing is left.
    fn finish(&mut self) {
        self.apply(&Call::Consume { consumer: 9, credit: 1_000 });
        for _ in 0..1_000 {
            if self.model.live.is_empty() {
                break;
            }
            let latest: Vec<_> =
                self.model.live.iter().filter(|(_, known)| known.holder == Some(9)).collect();
            let latest: Vec<_> = latest.iter().map(|(number, known)| (**number, known.attempts)).collect();
            for (number, attempt) in latest {
                let id = DeliveryId { queue: queue(), job: number.to_string(), attempt };
                let answer = self.machine.settle("s9", &id, Settle::Ack, &self.policy, self.now_ms);
                assert_eq!(answer, self.model.settle(&id, 9, Settle::Ack, self.now_ms));
            }
            self.apply(&Call::Wait { ms: VISIBLE_MS / 2 });
        }
        assert!(self.model.live.is_empty(), "{:?}", self.model.live);
        self.machine.purge(Shelf::Dead);
        assert_eq!(self.machine.bytes(), 0);
        self.machine.take_letters();
        for consumer in self.model.consumers.keys() {
            self.machine.stop_consuming(ConsumerId(*consumer), true, &self.policy);
        }
        assert!(self.machine.is_idle());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_queues_keep_their_promises(calls in prop::collection::vec(call(), 1..150)) {
        let mut pair = Pair::new();
        for call in &calls {
            pair.apply(call);
        }
        pair.finish();
    }
}
