//! Interest in one channel, and recoveries: those who wait for the same channel share its reads.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{
    super::{
        paging::GREATEST_REPLAY,
        range::{Part, Range},
        replay_cache::{Replay, ReplayCache},
        scripts,
    },
    Permit,
    actor::{Actor, Done},
    slot::{Cached, Slot, Tail, Waiter},
};
use crate::{
    broker::{BrokerError, Catchup, ChannelCatchup, From, GapReason, SinkId, Start, Subscribed},
    channel::{Channel, Target},
    policy::ChannelPolicy,
    position::Position,
};

/// So many recoveries of a channel in a row read for themselves, and so see every publication that was acked before
/// they began. Those after them are served from the cache, which ends where this node's inbox was read to.
const OWN_READS: u32 = 8;
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
        let slot = self.slots.entry(channel.clone()).or_insert_with(|| Slot::new(None));
        let (version, cancelled, own_read) = (slot.version, false, false);
        slot.waiters.push(Waiter { sink, start, reply, cancelled, version, own_read, _permit: permit });
        self.serve(&channel);
    }

    /// Answers whoever can be answered from memory and reads for the others, one read at a time.
    fn serve(&mut self, channel: &Channel) {
        let policy = self.environment.policies.of(channel.as_str());
        self.serve_from_memory(channel, &policy);
        let Some(slot) = self.slots.get_mut(channel).filter(|slot| slot.reading.is_none()) else { return };
        slot.dismiss_withdrawn();
        let Some(first) = slot.waiters.first() else { return };
        // Many wait, or came before: the history, as far as it is ever replayed, serves all of them.
        let share = !first.own_read && (slot.reads >= OWN_READS || slot.waiters.len() > 1);
        let part = match Part::of(&first.start) {
            Part::After(_) | Part::From(_) if share => Part::From(From::Last(GREATEST_REPLAY as u64)),
            part => part,
        };
        let (version, registered) = (slot.version, slot.registered);
        let caller = match self.caller() {
            Ok(caller) => caller,
            Err(error) => return self.fail_waiters(channel, &error),
        };
        if let Some(slot) = self.slots.get_mut(channel) {
            slot.reading = Some(Tail::default());
            slot.reads += u32::from(part != Part::Ends);
        }
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

    fn serve_from_memory(&mut self, channel: &Channel, policy: &ChannelPolicy) {
        let Some(slot) = self.slots.get_mut(channel).filter(|slot| slot.registered) else { return };
        if let Some(cached) = &mut slot.cache {
            let elapsed = u64::try_from(cached.read.elapsed().as_millis()).unwrap_or(u64::MAX);
            cached.cache.trim(policy, cached.now_ms.saturating_add(elapsed));
        }
        let (mut answers, version) = (Vec::new(), slot.version);
        for waiter in std::mem::take(&mut slot.waiters) {
            match from_memory(slot, &waiter, policy.keeps_history()).filter(|_| waiter.version == version) {
                Some((end, replay)) => answers.push((waiter, end, replay)),
                None => slot.waiters.push(waiter),
            }
        }
        for (waiter, end, replay) in answers {
            self.answer(waiter, channel, end, replay, false);
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
        slot.registered |= subscribed && current;
        match range {
            // No history: only that the interest is registered matters.
            None => self.answer_without_history(channel, version),
            Some(range) => {
                if current {
                    slot.learn_end(range.end());
                }
                self.answer_from(channel, version, part, range, tail);
            }
        }
        self.serve(channel);
        self.forget_if_unused(channel);
    }

    /// Answers those that the read was made for, and keeps what was read for others.
    fn answer_from(&mut self, channel: &Channel, version: u64, part: Part, range: Range, tail: Tail) {
        let Some(slot) = self.slots.get_mut(channel) else { return };
        let live = slot.last.map_or(range.end(), |last| last.max(range.end()));
        let (own, cut, now_ms) = (own_replay(&range, part), range.more, range.now_ms);
        let mut cache = ReplayCache::from_range(&range, part);
        // What was cut off ends before the tail, and the rest is in history.
        let tail = if cut { Some(Vec::new()) } else { tail.after(range.end()) };
        let end = match &tail {
            Some(tail) if !cut => tail.last().and_then(|last| last.position).unwrap_or(range.end()),
            _ => live,
        };
        for entry in tail.iter().flatten() {
            if let Some(cache) = &mut cache {
                cache.append(entry);
            }
        }
        let (mut answers, mut first) = (Vec::new(), true);
        for mut waiter in std::mem::take(&mut slot.waiters) {
            let current = waiter.version == version;
            let replay = match (&cache, &tail, &waiter.start) {
                _ if !current => None,
                (_, _, Start::Live) => Some((live, nothing_missed(), false)),
                (_, Some(tail), start) if Part::of(start) == part => {
                    let mut own = own.clone();
                    own.publications.extend(tail.iter().cloned());
                    Some((end, own, cut))
                }
                (Some(cache), Some(_), start) => cache.replay(start).map(|replay| (end, replay, false)),
                _ => None,
            };
            match replay {
                Some(replay) => answers.push((waiter, replay)),
                None => {
                    // Its turn was in vain: next time its own part is read.
                    waiter.own_read |= first && current;
                    slot.waiters.push(waiter);
                }
            }
            first = false;
        }
        let current = version == slot.version && part != Part::Ends && tail.is_some();
        if let Some(cache) = cache.filter(|_| current) {
            keep_for_others(slot, cache, now_ms);
        }
        for (waiter, (end, replay, cut)) in answers {
            self.answer(waiter, channel, Some(end), replay, cut);
        }
    }

    /// Answers and lets the sink take part in deliveries from now on.
    fn answer(
        &mut self,
        waiter: Waiter,
        channel: &Channel,
        end: Option<Position>,
        replay: Replay,
        cut: bool,
    ) {
        if !waiter.cancelled {
            let known = self.interest.listeners(channel.as_str()).contains(waiter.sink);
            self.interest.insert(&Target::Channel(channel.clone()), waiter.sink);
            if let (Some(slot), Some(end)) = (self.slots.get_mut(channel), end) {
                slot.answered(waiter.sink, end, known);
            }
        }
        let catchup = (waiter.start != Start::Live).then(|| {
            let part = ChannelCatchup::of(channel, replay.publications, replay.gap, cut);
            count_recovery(part.as_ref().and_then(ChannelCatchup::reason));
            Catchup { channels: part.into_iter().collect(), truncated: cut }
        });
        let positions = end.map(|end| (channel.clone(), end)).into_iter().collect();
        // Who does not wait any more stays subscribed until it unsubscribes.
        let _ = waiter.reply.send(Ok(Subscribed { positions, marker: None, catchup }));
    }

    fn answer_without_history(&mut self, channel: &Channel, version: u64) {
        let Some(slot) = self.slots.get_mut(channel) else { return };
        let (now, later) =
            std::mem::take(&mut slot.waiters).into_iter().partition(|waiter| waiter.version == version);
        slot.waiters = later;
        let now: Vec<Waiter> = now;
        for waiter in now {
            let replay = without_history(&waiter.start);
            self.answer(waiter, channel, None, replay, false);
        }
    }

    fn fail_waiters(&mut self, channel: &Channel, error: &BrokerError) {
        let Some(slot) = self.slots.get_mut(channel) else { return };
        for waiter in std::mem::take(&mut slot.waiters) {
            let _ = waiter.reply.send(Err(error.clone()));
        }
        let target = Target::Channel(channel.clone());
        if self.interest.of(&target).is_empty() {
            // The call may have been executed.
            self.withdraw(&target);
        }
        self.forget_if_unused(channel);
    }

    pub(super) fn unsubscribe(&mut self, sink: SinkId, target: &Target) {
        let last = self.interest.remove(target, sink);
        match target {
            Target::Channel(channel) => {
                let Some(slot) = self.slots.get_mut(channel) else { return };
                let mut cancelled = false;
                for waiter in slot.waiters.iter_mut().filter(|waiter| waiter.sink == sink) {
                    cancelled |= !std::mem::replace(&mut waiter.cancelled, true);
                }
                let awaited = slot.waiters.iter().any(|waiter| !waiter.cancelled);
                if (last || cancelled) && !awaited && self.interest.of(target).is_empty() {
                    self.withdraw(target);
                }
                self.forget_if_unused(channel);
            }
            Target::Pattern(pattern) => {
                let cancelled = self.cancel_scans(sink, pattern);
                if (last || cancelled) && !self.is_wanted(pattern) {
                    self.patterns.remove(pattern);
                    self.withdraw(target);
                    self.forget_unused();
                }
            }
        }
    }

    /// Nobody here has interest in this very target any more: tells Redis.
    pub(super) fn withdraw(&mut self, target: &Target) {
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
                if self.patterns.keys().any(|other| other.literal_prefix() == prefix) {
                    return;
                }
                format!("w:{prefix}")
            }
        };
        self.withdraw_names(vec![name]);
    }

    /// Withdraws `i:<channel>`, `w:<prefix>`, `pi:<channel>`, `pw:<prefix>`. If Redis cannot be told now, an audit finds
    /// them.
    pub(super) fn withdraw_names(&mut self, names: Vec<String>) {
        let Ok(caller) = self.caller() else {
            self.audit.due = true;
            return;
        };
        let mut args = vec![caller.keys.base(caller.partition), caller.node.to_string().into()];
        args.extend(names.iter().cloned().map(bytes::Bytes::from));
        let call = caller.call(&scripts::UNSUBSCRIBE, args);
        self.later(
            async move { Done::Withdrawn { names, outcome: call.await.map(drop).map_err(Into::into) } },
        );
    }

    pub(super) fn forget_if_unused(&mut self, channel: &Channel) {
        let waits =
            self.slots.get(channel).is_some_and(|slot| slot.reading.is_some() || !slot.waiters.is_empty());
        if !waits
            && self.interest.listeners(channel.as_str()).is_empty()
            && !self.is_awaited(channel.as_str())
        {
            self.slots.remove(channel);
        }
    }

    pub(super) fn forget_unused(&mut self) {
        let channels: Vec<Channel> = self.slots.keys().cloned().collect();
        for channel in channels {
            self.forget_if_unused(&channel);
        }
    }

    /// Drops caches that nobody has used for a while.
    pub(super) fn drop_idle_caches(&mut self) {
        for slot in self.slots.values_mut() {
            let idle = slot.cache.as_ref().is_none_or(|cached| cached.used.elapsed() >= CACHE_IDLE);
            if idle && slot.reading.is_none() {
                (slot.cache, slot.reads) = (None, 0);
            }
        }
    }
}

/// The end of the history and what follows the waiter's start, if both are known here.
fn from_memory(slot: &mut Slot, waiter: &Waiter, history: bool) -> Option<(Option<Position>, Replay)> {
    if !history {
        return Some((None, without_history(&waiter.start)));
    }
    let last = slot.last?;
    if waiter.start == Start::Live {
        return Some((Some(last), nothing_missed()));
    }
    let cached = slot.cache.as_mut().filter(|cached| slot.reads >= OWN_READS && cached.is_fresh())?;
    let replay = cached.cache.replay(&waiter.start)?;
    cached.used = Instant::now();
    Some((Some(cached.cache.end()), replay))
}

fn keep_for_others(slot: &mut Slot, cache: ReplayCache, now_ms: u64) {
    let whole = slot.cache.as_ref().is_some_and(|cached| cached.is_fresh() && cached.cache.is_whole());
    // A part that Redis had to be asked for does not replace the whole.
    if cache.is_whole() || !whole {
        let now = Instant::now();
        slot.cache = Some(Cached { cache, used: now, now_ms, read: now });
    }
}

fn own_replay(range: &Range, part: Part) -> Replay {
    let gap = match part {
        Part::After(cursor) => range.gap_after(cursor),
        _ => range.hole.then_some(GapReason::Middle),
    };
    Replay { publications: range.entries.clone(), gap }
}

fn nothing_missed() -> Replay {
    Replay { publications: Vec::new(), gap: None }
}

/// A cursor of a channel that keeps no history comes from a time when there was one.
fn without_history(start: &Start<Position>) -> Replay {
    Replay { gap: matches!(start, Start::After(_)).then_some(GapReason::Expired), ..nothing_missed() }
}

pub(super) fn count_recovery(gap: Option<GapReason>) {
    let outcome = gap.map_or("whole", GapReason::as_str);
    metrics::counter!(crate::telemetry::metrics::RECOVERIES, "outcome" => outcome).increment(1);
}
