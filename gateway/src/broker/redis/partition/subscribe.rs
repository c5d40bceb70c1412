//! Interest in one channel, and recoveries: those who wait for the same channel share its reads.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{
    super::{
        range::{Part, Range},
        replay_cache::{Replay, ReplayCache},
        scripts,
    },
    Permit,
    actor::{Actor, Done},
    slot::{Cached, Slot, Waiter},
};
use crate::{
    broker::{BrokerError, Catchup, ChannelCatchup, From, GapReason, SinkId, Start, Subscribed},
    channel::{Channel, Target},
    position::Position,
};

/// A cache that nobody has used for so long is dropped.
const CACHE_IDLE: Duration = Duration::from_secs(2);

impl Actor {
    pub(super) fn subscribe(
        &mut self,
        sink: SinkId,
        channel: Channel,
        start: Start<Position>,
        reply: oneshot::Sender<Result<Subscribed, BrokerError>>,
        permit: Permit,
    ) {
        let target = Target::Channel(channel.clone());
        let fresh = !self.interest.of(&target).contains(sink);
        self.interest.insert(&target, sink);
        let slot = self.slots.entry(channel.clone()).or_insert_with(|| Slot::new(None));
        let version = slot.version;
        slot.waiters.push(Waiter { sink, start, reply, fresh, version, own_read: false, _permit: permit });
        self.serve(&channel);
    }

    /// Answers whoever can be answered from memory and reads for the others, one read at a time.
    fn serve(&mut self, channel: &Channel) {
        let Some(slot) = self.slots.get_mut(channel) else { return };
        if slot.reading.is_some() {
            return;
        }
        let policy = self.environment.policies.of(channel.as_str());
        if slot.registered {
            if let Some(cached) = &mut slot.cache {
                let elapsed = u64::try_from(cached.read.elapsed().as_millis()).unwrap_or(u64::MAX);
                cached.cache.trim(&policy, cached.now_ms.saturating_add(elapsed));
            }
            let waiters = std::mem::take(&mut slot.waiters);
            for waiter in waiters {
                match from_memory(slot, &waiter, policy.keeps_history()) {
                    Some((end, replay)) => answer(waiter, channel, end, replay, false),
                    None => slot.waiters.push(waiter),
                }
            }
        }
        let Some(first) = slot.waiters.first() else { return };
        // Someone else's cursor is not in the cache, or many wait: the whole history serves all of them.
        let share = !first.own_read && (slot.cache.is_some() || slot.waiters.len() > 1);
        let part = match Part::of(&first.start) {
            Part::After(_) | Part::From(_) if share => Part::From(From::Start),
            part => part,
        };
        let (version, registered) = (slot.version, slot.registered);
        let caller = match self.caller() {
            Ok(caller) => caller,
            Err(error) => return self.fail_waiters(channel, &error),
        };
        let Some(slot) = self.slots.get_mut(channel) else { return };
        slot.reading = Some(Vec::new());
        let name = channel.clone();
        if registered {
            let call = caller.read(channel, policy, part);
            self.later(async move {
                let outcome = call.await.map(Some);
                Done::Read { channel: name, version, subscribed: false, part, outcome }
            });
        } else {
            let call = caller.subscribe(channel, policy, part);
            self.later(async move {
                Done::Read { channel: name, version, subscribed: true, part, outcome: call.await }
            });
        }
    }

    pub(super) fn finish_read(
        &mut self,
        channel: &Channel,
        version: u64,
        subscribed: bool,
        part: Part,
        outcome: Result<Option<Range>, BrokerError>,
    ) {
        let Some(slot) = self.slots.get_mut(channel) else { return };
        let tail = slot.reading.take().unwrap_or_default();
        let range = match outcome {
            Ok(range) => range,
            Err(error) => return self.fail_waiters(channel, &error),
        };
        let current = version == slot.version;
        if subscribed && current {
            slot.registered = true;
        }
        let Some(range) = range else {
            // No history: only that the interest is registered matters.
            return self.answer_without_history(channel, version);
        };
        if current {
            slot.learn_end(range.end());
        }
        self.answer_from(channel, version, part, &range);
        if let Some(slot) = self.slots.get_mut(channel).filter(|_| current && part != Part::Ends) {
            keep_for_others(slot, &range, part, &tail);
        }
        self.serve(channel);
        self.forget_if_unused(channel);
    }

    /// Answers those that the read was made for.
    fn answer_from(&mut self, channel: &Channel, version: u64, part: Part, range: &Range) {
        let Some(slot) = self.slots.get_mut(channel) else { return };
        let mut first = true;
        let cache = ReplayCache::from_range(range, part);
        for mut waiter in std::mem::take(&mut slot.waiters) {
            let own = Part::of(&waiter.start) == part;
            let replay = match (&cache, &waiter.start) {
                _ if waiter.version != version => None,
                (_, Start::Live) => Some(Replay { publications: Vec::new(), gap: None }),
                _ if own => Some(own_replay(range, part)),
                (Some(cache), start) => cache.replay(start),
                (None, _) => None,
            };
            match replay {
                Some(replay) => answer(waiter, channel, range.end(), replay, own && range.more),
                None => {
                    // Its turn was in vain: next time its own part is read.
                    waiter.own_read |= std::mem::take(&mut first) && waiter.version == version;
                    slot.waiters.push(waiter);
                }
            }
            first = false;
        }
    }

    fn answer_without_history(&mut self, channel: &Channel, version: u64) {
        let Some(slot) = self.slots.get_mut(channel) else { return };
        for waiter in std::mem::take(&mut slot.waiters) {
            if waiter.version == version {
                answer_without(waiter, channel);
            } else {
                slot.waiters.push(waiter);
            }
        }
        self.serve(channel);
        self.forget_if_unused(channel);
    }

    /// Takes back the interest of those who learn that they are not subscribed.
    fn fail_waiters(&mut self, channel: &Channel, error: &BrokerError) {
        let Some(slot) = self.slots.get_mut(channel) else { return };
        let target = Target::Channel(channel.clone());
        let mut last = false;
        for waiter in std::mem::take(&mut slot.waiters) {
            if waiter.fresh && waiter.version == slot.version {
                last |= self.interest.remove(&target, waiter.sink);
            }
            let _ = waiter.reply.send(Err(error.clone()));
        }
        if last {
            self.withdraw(&target);
        }
        self.forget_if_unused(channel);
    }

    pub(super) fn unsubscribe(&mut self, sink: SinkId, target: &Target) {
        if !self.interest.remove(target, sink) {
            return;
        }
        self.withdraw(target);
        match target {
            Target::Channel(channel) => self.forget_if_unused(channel),
            Target::Pattern(pattern) => {
                self.patterns.remove(pattern);
                self.forget_unused();
            }
        }
    }

    /// Nobody here has interest in this very target any more: tells Redis.
    fn withdraw(&mut self, target: &Target) {
        let name = match target {
            Target::Channel(channel) => {
                if let Some(slot) = self.slots.get_mut(channel) {
                    slot.registered = false;
                    slot.version += 1;
                }
                format!("i:{channel}")
            }
            Target::Pattern(pattern) => {
                let prefix = pattern.literal_prefix();
                let shared = |(other, _): (&crate::channel::Pattern, _)| other.literal_prefix() == prefix;
                if self.interest.patterns().any(shared) {
                    return;
                }
                format!("w:{prefix}")
            }
        };
        // If it is not told, entries come for nothing until this node ends.
        let Ok(caller) = self.caller() else { return };
        let args = vec![caller.keys.base(caller.partition), caller.node.to_string().into(), name.into()];
        let call = caller.call(&scripts::UNSUBSCRIBE, args);
        self.later(async move {
            if let Err(error) = call.await {
                tracing::warn!(%error, "interest could not be withdrawn");
            }
            Done::Ignored
        });
    }

    pub(super) fn forget_if_unused(&mut self, channel: &Channel) {
        let waits =
            self.slots.get(channel).is_some_and(|slot| slot.reading.is_some() || !slot.waiters.is_empty());
        if !waits && self.interest.listeners(channel.as_str()).is_empty() {
            self.slots.remove(channel);
        }
    }

    fn forget_unused(&mut self) {
        let channels: Vec<Channel> = self.slots.keys().cloned().collect();
        for channel in channels {
            self.forget_if_unused(&channel);
        }
    }

    /// Drops caches that nobody has used for a while.
    pub(super) fn drop_idle_caches(&mut self) {
        for slot in self.slots.values_mut() {
            if slot.cache.as_ref().is_some_and(|cached| cached.used.elapsed() >= CACHE_IDLE) {
                slot.cache = None;
            }
        }
    }
}

/// The end of the history and what follows the waiter's start, if both are known here.
fn from_memory(slot: &mut Slot, waiter: &Waiter, history: bool) -> Option<(Option<Position>, Replay)> {
    let nothing = || Replay { publications: Vec::new(), gap: None };
    if !history {
        let expired = matches!(waiter.start, Start::After(_)).then_some(GapReason::Expired);
        return Some((None, Replay { gap: expired, ..nothing() }));
    }
    let last = slot.last?;
    if waiter.start == Start::Live {
        return Some((Some(last), nothing()));
    }
    let cached = slot.cache.as_mut()?;
    let replay = cached.cache.replay(&waiter.start)?;
    cached.used = Instant::now();
    Some((Some(cached.cache.end().max(last)), replay))
}

/// Makes the cache of what was read and of what was delivered meanwhile.
fn keep_for_others(
    slot: &mut Slot,
    range: &Range,
    part: Part,
    tail: &[std::sync::Arc<crate::broker::Publication>],
) {
    let whole = slot.cache.as_ref().is_some_and(|cached| cached.cache.is_whole());
    let Some(mut cache) = ReplayCache::from_range(range, part) else { return };
    if whole && !cache.is_whole() {
        // A part that Redis had to be asked for does not replace the whole.
        return;
    }
    for publication in tail {
        cache.append(publication);
    }
    let now = Instant::now();
    slot.cache = Some(Cached { cache, used: now, now_ms: range.now_ms, read: now });
}

fn own_replay(range: &Range, part: Part) -> Replay {
    let gap = match part {
        Part::After(cursor) => range.gap_after(cursor),
        _ => range.hole.then_some(GapReason::Middle),
    };
    Replay { publications: range.entries.clone(), gap }
}

fn answer_without(waiter: Waiter, channel: &Channel) {
    let gap = matches!(waiter.start, Start::After(_)).then_some(GapReason::Expired);
    answer(waiter, channel, None, Replay { publications: Vec::new(), gap }, false);
}

fn answer(waiter: Waiter, channel: &Channel, end: impl Into<Option<Position>>, replay: Replay, cut: bool) {
    let end = end.into();
    let catchup = (waiter.start != Start::Live).then(|| {
        let gap = replay.gap.or(cut.then_some(GapReason::Truncated));
        count_recovery(gap);
        Catchup { channels: missed(channel, replay.publications, gap), truncated: cut }
    });
    let positions = end.map(|end| (channel.clone(), end)).into_iter().collect();
    // Who does not wait any more stays subscribed until it unsubscribes.
    let _ = waiter.reply.send(Ok(Subscribed { positions, marker: None, catchup }));
}

/// An item if there is something to replay or to report.
pub(super) fn missed(
    channel: &Channel,
    publications: Vec<std::sync::Arc<crate::broker::Publication>>,
    gap: Option<GapReason>,
) -> Vec<ChannelCatchup> {
    if publications.is_empty() && gap.is_none() {
        return Vec::new();
    }
    vec![ChannelCatchup { channel: channel.clone(), publications, gap }]
}

pub(super) fn count_recovery(gap: Option<GapReason>) {
    let outcome = gap.map_or("whole", GapReason::as_str);
    metrics::counter!("streamgate_recoveries_total", "outcome" => outcome).increment(1);
}
