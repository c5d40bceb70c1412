//! The task: takes requests, inbox entries, finished calls and ticks, one after the other.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    pin::Pin,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use ahash::AHashMap;
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, interval_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        beliefs::Beliefs,
        combiner::{Combiner, Sent},
        connection::Connection,
        error::CallError,
        hold::Hold,
        keys::Keys,
        link::Link,
        paging::Caller,
        queues,
        range::{Part, Range},
        reply::Reply,
        sinks::Sinks,
        topology,
    },
    FromReader, PatternPart, Request,
    audit::Audit,
    lease,
    members::{Change, Members, Outcome},
    patterns::{PatternState, PendingScan},
    slot::Slot,
    watching::Watching,
};
use crate::{
    broker::{BrokerError, PresencePage, interest::Interest},
    channel::{Channel, Pattern},
    policy::Policies,
    position::Position,
};

/// How often ticks look for quiet channels, unused caches and stuck back-fills.
const TICK: Duration = Duration::from_secs(1);
/// Requests taken before publishes are sent, so that they share a call.
const GULP: usize = 256;

/// What a partition's task works with.
pub struct Environment {
    /// Which partition.
    pub partition: usize,
    /// Its ordered link.
    pub link: Arc<Link>,
    /// Names of keys.
    pub keys: Arc<Keys>,
    /// Policies by channel.
    pub policies: Policies,
    /// Whom to deliver to.
    pub sinks: Sinks,
    /// This node's incarnation, once its inboxes exist.
    pub node: watch::Receiver<Option<u64>>,
    /// How long Redis keeps what this node holds without a sign of its life.
    pub lease: Duration,
    /// Longest wait for a reply.
    pub deadline: Duration,
    /// Greatest length of an inbox.
    pub inbox_max: u64,
    /// Most names in the catalogue of a partition.
    pub catalogue_max: u64,
    /// Whether the node wants to know which channels are occupied.
    pub records_occupancy: Arc<AtomicBool>,
    /// Who takes turns at the partition's queues.
    pub queues: mpsc::UnboundedSender<queues::Request>,
    /// Ends the task.
    pub stop: CancellationToken,
}

/// A call that ended.
pub(super) enum Done {
    Published {
        sent: Sent,
        outcome: Result<Reply, CallError>,
    },
    /// The combiner's rest is over.
    Rested,
    Read {
        channel: Channel,
        version: u64,
        subscribed: bool,
        part: Part,
        outcome: Result<Option<Range>, BrokerError>,
    },
    Filled {
        channel: Channel,
        from: Position,
        /// [`Actor::doubts`] when it was asked.
        doubts: u64,
        outcome: Result<Range, BrokerError>,
    },
    Scanned {
        pattern: Pattern,
        subscriber: Option<u64>,
        outcome: Result<PatternPart, BrokerError>,
    },
    Checked {
        batch: Vec<(Channel, Option<Position>)>,
        interests: Vec<String>,
        /// [`Actor::doubts`] when it was asked.
        doubts: u64,
        outcome: Result<super::resync::Differing, BrokerError>,
    },
    Changed {
        changes: Vec<Change>,
        outcome: Result<Vec<Outcome>, BrokerError>,
    },
    ListedChannels {
        pattern: Pattern,
        number: u64,
        outcome: Result<Vec<Channel>, BrokerError>,
    },
    ListedMembers {
        channel: Channel,
        number: u64,
        outcome: Result<PresencePage, BrokerError>,
    },
    Withdrawn {
        names: Vec<String>,
        outcome: Result<(), BrokerError>,
    },
    Audited(Result<super::audit::Page, BrokerError>),
    Beaten(Result<lease::Beat, BrokerError>),
    /// Nothing follows from it.
    Ignored,
}

pub(super) type Pending = Pin<Box<dyn Future<Output = Done> + Send>>;

/// The task's state. See the folder's module.
pub struct Actor {
    pub(super) environment: Environment,
    pub(super) interest: Interest,
    pub(super) slots: AHashMap<Channel, Slot>,
    pub(super) patterns: HashMap<Pattern, PatternState>,
    /// Pattern subscribers without an answer so far.
    pub(super) scans: Vec<PendingScan>,
    pub(super) scan_count: u64,
    pub(super) combiner: Combiner,
    pub(super) hold: Hold,
    pub(super) beliefs: Beliefs,
    /// Replid that the beliefs were learned under.
    pub(super) replid: String,
    pub(super) calls: FuturesUnordered<Pending>,
    /// Channels whose history must be compared with what was delivered.
    pub(super) unchecked: VecDeque<Channel>,
    /// Interests that must be told to Redis again.
    pub(super) unconfirmed: VecDeque<String>,
    /// Interests that are told to Redis again because it is their turn.
    pub(super) renewals: VecDeque<String>,
    pub(super) checking: bool,
    /// Re-syncs so far: an answer to a question from before the last one settles no doubt.
    pub(super) doubts: u64,
    /// Channels that the inbox brings and nobody listens to.
    pub(super) strays: HashSet<Channel>,
    pub(super) ticks: u64,
    pub(super) members: Members,
    pub(super) watching: Watching,
    pub(super) audit: Audit,
    /// A heartbeat is under way.
    pub(super) beating: bool,
    /// The node withdraws from Redis.
    withdrawn: bool,
}

impl Actor {
    pub(super) fn new(environment: Environment) -> Self {
        Self {
            environment,
            interest: Interest::default(),
            slots: AHashMap::new(),
            patterns: HashMap::new(),
            scans: Vec::new(),
            scan_count: 0,
            combiner: Combiner::default(),
            hold: Hold::default(),
            beliefs: Beliefs::default(),
            replid: String::new(),
            calls: FuturesUnordered::new(),
            unchecked: VecDeque::new(),
            unconfirmed: VecDeque::new(),
            renewals: VecDeque::new(),
            checking: false,
            doubts: 0,
            strays: HashSet::new(),
            ticks: 0,
            members: Members::default(),
            watching: Watching::default(),
            audit: Audit::default(),
            beating: false,
            withdrawn: false,
        }
    }

    pub(super) async fn run(
        mut self,
        mut requests: mpsc::UnboundedReceiver<Request>,
        mut entries: mpsc::Receiver<FromReader>,
    ) {
        let stop = self.environment.stop.clone();
        let mut connections = self.environment.link.connections();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Nodes and partitions do not beat in step.
        let beat = lease::beat(self.environment.lease);
        let mut beats = interval_at(Instant::now() + beat.mul_f64(rand::random()), beat);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut gulp, mut reader_there) = (Vec::with_capacity(GULP), true);
        loop {
            // Every branch is safe to cancel: channels, a watch, a stream and a timer.
            tokio::select! {
                () = stop.cancelled() => break,
                taken = requests.recv_many(&mut gulp, GULP) => {
                    if taken == 0 {
                        break;
                    }
                    for request in gulp.drain(..) {
                        self.take(request);
                    }
                    self.send_publishes();
                    self.send_changes();
                }
                Some(done) = self.calls.next() => {
                    self.finish(done);
                    self.send_publishes();
                }
                message = entries.recv(), if reader_there => match message {
                    Some(FromReader::Entries(entries)) => self.take_entries(entries),
                    Some(FromReader::Missed(reason)) => self.resync(reason),
                    None => reader_there = false,
                },
                changed = connections.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let connection = connections.borrow_and_update().clone();
                    self.connection_changed(connection.as_deref());
                }
                _ = ticks.tick() => self.tick(),
                _ = beats.tick() => self.beat(false),
            }
        }
        self.combiner.fail_waiting(&BrokerError::Stopped);
        self.fail_members(&BrokerError::Stopped);
    }

    fn take(&mut self, request: Request) {
        match request {
            Request::Publish(publish) => self.combiner.push(publish),
            Request::Subscribe { sink, channel, start, reply, permit } => {
                self.subscribe(sink, channel, start, reply, permit);
            }
            Request::SubscribePattern { sink, pattern, start, marker, reply, permit } => {
                self.subscribe_pattern(sink, pattern, start, marker, reply, permit);
            }
            Request::Unsubscribe { sink, target } => self.unsubscribe(sink, &target),
            Request::Join { channel, member, owner, reply } => self.join(channel, &member, owner, reply),
            Request::Leave { channel, session, owner } => self.leave(channel, session, owner),
            Request::Members { channel, limit, reply, permit } => {
                self.query_members(channel, limit, reply, permit);
            }
            Request::Watch { sink, target, reply, permit } => self.watch(sink, target, reply, permit),
            Request::Unwatch { sink, target } => self.unwatch(sink, &target),
            Request::Withdraw { done } => {
                self.withdrawn = true;
                // Who does not wait any more needs no answer.
                let _ = done.send(());
            }
        }
    }

    fn finish(&mut self, done: Done) {
        match done {
            Done::Published { sent, outcome } => self.finish_publishes(sent, outcome),
            Done::Rested => self.combiner.go_on(),
            Done::Read { channel, version, subscribed, part, outcome } => {
                self.finish_read(&channel, version, subscribed, part, outcome);
            }
            Done::Filled { channel, from, doubts, outcome } => {
                self.finish_fill(&channel, from, doubts, outcome);
            }
            Done::Scanned { pattern, subscriber, outcome } => self.finish_scan(&pattern, subscriber, outcome),
            Done::Checked { batch, interests, doubts, outcome } => {
                self.finish_check(batch, interests, doubts, outcome);
            }
            Done::Changed { changes, outcome } => self.finish_changes(changes, outcome),
            Done::ListedChannels { pattern, number, outcome } => {
                self.finish_listed_channels(&pattern, number, outcome);
            }
            Done::ListedMembers { channel, number, outcome } => {
                self.finish_listed_members(&channel, number, outcome);
            }
            Done::Withdrawn { names, outcome } => self.finish_withdrawal(&names, outcome),
            Done::Audited(outcome) => self.finish_audit(outcome),
            Done::Beaten(outcome) => self.finish_beat(outcome),
            Done::Ignored => {}
        }
    }

    /// A caller on the open connection.
    pub(super) fn caller(&mut self) -> Result<Caller, BrokerError> {
        if self.withdrawn {
            return Err(BrokerError::Stopped);
        }
        let node = *self.environment.node.borrow();
        let connection = topology::open(&self.environment.link)?;
        let node = node.ok_or_else(|| BrokerError::NotAvailable {
            reason: "this node has no inboxes yet".to_owned(),
            sent: false,
        })?;
        if connection.hello().replid != self.replid {
            // What was believed may have been lost with the former server.
            self.replid.clone_from(&connection.hello().replid);
            self.beliefs.clear();
        }
        Ok(Caller {
            connection,
            keys: self.environment.keys.clone(),
            partition: self.environment.partition,
            node,
            deadline: self.environment.deadline,
        })
    }

    pub(super) fn later(&mut self, call: impl Future<Output = Done> + Send + 'static) {
        self.calls.push(Box::pin(call));
    }

    fn connection_changed(&mut self, connection: Option<&Connection>) {
        match connection {
            // Calls may have been lost with the former connection, and histories with the former server.
            Some(connection) if connection.generation() > 1 => self.resync("reconnected"),
            Some(_) | None => {}
        }
    }
}
