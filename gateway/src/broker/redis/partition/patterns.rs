//! Interest in patterns, their recovery, and the search for channels born while the inbox may have missed entries.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::oneshot;

use super::{
    super::paging::{Caller, GREATEST_REPLAY},
    PatternPart, Permit,
    actor::{Actor, Done},
    catalogue::scan_catalogue,
    pattern_recovery::Recovery,
    slot::{Fill, Slot, Tail},
};
use crate::{
    broker::{BrokerError, ChannelCatchup, PatternCursors, Publication, SinkId, Start},
    channel::{Channel, Pattern, Target},
    position::Position,
};

/// Times that a scan is made again because the inbox lost something meanwhile.
const MOST_ROUNDS: u32 = 3;

/// What a partition knows of a pattern that somebody here listens to.
#[derive(Debug, Default)]
pub struct PatternState {
    /// Channels of epochs up to here are known, or were there before the interest began.
    pub known_top: u64,
    /// The catalogue must be looked at again: channels may have been born unnoticed.
    pub rescan: bool,
    /// That is under way.
    pub scanning: bool,
    /// There are more channels than are listed: one that is not known may be older than `known_top`.
    pub partial: bool,
}

/// A subscriber that waits for a scan.
#[derive(Debug)]
pub struct PendingScan {
    /// Which one; ids are not used again.
    pub id: u64,
    pattern: Pattern,
    sink: SinkId,
    /// What is asked again if the inbox loses something meanwhile.
    start: Start<PatternCursors>,
    marker: Option<u64>,
    /// How often that has happened.
    rounds: u32,
    reply: oneshot::Sender<Result<PatternPart, BrokerError>>,
    /// It was unsubscribed again meanwhile.
    cancelled: bool,
    /// What was delivered of matching channels since the scan was asked for.
    tails: HashMap<Channel, Tail>,
    kept: usize,
    _permit: Permit,
}

impl PendingScan {
    /// Whether something came after what was read that this node has not got, though reading again may find it.
    fn lacks_something(&self, part: &PatternPart) -> bool {
        let worth_it = self.start != Start::Live
            && !self.cancelled
            && self.rounds < MOST_ROUNDS
            && self.kept < GREATEST_REPLAY;
        let end_of = |channel: &Channel| {
            let known = part.positions.iter().find(|(name, _)| name == channel);
            known.map_or(Position { epoch: part.top, offset: 0 }, |(_, end)| *end)
        };
        worth_it && self.tails.iter().any(|(channel, tail)| !tail.follows(end_of(channel)))
    }
}

impl Actor {
    pub(super) fn subscribe_pattern(
        &mut self,
        sink: SinkId,
        pattern: Pattern,
        start: Start<PatternCursors>,
        marker: Option<u64>,
        reply: oneshot::Sender<Result<PatternPart, BrokerError>>,
        permit: Permit,
    ) {
        let caller = match self.caller() {
            Ok(caller) => caller,
            Err(error) => {
                let _ = reply.send(Err(error));
                return;
            }
        };
        self.patterns.entry(pattern.clone()).or_default();
        self.scan_count += 1;
        let id = self.scan_count;
        self.scans.push(PendingScan {
            id,
            pattern: pattern.clone(),
            sink,
            start,
            marker,
            rounds: 0,
            reply,
            cancelled: false,
            tails: HashMap::new(),
            kept: 0,
            _permit: permit,
        });
        self.scan(&caller, id);
    }

    /// Asks for what the pending scan with this id is to be answered.
    fn scan(&mut self, caller: &Caller, id: u64) {
        let Some(scan) = self.scans.iter().find(|scan| scan.id == id) else { return };
        let (pattern, start, marker) = (scan.pattern.clone(), scan.start.clone(), scan.marker);
        let recovery = Recovery { start, marker, policies: self.environment.policies.clone() };
        let (call, caller) = (scan_catalogue(caller, &pattern), caller.clone());
        self.later(async move {
            let outcome = async { recovery.run(&caller, &pattern, call.await?).await }.await;
            Done::Scanned { pattern, subscriber: Some(id), outcome }
        });
    }

    /// Reads again for the scan at this place, during which the inbox lost something; `false` if that cannot be now.
    fn scan_again(&mut self, at: usize) -> bool {
        let Ok(caller) = self.caller() else { return false };
        let Some(scan) = self.scans.get_mut(at) else { return false };
        scan.rounds += 1;
        scan.tails.clear();
        scan.kept = 0;
        let id = scan.id;
        self.scan(&caller, id);
        true
    }

    pub(super) fn finish_scan(
        &mut self,
        pattern: &Pattern,
        subscriber: Option<u64>,
        outcome: Result<PatternPart, BrokerError>,
    ) {
        let Some(id) = subscriber else { return self.finish_rescan(pattern, outcome) };
        let Some(at) = self.scans.iter().position(|scan| scan.id == id) else { return };
        let lacks = |scan: &PendingScan| outcome.as_ref().is_ok_and(|part| scan.lacks_something(part));
        if self.scans.get(at).is_some_and(lacks) && self.scan_again(at) {
            return;
        }
        let mut scan = self.scans.swap_remove(at);
        let outcome = outcome.map(|part| self.join_tails(&mut scan, part));
        if let Some(part) = outcome.as_ref().ok().filter(|_| !scan.cancelled) {
            self.activate(&scan, part);
        }
        if !self.is_wanted(pattern) {
            if self.patterns.remove(pattern).is_some() {
                // The call may have been executed.
                self.withdraw(&Target::Pattern(pattern.clone()));
            }
            // Channels that were followed only for this one's sake.
            self.forget_unused();
        }
        let _ = scan.reply.send(outcome);
    }

    /// Puts what was delivered to others meanwhile into the answer.
    fn join_tails(&self, scan: &mut PendingScan, mut part: PatternPart) -> PatternPart {
        let mut positions: HashMap<Channel, Position> = part.positions.drain(..).collect();
        for (channel, tail) in scan.tails.drain() {
            let known = positions.get(&channel).copied();
            // A channel born since the scan starts with its first publication.
            let end = known.unwrap_or(Position { epoch: part.top, offset: 0 });
            let live = live_after(self.slots.get(&channel).and_then(|slot| slot.last), known, end);
            if scan.start == Start::Live {
                positions.insert(channel, live);
                continue;
            }
            let missed_of = part.missed.iter_mut().position(|item| item.channel == channel);
            let cut = missed_of.and_then(|at| part.missed.get(at)).is_some_and(|item| item.cut);
            match tail.after(end) {
                Some(entries) if !cut => {
                    let Some(last) = entries.last().and_then(|last| last.position) else { continue };
                    positions.insert(channel.clone(), last);
                    match missed_of.and_then(|at| part.missed.get_mut(at)) {
                        Some(item) => item.publications.extend(entries),
                        None => part.missed.extend(ChannelCatchup::of(&channel, entries, None, false)),
                    }
                }
                // Too much at once: the rest is in history.
                _ => {
                    positions.insert(channel.clone(), live);
                    part.truncated = true;
                    match missed_of.and_then(|at| part.missed.get_mut(at)) {
                        Some(item) => item.cut = true,
                        None => part.missed.extend(ChannelCatchup::of(&channel, Vec::new(), None, true)),
                    }
                }
            }
        }
        part.positions = positions.into_iter().collect();
        part
    }

    /// Lets the sink take part in deliveries from now on.
    fn activate(&mut self, scan: &PendingScan, part: &PatternPart) {
        for (channel, position) in &part.positions {
            let known = self.interest.listeners(channel.as_str()).contains(scan.sink);
            self.learn(channel, *position);
            let slot = self.slots.entry(channel.clone()).or_insert_with(|| Slot::new(None));
            slot.answered(scan.sink, *position, known);
        }
        if let Some(state) = self.patterns.get_mut(&scan.pattern).filter(|state| state.known_top == 0) {
            (state.known_top, state.partial) = (part.top, part.truncated);
        }
        let target = Target::Pattern(scan.pattern.clone());
        self.interest.insert(&target, scan.sink);
    }

    /// Whether somebody listens to the pattern, or will.
    pub(super) fn is_wanted(&self, pattern: &Pattern) -> bool {
        !self.interest.of(&Target::Pattern(pattern.clone())).is_empty()
            || self.scans.iter().any(|scan| !scan.cancelled && scan.pattern == *pattern)
    }

    /// Whether a pattern that matches `channel` is being looked up for a subscriber.
    pub(super) fn is_awaited(&self, channel: &str) -> bool {
        self.scans.iter().any(|scan| scan.pattern.matches(channel))
    }

    /// Cancels what `sink` waits for; whether there was something.
    pub(super) fn cancel_scans(&mut self, sink: SinkId, pattern: &Pattern) -> bool {
        let mut cancelled = false;
        for scan in self.scans.iter_mut().filter(|scan| scan.sink == sink && scan.pattern == *pattern) {
            cancelled |= !std::mem::replace(&mut scan.cancelled, true);
        }
        cancelled
    }

    /// Keeps a delivery for those whose answer is under way.
    pub(super) fn keep_for_scans(&mut self, publication: &Arc<Publication>) {
        for scan in self.scans.iter_mut().filter(|scan| scan.pattern.matches(publication.channel.as_str())) {
            let tail = scan.tails.entry(publication.channel.clone()).or_default();
            if scan.kept < GREATEST_REPLAY {
                scan.kept += 1;
                tail.entries.push(publication.clone());
            } else {
                tail.broken = true;
            }
        }
    }

    /// Continuity of `channel` is lost while answers are under way.
    pub(super) fn break_scans(&mut self, channel: &Channel) {
        for scan in self.scans.iter_mut().filter(|scan| scan.pattern.matches(channel.as_str())) {
            scan.tails.entry(channel.clone()).or_default().broken = true;
        }
    }

    fn finish_rescan(&mut self, pattern: &Pattern, outcome: Result<PatternPart, BrokerError>) {
        let Some(state) = self.patterns.get_mut(pattern) else { return };
        state.scanning = false;
        match outcome {
            Ok(part) => self.take_births(pattern, &part),
            Err(_) => state.rescan = true,
        }
    }

    /// Fills the channels that nobody told us of.
    fn take_births(&mut self, pattern: &Pattern, part: &PatternPart) {
        if part.truncated {
            tracing::warn!(%pattern, "too many channels: births may have gone unnoticed while the inbox was lost");
        }
        for (channel, position) in &part.positions {
            self.learn(channel, *position);
        }
        if let Some(state) = self.patterns.get_mut(pattern) {
            (state.known_top, state.partial) = (part.top, part.truncated);
        }
    }

    /// Learns from a listing where a history ends. If nothing was delivered of it although it was born after somebody's
    /// interest began, all of it is filled.
    fn learn(&mut self, channel: &Channel, end: Position) {
        let known = self.known_before(channel, end.epoch);
        let slot = self.slots.entry(channel.clone()).or_insert_with(|| Slot::new(None));
        match known {
            Some(known) if slot.last.is_none() => {
                slot.last = Some(Position { epoch: known, offset: 0 });
                slot.fill.get_or_insert_with(Fill::default);
                self.start_fill(channel);
            }
            _ => slot.learn_end(end),
        }
    }

    /// Where to fill from, if the first publication that comes of a channel cannot be its first: its birth was missed.
    pub(super) fn unseen_birth(&self, channel: &Channel, first: Position) -> Option<Position> {
        if first.offset == 1 || self.slots.get(channel).is_some_and(|slot| slot.last.is_some()) {
            return None;
        }
        self.known_before(channel, first.epoch).map(|epoch| Position { epoch, offset: 0 })
    }

    /// Of the patterns listened to that match, the oldest epoch up to which all channels were known, if a channel of
    /// `epoch` was born after that.
    fn known_before(&self, channel: &Channel, epoch: u64) -> Option<u64> {
        let matching = self.patterns.iter().filter(|(pattern, state)| {
            state.known_top > 0 && !state.partial && pattern.matches(channel.as_str())
        });
        matching.map(|(_, state)| state.known_top).min().filter(|known| epoch > *known)
    }

    pub(super) fn rescan_if_needed(&mut self) {
        let wanted: Vec<Pattern> = self
            .patterns
            .iter()
            .filter(|(_, state)| state.rescan && !state.scanning)
            .map(|(pattern, _)| pattern.clone())
            .collect();
        for pattern in wanted {
            let Ok(caller) = self.caller() else { return };
            if let Some(state) = self.patterns.get_mut(&pattern) {
                (state.rescan, state.scanning) = (false, true);
            }
            let call = scan_catalogue(&caller, &pattern);
            self.later(async move {
                Done::Scanned { pattern, subscriber: None, outcome: call.await.map(PatternPart::from) }
            });
        }
    }
}

/// Where a channel goes on for a new subscriber: not before what the listing said, nor after what was delivered. One
/// that is not listed may have a history of an older epoch than the newest, if there are too many channels.
fn live_after(last: Option<Position>, listed: Option<Position>, born: Position) -> Position {
    match listed {
        Some(listed) => last.map_or(listed, |last| last.max(listed)),
        None => last.unwrap_or(born),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::doubt_tests::{LAST, actor, channel, stored},
        *,
    };
    use crate::broker::GapReason;

    #[tokio::test]
    async fn a_replay_whose_tail_is_not_all_known_is_cut_off_before_where_live_goes_on() {
        let at = |offset| Position { offset, ..LAST };
        let mut actor = actor();
        actor.slots.insert(channel(), Slot::new(Some(at(22))));
        for (gap, missed) in
            [(None, vec![]), (Some(GapReason::EpochReset), vec![stored(at(4)), stored(at(5))])]
        {
            let tail = Tail { entries: vec![stored(at(22))], broken: true };
            let mut scan = PendingScan {
                id: 1,
                pattern: Pattern::parse("**").unwrap(),
                sink: SinkId(1),
                start: Start::From(crate::broker::From::Start),
                marker: None,
                rounds: MOST_ROUNDS,
                reply: oneshot::channel().0,
                cancelled: false,
                tails: HashMap::from([(channel(), tail)]),
                kept: 0,
                _permit: Permit::default(),
            };
            let part = PatternPart {
                positions: vec![(channel(), at(5))],
                top: 5,
                missed: ChannelCatchup::of(&channel(), missed.clone(), gap, false).into_iter().collect(),
                truncated: false,
            };
            assert!(!scan.lacks_something(&part), "it was read again and again");
            scan.rounds = 0;
            assert!(scan.lacks_something(&part));
            let part = actor.join_tails(&mut scan, part);
            assert_eq!((part.positions, part.truncated), (vec![(channel(), at(22))], true));
            let [one] = part.missed.as_slice() else { panic!("{:?}", part.missed) };
            assert_eq!((one.publications.len(), one.gap, one.cut), (missed.len(), gap, true));
        }
    }

    #[test]
    fn a_channel_that_is_not_listed_goes_on_after_what_was_delivered() {
        let at = |epoch, offset| Position { epoch, offset };
        let born = at(9, 0);
        assert_eq!(live_after(Some(at(5, 7)), None, born), at(5, 7));
        assert_eq!(live_after(None, None, born), born);
        assert_eq!(live_after(Some(at(5, 7)), Some(at(5, 6)), at(5, 6)), at(5, 7));
        assert_eq!(live_after(Some(at(5, 7)), Some(at(5, 9)), at(5, 9)), at(5, 9));
    }
}
