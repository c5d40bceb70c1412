//! The memory broker: one node, nothing to install, nothing that outlives the process.
//!
//! Owns: histories, queues, idempotency records, session records and interest, within a budget of bytes. Never does: know of
//! sessions or sockets, or block on anything but its own lock.
//!
//! Invariants:
//! - One lock orders everything: a method does its whole work before it returns its future, deliveries included, so
//!   a sink must not call the broker from [`Sink::deliver`].
//! - No read depends on the sweeper: what has expired is dropped before it is looked at. The sweeper only gives
//!   memory back earlier.
//! - Histories stay contiguous: whatever is evicted, is evicted from the head. Jobs are never evicted.

mod budget;
mod catalogue;
mod clock;
mod expiring;
mod history;
mod members;
mod occupancy;
mod pages;
mod peers;
mod queues;
mod replay;
mod store;
#[cfg(test)]
mod tests;
mod work;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _, ready};
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    task::JoinHandle,
    time,
};

use self::{clock::Clock, members::Members, peers::Peers, queues::Registry, store::Store, work::Work};
use super::{
    Addressee, Broker, BrokerError, BrokerStatus, ChannelPage, ChannelQuery, Delivery, GapReason,
    HistoryPage, HistoryQuery, Kept, LoadedSession, Member, NodeId, Owner, PresenceAction, PresenceEvent,
    PresencePage, Publish, Published, Revocations, Revoked, SessionRecord, Sink, SinkId, Subscribe,
    SubscribeTo, Subscribed, TakeLetter, Turn,
    interest::{Interest, SinkSet},
};
use crate::{
    channel::{Channel, Target},
    policy::Policies,
    telemetry::metrics::RECOVERIES,
};

/// Channels that the sweeper looks at under one hold of the lock.
const SWEEP_SLICE: usize = 1_024;

/// What a [`MemoryBroker`] may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryOptions {
    /// Bytes of history, jobs, idempotency and session records together, by an estimate that includes the bookkeeping.
    pub max_bytes: usize,
    /// How often memory of expired things is given back.
    pub sweep_every: Duration,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        Self { max_bytes: 256 * 1024 * 1024, sweep_every: Duration::from_secs(1) }
    }
}

/// See the module.
#[derive(Debug)]
pub struct MemoryBroker {
    shared: Arc<Shared>,
    /// The sweeper, and the timer of queues.
    tasks: Vec<JoinHandle<()>>,
}

struct Shared {
    clock: Clock,
    state: Mutex<State>,
    status: watch::Sender<BrokerStatus>,
    /// Wakes the timer of queues.
    earlier: Arc<Notify>,
}

struct State {
    store: Store,
    /// When the timer of queues wakes up by itself.
    awake_ms: u64,
    interest: Interest,
    members: Members,
    /// Who is told of joins and leaves.
    watchers: Interest,
    sinks: Vec<Arc<dyn Sink>>,
    peers: Peers,
    work: Work,
    /// Whether the first and last subscribers of channels are recorded.
    records_occupancy: bool,
    stopped: bool,
}

impl MemoryBroker {
    /// An empty broker. Within a tokio runtime it also starts a task that sweeps up what has expired, and one that hands
    /// out jobs when their times come; without one, that happens when the channel or queue is next used or memory is short.
    #[must_use]
    pub fn new(policies: Policies, options: MemoryOptions) -> Self {
        let clock = Clock::new();
        let store = Store::new(policies, options.max_bytes, clock.now_ms());
        let state = State {
            store,
            awake_ms: u64::MAX,
            interest: Interest::default(),
            members: Members::default(),
            watchers: Interest::default(),
            sinks: Vec::new(),
            peers: Peers::default(),
            work: Work::default(),
            records_occupancy: false,
            stopped: false,
        };
        let status = watch::Sender::new(BrokerStatus::Ready);
        let earlier = Arc::new(Notify::new());
        let shared = Arc::new(Shared { clock, state: Mutex::new(state), status, earlier: earlier.clone() });
        let tasks = Handle::try_current().map_or_else(
            |_| Vec::new(),
            |runtime| {
                let sweep = sweep(Arc::downgrade(&shared), options.sweep_every);
                let timer = queues::run(Arc::downgrade(&shared), earlier);
                vec![runtime.spawn(sweep), runtime.spawn(timer)]
            },
        );
        Self { shared, tasks }
    }

    /// Bytes in use, of [`MemoryOptions::max_bytes`].
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.shared.lock().store.used()
    }

    /// Does `work` at once, under the lock; the future only carries the answer.
    fn now<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut State, u64) -> Result<T, BrokerError>,
    ) -> BoxFuture<'static, Result<T, BrokerError>> {
        let mut state = self.shared.lock();
        let now_ms = self.shared.clock.now_ms();
        let answer = if state.stopped { Err(BrokerError::Stopped) } else { work(&mut state, now_ms) };
        state.flush(now_ms);
        if state.must_wake_earlier() {
            self.shared.earlier.notify_one();
        }
        ready(answer).boxed()
    }

    fn stop(&self) {
        let mut state = self.shared.lock();
        state.stopped = true;
        state.interest = Interest::default();
        state.members = Members::default();
        state.watchers = Interest::default();
        state.sinks.clear();
        state.peers = Peers::default();
        state.store.queues = Registry::new(0);
        for task in &self.tasks {
            task.abort();
        }
        self.shared.status.send_replace(BrokerStatus::Stopped);
    }
}

impl Broker for MemoryBroker {
    /// # Panics
    /// At the 65th sink.
    fn attach(&self, sink: Arc<dyn Sink>) -> SinkId {
        let mut state = self.shared.lock();
        let id = u8::try_from(state.sinks.len()).unwrap_or(u8::MAX);
        assert!(id < 64, "a broker takes at most 64 sinks");
        state.sinks.push(sink);
        SinkId(id)
    }

    fn publish(&self, publish: Publish) -> BoxFuture<'static, Result<Published, BrokerError>> {
        self.now(|state, now_ms| state.publish(publish, now_ms))
    }

    fn subscribe(
        &self,
        sink: SinkId,
        request: Subscribe,
    ) -> BoxFuture<'static, Result<Subscribed, BrokerError>> {
        self.now(|state, now_ms| {
            let target = match &request.to {
                SubscribeTo::Channel { channel, .. } => Target::Channel(channel.clone()),
                SubscribeTo::Pattern { pattern, .. } => Target::Pattern(pattern.clone()),
            };
            if state.interest.insert(&target, sink) {
                state.record_occupancy(&target, true, now_ms);
            }
            let answer = state.store.subscribe(request.to, now_ms);
            if let Some(catchup) = &answer.catchup {
                let gap = catchup.channels.iter().find_map(|part| part.gap);
                let outcome = gap.map_or("whole", GapReason::as_str);
                metrics::counter!(RECOVERIES, "outcome" => outcome).increment(1);
            }
            Ok(answer)
        })
    }

    fn unsubscribe(&self, sink: SinkId, target: Target) {
        let mut state = self.shared.lock();
        if state.interest.remove(&target, sink) {
            state.record_occupancy(&target, false, self.shared.clock.now_ms());
        }
    }

    fn history(&self, query: HistoryQuery) -> BoxFuture<'static, Result<HistoryPage, BrokerError>> {
        self.now(|state, now_ms| Ok(state.store.history(&query, now_ms)))
    }

    fn remove_history(&self, channel: Channel) -> BoxFuture<'static, Result<(), BrokerError>> {
        self.now(|state, now_ms| {
            state.store.remove_history(&channel, now_ms);
            Ok(())
        })
    }

    fn channels(&self, query: ChannelQuery) -> BoxFuture<'static, Result<ChannelPage, BrokerError>> {
        self.now(|state, now_ms| Ok(state.store.channels(&query, now_ms)))
    }

    fn join(
        &self,
        channel: Channel,
        member: Member,
        owner: Owner,
    ) -> BoxFuture<'static, Result<(), BrokerError>> {
        self.now(|state, _| {
            if let Some(member) = state.members.join(channel.clone(), member, owner) {
                state.announce(channel, PresenceAction::Join, member);
            }
            Ok(())
        })
    }

    fn leave(&self, channel: Channel, session: &str, owner: Owner) {
        let mut state = self.shared.lock();
        if let Some(member) = state.members.leave(&channel, session, owner) {
            state.announce(channel, PresenceAction::Leave, member);
        }
    }

    fn presence(
        &self,
        channel: Channel,
        limit: usize,
    ) -> BoxFuture<'static, Result<PresencePage, BrokerError>> {
        self.now(|state, _| Ok(state.members.page(&channel, limit)))
    }

    fn watch(&self, sink: SinkId, target: Target) -> BoxFuture<'static, Result<(), BrokerError>> {
        self.now(|state, _| {
            state.watchers.insert(&target, sink);
            Ok(())
        })
    }

    fn unwatch(&self, sink: SinkId, target: Target) {
        self.shared.lock().watchers.remove(&target, sink);
    }

    fn save_session(
        &self,
        session: &str,
        tenure: u32,
        record: SessionRecord,
        ttl_ms: u64,
    ) -> BoxFuture<'static, Result<Kept, BrokerError>> {
        self.now(|state, now_ms| state.store.save_session(session, tenure, record, ttl_ms, now_ms))
    }

    fn load_session(&self, session: &str) -> BoxFuture<'static, Result<Option<LoadedSession>, BrokerError>> {
        self.now(|state, now_ms| Ok(state.store.load_session(session, now_ms)))
    }

    fn find_session(&self, session: &str) -> BoxFuture<'static, Result<Option<NodeId>, BrokerError>> {
        self.now(|state, now_ms| Ok(state.store.has_session(session, now_ms).then_some(peers::THIS)))
    }

    fn now_ms(&self) -> u64 {
        self.shared.clock.now_ms()
    }

    fn node(&self) -> Option<NodeId> {
        Some(peers::THIS)
    }

    fn take_letters(&self, take: TakeLetter) {
        self.shared.lock().peers.take_letters(take);
    }

    fn post(&self, to: Addressee, letter: Bytes) -> BoxFuture<'static, Result<Vec<NodeId>, BrokerError>> {
        self.now(|state, _| Ok(state.peers.post(to, letter)))
    }

    fn announce(&self, card: Bytes) -> BoxFuture<'static, Result<(), BrokerError>> {
        self.now(|state, _| {
            state.peers.announce(card);
            Ok(())
        })
    }

    fn nodes(&self) -> BoxFuture<'static, Result<Vec<(NodeId, Bytes)>, BrokerError>> {
        self.now(|state, _| Ok(state.peers.nodes()))
    }

    fn revoke(&self, what: Revoked, until_ms: u64) -> BoxFuture<'static, Result<(), BrokerError>> {
        self.now(|state, now_ms| {
            state.peers.revoke(what, now_ms, until_ms);
            Ok(())
        })
    }

    fn revocations(&self, known: u64) -> BoxFuture<'static, Result<Option<Revocations>, BrokerError>> {
        self.now(|state, now_ms| Ok(state.peers.revocations(known, now_ms)))
    }

    fn lanes(&self) -> usize {
        1
    }

    fn lane_of(&self, _key: &str) -> usize {
        0
    }

    fn add_work(
        &self,
        queue: &str,
        _lane: usize,
        items: Vec<Bytes>,
        most: u64,
    ) -> BoxFuture<'static, Result<usize, BrokerError>> {
        self.now(|state, _| Ok(state.work.add(queue, items, most)))
    }

    fn take_work(
        &self,
        queue: &str,
        _lane: usize,
        after: Option<String>,
        most: usize,
    ) -> BoxFuture<'static, Result<Turn, BrokerError>> {
        self.now(|state, _| Ok(Turn::Here(state.work.take(queue, after.as_deref(), most))))
    }

    fn finish_work(
        &self,
        queue: &str,
        _lane: usize,
        ids: Vec<String>,
    ) -> BoxFuture<'static, Result<(), BrokerError>> {
        self.now(|state, _| {
            state.work.finish(queue, &ids);
            Ok(())
        })
    }

    fn record_occupancy(&self) {
        self.shared.lock().records_occupancy = true;
    }

    fn give_up_work(&self, _queue: &str, _lane: usize) -> BoxFuture<'static, Result<(), BrokerError>> {
        self.now(|_, _| Ok(()))
    }

    fn doubts(&self) -> watch::Receiver<u64> {
        // There is nothing between this node and its storage: it never changes.
        watch::channel(0).1
    }

    fn status(&self) -> watch::Receiver<BrokerStatus> {
        self.shared.status.subscribe()
    }

    fn shutdown(&self) -> BoxFuture<'static, ()> {
        self.stop();
        ready(()).boxed()
    }
}

impl State {
    fn publish(&mut self, publish: Publish, now_ms: u64) -> Result<Published, BrokerError> {
        let (published, publication) = self.store.publish(publish, now_ms)?;
        if let Some(publication) = publication {
            let listeners = self.interest.listeners(publication.channel.as_str());
            self.deliver(listeners, &Delivery::Publication(publication));
        }
        Ok(published)
    }

    fn deliver(&self, sinks: SinkSet, delivery: &Delivery) {
        for sink in sinks.iter() {
            if let Some(sink) = self.sinks.get(usize::from(sink.0)) {
                sink.deliver(delivery.clone());
            }
        }
    }

    fn announce(&self, channel: Channel, action: PresenceAction, member: Arc<Member>) {
        let watchers = self.watchers.listeners(channel.as_str());
        if !watchers.is_empty() && self.store.policies.of(channel.as_str()).join_leave {
            let event = PresenceEvent { channel, action, member };
            self.deliver(watchers, &Delivery::Presence(Arc::new(event)));
        }
    }
}

impl Drop for MemoryBroker {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    /// A sink that panicked left the store whole: deliveries come after every change of it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// Sweeps slice by slice until the broker is gone; publishes get the lock in between. Safe to cancel.
async fn sweep(shared: Weak<Shared>, every: Duration) {
    loop {
        time::sleep(every).await;
        let mut after = None;
        loop {
            let Some(shared) = shared.upgrade() else { return };
            let now_ms = shared.clock.now_ms();
            if after.is_none() {
                shared.lock().store.forget_idle_queues(now_ms);
            }
            after = shared.lock().store.sweep(after.as_ref(), SWEEP_SLICE, now_ms);
            if after.is_none() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
}
