//! Where subscriptions start and what they replay.

use std::{
    collections::HashSet,
    ops::Bound::{Included, Unbounded},
};

use super::store::Store;
use crate::{
    broker::{
        Catchup, ChannelCatchup, From, GapReason, PatternCursors, Start, SubscribeTo, Subscribed,
        recovery::{StreamState, classify},
    },
    channel::{Channel, Pattern},
    position::Position,
};

/// Most positions in the answer to a pattern.
const PATTERN_POSITIONS: usize = 1_000;
/// Most publications that one pattern replays.
const PATTERN_REPLAY: usize = 10_000;

impl Store {
    /// Answers where live deliveries start, and what was missed.
    pub(super) fn subscribe(&mut self, to: SubscribeTo, now_ms: u64) -> Subscribed {
        match to {
            SubscribeTo::Channel { channel, start } => self.subscribe_channel(&channel, &start, now_ms),
            SubscribeTo::Pattern { pattern, start } => self.subscribe_pattern(&pattern, &start, now_ms),
        }
    }

    fn subscribe_channel(&mut self, channel: &Channel, start: &Start<Position>, now_ms: u64) -> Subscribed {
        let policy = self.policies.of(channel.as_str());
        self.refresh(channel, &policy, now_ms);
        let missed = match start {
            Start::Live => None,
            Start::After(cursor) if policy.keeps_history() => Some(self.missed(channel, *cursor)),
            // The cursor comes from a time when there was a history.
            Start::After(_) => Some(ChannelCatchup::of(channel, Vec::new(), Some(GapReason::Expired), false)),
            Start::From(from) => Some(self.since(channel, *from)),
        };
        let catchup =
            missed.map(|missed| Catchup { channels: missed.into_iter().collect(), truncated: false });
        let positions =
            if policy.keeps_history() { vec![(channel.clone(), self.end(channel))] } else { Vec::new() };
        Subscribed { positions, marker: None, catchup }
    }

    fn subscribe_pattern(
        &mut self,
        pattern: &Pattern,
        start: &Start<PatternCursors>,
        now_ms: u64,
    ) -> Subscribed {
        let matching = self.matching(pattern);
        for channel in &matching {
            let policy = self.policies.of(channel.as_str());
            self.refresh(channel, &policy, now_ms);
        }
        let living = matching.iter().filter(|channel| self.end(channel).offset > 0);
        let mut positions: Vec<_> =
            living.take(PATTERN_POSITIONS).map(|channel| (channel.clone(), self.end(channel))).collect();
        let catchup = match start {
            Start::Live => None,
            Start::After(cursors) => {
                // Lets the client replace the cursor of a history that is gone.
                let gone = cursors.channels.keys().filter(|channel| pattern.matches(channel.as_str()));
                let gone = gone.filter(|channel| self.end(channel).offset == 0);
                positions.extend(gone.map(|channel| (channel.clone(), self.end(channel))));
                Some(self.missed_by_pattern(pattern, &matching, cursors))
            }
            Start::From(from) => {
                let channels = matching.iter().filter_map(|channel| self.since(channel, *from)).collect();
                Some(Catchup { channels, truncated: false })
            }
        };
        Subscribed { positions, marker: Some(self.top.to_string()), catchup: catchup.map(bounded) }
    }

    /// Channels of the catalogue that `pattern` matches, in order.
    fn matching(&self, pattern: &Pattern) -> Vec<Channel> {
        let prefix = pattern.literal_prefix();
        self.catalogue
            .range::<str, _>((Included(prefix), Unbounded))
            .take_while(|channel| channel.as_str().starts_with(prefix))
            .filter(|channel| pattern.matches(channel.as_str()))
            .cloned()
            .collect()
    }

    fn missed_by_pattern(
        &self,
        pattern: &Pattern,
        matching: &[Channel],
        cursors: &PatternCursors,
    ) -> Catchup {
        // Without a marker, the newest cursor tells a time at which the subscription was there.
        let newest = || cursors.channels.values().map(|cursor| cursor.epoch).max().unwrap_or(0);
        let marker = cursors.marker.as_deref().and_then(|marker| marker.parse().ok()).unwrap_or_else(newest);
        let mut catchup = Catchup {
            channels: Vec::new(),
            truncated: self.forgotten.is_some_and(|forgotten| forgotten > marker),
        };
        for channel in matching {
            let living = self.slot(channel).and_then(|slot| slot.history.as_ref());
            let born_before = living.is_some_and(|history| history.first().epoch <= marker);
            match cursors.channels.get(channel) {
                Some(cursor) => catchup.channels.extend(self.missed(channel, *cursor)),
                // It existed at the marker, but not among the positions that were answered then.
                None if born_before && marker <= self.top => catchup.truncated = true,
                None => {
                    let unseen = Position { epoch: marker, offset: 0 };
                    let whole_history = marker == 0;
                    let missed = if whole_history {
                        self.since(channel, From::Start)
                    } else {
                        self.missed(channel, unseen)
                    };
                    catchup.channels.extend(missed);
                }
            }
        }
        let known: HashSet<&Channel> = matching.iter().collect();
        let unknown = cursors
            .channels
            .iter()
            .filter(|(channel, _)| !known.contains(channel) && pattern.matches(channel.as_str()));
        catchup.channels.extend(unknown.filter_map(|(channel, cursor)| self.missed(channel, *cursor)));
        catchup
    }

    /// End of the history; offset 0 of the newest epoch if there is none.
    fn end(&self, channel: &Channel) -> Position {
        let history = self.slot(channel).and_then(|slot| slot.history.as_ref());
        history.map_or(Position { epoch: self.top, offset: 0 }, |history| history.last())
    }

    /// Everything after `cursor`, or why it is not everything; `None` if nothing was missed.
    fn missed(&self, channel: &Channel, cursor: Position) -> Option<ChannelCatchup> {
        let slot = self.slot(channel);
        let lost_epoch = slot.map_or(self.forgotten, |slot| slot.lost_epoch());
        let history = slot.and_then(|slot| slot.history.as_ref());
        let state =
            history.map_or(StreamState::Gone { lost_epoch }, |history| history.state(cursor, lost_epoch));
        let verdict = classify(cursor, self.top, state);
        let replay = history.zip(verdict.replay_after);
        let publications: Vec<_> =
            replay.map_or_else(Vec::new, |(history, after)| history.after(after).cloned().collect());
        ChannelCatchup::of(channel, publications, verdict.gap, false)
    }

    /// Everything from a point on; `None` if there is nothing.
    fn since(&self, channel: &Channel, from: From) -> Option<ChannelCatchup> {
        let history = self.slot(channel)?.history.as_ref()?;
        let after = match from {
            From::Start => 0,
            From::TimeMs(time_ms) => history.before_time(time_ms),
            From::Last(count) => history.last().offset.saturating_sub(count),
        };
        ChannelCatchup::of(channel, history.after(after).cloned().collect(), None, false)
    }
}

/// Cuts a pattern's replay at [`PATTERN_REPLAY`] publications and marks the channels that were cut.
fn bounded(mut catchup: Catchup) -> Catchup {
    let mut left = PATTERN_REPLAY;
    for channel in &mut catchup.channels {
        if channel.publications.len() > left {
            channel.publications.truncate(left);
            (channel.cut, catchup.truncated) = (true, true);
        }
        left -= channel.publications.len();
    }
    catchup
}
