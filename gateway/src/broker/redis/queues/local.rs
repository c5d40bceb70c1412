//! What a node keeps of one queue: its consumers here, and what is to be told of it in the next turn. Pure.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::broker::{
    BrokerError, SinkId,
    queue::{Consume, ConsumerId, DeliveryId, Settle, Settled},
};

#[cfg(test)]
#[path = "local_tests.rs"]
mod tests;

/// Most steps of one turn.
const MOST_STEPS: usize = 500;
/// Most jobs that one turn takes: their bytes are in one answer.
const MOST_JOBS: usize = 100;
/// How often a queue is looked at where nobody told of jobs: a word that was lost costs no more.
const LOOK: Duration = Duration::from_secs(2);

/// The deliveries of one call to settle, that their outcomes are collected for.
#[derive(Debug)]
pub struct Settling {
    outcomes: Vec<Settled>,
    left: usize,
    reply: Option<oneshot::Sender<Result<Vec<Settled>, BrokerError>>>,
}

/// One thing to tell Redis.
#[derive(Debug)]
pub enum Step {
    /// A consumer begins.
    Begin {
        /// Its session.
        session: String,
        /// Who waits, unless it is told again.
        reply: Option<oneshot::Sender<Result<(), BrokerError>>>,
    },
    /// It ends.
    End {
        /// Its session.
        session: String,
        /// What it has is given back.
        release: bool,
    },
    /// A delivery is settled.
    Settle {
        /// By whom.
        session: String,
        /// Which.
        id: DeliveryId,
        /// How.
        how: Settle,
        /// Number of the [`Settling`] and the place in it; none if nobody asks.
        waits: Option<(u64, usize)>,
    },
    /// A dead job was published to where its policy says.
    Told {
        /// Its name.
        job: String,
    },
}

/// A consumer of this node.
#[derive(Debug)]
struct Consumer {
    id: ConsumerId,
    sink: SinkId,
    session: String,
    credit: usize,
    /// Jobs that it has, until when.
    held: HashMap<String, Instant>,
    /// Jobs that the turn under way takes for it.
    coming: usize,
}

impl Consumer {
    fn free(&self) -> usize {
        self.credit.saturating_sub(self.held.len() + self.coming)
    }
}

/// One call.
#[derive(Debug)]
pub struct Turn {
    /// In their order.
    pub steps: Vec<Step>,
    /// Who is to get how many jobs.
    pub wants: Vec<Want>,
}

/// What a consumer is to get in a turn.
#[derive(Debug, Clone)]
pub struct Want {
    /// Which.
    pub consumer: ConsumerId,
    /// Its sink.
    pub sink: SinkId,
    /// Its session.
    pub session: String,
    /// How many jobs.
    pub jobs: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub struct LocalQueue {
    consumers: VecDeque<Consumer>,
    steps: VecDeque<Step>,
    settlings: HashMap<u64, Settling>,
    settled: u64,
    under_way: bool,
    /// Jobs may be there.
    hopeful: bool,
    /// When to look again.
    look_at: Option<Instant>,
}

impl LocalQueue {
    /// Adds a consumer, or replaces the one of that name.
    pub fn begin(&mut self, sink: SinkId, consume: Consume, reply: oneshot::Sender<Result<(), BrokerError>>) {
        self.consumers.retain(|consumer| consumer.id != consume.consumer);
        self.steps.push_back(Step::Begin { session: consume.session.clone(), reply: Some(reply) });
        self.consumers.push_back(Consumer {
            id: consume.consumer,
            sink,
            session: consume.session,
            credit: usize::try_from(consume.credit.max(1)).unwrap_or(usize::MAX),
            held: HashMap::new(),
            coming: 0,
        });
        self.hopeful = true;
    }

    /// Removes a consumer.
    pub fn end(&mut self, consumer: ConsumerId, release: bool) {
        let Some(at) = self.consumers.iter().position(|known| known.id == consumer) else { return };
        let Some(ended) = self.consumers.remove(at) else { return };
        // The same session may consume under another name already: then only what this one had ends.
        if self.consumers.iter().all(|other| other.session != ended.session) {
            self.steps.push_back(Step::End { session: ended.session, release });
        }
    }

    /// Takes deliveries to be settled.
    pub fn settle(
        &mut self,
        session: &str,
        deliveries: Vec<(DeliveryId, Settle)>,
        reply: oneshot::Sender<Result<Vec<Settled>, BrokerError>>,
    ) {
        if deliveries.is_empty() {
            // Who does not wait any more needs no answer.
            let _ = reply.send(Ok(Vec::new()));
            return;
        }
        self.settled += 1;
        let number = self.settled;
        let left = deliveries.len();
        self.settlings
            .insert(number, Settling { outcomes: vec![Settled::Gone; left], left, reply: Some(reply) });
        for (at, (id, how)) in deliveries.into_iter().enumerate() {
            self.steps.push_back(Step::Settle {
                session: session.to_owned(),
                id,
                how,
                waits: Some((number, at)),
            });
        }
    }

    /// A dead job was told.
    pub fn told(&mut self, job: String) {
        self.steps.push_back(Step::Told { job });
    }

    /// A delivery to a consumer here is its no more.
    pub fn settled_elsewhere(&mut self, session: &str, job: &str) {
        for consumer in self.consumers.iter_mut().filter(|consumer| consumer.session == session) {
            consumer.held.remove(job);
        }
    }

    /// Somebody told that there are jobs.
    pub fn wake(&mut self) {
        self.hopeful = true;
    }

    /// Redis may have forgotten what it was told.
    pub fn begin_again(&mut self) {
        for consumer in &self.consumers {
            self.steps.push_back(Step::Begin { session: consumer.session.clone(), reply: None });
        }
        self.hopeful = true;
    }

    /// Whether nothing is left to keep it for.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.consumers.is_empty() && self.steps.is_empty() && !self.under_way
    }

    /// When [`Self::next_turn`] may have something to do that it has not now.
    #[must_use]
    pub fn next_look(&self) -> Option<Instant> {
        let expires = self.consumers.iter().flat_map(|consumer| consumer.held.values()).min().copied();
        let look = self.look_at.filter(|_| !self.under_way && !self.consumers.is_empty());
        look.into_iter().chain(expires.filter(|_| !self.under_way)).min()
    }

    /// What to call now, one call at a time.
    pub fn next_turn(&mut self, now: Instant) -> Option<Turn> {
        if self.under_way {
            return None;
        }
        for consumer in &mut self.consumers {
            consumer.held.retain(|_, until| *until > now);
        }
        self.hopeful |= self.look_at.is_some_and(|at| at <= now);
        let steps: Vec<Step> = self.steps.drain(..self.steps.len().min(MOST_STEPS)).collect();
        for step in &steps {
            if let Step::Settle { id, how: Settle::Ack | Settle::Nack { .. }, session, .. } = step {
                // Whatever Redis says, it is this consumer's no more.
                for consumer in self.consumers.iter_mut().filter(|consumer| consumer.session == *session) {
                    consumer.held.remove(&id.job);
                }
            }
        }
        let freed = steps.iter().any(|step| matches!(step, Step::Settle { .. } | Step::End { .. }));
        let mut wants = Vec::new();
        if self.hopeful || freed {
            wants = self.wants();
        }
        if steps.is_empty() && wants.is_empty() {
            // Without credit there is nothing to look for until some is free.
            self.look_at = self.look_at.filter(|at| *at > now);
            return None;
        }
        self.under_way = true;
        Some(Turn { steps, wants })
    }

    /// Free credit, each consumer in its turn.
    fn wants(&mut self) -> Vec<Want> {
        let (mut wants, mut left) = (Vec::new(), MOST_JOBS);
        self.consumers.rotate_left(usize::from(self.consumers.len() > 1));
        let share = (MOST_JOBS / self.consumers.len().max(1)).max(1);
        for consumer in &mut self.consumers {
            let jobs = consumer.free().min(share).min(left);
            if jobs > 0 {
                consumer.coming = jobs;
                left -= jobs;
                let (sink, session) = (consumer.sink, consumer.session.clone());
                wants.push(Want { consumer: consumer.id, sink, session, jobs });
            }
        }
        wants
    }

    /// The turn was carried out: `outcomes` of its steps, `taken` jobs with who got them, whether the last who asked got all
    /// that it asked for, and when something becomes due. Answers the deliveries whose consumer has ended meanwhile.
    pub fn finish(
        &mut self,
        turn: Turn,
        outcomes: &[Settled],
        taken: &[(ConsumerId, String)],
        due_in: Option<Duration>,
        visibility: Duration,
        now: Instant,
    ) -> Vec<usize> {
        self.under_way = false;
        for (step, outcome) in turn.steps.into_iter().zip(outcomes) {
            match step {
                Step::Begin { reply: Some(reply), .. } => drop(reply.send(Ok(()))),
                Step::Settle { waits: Some((number, at)), id, how, session } => {
                    self.note(number, at, *outcome);
                    if let (Settle::Extend { by }, Settled::Done) = (how, outcome) {
                        self.extend(&session, &id.job, now + by.unwrap_or(visibility));
                    }
                }
                _ => {}
            }
        }
        let mut ended = Vec::new();
        for (number, (consumer, job)) in taken.iter().enumerate() {
            match self.consumers.iter_mut().find(|known| known.id == *consumer) {
                Some(consumer) => drop(consumer.held.insert(job.clone(), now + visibility)),
                None => ended.push(number),
            }
        }
        for consumer in &mut self.consumers {
            consumer.coming = 0;
        }
        let wanted: usize = turn.wants.iter().map(|want| want.jobs).sum();
        // Not all that was asked for: there is nothing more now.
        self.hopeful =
            !turn.wants.is_empty() && taken.len() == wanted || (turn.wants.is_empty() && self.hopeful);
        self.look_at = Some(now + due_in.unwrap_or(LOOK).min(LOOK));
        ended
    }

    fn extend(&mut self, session: &str, job: &str, until: Instant) {
        for consumer in self.consumers.iter_mut().filter(|consumer| consumer.session == session) {
            if let Some(held) = consumer.held.get_mut(job) {
                *held = until;
            }
        }
    }

    fn note(&mut self, number: u64, at: usize, outcome: Settled) {
        let Some(settling) = self.settlings.get_mut(&number) else { return };
        if let Some(place) = settling.outcomes.get_mut(at) {
            *place = outcome;
        }
        settling.left -= 1;
        if settling.left == 0
            && let Some(mut settling) = self.settlings.remove(&number)
            && let Some(reply) = settling.reply.take()
        {
            // Who does not wait any more needs no answer.
            let _ = reply.send(Ok(settling.outcomes));
        }
    }

    /// The turn failed, or may have: who waits is told, and what was not asked for by anybody goes again.
    pub fn fail(&mut self, turn: Turn, error: &BrokerError, now: Instant) {
        self.under_way = false;
        for step in turn.steps.into_iter().rev() {
            match step {
                Step::Begin { reply: Some(reply), session } => {
                    let _ = reply.send(Err(error.clone()));
                    self.consumers.retain(|consumer| consumer.session != session);
                }
                Step::Settle { waits: Some((number, _)), .. } => {
                    if let Some(reply) =
                        self.settlings.remove(&number).and_then(|mut settling| settling.reply.take())
                    {
                        let _ = reply.send(Err(error.clone()));
                    }
                }
                // Each may be done twice.
                step => self.steps.push_front(step),
            }
        }
        for consumer in &mut self.consumers {
            consumer.coming = 0;
        }
        // What it took is somebody's until its deadline.
        (self.hopeful, self.look_at) = (false, Some(now + LOOK.min(Duration::from_millis(200))));
    }

    /// The broker stops: who waits is told.
    pub fn stop(&mut self) {
        for (_, mut settling) in self.settlings.drain() {
            if let Some(reply) = settling.reply.take() {
                let _ = reply.send(Err(BrokerError::Stopped));
            }
        }
        for step in self.steps.drain(..) {
            if let Step::Begin { reply: Some(reply), .. } = step {
                let _ = reply.send(Err(BrokerError::Stopped));
            }
        }
    }
}

impl LocalQueue {
    /// Gives back a delivery whose consumer has ended.
    pub fn give_back(&mut self, session: &str, id: DeliveryId) {
        let (session, how) = (session.to_owned(), Settle::Nack { delay: Duration::ZERO });
        self.steps.push_back(Step::Settle { session, id, how, waits: None });
    }
}
