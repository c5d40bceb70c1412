//! Everything the memory broker keeps: pure data, times and requests in, answers out.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
};

use ahash::AHashMap;
use bytes::Bytes;
use prost::Message as _;

use super::{
    budget,
    expiring::Expiring,
    history::{History, entry_bytes},
    peers::THIS,
    queues::Registry,
};
use crate::{
    broker::{BrokerError, Kept, LoadedSession, Publication, Publish, Published, SessionRecord, Stored},
    channel::Channel,
    policy::{ChannelPolicy, Policies},
    position::Position,
};

/// Bookkeeping of one channel: its slot in the map, its name in the catalogue, a queue's smallest allocation.
const CHANNEL_OVERHEAD: usize = 400;

/// How long it is remembered that a channel had a history that was lost.
const REMEMBER_LOST_MS: u64 = 24 * 60 * 60 * 1000;

/// Eviction frees this fraction of the budget beyond what is needed, so that it does not run at every publish.
const HEADROOM: usize = 64;

/// Lack of memory looks for expired histories at most this often, as that visits every channel.
const SWEEP_AGAIN_MS: u64 = 1_000;

#[derive(Debug)]
pub(super) struct Store {
    pub(super) policies: Policies,
    limit: usize,
    slots: AHashMap<Channel, Slot>,
    /// Names of `slots`, in order: what patterns recover from.
    pub(super) catalogue: BTreeSet<Channel>,
    /// Highest epoch ever given out.
    pub(super) top: u64,
    /// Newest lost epoch of the channels that are no longer in the catalogue.
    pub(super) forgotten: Option<u64>,
    first_positions: Expiring<Option<Position>>,
    sessions: Expiring<Session>,
    pub(super) queues: Registry,
    /// Bytes of all channels and their entries.
    channel_bytes: usize,
    /// When lack of memory last made everything that had expired go.
    swept_ms: u64,
}

/// What is known of a session.
#[derive(Debug)]
struct Session {
    record: SessionRecord,
    /// Of the connection that has it.
    tenure: u32,
    /// The last tenure that was given out.
    given: u32,
    /// Another connection had it before.
    has_former: bool,
}

/// What is known of one channel; at least one of the two.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) history: Option<History>,
    lost: Option<Lost>,
}

/// The last history that expired or was removed.
#[derive(Debug, Clone, Copy)]
struct Lost {
    epoch: u64,
    at_ms: u64,
}

impl Slot {
    pub(super) fn lost_epoch(&self) -> Option<u64> {
        self.lost.map(|lost| lost.epoch)
    }

    fn entry_bytes(&self) -> usize {
        self.history.as_ref().map_or(0, History::bytes)
    }

    fn lose(&mut self, now_ms: u64) {
        if let Some(history) = self.history.take() {
            self.lost = Some(Lost { epoch: history.last().epoch, at_ms: now_ms });
        }
    }

    /// Drops what `policy` does not keep at `now_ms`.
    fn refresh(&mut self, policy: &ChannelPolicy, now_ms: u64) {
        let Some(history) = &mut self.history else { return };
        if !policy.keeps_history() || history.expired(policy, now_ms) {
            self.lose(now_ms);
        } else {
            history.trim(policy, now_ms);
        }
    }
}

impl Store {
    pub(super) fn new(policies: Policies, limit: usize, now_ms: u64) -> Self {
        Self {
            policies,
            limit,
            slots: AHashMap::new(),
            catalogue: BTreeSet::new(),
            top: now_ms,
            forgotten: None,
            first_positions: Expiring::new(),
            sessions: Expiring::new(),
            queues: Registry::new(now_ms),
            channel_bytes: 0,
            swept_ms: 0,
        }
    }

    /// Bytes in use.
    pub(super) fn used(&self) -> usize {
        self.channel_bytes + self.first_positions.bytes() + self.sessions.bytes() + self.queues.bytes()
    }

    /// Stores a publication, which must then be delivered, unless it is a repeat or only a job.
    pub(super) fn publish(
        &mut self,
        publish: Publish,
        now_ms: u64,
    ) -> Result<(Published, Option<Arc<Publication>>), BrokerError> {
        let policy = self.policies.of(publish.channel.as_str());
        let scope = publish.idempotency_key.as_deref().map(|key| idempotency_scope(&publish, key));
        if let Some(first) = scope.as_deref().and_then(|scope| self.first_positions.get(scope, now_ms)) {
            return Ok((Published { position: *first, duplicate: true }, None));
        }
        let keep = policy.keeps_history() && !publish.transient;
        let record = scope.as_deref().map_or(0, |scope| Expiring::<Option<Position>>::cost(scope, 0));
        let entry = if keep { channel_bytes(&publish.channel) + entry_bytes(&publish.stored) } else { 0 };
        let takers = self.queues.takers(&publish.channel, &policy.queue);
        let jobs = self.queues.room(&takers, &policy.queue, (&publish.stored, &publish.job), now_ms)?;
        self.make_room(record + entry + jobs, now_ms)?;
        let publication = if keep {
            self.append(&publish.channel, &publish.stored, &policy, now_ms)
        } else {
            let Publish { channel, stored, .. } = publish;
            let stored = if takers.is_empty() { stored } else { compact(&stored) };
            Arc::new(Publication { channel, position: None, time_ms: now_ms, stored })
        };
        self.queues.push(&takers, &policy.queue, &publication, &publish.job, now_ms);
        let position = publication.position;
        if let Some(scope) = scope {
            let window_ms = u64::try_from(policy.idempotency_window.as_millis()).unwrap_or(u64::MAX);
            self.first_positions.insert(&scope, position, 0, now_ms.saturating_add(window_ms));
        }
        let delivered = (!policy.queue.channel_is_queue).then_some(publication);
        Ok((Published { position, duplicate: false }, delivered))
    }

    fn append(
        &mut self,
        channel: &Channel,
        stored: &Stored,
        policy: &ChannelPolicy,
        now_ms: u64,
    ) -> Arc<Publication> {
        self.refresh(channel, policy, now_ms);
        if !self.slots.contains_key(channel) {
            // The channel may be one of those that were forgotten.
            let lost = self.forgotten.map(|epoch| Lost { epoch, at_ms: now_ms });
            self.slots.insert(channel.clone(), Slot { history: None, lost });
            self.catalogue.insert(channel.clone());
            self.channel_bytes += channel_bytes(channel);
        }
        // All entries share the catalogue's name.
        let channel = self.catalogue.get(channel).unwrap_or(channel).clone();
        let slot = self.slots.entry(channel.clone()).or_default();
        let before = slot.entry_bytes();
        let history = slot.history.get_or_insert_with(|| {
            self.top = now_ms.max(self.top + 1);
            History::new(self.top)
        });
        let position = Some(history.next());
        let publication =
            Arc::new(Publication { channel, position, time_ms: now_ms, stored: compact(stored) });
        history.append(publication.clone());
        history.trim(policy, now_ms);
        self.channel_bytes = self.channel_bytes - before + slot.entry_bytes();
        publication
    }

    /// Drops what the channel's policy does not keep. Every read of a channel comes after this.
    pub(super) fn refresh(&mut self, channel: &Channel, policy: &ChannelPolicy, now_ms: u64) {
        self.change(channel, |slot| slot.refresh(policy, now_ms));
    }

    pub(super) fn slot(&self, channel: &Channel) -> Option<&Slot> {
        self.slots.get(channel)
    }

    pub(super) fn remove_history(&mut self, channel: &Channel, now_ms: u64) {
        self.change(channel, |slot| slot.lose(now_ms));
    }

    /// Changes a slot, if it exists, and keeps the count of bytes right.
    fn change(&mut self, channel: &Channel, edit: impl FnOnce(&mut Slot)) {
        if let Some(slot) = self.slots.get_mut(channel) {
            let before = slot.entry_bytes();
            edit(slot);
            self.channel_bytes = self.channel_bytes - before + slot.entry_bytes();
        }
    }

    pub(super) fn save_session(
        &mut self,
        session: &str,
        tenure: u32,
        record: SessionRecord,
        ttl_ms: u64,
        now_ms: u64,
    ) -> Result<Kept, BrokerError> {
        let bytes = record.encoded_len();
        self.make_room(Expiring::<Session>::cost(session, bytes), now_ms)?;
        let before = self.sessions.get(session, now_ms);
        let held = before.map_or(0, |before| before.tenure);
        if held > tenure {
            return Ok(Kept::Lost);
        }
        let former = (0 < held && held < tenure) || before.is_some_and(|before| before.has_former);
        let given = before.map_or(0, |before| before.given).max(tenure);
        let kept = Session { record, tenure, given, has_former: former };
        self.sessions.insert(session, kept, bytes, now_ms.saturating_add(ttl_ms));
        Ok(Kept::Held { former: former.then_some(THIS) })
    }

    pub(super) fn load_session(&mut self, session: &str, now_ms: u64) -> Option<LoadedSession> {
        let session = self.sessions.get_mut(session, now_ms)?;
        session.given += 1;
        Some(LoadedSession { record: session.record.clone(), tenure: session.given })
    }

    pub(super) fn has_session(&self, session: &str, now_ms: u64) -> bool {
        self.sessions.get(session, now_ms).is_some()
    }

    /// Drops what has expired of at most `count` channels after `after`; answers where to go on, `None` at the end.
    pub(super) fn sweep(&mut self, after: Option<&Channel>, count: usize, now_ms: u64) -> Option<Channel> {
        self.first_positions.expire(now_ms);
        self.sessions.expire(now_ms);
        let start = after.map_or(Unbounded, Excluded);
        let slice: Vec<Channel> =
            self.catalogue.range::<Channel, _>((start, Unbounded)).take(count).cloned().collect();
        for channel in &slice {
            let policy = self.policies.of(channel.as_str());
            self.refresh(channel, &policy, now_ms);
            self.forget_if(channel, |slot| {
                slot.history.is_none()
                    && slot.lost.is_none_or(|lost| now_ms.saturating_sub(lost.at_ms) > REMEMBER_LOST_MS)
            });
        }
        (slice.len() == count).then(|| slice.last().cloned()).flatten()
    }

    /// Makes `need` bytes fit: by age, then by forgetting channels without entries, then by size.
    pub(super) fn make_room(&mut self, need: usize, now_ms: u64) -> Result<(), BrokerError> {
        if self.used().saturating_add(need) <= self.limit {
            return Ok(());
        }
        self.first_positions.expire(now_ms);
        self.sessions.expire(now_ms);
        let fixed = self.first_positions.bytes() + self.sessions.bytes() + self.queues.bytes();
        if fixed.saturating_add(need) > self.limit {
            return Err(BrokerError::MemoryLimit { need, limit: self.limit, used: fixed });
        }
        if now_ms.saturating_sub(self.swept_ms) >= SWEEP_AGAIN_MS {
            self.swept_ms = now_ms;
            self.sweep(None, usize::MAX, now_ms);
        }
        let wanted = self.limit.saturating_sub(need).saturating_sub(self.limit / HEADROOM);
        if self.used() > wanted {
            self.forget_emptied(now_ms);
        }
        if self.used() > wanted {
            self.shrink_histories(self.used() - wanted);
        }
        if self.used() > wanted {
            self.forget_emptied(now_ms);
        }
        Ok(())
    }

    /// Frees so many bytes of entries, if there are so many: of the largest histories, those with the oldest first.
    fn shrink_histories(&mut self, free: usize) {
        let level = budget::level(self.slots.values().map(Slot::entry_bytes).collect(), free);
        let histories = self.slots.values_mut().filter_map(|slot| slot.history.as_mut());
        let mut large: Vec<&mut History> = histories.filter(|history| history.bytes() > level).collect();
        // A heap, as usually only few of many are taken.
        let mut oldest: BinaryHeap<_> =
            large.iter().enumerate().map(|(at, history)| Reverse((history.oldest_ms(), at))).collect();
        let mut freed = 0;
        while let Some(Reverse((_, at))) = oldest.pop().filter(|_| freed < free) {
            let before = large[at].bytes();
            large[at].shrink(level);
            freed += before - large[at].bytes();
        }
        self.channel_bytes -= freed;
    }

    /// Forgets channels that hold no entries; their cursors are then answered as lost.
    fn forget_emptied(&mut self, now_ms: u64) {
        let emptied = |slot: &Slot| slot.history.as_ref().is_none_or(History::is_empty);
        let names: Vec<Channel> =
            self.slots.iter().filter(|(_, slot)| emptied(slot)).map(|(name, _)| name.clone()).collect();
        for channel in &names {
            self.remove_history(channel, now_ms);
            self.forget_if(channel, |_| true);
        }
    }

    fn forget_if(&mut self, channel: &Channel, condition: impl FnOnce(&Slot) -> bool) {
        if let Some(slot) = self.slots.get(channel).filter(|slot| condition(slot)) {
            self.forgotten = self.forgotten.max(slot.lost_epoch());
            self.channel_bytes -= channel_bytes(channel);
            self.slots.remove(channel);
            self.catalogue.remove(channel);
        }
    }
}

fn channel_bytes(channel: &Channel) -> usize {
    CHANNEL_OVERHEAD + channel.as_str().len()
}

/// Lengths in front, so that no two scopes can spell the same text.
fn idempotency_scope(publish: &Publish, key: &str) -> String {
    let (user, channel) = (&publish.user_id, publish.channel.as_str());
    format!("{}:{user}{}:{channel}{key}", user.len(), channel.len())
}

/// A copy in one allocation of its own: the bytes counted are then the bytes held, whatever read buffer they came in.
fn compact(stored: &Stored) -> Stored {
    let buffer = Bytes::from([&*stored.id, &*stored.event].concat());
    let split = stored.id.len();
    Stored {
        id: buffer.slice(..split),
        event: buffer.slice(split..),
        exclude_session: stored.exclude_session.clone(),
        publisher: stored.publisher.clone(),
        ttl_ms: stored.ttl_ms,
    }
}
