//! The recent history of one channel in memory, so that many recoveries at once cost a handful of reads. Pure.
//!
//! Filled by the first recovery's read, extended by live deliveries; contiguous up to the last delivery at all times.
//! Whoever holds it drops it when continuity is lost or nobody has used it for a while.

use std::{collections::VecDeque, sync::Arc};

use super::range::{Part, Range};
use crate::{
    broker::{
        From, GapReason, Publication, Start,
        recovery::{StreamState, classify},
    },
    policy::ChannelPolicy,
    position::Position,
};

/// Most bytes of events that one cache holds.
const GREATEST_BYTES: usize = 16 * 1024 * 1024;

/// See the module.
#[derive(Debug)]
pub struct ReplayCache {
    entries: VecDeque<Arc<Publication>>,
    bytes: usize,
    /// End of the history: the last entry's position, or offset 0 if there is no history.
    end: Position,
    /// A cursor that was proven whole and that the first entry follows.
    start: Option<Position>,
    /// The first entry is the first of the history that may be read.
    whole: bool,
    /// First entry in Redis, shown or not, when it was read.
    raw: Option<Position>,
    /// See [`Range::lost_epoch`].
    lost_epoch: Option<u64>,
    top: u64,
}

/// What a cache can say of a start.
#[derive(Debug, Clone, PartialEq)]
pub struct Replay {
    /// In order.
    pub publications: Vec<Arc<Publication>>,
    /// Why they are not everything.
    pub gap: Option<GapReason>,
}

impl ReplayCache {
    /// Keeps what was read of `part`; `None` if that is not a contiguous piece up to the end.
    #[must_use]
    pub fn from_range(range: &Range, part: Part) -> Option<Self> {
        if range.more || range.hole || matches!(part, Part::Before(_)) {
            return None;
        }
        let first = range.entries.first().and_then(|entry| entry.position);
        let whole = match range.ends {
            None => true,
            Some(ends) => first == Some(ends.first),
        };
        let start = match part {
            Part::After(cursor) if range.gap_after(cursor).is_none() => Some(cursor),
            _ => first.is_none().then(|| range.end()),
        };
        let mut cache = Self {
            entries: VecDeque::with_capacity(range.entries.len()),
            bytes: 0,
            end: range.end(),
            start,
            whole,
            raw: range.ends.map(|ends| ends.raw),
            lost_epoch: range.lost_epoch,
            top: range.top,
        };
        for entry in &range.entries {
            cache.push(entry);
        }
        Some(cache)
    }

    /// The last position it covers.
    #[must_use]
    pub fn end(&self) -> Position {
        self.end
    }

    /// Takes the next publication; those up to the end are known already.
    pub fn append(&mut self, publication: &Arc<Publication>) {
        let Some(position) = publication.position else { return };
        if position > self.end {
            if position.offset != self.end.offset + 1 {
                self.begin_again(position);
            }
            self.end = position;
            self.top = self.top.max(position.epoch);
            self.raw = self.raw.or(Some(position));
            self.push(publication);
        }
    }

    /// The former history is gone: one that was born again starts at offset 1.
    fn begin_again(&mut self, first: Position) {
        self.entries.clear();
        // Who has never seen anything of it missed all of it.
        if self.end.offset > 0 {
            self.lost_epoch = Some(self.end.epoch);
        }
        (self.bytes, self.start) = (0, None);
        (self.raw, self.whole) = (Some(first), first.offset == 1);
    }

    fn push(&mut self, publication: &Arc<Publication>) {
        self.bytes += publication.stored.event.len();
        self.entries.push_back(publication.clone());
        while self.bytes > GREATEST_BYTES {
            // From here on it does not know where the history starts.
            self.whole = false;
            self.pop();
        }
    }

    /// Drops what the policy no longer shows.
    pub fn trim(&mut self, policy: &ChannelPolicy, now_ms: u64) {
        let ttl = u64::try_from(policy.history_ttl.as_millis()).unwrap_or(u64::MAX);
        while self.entries.len() as u64 > policy.history_size
            || self.entries.front().is_some_and(|entry| now_ms.saturating_sub(entry.time_ms) >= ttl)
        {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= entry.stored.event.len();
            // Whoever has seen this entry misses nothing.
            self.start = entry.position;
        }
    }

    /// What follows `start`; `None` if that is not known here.
    #[must_use]
    pub fn replay(&self, start: &Start<Position>) -> Option<Replay> {
        match start {
            Start::Live => Some(Replay { publications: Vec::new(), gap: None }),
            Start::After(cursor) => self.after(*cursor),
            Start::From(from) => {
                let first = match from {
                    From::Start => self.whole.then_some(0),
                    From::TimeMs(time) => {
                        let older = self.entries.partition_point(|entry| entry.time_ms < *time);
                        (self.whole || older > 0).then_some(older)
                    }
                    From::Last(count) => {
                        let count = usize::try_from(*count).unwrap_or(usize::MAX);
                        let known = self.whole || count <= self.entries.len();
                        known.then(|| self.entries.len().saturating_sub(count))
                    }
                };
                first.map(|first| self.tail(first, None))
            }
        }
    }

    fn after(&self, cursor: Position) -> Option<Replay> {
        if cursor == self.end {
            return Some(self.tail(self.entries.len(), None));
        }
        if self.start == Some(cursor) {
            return Some(self.tail(0, None));
        }
        if let Some(index) = self.index_of(cursor) {
            return Some(self.tail(index + 1, None));
        }
        // A cursor past the end may be of a publication that has not come through this node's inbox so far, and an epoch
        // beyond the newest we know of may have been started since.
        let ahead = cursor > self.end && self.end.offset > 0;
        if !self.whole || ahead || cursor.epoch > self.top {
            return None;
        }
        let state = self.state(cursor)?;
        let verdict = classify(cursor, self.top, state);
        let after = verdict.replay_after.unwrap_or(self.end.offset);
        let first = self
            .entries
            .partition_point(|entry| entry.position.is_some_and(|position| position.offset <= after));
        Some(self.tail(first, verdict.gap))
    }

    /// What the history looks like to `cursor`; `None` if its epoch may be among the entries that are not shown.
    fn state(&self, cursor: Position) -> Option<StreamState> {
        let Some(first) = self.entries.front().and_then(|entry| entry.position) else {
            return (self.end.offset == 0).then_some(StreamState::Gone { lost_epoch: self.lost_epoch });
        };
        let of_epoch =
            |entry: &&Arc<Publication>| entry.position.is_some_and(|position| position.epoch == cursor.epoch);
        let end_of_cursor_epoch =
            self.entries.iter().rev().find(of_epoch).and_then(|entry| entry.position).map(|end| end.offset);
        let hidden = self.raw.is_some_and(|raw| raw < first && raw.epoch <= cursor.epoch);
        if end_of_cursor_epoch.is_none() && hidden && cursor.epoch < first.epoch {
            return None;
        }
        let last = self.end;
        Some(StreamState::Living { first, last, end_of_cursor_epoch, lost_epoch: self.lost_epoch })
    }

    fn index_of(&self, position: Position) -> Option<usize> {
        let first = self.entries.front()?.position?;
        let index = usize::try_from(position.offset.checked_sub(first.offset)?).ok()?;
        (self.entries.get(index)?.position == Some(position)).then_some(index)
    }

    fn tail(&self, first: usize, gap: Option<GapReason>) -> Replay {
        Replay { publications: self.entries.iter().skip(first).cloned().collect(), gap }
    }

    /// Whether it could not even hold what was read.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.whole
    }
}

#[cfg(test)]
mod tests {
    use super::{super::range::Ends, *};
    use crate::{broker::Stored, channel::Channel};

    fn entry(epoch: u64, offset: u64) -> Arc<Publication> {
        Arc::new(Publication {
            channel: Channel::parse("a").unwrap(),
            position: Some(Position { epoch, offset }),
            time_ms: offset * 10,
            stored: Stored { event: vec![0; 100].into(), ..Stored::default() },
        })
    }

    fn ends(epoch: u64, first: u64, last: u64) -> Option<Ends> {
        let at = |offset| Position { epoch, offset };
        Some(Ends { raw: at(first), first: at(first), last: at(last) })
    }

    fn range(first: u64, last: u64, kept_from: u64) -> Range {
        Range {
            top: 9,
            now_ms: 0,
            ends: ends(5, kept_from, last),
            lost_epoch: None,
            end_of_cursor_epoch: Some(last),
            entries: (first..=last).map(|offset| entry(5, offset)).collect(),
            read_to: Some(Position { epoch: 5, offset: last }),
            more: false,
            hole: false,
        }
    }

    fn after(cache: &ReplayCache, epoch: u64, offset: u64) -> Option<(Vec<u64>, Option<GapReason>)> {
        let replay = cache.replay(&Start::After(Position { epoch, offset }))?;
        Some((replay.publications.iter().map(|entry| entry.position.unwrap().offset).collect(), replay.gap))
    }

    #[test]
    fn cursors_inside_a_part_are_served_and_older_ones_are_not() {
        let cursor = Position { epoch: 5, offset: 6 };
        let mut cache = ReplayCache::from_range(&range(7, 9, 1), Part::After(cursor)).unwrap();
        assert_eq!(after(&cache, 5, 6).unwrap(), (vec![7, 8, 9], None));
        assert_eq!(after(&cache, 5, 8).unwrap(), (vec![9], None));
        assert_eq!(after(&cache, 5, 9).unwrap(), (vec![], None));
        assert_eq!(after(&cache, 5, 5), None);
        assert_eq!(after(&cache, 0, 7), None);
        cache.append(&entry(5, 9));
        cache.append(&entry(6, 10));
        assert_eq!(after(&cache, 5, 8).unwrap(), (vec![9, 10], None));
        assert_eq!(after(&cache, 6, 10).unwrap(), (vec![], None));
        assert_eq!(cache.replay(&Start::From(From::Last(2))).unwrap().publications.len(), 2);
        assert_eq!(cache.replay(&Start::From(From::Start)), None);
    }

    #[test]
    fn a_whole_history_judges_every_cursor() {
        let cache = ReplayCache::from_range(&range(3, 6, 3), Part::From(From::Start)).unwrap();
        assert_eq!(after(&cache, 5, 4).unwrap(), (vec![5, 6], None));
        assert_eq!(after(&cache, 5, 2).unwrap(), (vec![3, 4, 5, 6], None));
        assert_eq!(after(&cache, 5, 1).unwrap(), (vec![3, 4, 5, 6], Some(GapReason::HeadTrimmed)));
        assert_eq!(after(&cache, 0, 4).unwrap(), (vec![3, 4, 5, 6], Some(GapReason::EpochReset)));
        assert_eq!(after(&cache, 5, 8), None, "it may be on its way to this node");
        assert_eq!(after(&cache, 10, 1), None, "an epoch that may be newer than what was read");
    }

    #[test]
    fn an_epoch_that_may_be_hidden_is_left_to_redis() {
        let mut hidden = range(3, 6, 3);
        hidden.ends = Some(Ends { raw: Position { epoch: 2, offset: 1 }, ..hidden.ends.unwrap() });
        let cache = ReplayCache::from_range(&hidden, Part::From(From::Start)).unwrap();
        assert_eq!(after(&cache, 2, 2), None);
        assert_eq!(after(&cache, 1, 9).unwrap(), (vec![3, 4, 5, 6], Some(GapReason::EpochReset)));
    }

    #[test]
    fn a_history_that_is_gone_is_judged_until_it_is_born_again() {
        let gone = Range { ends: None, lost_epoch: Some(7), entries: Vec::new(), ..range(1, 0, 1) };
        let mut cache = ReplayCache::from_range(&gone, Part::From(From::Start)).unwrap();
        assert_eq!(after(&cache, 5, 3).unwrap(), (vec![], Some(GapReason::Expired)));
        assert_eq!(after(&cache, 8, 0).unwrap(), (vec![], None));
        cache.append(&entry(12, 1));
        assert_eq!(after(&cache, 9, 0).unwrap(), (vec![1], None));
        assert_eq!(after(&cache, 5, 3).unwrap(), (vec![1], Some(GapReason::EpochReset)));
    }

    #[test]
    fn nothing_of_a_history_that_was_born_again_is_replayed() {
        let mut cache = ReplayCache::from_range(&range(1, 6, 1), Part::From(From::Start)).unwrap();
        cache.append(&entry(12, 1));
        assert_eq!(after(&cache, 5, 3).unwrap(), (vec![1], Some(GapReason::EpochReset)));
        assert_eq!(cache.replay(&Start::From(From::Start)).unwrap().publications.len(), 1);
        cache.append(&entry(12, 3));
        assert_eq!(cache.replay(&Start::From(From::Start)), None, "what came before is not known");
        assert_eq!(after(&cache, 12, 3).unwrap(), (vec![], None));
    }

    #[test]
    fn what_the_policy_no_longer_shows_is_dropped() {
        let mut cache = ReplayCache::from_range(&range(1, 6, 1), Part::From(From::Start)).unwrap();
        let policy = ChannelPolicy { history_size: 3, ..ChannelPolicy::default() };
        cache.trim(&policy, 60);
        assert_eq!(after(&cache, 5, 3).unwrap(), (vec![4, 5, 6], None));
        assert_eq!(after(&cache, 5, 1).unwrap(), (vec![4, 5, 6], Some(GapReason::HeadTrimmed)));
        let policy = ChannelPolicy { history_ttl: std::time::Duration::from_millis(20), ..policy };
        cache.trim(&policy, 75);
        assert_eq!(after(&cache, 5, 5).unwrap(), (vec![6], None));
    }

    #[test]
    fn bytes_are_bounded() {
        let mut cache = ReplayCache::from_range(&range(1, 1, 1), Part::From(From::Start)).unwrap();
        for offset in 2..=30 {
            let mut big = entry(5, offset).as_ref().clone();
            big.stored.event = vec![0; 1024 * 1024].into();
            cache.append(&Arc::new(big));
        }
        assert!(cache.bytes <= GREATEST_BYTES && !cache.is_whole());
        assert_eq!(after(&cache, 5, 29).unwrap(), (vec![30], None));
        assert_eq!(after(&cache, 5, 3), None);
    }
}
