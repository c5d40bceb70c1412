//! Who watches for joins and leaves in a partition, and what is known of the channels that they watch. Pure state;
//! `watch.rs` works with it.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Instant,
};

use tokio::sync::oneshot;

use super::{Permit, known::Known};
use crate::{
    broker::{BrokerError, SinkId, interest::Interest},
    channel::{Channel, Pattern, Target},
};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Watching {
    /// Those who were answered.
    pub(super) interest: Interest,
    pub(super) waiting: Vec<Watcher>,
    pub(super) known: HashMap<Channel, Known>,
    pub(super) patterns: HashMap<Pattern, Listing>,
    /// Channels to be listed, and the same as a set.
    pub(super) queue: VecDeque<Channel>,
    pub(super) queued: HashSet<Channel>,
    pub(super) listing: HashMap<Channel, UnderWay>,
    /// Channels whose listing failed.
    pub(super) failed: Vec<Channel>,
    /// When to look for absent members once more.
    pub(super) second: HashMap<Channel, Instant>,
    pub(super) count: u64,
}

#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) sink: SinkId,
    pub(super) target: Target,
    pub(super) reply: oneshot::Sender<Result<(), BrokerError>>,
    pub(super) _permit: Permit,
}

/// A listing of a channel's members.
#[derive(Debug, Clone, Copy)]
pub(super) struct UnderWay {
    /// The answer to another one is of no use.
    pub(super) number: u64,
    /// A second look.
    pub(super) second: bool,
    /// It registered the interest in the channel, which was not withdrawn since.
    pub(super) registers: bool,
}

/// What is known of the channels under a pattern.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Number of the call under way, if any.
    pub(super) under_way: Option<u64>,
    /// They must be listed (again).
    pub(super) wanted: bool,
    /// The channels are known.
    pub(super) names: bool,
    /// Those whose members are not known so far.
    pub(super) pending: HashSet<Channel>,
}

impl Watching {
    pub(super) fn wants(&self, target: &Target) -> bool {
        !self.interest.of(target).is_empty() || self.waiting.iter().any(|watcher| watcher.target == *target)
    }

    pub(super) fn wants_exactly(&self, channel: &Channel) -> bool {
        self.wants(&Target::Channel(channel.clone()))
    }

    /// Whether an interest of this node, `pi:<channel>` or `pw:<prefix>`, has somebody behind it.
    pub(super) fn wants_interest(&self, name: &str) -> bool {
        if let Some(channel) = name.strip_prefix("pi:") {
            return Channel::parse(channel).is_ok_and(|channel| self.wants_exactly(&channel));
        }
        let prefix = name.strip_prefix("pw:");
        prefix.is_some_and(|prefix| self.patterns.keys().any(|pattern| pattern.literal_prefix() == prefix))
    }

    /// The interests of this node that have somebody behind them.
    pub(super) fn interests(&self) -> impl Iterator<Item = String> {
        let channels = self.interest.channels().map(|(channel, _)| format!("pi:{channel}"));
        channels.chain(self.patterns.keys().map(|pattern| format!("pw:{}", pattern.literal_prefix())))
    }

    /// Has what is behind an interest listed again.
    pub(super) fn relist(&mut self, name: &str) {
        if let Some(channel) = name.strip_prefix("pi:").and_then(|channel| Channel::parse(channel).ok()) {
            self.enqueue(channel);
        } else if let Some(prefix) = name.strip_prefix("pw:") {
            let under = self.patterns.iter_mut().filter(|(pattern, _)| pattern.literal_prefix() == prefix);
            under.for_each(|(_, listing)| listing.wanted = true);
        }
    }

    pub(super) fn enqueue(&mut self, channel: Channel) {
        if self.queued.insert(channel.clone()) {
            self.queue.push_back(channel);
        }
    }

    pub(super) fn take_next(&mut self) -> Option<Channel> {
        let channel = self.queue.pop_front()?;
        self.queued.remove(&channel);
        Some(channel)
    }

    /// Whether somebody watches the channel, or waits to.
    pub(super) fn concerns(&self, channel: &Channel) -> bool {
        !self.interest.listeners(channel.as_str()).is_empty()
            || self.wants_exactly(channel)
            || self.patterns.keys().any(|pattern| pattern.matches(channel.as_str()))
    }

    /// Forgets a channel that nobody watches, or that is empty and only under patterns.
    pub(super) fn forget_if_unused(&mut self, channel: &Channel) {
        let empty = self.known.get(channel).is_none_or(Known::is_empty);
        let used = if empty { self.wants_exactly(channel) } else { self.concerns(channel) };
        if !used {
            self.known.remove(channel);
            self.listing.remove(channel);
            self.second.remove(channel);
        }
    }

    pub(super) fn fail(&mut self, failed: impl Fn(&Target) -> bool, error: &BrokerError) -> Vec<Target> {
        let mut targets = Vec::new();
        for watcher in self.waiting.extract_if(.., |watcher| failed(&watcher.target)) {
            // Who does not wait any more needs no answer.
            let _ = watcher.reply.send(Err(error.clone()));
            targets.push(watcher.target);
        }
        targets
    }

    pub(super) fn answer(&mut self, target: &Target) {
        for watcher in self.waiting.extract_if(.., |watcher| watcher.target == *target) {
            self.interest.insert(target, watcher.sink);
            let _ = watcher.reply.send(Ok(()));
        }
    }

    pub(super) fn answer_complete_patterns(&mut self) {
        let complete =
            self.patterns.iter().filter(|(_, listing)| listing.names && listing.pending.is_empty());
        let complete: Vec<Pattern> = complete.map(|(pattern, _)| pattern.clone()).collect();
        for pattern in complete {
            self.answer(&Target::Pattern(pattern));
        }
    }
}
