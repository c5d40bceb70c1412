//! The task: takes requests and finished turns, and looks again where nobody told of jobs.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{
    super::{keys::Keys, link::Link, paging::Caller, scripts, sinks::Sinks, topology},
    local::{LocalQueue, Turn},
    turn::{Outcome, args, letters_to},
};
use crate::{
    broker::{
        BrokerError, Delivery, Publish, Published, SinkId, Stored,
        interest::SinkSet,
        queue::{Consume, ConsumerId, DeliveryId, Group, Job, JobOptions, QueueName, Settle, Settled},
    },
    channel::Channel,
    policy::Policies,
    telemetry::metrics::{QUEUE_DEAD, QUEUE_DEAD_DROPPED},
};

/// Requests taken before turns are made, so that they share a call.
const GULP: usize = 256;

/// What the task works with.
pub struct Environment {
    /// Which partition.
    pub partition: usize,
    /// Its link.
    pub link: Arc<Link>,
    /// Names of keys.
    pub keys: Arc<Keys>,
    /// Policies by channel.
    pub policies: Policies,
    /// Whom to deliver to.
    pub sinks: Sinks,
    /// This node's incarnation, once its inboxes exist.
    pub node: watch::Receiver<Option<u64>>,
    /// Longest wait for a reply.
    pub deadline: Duration,
    /// Greatest length of an inbox.
    pub inbox_max: u64,
    /// Publishes dead jobs.
    pub publish: Arc<dyn Fn(Publish) -> BoxFuture<'static, Result<Published, BrokerError>> + Send + Sync>,
    /// Ends the task.
    pub stop: CancellationToken,
}

/// What the task may be asked.
#[derive(Debug)]
pub enum Request {
    /// A consumer.
    Consume {
        /// Who takes its jobs.
        sink: SinkId,
        /// What it wants.
        consume: Consume,
        /// Who waits.
        reply: oneshot::Sender<Result<(), BrokerError>>,
    },
    /// The end of one.
    Stop {
        /// Of which queue.
        queue: QueueName,
        /// Which.
        consumer: ConsumerId,
        /// What it has is given back.
        release: bool,
    },
    /// Deliveries to settle.
    Settle {
        /// Of which queue.
        queue: QueueName,
        /// By whom.
        session: String,
        /// Which, and how.
        deliveries: Vec<(DeliveryId, Settle)>,
        /// Who waits.
        reply: oneshot::Sender<Result<Vec<Settled>, BrokerError>>,
    },
    /// There may be jobs.
    Woken {
        /// In the queue of that name (`<group>/<channel>`).
        queue: String,
        /// The job and session of a delivery that was settled through another node.
        settled: Option<(String, String)>,
    },
    /// Redis may have forgotten what it was told, or a word of it was lost.
    Resync,
}

/// A call that ended.
enum Done {
    Turned { queue: QueueName, turn: Turn, visibility: Duration, outcome: Result<Outcome, BrokerError> },
    Told { queue: QueueName, job: String, published: bool },
}

/// The task's state. See the folder's module.
pub struct Desk {
    environment: Environment,
    queues: HashMap<QueueName, LocalQueue>,
    calls: FuturesUnordered<Pin<Box<dyn Future<Output = Done> + Send>>>,
    /// Dead jobs that are being published.
    telling: std::collections::HashSet<(QueueName, String)>,
}

impl Desk {
    /// Starts the task; it ends at the environment's stop, or when nobody can ask any more.
    pub fn start(environment: Environment, requests: mpsc::UnboundedReceiver<Request>) {
        let desk = Self {
            environment,
            queues: HashMap::new(),
            calls: FuturesUnordered::new(),
            telling: std::collections::HashSet::new(),
        };
        tokio::spawn(desk.run(requests));
    }

    async fn run(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        let stop = self.environment.stop.clone();
        let mut gulp = Vec::with_capacity(GULP);
        loop {
            let next = self.queues.values().filter_map(LocalQueue::next_look).min();
            let look = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            // Every branch is safe to cancel: a channel, a stream and a timer.
            tokio::select! {
                () = stop.cancelled() => break,
                taken = requests.recv_many(&mut gulp, GULP) => {
                    if taken == 0 {
                        break;
                    }
                    for request in gulp.drain(..) {
                        self.take(request);
                    }
                }
                Some(done) = self.calls.next() => self.finish(done),
                () = look => {}
            }
            self.turn_all();
        }
        self.queues.values_mut().for_each(LocalQueue::stop);
    }

    fn take(&mut self, request: Request) {
        match request {
            Request::Consume { sink, consume, reply } => {
                let queue = consume.queue.clone();
                self.queues.entry(queue).or_default().begin(sink, consume, reply);
            }
            Request::Stop { queue, consumer, release } => {
                if let Some(local) = self.queues.get_mut(&queue) {
                    local.end(consumer, release);
                }
            }
            Request::Settle { queue, session, deliveries, reply } => {
                self.queues.entry(queue).or_default().settle(&session, deliveries, reply);
            }
            Request::Woken { queue, settled } => {
                if let Some(local) = named(&queue).and_then(|queue| self.queues.get_mut(&queue)) {
                    if let Some((job, session)) = settled {
                        local.settled_elsewhere(&session, &job);
                    }
                    local.wake();
                }
            }
            Request::Resync => self.queues.values_mut().for_each(LocalQueue::begin_again),
        }
    }

    /// Makes every turn that is due.
    fn turn_all(&mut self) {
        let now = Instant::now();
        let mut turns = Vec::new();
        for (queue, local) in &mut self.queues {
            if let Some(turn) = local.next_turn(now) {
                turns.push((queue.clone(), turn));
            }
        }
        for (queue, turn) in turns {
            self.turn(queue, turn);
        }
        self.queues.retain(|_, local| !local.is_idle());
    }

    fn turn(&mut self, queue: QueueName, turn: Turn) {
        let policy = self.environment.policies.of(queue.channel.as_str()).queue.clone();
        let visibility = policy.visibility_timeout;
        let caller = match self.caller() {
            Ok(caller) => caller,
            Err(error) => {
                if let Some(local) = self.queues.get_mut(&queue) {
                    local.fail(turn, &error, Instant::now());
                }
                return;
            }
        };
        let args = args(&caller, self.environment.inbox_max, &queue, &policy, &turn);
        let call = caller.call(&scripts::QUEUE_TURN, args);
        self.calls.push(Box::pin(async move {
            let outcome = async { Outcome::of(&queue.channel, call.await?) }.await;
            Done::Turned { queue, turn, visibility, outcome }
        }));
    }

    fn finish(&mut self, done: Done) {
        match done {
            Done::Turned { queue, turn, visibility, outcome } => {
                self.turned(queue, turn, visibility, outcome)
            }
            Done::Told { queue, job, published } => {
                self.telling.remove(&(queue.clone(), job.clone()));
                if published {
                    self.queues.entry(queue).or_default().told(job);
                }
            }
        }
    }

    fn turned(
        &mut self,
        queue: QueueName,
        turn: Turn,
        visibility: Duration,
        outcome: Result<Outcome, BrokerError>,
    ) {
        let Some(local) = self.queues.get_mut(&queue) else { return };
        let now = Instant::now();
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                tracing::debug!(channel = %queue.channel, %error, "a turn at a queue failed");
                return local.fail(turn, &error, now);
            }
        };
        metrics::counter!(QUEUE_DEAD).increment(outcome.died);
        if outcome.dropped > 0 {
            tracing::warn!(channel = %queue.channel, group = %queue.group, lost = outcome.dropped, "dead jobs were dropped: there are too many");
            metrics::counter!(QUEUE_DEAD_DROPPED).increment(outcome.dropped);
        }
        let wants = turn.wants.clone();
        let of = |want: usize| wants.get(want).map(|want| (want.consumer, want.sink, want.session.clone()));
        let taken: Vec<_> = outcome.taken.into_iter().filter_map(|job| Some((of(job.want)?, job))).collect();
        let names: Vec<_> = taken.iter().map(|((consumer, ..), job)| (*consumer, job.job.clone())).collect();
        // By Redis' clock, which need not be this node's: only differences count.
        let time = taken.first().map(|(_, job)| job.deadline_ms);
        let due_in = outcome.due_ms.map(|due| match time {
            Some(deadline) => {
                (visibility + Duration::from_millis(due)).saturating_sub(Duration::from_millis(deadline))
            }
            None => until(due),
        });
        let ended = local.finish(turn, &outcome.steps, &names, due_in, visibility, now);
        let mut given_back = Vec::new();
        for (number, ((consumer, sink, session), job)) in taken.into_iter().enumerate() {
            let id = DeliveryId { queue: queue.clone(), job: job.job, attempt: job.attempt };
            if ended.contains(&number) {
                given_back.push((session, id));
                continue;
            }
            let job = Job { consumer, id, deadline_ms: job.deadline_ms, publication: job.publication };
            let mut to = SinkSet::default();
            to.insert(sink);
            self.environment.sinks.deliver(to, &Delivery::Job(Arc::new(job)));
        }
        for (session, id) in given_back {
            local.give_back(&session, id);
        }
        for (job, blob) in outcome.dead {
            self.tell(&queue, job, blob);
        }
    }

    /// Publishes a dead job where its policy says. Again and again until Redis knows that it was; with the same key.
    fn tell(&mut self, queue: &QueueName, job: String, blob: Bytes) {
        let policy = self.environment.policies.of(queue.channel.as_str());
        let Some(channel) = letters_to(queue, &policy.queue).cloned() else { return };
        if !self.telling.insert((queue.clone(), job.clone())) {
            return;
        }
        let stored = match Stored::from_bytes(blob) {
            Ok(stored) => stored,
            Err(error) => return tracing::error!(channel = %queue.channel, %error, "a dead job is damaged"),
        };
        let publish = Publish {
            channel,
            stored,
            user_id: String::new(),
            idempotency_key: Some(format!("dead {} {} {job}", queue.channel, queue.group)),
            transient: false,
            job: JobOptions::default(),
        };
        let (published, queue) = ((self.environment.publish)(publish), queue.clone());
        self.calls.push(Box::pin(async move {
            let published = match published.await {
                Ok(_) => true,
                Err(error) => {
                    tracing::warn!(channel = %queue.channel, %error, "a dead job cannot be told, trying again");
                    false
                }
            };
            Done::Told { queue, job, published }
        }));
    }

    fn caller(&self) -> Result<Caller, BrokerError> {
        let connection = topology::open(&self.environment.link)?;
        let node = (*self.environment.node.borrow()).ok_or_else(|| BrokerError::NotAvailable {
            reason: "this node has no inboxes yet".to_owned(),
            sent: false,
        })?;
        Ok(Caller {
            connection,
            keys: self.environment.keys.clone(),
            partition: self.environment.partition,
            node,
            deadline: self.environment.deadline,
        })
    }
}

/// The queue of a name in keys.
fn named(name: &str) -> Option<QueueName> {
    let (group, channel) = name.split_once('/')?;
    Some(QueueName { channel: Channel::parse(channel).ok()?, group: Group::parse(group).ok()? })
}

/// How long until a time of Redis' clock, by this node's.
fn until(unix_ms: u64) -> Duration {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Duration::from_millis(unix_ms).saturating_sub(now)
}
