//! All subscriptions of a client: which match a channel, and which may be asked for now.
//!
//! Invariant: of subscriptions that overlap, only one recovers at a time. A replayed message does not say for which
//! subscription it is, and taken for another one's it would make that one skip what lies between.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use prost::Message as _;
use streamgate_proto::v1::{self, inbound_message::Envelope};

use super::{
    Effect, Effects, RequestIds, SubscriptionId, frame,
    subscription::{Phase, Subscribing, Subscription},
};
use crate::{
    error::Error,
    event::{Event, Gap, GapReason, Message, PresenceChange, Recovered},
    options::StartAt,
    position::Position,
    target::{is_pattern, matches, overlap},
    unasked::UnaskedEvent,
};

/// How long to wait when the server cannot subscribe now.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Room for subscriptions in a connect frame, as protobuf: JSON takes up to twice that, and servers take frames of
/// 64 KiB. What does not fit is asked for afterwards.
const CONNECT_BYTES: usize = 24 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    /// Ordered, so that they are asked for in the order in which they were made.
    all: BTreeMap<SubscriptionId, Subscription>,
    by_target: HashMap<String, SubscriptionId>,
    patterns: Vec<SubscriptionId>,
    /// Those that the server does not know of.
    idle: BTreeSet<SubscriptionId>,
    /// What each request without an answer asks for.
    asked: HashMap<u64, Vec<SubscriptionId>>,
    /// Targets that nobody here wants any more, as long as the server may not know: it has not said so, or a resumed session may
    /// bring them back.
    dropped: BTreeSet<String>,
}

impl Subscriptions {
    pub(super) fn add(&mut self, subscribing: Subscribing) {
        let (id, target) = (subscribing.id, subscribing.options.target.clone());
        if self.by_target.contains_key(&target) {
            let _ = subscribing.reply.send(Err(Error::AlreadySubscribed(target)));
            return;
        }
        if is_pattern(&target) {
            self.patterns.push(id);
        }
        self.dropped.remove(&target);
        self.by_target.insert(target, id);
        self.idle.insert(id);
        self.all.insert(id, Subscription::new(subscribing));
    }

    /// Forgets a subscription; its target, and whether the server knows of it.
    pub(super) fn remove(&mut self, id: SubscriptionId) -> Option<(String, bool)> {
        let subscription = self.all.remove(&id)?;
        let asked = subscription.phase != Phase::Idle;
        let target = subscription.options.target;
        self.by_target.remove(&target);
        self.idle.remove(&id);
        self.patterns.retain(|pattern| *pattern != id);
        self.dropped.insert(target.clone());
        Some((target, asked))
    }

    /// The server does not hold a target that was dropped.
    pub(super) fn forget(&mut self, target: &str) {
        self.dropped.remove(target);
    }

    /// Of what the session holds on a new connection, what was dropped before; the rest of that is forgotten.
    pub(super) fn still_held<'a>(&mut self, held: impl Iterator<Item = &'a str>) -> Vec<String> {
        let held: BTreeSet<_> = held.collect();
        self.dropped.retain(|target| held.contains(target.as_str()));
        self.dropped.iter().cloned().collect()
    }

    /// The server knows that these are not wanted.
    pub(super) fn unsubscribed(&mut self, ended: &[v1::Subscription]) {
        for subscription in ended {
            self.forget(&subscription.channel);
        }
    }

    pub(super) fn lost(&mut self) {
        self.all.values_mut().for_each(Subscription::lost);
        self.asked.clear();
        self.idle = self.all.keys().copied().collect();
    }

    pub(super) fn end_all(&mut self, error: &Error, effects: &mut Effects) {
        for subscription in self.all.values_mut() {
            subscription.end(error, effects);
        }
        *self = Self::default();
    }

    /// When the first refused subscription may be asked for again.
    pub(super) fn next_retry(&self) -> Option<Instant> {
        self.idle.iter().filter_map(|id| self.all.get(id)?.not_before).min()
    }

    /// Those that go along with the connect of the request `request`: they were accepted before, so they do not make it
    /// fail. `extended`: the server of before offered recovery.
    pub(super) fn with_connect(&mut self, request: u64, extended: bool) -> Vec<v1::Subscription> {
        let (mut taken, mut room) = (Vec::new(), CONNECT_BYTES);
        for id in self.idle(None) {
            let Some(subscription) = self.all.get(&id) else { continue };
            let (wire, recovering) = subscription.wire(extended);
            if !subscription.settled || (recovering && self.is_blocked(id)) {
                continue;
            }
            let Some(left) = room.checked_sub(wire.encoded_len()) else { continue };
            room = left;
            taken.push(wire);
            self.ask(id, request, recovering);
        }
        taken
    }

    /// Asks for everything that may be asked for now.
    pub(super) fn start(
        &mut self,
        ids: &mut RequestIds,
        extended: bool,
        now: Instant,
        effects: &mut Effects,
    ) {
        for id in self.idle(Some(now)) {
            let Some(subscription) = self.all.get(&id) else { continue };
            let (wire, recovering) = subscription.wire(extended);
            if recovering && self.is_blocked(id) {
                continue;
            }
            let request = ids.next();
            let subscribe = Envelope::Subscribe(v1::Subscribe { subscriptions: vec![wire] });
            effects.push_back(Effect::Send(frame(request, subscribe)));
            // Without the extension a start in the past cannot be had: the ack makes that a gap.
            let start = &subscription.options;
            let past = !extended && (start.start != StartAt::Live || !start.cursors.is_empty());
            self.ask(id, request, recovering || past);
        }
    }

    fn ask(&mut self, id: SubscriptionId, request: u64, recovering: bool) {
        if let Some(subscription) = self.all.get_mut(&id) {
            subscription.asked(request, recovering);
            self.idle.remove(&id);
            self.asked.entry(request).or_default().push(id);
        }
    }

    /// The server has accepted what `request` asked for.
    pub(super) fn acked(
        &mut self,
        request: u64,
        entries: Vec<v1::Subscription>,
        extended: bool,
        effects: &mut Effects,
    ) {
        let mut entries: HashMap<_, _> =
            entries.into_iter().map(|entry| (entry.channel.clone(), entry)).collect();
        for id in self.asked.remove(&request).unwrap_or_default() {
            if let Some(subscription) = self.all.get_mut(&id) {
                let entry = entries.remove(&subscription.options.target);
                subscription.acked(entry, extended, effects);
            }
        }
    }

    /// The server has refused what `request` asked for; `now`: it may be asked again, if the error is of that kind.
    pub(super) fn refused(
        &mut self,
        request: u64,
        error: Error,
        now: Option<Instant>,
        effects: &mut Effects,
    ) {
        let retry_at = now.map(|now| now + RETRY_DELAY);
        for id in self.asked.remove(&request).unwrap_or_default() {
            let Some(subscription) = self.all.get_mut(&id) else { continue };
            if subscription.refused(&error, retry_at, effects) {
                if let Some((target, _)) = self.remove(id) {
                    self.forget(&target);
                }
            } else {
                self.idle.insert(id);
            }
        }
    }

    pub(super) fn message(&mut self, message: Message, effects: &mut Effects) {
        let ids = self.matching(&message.channel);
        let recovers = |id: &SubscriptionId| self.all.get(id).is_some_and(Subscription::is_recovering);
        let replay_is_live = message.replay && !ids.iter().any(recovers);
        let Some((last, others)) = ids.split_last() else {
            return self.unasked(&message.channel.clone(), UnaskedEvent::Message(message), effects);
        };
        for id in others {
            if let Some(subscription) = self.all.get_mut(id) {
                subscription.message(message.clone(), replay_is_live, effects);
            }
        }
        if let Some(subscription) = self.all.get_mut(last) {
            subscription.message(message, replay_is_live, effects);
        }
    }

    pub(super) fn recovered(&mut self, recovered: Recovered, effects: &mut Effects) {
        let id = self.by_target.get(&recovered.target);
        if let Some(subscription) = id.and_then(|id| self.all.get_mut(id)) {
            subscription.recovered(recovered, effects);
        }
    }

    pub(super) fn gap(&mut self, gap: v1::Gap, effects: &mut Effects) {
        let gap = Gap {
            position: gap.position.map(Position::from),
            reason: GapReason::from_wire(gap.gap_reason),
            channel: gap.channel,
        };
        let ids = self.matching(&gap.channel);
        if ids.is_empty() {
            return self.unasked(&gap.channel.clone(), UnaskedEvent::Gap(gap), effects);
        }
        for id in ids {
            if let Some(subscription) = self.all.get_mut(&id) {
                subscription.gap(gap.clone(), effects);
            }
        }
    }

    /// Takes what no subscription matches: it was given to the session, unless it is the rest of what was dropped.
    fn unasked(&self, channel: &str, event: UnaskedEvent, effects: &mut Effects) {
        if !self.dropped.iter().any(|target| target == channel || matches(target, channel)) {
            effects.push_back(Effect::Unasked(event));
        }
    }

    pub(super) fn presence(&mut self, event: v1::PresenceEvent, effects: &mut Effects) {
        for id in self.matching(&event.channel) {
            let Some(subscription) = self.all.get(&id).filter(|found| found.options.presence) else {
                continue;
            };
            let change = PresenceChange {
                channel: event.channel.clone(),
                joined: event.action == "join",
                member: event.member.clone().unwrap_or_default(),
            };
            subscription.deliver(Event::Presence(change), effects);
        }
    }

    /// Subscriptions that match `channel`; a pattern as `channel` stands for itself.
    fn matching(&self, channel: &str) -> Vec<SubscriptionId> {
        let exact = self.by_target.get(channel).copied();
        let patterns = self.patterns.iter().copied().filter(|id| {
            Some(*id) != exact
                && self.all.get(id).is_some_and(|found| matches(&found.options.target, channel))
        });
        exact.into_iter().chain(patterns).collect()
    }

    /// Those that the server does not know of and that do not wait; `None`: whether they wait or not.
    fn idle(&self, now: Option<Instant>) -> Vec<SubscriptionId> {
        let due = |at: Option<Instant>| at.zip(now).is_none_or(|(at, now)| at <= now);
        let is_due = |id: &SubscriptionId| self.all.get(id).is_some_and(|found| due(found.not_before));
        self.idle.iter().copied().filter(is_due).collect()
    }

    /// Whether another subscription recovers that matches some of the same channels. Two exact channels never do.
    fn is_blocked(&self, id: SubscriptionId) -> bool {
        let Some(own) = self.all.get(&id).map(|found| found.options.target.as_str()) else { return false };
        let in_the_way = |other: &Subscription| {
            other.id != id && other.is_recovering() && overlap(own, &other.options.target)
        };
        if is_pattern(own) {
            self.all.values().any(in_the_way)
        } else {
            self.patterns.iter().filter_map(|id| self.all.get(id)).any(in_the_way)
        }
    }
}
