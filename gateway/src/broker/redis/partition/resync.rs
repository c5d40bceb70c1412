//! The quiet-channel check and the re-sync after something may have been lost: both compare where histories end with
//! what was delivered, in batches, and fill what is missing.

use std::{collections::HashSet, time::Duration};

use super::{
    super::{
        entry::id_of,
        reply::{Reply, ReplyError},
        scripts,
    },
    actor::{Actor, Done},
    slot::Slot,
};
use crate::{
    broker::BrokerError,
    channel::{Channel, Pattern, literal_prefixes},
    policy::ChannelPolicy,
    position::Position,
};

/// Ticks between two checks of quiet channels.
const CHECK_TICKS: u64 = 5;
/// Ticks between two attempts to get members that another node holds.
const CONTEST_TICKS: u64 = 2;
/// A channel with a delivery within this time is not quiet.
const QUIET: Duration = Duration::from_secs(5);
/// As [`QUIET`], for a channel that recoveries are served of from memory: its history may be removed elsewhere, which only
/// the next publication would tell.
const QUIET_CACHED: Duration = Duration::from_secs(1);
/// Channels, and interests, in one check.
const BATCH: usize = 500;

impl Actor {
    pub(super) fn tick(&mut self) {
        self.ticks += 1;
        self.drop_idle_caches();
        self.withdraw_strays();
        let stuck: Vec<Channel> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.fill.as_ref().is_some_and(|fill| !fill.under_way))
            .map(|(channel, _)| channel.clone())
            .collect();
        for channel in stuck {
            self.start_fill(&channel);
        }
        if self.unchecked.is_empty() {
            let all = self.ticks.is_multiple_of(CHECK_TICKS);
            if all {
                self.forget_silent();
            }
            let due = |slot: &Slot| {
                let quiet = slot.seen.elapsed();
                all && quiet >= QUIET || slot.cache.is_some() && quiet >= QUIET_CACHED
            };
            let channels = self.slots.iter().filter(|(_, slot)| due(slot));
            self.unchecked = channels.map(|(channel, _)| channel.clone()).collect();
        }
        self.check_next();
        self.renew_interest();
        self.rescan_if_needed();
        self.audit_next();
        self.look_again();
        self.settle_members(self.ticks.is_multiple_of(CONTEST_TICKS));
    }

    /// Something may be missing from the inbox, or Redis may have forgotten this node's interest.
    pub(super) fn resync(&mut self, reason: &'static str) {
        tracing::info!(partition = self.environment.partition, reason, "re-syncing with the histories");
        metrics::counter!(crate::telemetry::metrics::RESYNCS, "reason" => reason).increment(1);
        self.doubts += 1;
        self.environment.sinks.doubt();
        self.tell_desk(super::super::queues::Request::Resync);
        self.unchecked = self.slots.keys().cloned().collect();
        for slot in self.slots.values_mut() {
            slot.doubtful = true;
            // It may hold what is lost.
            slot.cache = None;
        }
        // A call that is under way may have registered what was taken away since.
        let exact = self.slots.iter().filter(|(_, slot)| slot.wants_interest());
        let exact = exact.map(|(channel, _)| format!("i:{channel}"));
        let patterns = self.patterns.keys().map(|pattern| format!("w:{}", pattern.literal_prefix()));
        self.unconfirmed = exact.chain(patterns).collect();
        for state in self.patterns.values_mut() {
            state.rescan = true;
        }
        self.check_next();
        self.rescan_if_needed();
        self.audit.begin();
        self.confirm_members();
        self.rewatch();
    }

    /// Sends the next batch of the check, one at a time.
    pub(super) fn check_next(&mut self) {
        if self.checking || (self.unchecked.is_empty() && self.unconfirmed.is_empty()) {
            return;
        }
        let Ok(caller) = self.caller() else { return };
        let mut args = caller.head();
        let mut interests: Vec<String> =
            self.unconfirmed.drain(..self.unconfirmed.len().min(BATCH)).collect();
        // What has ended since must not begin again.
        interests.retain(|name| self.wants_interest(name));
        args.push(caller.node.to_string().into());
        args.push(interests.len().to_string().into());
        args.extend(interests.iter().map(|interest| interest.clone().into()));
        let (mut batch, mut filling) = (Vec::new(), Vec::new());
        // A history counts only from when the inbox gets what comes after it: interest goes first.
        while batch.len() < BATCH && self.unconfirmed.is_empty() {
            let Some(channel) = self.unchecked.pop_front() else { break };
            match self.slots.get(&channel) {
                // The back-fill may have been asked for before the doubt.
                Some(slot) if slot.fill.is_some() => filling.extend(slot.doubtful.then_some(channel)),
                Some(Slot { last: Some(last), .. }) => {
                    args.push(bytes::Bytes::copy_from_slice(channel.as_str().as_bytes()));
                    args.push(id_of(*last));
                    batch.push((channel, Some(*last)));
                }
                _ => {}
            }
        }
        self.unchecked.extend(filling);
        if batch.is_empty() && interests.is_empty() {
            // Of a whole batch nothing may be wanted any more.
            if !self.unconfirmed.is_empty() {
                self.check_next();
            }
            return;
        }
        self.checking = true;
        let (call, doubts) = (caller.call(&scripts::CHECK, args), self.doubts);
        self.later(async move {
            let read = async { Ok::<_, BrokerError>(Differing::of(&call.await?.into_array()?)?) };
            Done::Checked { batch, interests, doubts, outcome: read.await }
        });
    }

    pub(super) fn finish_check(
        &mut self,
        batch: Vec<(Channel, Option<Position>)>,
        interests: Vec<String>,
        doubts: u64,
        outcome: Result<Differing, BrokerError>,
    ) {
        self.checking = false;
        match outcome {
            // Everything is to be asked again.
            Ok(_) if doubts != self.doubts => self.check_next(),
            Ok(differing) => {
                for (at, (channel, last)) in batch.iter().enumerate() {
                    let Some(slot) = self.slots.get_mut(channel) else { continue };
                    if differing.gone.contains(&at) {
                        slot.cache = None;
                    }
                    // If it has moved, it was only slower than the check. A history that is gone has expired, and who
                    // was there has all of it, unless there is doubt.
                    let wanted =
                        differing.elsewhere.contains(&at) || slot.doubtful && differing.gone.contains(&at);
                    if wanted && slot.last == *last {
                        // With the doubt came a confirmation.
                        let unexpected = !slot.doubtful;
                        self.start_fill(channel);
                        if unexpected {
                            self.confirm_interest(channel);
                        }
                    } else if wanted && differing.gone.contains(&at) {
                        // What moved it may have been in the inbox since before the loss.
                        self.unchecked.push_back(channel.clone());
                    } else if slot.fill.is_none() {
                        slot.doubtful = false;
                    }
                }
                self.check_next();
            }
            Err(error) => {
                tracing::debug!(%error, "histories could not be checked, trying again");
                self.unconfirmed.extend(interests);
                self.unchecked.extend(batch.into_iter().map(|(channel, _)| channel));
            }
        }
    }

    /// The inbox did not bring what is in the history: perhaps Redis does not know of this node's interest. A command that
    /// was stuck in a lost connection may have come after those of its successor, and have withdrawn it.
    fn confirm_interest(&mut self, channel: &Channel) {
        let registered = self.slots.get(channel).is_some_and(|slot| slot.registered);
        let exact = registered.then(|| format!("i:{channel}"));
        let matching = self.patterns.keys().filter(|pattern| pattern.matches(channel.as_str()));
        let patterns = matching.map(|pattern| format!("w:{}", pattern.literal_prefix()));
        let interests: Vec<String> = exact.into_iter().chain(patterns).collect();
        for interest in interests {
            if !self.unconfirmed.contains(&interest) {
                self.unconfirmed.push_back(interest);
            }
        }
    }

    /// Takes note of an entry for nobody: interest was withdrawn meanwhile, or Redis could not be told so.
    pub(super) fn note_stray(&mut self, channel: &Channel) {
        if self.strays.len() < BATCH {
            self.strays.insert(channel.clone());
        }
    }

    /// Tells Redis again of interest that has ended, unless the channel is only under the prefix of a pattern.
    fn withdraw_strays(&mut self) {
        let strays = std::mem::take(&mut self.strays);
        let stray = |channel: &&Channel| {
            let under = |pattern: &Pattern| {
                literal_prefixes(channel.as_str()).any(|prefix| prefix == pattern.literal_prefix())
            };
            !self.slots.contains_key(*channel) && !self.patterns.keys().any(under)
        };
        let names: Vec<String> = strays.iter().filter(stray).map(|channel| format!("i:{channel}")).collect();
        if !names.is_empty() {
            self.withdraw_names(names);
        }
    }

    /// Channels that only a pattern matches are forgotten when their history must have expired.
    fn forget_silent(&mut self) {
        let policies = &self.environment.policies;
        self.slots.retain(|channel, slot| {
            let kept = |policy: &ChannelPolicy| slot.seen.elapsed() < policy.history_ttl * 2;
            slot.registered
                || slot.reading.is_some()
                || slot.fill.is_some()
                || !slot.waiters.is_empty()
                || kept(&policies.of(channel.as_str()))
        });
    }
}

/// Channels of a check, by their index, whose history is not as the node knows it.
#[derive(Debug, Default)]
pub struct Differing {
    elsewhere: HashSet<usize>,
    gone: HashSet<usize>,
}

impl Differing {
    #[cfg(test)]
    pub fn all_gone(count: usize) -> Self {
        Self { gone: (0..count).collect(), ..Self::default() }
    }

    #[cfg(test)]
    pub fn all_elsewhere(count: usize) -> Self {
        Self { elsewhere: (0..count).collect(), ..Self::default() }
    }

    /// Reads the answer of `scripts/check.lua`.
    fn of(items: &[Reply]) -> Result<Self, ReplyError> {
        let mut differing = Self::default();
        for item in items.iter().skip(1) {
            let number = item.as_int()?;
            let at = usize::try_from(number.unsigned_abs()).unwrap_or(usize::MAX).wrapping_sub(1);
            if number < 0 { &mut differing.gone } else { &mut differing.elsewhere }.insert(at);
        }
        Ok(differing)
    }
}
