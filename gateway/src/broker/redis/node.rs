//! [`RedisBroker`]: the node's side of the broker, put together.

mod peers;
mod presence;
mod publisher;
mod queues;
mod sessions;
mod work;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt, join_all, ready};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::publisher::Publisher;
use super::{
    catalogue,
    clock::Clock,
    deployment::BootError,
    keys::Keys,
    marker,
    options::RedisOptions,
    pages,
    paging::Caller,
    partition::{Environment, Partition, PatternPart, Request},
    queues as queue_tasks, scripts,
    sinks::Sinks,
    supervision::{Supervision, supervise},
    topology::{self, Topology},
};
use crate::{
    broker::{
        Addressee, Broker, BrokerError, BrokerStatus, Catchup, ChannelPage, ChannelQuery, HistoryPage,
        HistoryQuery, Kept, LoadedSession, Member, NodeId, Owner, PatternCursors, PresencePage, Publish,
        Published, Revocations, Revoked, SessionRecord, Sink, SinkId, Start, Subscribe, SubscribeTo,
        Subscribed, TakeLetter, Turn,
    },
    channel::{Channel, Pattern, Target},
    policy::Policies,
};

/// Most channels in the catalogue of a partition.
const CATALOGUE_MAX: u64 = 1_000_000;
/// Most positions in the answer to a pattern.
const PATTERN_POSITIONS: usize = 1_000;
/// Things withdrawn in one call at shutdown.
const LEAVE_BATCH: u64 = 500;

type Answer<T> = BoxFuture<'static, Result<T, BrokerError>>;

/// The broker on Redis Streams. Cheap to share in an `Arc`; dropping it stops its tasks.
pub struct RedisBroker {
    partitions: Arc<[Partition]>,
    publisher: Publisher,
    /// One for each partition: who takes turns at its queues.
    desks: Vec<mpsc::UnboundedSender<queue_tasks::Request>>,
    topology: Arc<Topology>,
    keys: Arc<Keys>,
    policies: Policies,
    sinks: Sinks,
    node: watch::Receiver<Option<u64>>,
    status: watch::Receiver<BrokerStatus>,
    boot: watch::Receiver<Option<BootError>>,
    deadline: Duration,
    lease: Duration,
    inbox_max: u64,
    records_occupancy: Arc<AtomicBool>,
    clock: Clock,
    stop: CancellationToken,
    /// Ends the readers alone; ended by `stop`, too.
    reading: CancellationToken,
}

impl RedisBroker {
    /// Starts to connect and answers at once; [`Broker::status`] tells how it goes. Within a Tokio runtime.
    ///
    /// # Errors
    /// [`BootError::Options`] if the options make no sense.
    pub fn start(options: RedisOptions, policies: Policies) -> Result<Self, BootError> {
        let keys = Keys::new(&options.key_prefix, options.partitions).map_err(BootError::Options)?;
        let (keys, options) = (Arc::new(keys), Arc::new(options));
        let topology = Arc::new(Topology::start(&options, &keys));
        let (sinks, stop) = (Sinks::default(), CancellationToken::new());
        let reading = stop.child_token();
        let (node_tx, node) = watch::channel(None);
        let (status_tx, status) = watch::channel(BrokerStatus::Starting("connecting to Redis".to_owned()));
        let (boot_tx, boot) = watch::channel(None);
        let records_occupancy = Arc::new(AtomicBool::new(false));
        let (mut partitions, mut inboxes) = (Vec::new(), Vec::new());
        let (mut desks, mut asked) = (Vec::new(), Vec::new());
        for partition in 0..keys.partitions() {
            let (desk, requests) = mpsc::unbounded_channel();
            asked.push(requests);
            let (handle, inbox) = Partition::start(Environment {
                partition,
                link: topology.commands(partition),
                keys: keys.clone(),
                policies: policies.clone(),
                sinks: sinks.clone(),
                node: node.clone(),
                lease: options.lease,
                deadline: options.command_timeout,
                inbox_max: options.inbox_max_length,
                catalogue_max: CATALOGUE_MAX,
                records_occupancy: records_occupancy.clone(),
                queues: desk.clone(),
                stop: stop.clone(),
            });
            desks.push(desk);
            partitions.push(handle);
            inboxes.push(inbox);
        }
        let supervision = Supervision {
            topology: topology.clone(),
            keys: keys.clone(),
            inboxes,
            lease: options.lease,
            deadline: options.command_timeout,
            keep: options.inbox_ttl,
            records_occupancy: records_occupancy.clone(),
            node: node_tx,
            status: status_tx,
            refused: boot_tx,
            stop: stop.clone(),
            reading: reading.clone(),
        };
        tokio::spawn(supervise(supervision));
        let (deadline, inbox_max) = (options.command_timeout, options.inbox_max_length);
        let partitions: Arc<[Partition]> = partitions.into();
        let publisher = Publisher {
            partitions: partitions.clone(),
            keys: keys.clone(),
            policies: policies.clone(),
            status: status.clone(),
        };
        for (partition, requests) in asked.into_iter().enumerate() {
            let publisher = publisher.clone();
            let environment = queue_tasks::Environment {
                partition,
                link: topology.commands(partition),
                keys: keys.clone(),
                policies: policies.clone(),
                sinks: sinks.clone(),
                node: node.clone(),
                deadline,
                inbox_max,
                publish: Arc::new(move |publish| publisher.publish(publish)),
                stop: stop.clone(),
            };
            queue_tasks::Desk::start(environment, requests);
        }
        Ok(Self {
            partitions,
            publisher,
            desks,
            topology,
            keys,
            policies,
            sinks,
            node,
            status,
            boot,
            deadline,
            lease: options.lease,
            inbox_max,
            records_occupancy,
            clock: Clock::default(),
            stop,
            reading,
        })
    }

    /// Waits until the broker is ready for the first time. Safe to cancel.
    ///
    /// # Errors
    /// [`BootError`] if waiting does not help: the server is unfit, or the deployment is laid out otherwise.
    pub async fn booted(&self) -> Result<(), BootError> {
        let (mut boot, mut status) = (self.boot.clone(), self.status.clone());
        tokio::select! {
            biased;
            refused = boot.wait_for(Option::is_some) => match refused.ok().and_then(|refused| refused.clone()) {
                Some(refused) => Err(refused),
                None => Ok(()),
            },
            // What was refused is told above, though perhaps a moment later.
            _ = status.wait_for(|status| {
                !matches!(status, BrokerStatus::Starting(_) | BrokerStatus::Refused(_))
            }) => Ok(()),
        }
    }

    /// This node's incarnation, once Redis has given it.
    #[must_use]
    pub fn incarnation(&self) -> Option<u64> {
        *self.node.borrow()
    }

    /// Names of this deployment's keys.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    fn partition_of(&self, name: &str) -> Result<&Partition, BrokerError> {
        self.partitions.get(self.keys.partition_of(name)).ok_or(BrokerError::Stopped)
    }

    /// Those that have channels of `target`.
    fn partitions_of(&self, target: &Target) -> impl Iterator<Item = &Partition> {
        let owner = match target {
            Target::Channel(channel) => Some(self.keys.partition_of(channel.as_str())),
            Target::Pattern(_) => None,
        };
        let all = self.partitions.iter().enumerate();
        all.filter(move |(number, _)| owner.is_none_or(|owner| owner == *number))
            .map(|(_, partition)| partition)
    }

    /// A caller for what needs no order.
    fn caller(&self, partition: usize) -> Result<Caller, BrokerError> {
        if self.stop.is_cancelled() {
            return Err(BrokerError::Stopped);
        }
        Ok(Caller {
            connection: topology::open(&self.topology.commands(partition))?,
            keys: self.keys.clone(),
            partition,
            node: self.incarnation().unwrap_or(0),
            deadline: self.deadline,
        })
    }

    fn must_have_started(&self) -> Result<(), BrokerError> {
        publisher::must_have_started(&self.publisher.status)
    }

    fn enqueue_subscribe(&self, sink: SinkId, to: SubscribeTo) -> Result<Answer<Subscribed>, BrokerError> {
        self.must_have_started()?;
        match to {
            SubscribeTo::Channel { channel, start } => {
                let partition = self.partition_of(channel.as_str())?;
                let permit = partition.admit(channel.as_str().len())?;
                let (reply, answer) = oneshot::channel();
                partition.send(Request::Subscribe { sink, channel, start, reply, permit })?;
                Ok(answered(answer))
            }
            SubscribeTo::Pattern { pattern, start } => self.enqueue_pattern(sink, &pattern, start),
        }
    }

    /// A pattern may match channels of every partition: each gets its part of the work, in the order of calls.
    fn enqueue_pattern(
        &self,
        sink: SinkId,
        pattern: &Pattern,
        start: Start<PatternCursors>,
    ) -> Result<Answer<Subscribed>, BrokerError> {
        let mut parts = self.split(start.clone());
        let mut answers = Vec::with_capacity(self.partitions.len());
        for (number, partition) in self.partitions.iter().enumerate() {
            let (start, marker) = parts.remove(&number).unwrap_or((Start::Live, None));
            let permit = partition.admit(pattern.as_str().len())?;
            let (reply, answer) = oneshot::channel();
            let pattern = pattern.clone();
            partition.send(Request::SubscribePattern { sink, pattern, start, marker, reply, permit })?;
            answers.push(answered(answer));
        }
        let wants_past = start != Start::Live;
        Ok(async move {
            let parts: Vec<Result<PatternPart, BrokerError>> = join_all(answers).await;
            // If one failed the caller unsubscribes, unless others of the same sink are subscribed.
            let parts: Result<Vec<PatternPart>, BrokerError> = parts.into_iter().collect();
            parts.map(|parts| join(parts, wants_past))
        }
        .boxed())
    }

    /// The start of each partition, with its top at the client's marker.
    fn split(&self, start: Start<PatternCursors>) -> HashMap<usize, (Start<PatternCursors>, Option<u64>)> {
        let count = self.partitions.len();
        match start {
            Start::After(cursors) => {
                let tops = cursors.marker.as_deref().and_then(|marker| marker::decode(marker, count));
                // Without a marker, the newest cursor tells a time at which the subscription was there.
                let newest = cursors.channels.values().map(|cursor| cursor.epoch).max().unwrap_or(0);
                let top = |p: usize| tops.as_ref().and_then(|tops| tops.get(p).copied()).unwrap_or(newest);
                let mut parts: HashMap<usize, PatternCursors> =
                    (0..count).map(|p| (p, PatternCursors::default())).collect();
                for (channel, cursor) in cursors.channels {
                    let part = parts.entry(self.keys.partition_of(channel.as_str())).or_default();
                    part.channels.insert(channel, cursor);
                }
                parts.into_iter().map(|(p, part)| (p, (Start::After(part), Some(top(p))))).collect()
            }
            start => (0..count).map(|p| (p, (start.clone(), None))).collect(),
        }
    }
}

/// The answer of all partitions.
fn join(parts: Vec<PatternPart>, wants_past: bool) -> Subscribed {
    let tops: Vec<u64> = parts.iter().map(|part| part.top).collect();
    let (mut subscribed, mut catchup) = (Subscribed::default(), Catchup::default());
    for part in parts {
        subscribed.positions.extend(part.positions);
        catchup.channels.extend(part.missed);
        catchup.truncated |= part.truncated;
    }
    subscribed.positions.truncate(PATTERN_POSITIONS);
    subscribed.marker = Some(marker::encode(&tops));
    subscribed.catchup = wants_past.then_some(catchup);
    subscribed
}

/// Waits for a partition's answer.
fn answered<T: Send + 'static>(answer: oneshot::Receiver<Result<T, BrokerError>>) -> Answer<T> {
    async move { answer.await.unwrap_or(Err(BrokerError::Stopped)) }.boxed()
}

fn failed<T: Send + 'static>(error: BrokerError) -> Answer<T> {
    ready(Err(error)).boxed()
}

impl Broker for RedisBroker {
    fn attach(&self, sink: Arc<dyn Sink>) -> SinkId {
        self.sinks.attach(&sink)
    }

    fn publish(&self, publish: Publish) -> Answer<Published> {
        self.publisher.publish(publish)
    }

    fn subscribe(&self, sink: SinkId, request: Subscribe) -> Answer<Subscribed> {
        self.enqueue_subscribe(sink, request.to).unwrap_or_else(failed)
    }

    fn unsubscribe(&self, sink: SinkId, target: Target) {
        for partition in self.partitions_of(&target) {
            // A broker that is stopped has no interest left.
            let _ = partition.send(Request::Unsubscribe { sink, target: target.clone() });
        }
    }

    fn history(&self, query: HistoryQuery) -> Answer<HistoryPage> {
        let caller = match self.caller(self.keys.partition_of(query.channel.as_str())) {
            Ok(caller) => caller,
            Err(error) => return failed(error),
        };
        pages::history(caller, self.policies.of(query.channel.as_str()), query).boxed()
    }

    fn remove_history(&self, channel: Channel) -> Answer<()> {
        let caller = match self.caller(self.keys.partition_of(channel.as_str())) {
            Ok(caller) => caller,
            Err(error) => return failed(error),
        };
        let name = Bytes::copy_from_slice(channel.as_str().as_bytes());
        let call = caller.call(&scripts::REMOVE_HISTORY, vec![self.keys.base(caller.partition), name]);
        async move { call.await.map(drop).map_err(Into::into) }.boxed()
    }

    fn channels(&self, query: ChannelQuery) -> Answer<ChannelPage> {
        let callers: Result<Vec<_>, _> =
            (0..self.partitions.len()).map(|partition| self.caller(partition)).collect();
        match callers {
            Ok(callers) => catalogue::channels(callers, query).boxed(),
            Err(error) => failed(error),
        }
    }

    fn join(&self, channel: Channel, member: Member, owner: Owner) -> Answer<()> {
        self.enqueue_join(channel, member, owner).map_or_else(failed, answered)
    }

    fn leave(&self, channel: Channel, session: &str, owner: Owner) {
        if let Ok(partition) = self.partition_of(channel.as_str()) {
            // A broker that is stopped has no members left.
            let _ = partition.send(Request::Leave { channel, session: session.to_owned(), owner });
        }
    }

    fn presence(&self, channel: Channel, limit: usize) -> Answer<PresencePage> {
        self.enqueue_query(channel, limit).map_or_else(failed, answered)
    }

    fn watch(&self, sink: SinkId, target: Target) -> Answer<()> {
        self.enqueue_watch(sink, &target).unwrap_or_else(failed)
    }

    fn unwatch(&self, sink: SinkId, target: Target) {
        for partition in self.partitions_of(&target) {
            // A broker that is stopped watches nothing.
            let _ = partition.send(Request::Unwatch { sink, target: target.clone() });
        }
    }

    fn save_session(&self, session: &str, tenure: u32, record: SessionRecord, ttl_ms: u64) -> Answer<Kept> {
        self.keep_session(session, tenure, &record, ttl_ms)
    }

    fn load_session(&self, session: &str) -> Answer<Option<LoadedSession>> {
        self.read_session(session)
    }

    fn find_session(&self, session: &str) -> Answer<Option<NodeId>> {
        self.look_up_session(session)
    }

    fn now_ms(&self) -> u64 {
        self.clock.now_ms(self.topology.deployment().current().as_deref())
    }

    fn node(&self) -> Option<NodeId> {
        self.incarnation().map(NodeId)
    }

    fn take_letters(&self, take: TakeLetter) {
        self.sinks.take_letters(take);
    }

    fn post(&self, to: Addressee, letter: Bytes) -> Answer<Vec<NodeId>> {
        self.send_letter(to, letter)
    }

    fn announce(&self, card: Bytes) -> Answer<()> {
        self.keep_card(card)
    }

    fn nodes(&self) -> Answer<Vec<(NodeId, Bytes)>> {
        self.living()
    }

    fn revoke(&self, what: Revoked, until_ms: u64) -> Answer<()> {
        self.add_revocation(&what, until_ms)
    }

    fn revocations(&self, known: u64) -> Answer<Option<Revocations>> {
        self.changed_revocations(known)
    }

    fn lanes(&self) -> usize {
        self.partitions.len()
    }

    fn lane_of(&self, key: &str) -> usize {
        self.keys.partition_of(key)
    }

    fn add_work(&self, queue: &str, lane: usize, items: Vec<Bytes>, most: u64) -> Answer<usize> {
        self.append_work(queue, lane, items, most)
    }

    fn take_work(&self, queue: &str, lane: usize, after: Option<String>, most: usize) -> Answer<Turn> {
        self.next_work(queue, lane, after, most)
    }

    fn finish_work(&self, queue: &str, lane: usize, ids: Vec<String>) -> Answer<()> {
        self.remove_work(queue, lane, ids)
    }

    fn record_occupancy(&self) {
        self.records_occupancy.store(true, Ordering::Relaxed);
    }

    fn give_up_work(&self, queue: &str, lane: usize) -> Answer<()> {
        self.release_work(queue, lane)
    }

    fn doubts(&self) -> watch::Receiver<u64> {
        self.sinks.doubts()
    }

    fn status(&self) -> watch::Receiver<BrokerStatus> {
        self.status.clone()
    }

    fn shutdown(&self) -> BoxFuture<'static, ()> {
        let callers: Vec<_> = (0..self.partitions.len()).map(|partition| self.caller(partition)).collect();
        let (stop, topology) = (self.stop.clone(), self.topology.clone());
        let mut status = self.status.clone();
        let known = self.incarnation().is_some();
        let partitions = self.partitions.clone();
        let inbox_max = self.inbox_max;
        // A reader that finds its inbox gone would make it anew.
        self.reading.cancel();
        async move {
            // What a partition sent before is executed before; nothing follows.
            for partition in partitions.iter() {
                let (done, withdrawn) = oneshot::channel();
                if partition.send(Request::Withdraw { done }).is_ok() {
                    // Fails if it has ended.
                    let _ = withdrawn.await;
                }
            }
            // Side by side: a partition that does not answer must not keep the others' members.
            let leaving = callers.into_iter().flatten().filter(|_| known).map(|caller| async move {
                if let Err(error) = leave(&caller, inbox_max).await {
                    // The reaper takes it away when the lease has run out.
                    let partition = caller.partition;
                    tracing::warn!(partition, %error, "what this node holds could not be withdrawn");
                }
            });
            join_all(leaving).await;
            stop.cancel();
            for link in topology.links() {
                link.stop();
            }
            // Fails if it has been stopped already.
            let _ = status.wait_for(|status| *status == BrokerStatus::Stopped).await;
        }
        .boxed()
    }
}

impl Drop for RedisBroker {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Withdraws what this node holds in one partition.
async fn leave(caller: &Caller, inbox_max: u64) -> Result<(), BrokerError> {
    loop {
        let args = vec![
            caller.keys.base(caller.partition),
            caller.node.to_string().into(),
            inbox_max.to_string().into(),
            LEAVE_BATCH.to_string().into(),
        ];
        if caller.call(&scripts::LEAVE, args).await?.as_u64()? == 0 {
            return Ok(());
        }
    }
}
