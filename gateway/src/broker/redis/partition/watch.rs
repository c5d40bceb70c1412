//! Who watches for joins and leaves, and who is on the channels that they watch.
//!
//! A watch is answered when Redis knows of it and everybody who was there before is known: whatever happens after the
//! answer is told. A channel under a pattern that is not in the table has no members. After a re-sync everything is
//! listed again and the difference is told.

use std::{collections::HashSet, sync::Arc, time::Instant};

use tokio::sync::oneshot;

use super::{
    Permit,
    actor::{Actor, Done},
    member_calls::{GREATEST_LISTING, list_channels, list_members},
    watching::{UnderWay, Watcher},
};
use crate::{
    broker::{BrokerError, Delivery, Member, PresenceAction, PresenceEvent, PresencePage, SinkId},
    channel::{Channel, Pattern, Target},
};

/// Listings of channels under way at once.
const AT_ONCE: usize = 4;

impl Actor {
    pub(super) fn watch(
        &mut self,
        sink: SinkId,
        target: Target,
        reply: oneshot::Sender<Result<(), BrokerError>>,
        permit: Permit,
    ) {
        let watching = &mut self.watching;
        if !watching.interest.of(&target).is_empty() {
            watching.interest.insert(&target, sink);
            let _ = reply.send(Ok(()));
            return;
        }
        let first = !watching.wants(&target);
        watching.waiting.push(Watcher { sink, target: target.clone(), reply, _permit: permit });
        match target {
            Target::Channel(channel) if first => watching.enqueue(channel),
            Target::Pattern(pattern) if first => {
                watching.patterns.entry(pattern).or_default().wanted = true;
            }
            _ => {}
        }
        self.list_next();
    }

    pub(super) fn unwatch(&mut self, sink: SinkId, target: &Target) {
        let watching = &mut self.watching;
        let mut ended = watching.interest.remove(target, sink);
        let ours = |watcher: &mut Watcher| watcher.sink == sink && watcher.target == *target;
        for watcher in watching.waiting.extract_if(.., ours) {
            ended = true;
            let _ = watcher.reply.send(Ok(()));
        }
        if ended {
            self.end_watch_if_unwanted(target);
        }
    }

    /// Tells Redis of the end of a watch, and forgets who was there.
    fn end_watch_if_unwanted(&mut self, target: &Target) {
        let watching = &mut self.watching;
        if watching.wants(target) {
            return;
        }
        let name = match target {
            Target::Channel(channel) => {
                if let Some(listing) = watching.listing.get_mut(channel) {
                    listing.registers = false;
                }
                watching.forget_if_unused(channel);
                Some(format!("pi:{channel}"))
            }
            Target::Pattern(pattern) => {
                if watching.patterns.remove(pattern).is_none() {
                    return;
                }
                let channels: Vec<Channel> = watching.known.keys().cloned().collect();
                channels.iter().for_each(|channel| watching.forget_if_unused(channel));
                let name = format!("pw:{}", pattern.literal_prefix());
                (!watching.wants_interest(&name)).then_some(name)
            }
        };
        if let Some(name) = name {
            self.withdraw_names(vec![name]);
        }
    }

    /// Tells a join or leave to whoever watches and does not know it yet.
    pub(super) fn take_presence(&mut self, event: PresenceEvent) {
        let watching = &mut self.watching;
        if !watching.known.contains_key(&event.channel) && !watching.concerns(&event.channel) {
            return;
        }
        let known = watching.known.entry(event.channel.clone()).or_default();
        let news = known.apply(event.action, &event.member);
        // Also after the leave of somebody who was not known.
        let empty = known.is_empty().then(|| event.channel.clone());
        if news {
            self.tell_presence(event);
        }
        if let Some(channel) = empty {
            self.watching.forget_if_unused(&channel);
        }
    }

    fn tell_presence(&self, event: PresenceEvent) {
        let sinks = self.watching.interest.listeners(event.channel.as_str());
        if !sinks.is_empty() {
            self.environment.sinks.deliver(sinks, &Delivery::Presence(Arc::new(event)));
        }
    }

    /// Everything is listed again: joins and leaves may have been missed, and Redis may have forgotten the interest.
    pub(super) fn rewatch(&mut self) {
        let watching = &mut self.watching;
        watching.listing.clear();
        watching.second.clear();
        let exact = watching.interest.channels().map(|(channel, _)| channel.clone());
        let waited = watching.waiting.iter().filter_map(|watcher| match &watcher.target {
            Target::Channel(channel) => Some(channel.clone()),
            Target::Pattern(_) => None,
        });
        let pending = watching.patterns.values().flat_map(|listing| listing.pending.iter().cloned());
        let mut channels: Vec<Channel> = exact.chain(waited).chain(pending).collect();
        channels.extend(watching.known.keys().cloned());
        for channel in channels {
            watching.enqueue(channel);
        }
        for listing in watching.patterns.values_mut() {
            (listing.wanted, listing.under_way) = (true, None);
        }
        self.list_next();
    }

    /// Looks again for those who were absent, and lists what could not be listed before.
    pub(super) fn look_again(&mut self) {
        let watching = &mut self.watching;
        for channel in std::mem::take(&mut watching.failed) {
            watching.enqueue(channel);
        }
        let due: Vec<Channel> = watching
            .second
            .iter()
            .filter(|(channel, at)| {
                at.elapsed() >= self.environment.lease && !watching.queued.contains(*channel)
            })
            .map(|(channel, _)| channel.clone())
            .collect();
        due.into_iter().for_each(|channel| watching.enqueue(channel));
        self.list_next();
    }

    /// Starts listings, as many as may be under way at once. Patterns first: their interest must be registered.
    pub(super) fn list_next(&mut self) {
        let wanted: Vec<Pattern> = self
            .watching
            .patterns
            .iter()
            .filter(|(_, listing)| listing.wanted && listing.under_way.is_none())
            .map(|(pattern, _)| pattern.clone())
            .collect();
        for pattern in wanted {
            let caller = match self.caller() {
                Ok(caller) => caller,
                Err(error) => return self.fail_watchers(&error),
            };
            self.watching.count += 1;
            let number = self.watching.count;
            if let Some(listing) = self.watching.patterns.get_mut(&pattern) {
                (listing.wanted, listing.under_way) = (false, Some(number));
            }
            let call = list_channels(&caller, &pattern);
            self.later(async move { Done::ListedChannels { pattern, number, outcome: call.await } });
        }
        while self.watching.listing.len() < AT_ONCE && !self.watching.queue.is_empty() {
            let caller = match self.caller() {
                Ok(caller) => caller,
                Err(error) => return self.fail_watchers(&error),
            };
            let Some(channel) = self.watching.take_next() else { return };
            self.watching.count += 1;
            let number = self.watching.count;
            let lease = self.environment.lease;
            let second = self.watching.second.get(&channel).is_some_and(|at| at.elapsed() >= lease);
            if second {
                self.watching.second.remove(&channel);
            }
            let registers = self.watching.wants_exactly(&channel);
            self.watching.listing.insert(channel.clone(), UnderWay { number, second, registers });
            self.watching.known.entry(channel.clone()).or_default().begin();
            let call = list_members(&caller, &channel, usize::MAX, registers);
            self.later(async move { Done::ListedMembers { channel, number, outcome: call.await } });
        }
    }

    /// There is no connection: whoever waits is told so. What is being watched is listed at the next one.
    fn fail_watchers(&mut self, error: &BrokerError) {
        let targets = self.watching.fail(|_| true, error);
        targets.iter().for_each(|target| self.end_watch_if_unwanted(target));
    }

    pub(super) fn finish_listed_channels(
        &mut self,
        pattern: &Pattern,
        number: u64,
        outcome: Result<Vec<Channel>, BrokerError>,
    ) {
        let Some(listing) = self.watching.patterns.get_mut(pattern) else { return };
        if listing.under_way != Some(number) {
            return;
        }
        listing.under_way = None;
        match outcome {
            Ok(channels) => {
                let first = !std::mem::replace(&mut listing.names, true);
                if first {
                    listing.pending = channels.iter().cloned().collect();
                }
                channels.into_iter().for_each(|channel| self.watching.enqueue(channel));
                self.watching.answer_complete_patterns();
            }
            Err(error) => {
                listing.wanted = true;
                let target = Target::Pattern(pattern.clone());
                self.watching.fail(|other| *other == target, &error);
                return self.end_watch_if_unwanted(&target);
            }
        }
        self.list_next();
    }

    pub(super) fn finish_listed_members(
        &mut self,
        channel: &Channel,
        number: u64,
        outcome: Result<PresencePage, BrokerError>,
    ) {
        let listings = &mut self.watching.listing;
        let Some(listing) = listings.get(channel).copied().filter(|listing| listing.number == number) else {
            return;
        };
        listings.remove(channel);
        match outcome {
            Ok(page) => self.take_listing(channel, page, listing),
            Err(error) => self.fail_listing(channel, &error),
        }
        self.list_next();
    }

    fn take_listing(&mut self, channel: &Channel, page: PresencePage, listing: UnderWay) {
        let whole = page.members.len() < GREATEST_LISTING;
        if !whole {
            tracing::warn!(%channel, members = page.count, "too many members: not all are compared after a re-sync");
        }
        let known = self.watching.known.entry(channel.clone()).or_default();
        let difference = known.compare(page.members, whole, listing.second);
        if difference.doubtful {
            self.watching.second.insert(channel.clone(), Instant::now());
        }
        // Where joins and leaves are not announced, a listing must not tell them either.
        if self.environment.policies.of(channel.as_str()).join_leave {
            let told = |action| {
                move |member: Arc<Member>| PresenceEvent { channel: channel.clone(), action, member }
            };
            for event in difference.joined.into_iter().map(told(PresenceAction::Join)) {
                self.tell_presence(event);
            }
            for event in difference.left.into_iter().map(told(PresenceAction::Leave)) {
                self.tell_presence(event);
            }
        }
        if listing.registers {
            self.watching.answer(&Target::Channel(channel.clone()));
        }
        for listing in self.watching.patterns.values_mut() {
            listing.pending.remove(channel);
        }
        self.watching.answer_complete_patterns();
        self.watching.forget_if_unused(channel);
    }

    fn fail_listing(&mut self, channel: &Channel, error: &BrokerError) {
        tracing::debug!(%channel, %error, "members could not be listed, trying again");
        if let Some(known) = self.watching.known.get_mut(channel) {
            known.give_up();
        }
        let patterns = self.watching.patterns.iter().filter(|(_, listing)| listing.pending.contains(channel));
        let patterns: HashSet<Pattern> = patterns.map(|(pattern, _)| pattern.clone()).collect();
        let concerned = |target: &Target| match target {
            Target::Channel(other) => other == channel,
            Target::Pattern(pattern) => patterns.contains(pattern),
        };
        let targets = self.watching.fail(concerned, error);
        targets.iter().for_each(|target| self.end_watch_if_unwanted(target));
        self.watching.failed.push(channel.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::{super::doubt_tests::actor, *};
    use crate::{broker::conformance::Recorder, policy::ChannelPolicy};
    use std::time::Duration;

    fn member() -> Arc<Member> {
        Arc::new(Member { session_id: "s".to_owned(), ..Member::default() })
    }

    /// An actor with a sink that watches `a.*`.
    fn watching() -> (Actor, Arc<Recorder>) {
        let (mut actor, recorder) = (actor(), Arc::new(Recorder::default()));
        let sink: Arc<dyn crate::broker::Sink> = recorder.clone();
        let id = actor.environment.sinks.attach(&sink);
        actor.watching.interest.insert(&Target::parse("a.*").unwrap(), id);
        actor.watching.patterns.entry(Pattern::parse("a.*").unwrap()).or_default();
        (actor, recorder)
    }

    #[tokio::test]
    async fn the_leave_of_somebody_unknown_leaves_nothing_behind() {
        let (mut actor, _recorder) = watching();
        let channel = Channel::parse("a.b").unwrap();
        let (action, member) = (PresenceAction::Leave, member());
        actor.take_presence(PresenceEvent { channel, action, member });
        assert!(actor.watching.known.is_empty());
    }

    #[tokio::test]
    async fn a_listing_tells_nothing_where_joins_and_leaves_are_not_announced() {
        for join_leave in [true, false] {
            let (mut actor, recorder) = watching();
            actor
                .environment
                .policies
                .replace(vec![], ChannelPolicy { join_leave, ..ChannelPolicy::default() });
            let channel = Channel::parse("a.b").unwrap();
            let page = PresencePage { members: vec![member()], count: 1 };
            actor.take_listing(&channel, page, UnderWay { number: 1, second: false, registers: false });
            assert_eq!(recorder.next(Duration::ZERO).await.is_some(), join_leave);
            assert!(!actor.watching.known.is_empty(), "who is there is known all the same");
        }
    }
}
