//! Reading ranges of histories: what to ask the scripts for, and what they answer (`scripts/history.lua`).

use std::sync::Arc;

use bytes::Bytes;

use super::{
    entry::{entry_position, history_entry, optional_position},
    reply::{Reply, ReplyError},
};
use crate::{
    broker::{BrokerError, From, GapReason, Publication, Start, recovery::StreamState, recovery::classify},
    channel::Channel,
    policy::ChannelPolicy,
    position::Position,
};

/// Which part of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What follows a cursor.
    After(Position),
    /// From a point on.
    From(From),
    /// Before a position (or all), newest first.
    Before(Option<Position>),
    /// Only where it starts and ends.
    Ends,
}

impl Part {
    /// What a subscription that starts there needs.
    #[must_use]
    pub fn of(start: &Start<Position>) -> Self {
        match start {
            Start::Live => Self::Ends,
            Start::After(cursor) => Self::After(*cursor),
            Start::From(from) => Self::From(*from),
        }
    }

    /// The script's arguments: mode and at.
    fn args(self) -> [Bytes; 2] {
        let id = |position: Position| format!("{}-{}", position.epoch, position.offset);
        let (mode, at) = match self {
            Self::After(cursor) => ("after", id(cursor)),
            Self::From(From::Start) => ("start", String::new()),
            Self::From(From::TimeMs(time)) => ("time", time.to_string()),
            Self::From(From::Last(count)) => ("last", count.to_string()),
            Self::Before(position) => ("before", position.map(id).unwrap_or_default()),
            Self::Ends => ("none", String::new()),
        };
        [Bytes::from_static(mode.as_bytes()), at.into()]
    }
}

/// The five arguments by which scripts read one channel.
pub fn push_args(args: &mut Vec<Bytes>, channel: &Channel, policy: &ChannelPolicy, part: Part) {
    args.push(Bytes::copy_from_slice(channel.as_str().as_bytes()));
    // Lua counts exactly up to 2^53.
    args.push(policy.history_size.min(1 << 53).to_string().into());
    args.push(policy.history_ttl.as_millis().min(1 << 53).to_string().into());
    args.extend(part.args());
}

/// What there is of one history, with the entries of the part that was asked for.
#[derive(Debug, Clone)]
pub struct Range {
    /// Highest epoch of the partition.
    pub top: u64,
    /// Redis' clock at the time.
    pub now_ms: u64,
    /// Where it starts and ends; `None`: there is no history.
    pub ends: Option<Ends>,
    /// Epoch up to which former histories may have been lost.
    pub lost_epoch: Option<u64>,
    /// Last offset of the cursor's epoch, for [`Part::After`].
    pub end_of_cursor_epoch: Option<u64>,
    /// The entries, contiguous unless `hole`.
    pub entries: Vec<Arc<Publication>>,
    /// The last entry that was looked at, also if it could not be read.
    pub read_to: Option<Position>,
    /// There are more entries than were read.
    pub more: bool,
    /// An entry inside the range could not be read.
    pub hole: bool,
}

/// Start and end of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// First entry in Redis, which may be one that the policy no longer shows.
    pub raw: Position,
    /// First entry that may be read.
    pub first: Position,
    /// Last entry.
    pub last: Position,
}

/// Reads the beginning of an answer, `[now, top, ...]`.
///
/// # Errors
/// [`BrokerError::Damaged`].
pub fn clock_and_top(items: &[Reply]) -> Result<(u64, u64), BrokerError> {
    match items {
        [now, top, ..] => Ok((now.as_u64()?, top.as_u64()?)),
        _ => Err(ReplyError::Length { expected: 2, got: items.len() }.into()),
    }
}

impl Range {
    /// Reads the answer of `read_channel` in `scripts/history.lua`.
    ///
    /// # Errors
    /// [`BrokerError::Damaged`]; a single damaged entry becomes a hole.
    pub fn from_reply(
        channel: &Channel,
        (now_ms, top): (u64, u64),
        limit: usize,
        reply: &Reply,
    ) -> Result<Self, BrokerError> {
        let items = reply.as_array()?;
        let [lost, raw, first, last, cursor_end, entries] = items else {
            return Err(ReplyError::Length { expected: 6, got: items.len() }.into());
        };
        let lost_epoch = if lost.as_bytes()?.is_empty() { None } else { Some(lost.as_u64()?) };
        let ends = match (optional_position(raw)?, optional_position(first)?, optional_position(last)?) {
            (Some(raw), Some(first), Some(last)) => Some(Ends { raw, first, last }),
            _ => None,
        };
        let replies = entries.as_array()?;
        let mut range = Self {
            top,
            now_ms,
            ends,
            lost_epoch,
            end_of_cursor_epoch: optional_position(cursor_end)?.map(|position| position.offset),
            entries: Vec::with_capacity(replies.len()),
            read_to: replies.last().map(entry_position).transpose()?,
            more: replies.len() >= limit,
            hole: false,
        };
        for entry in replies {
            match history_entry(channel, entry) {
                Ok(publication) => range.push(publication),
                Err(error) => {
                    tracing::error!(%channel, %error, "an entry of the history is damaged");
                    range.hole = true;
                }
            }
        }
        Ok(range)
    }

    /// Takes an entry unless the policy no longer shows it. One that was deleted by hand leaves a hole.
    fn push(&mut self, publication: Arc<Publication>) {
        let Some(offset) = publication.position.map(|position| position.offset) else { return };
        if self.ends.is_some_and(|ends| offset >= ends.first.offset) {
            let before = self.entries.last().and_then(|before| before.position);
            self.hole |= before.is_some_and(|before| before.offset.abs_diff(offset) != 1);
            self.entries.push(publication);
        }
    }

    /// The entries whose time was not over when they were read.
    pub fn living(&self) -> impl Iterator<Item = &Arc<Publication>> {
        self.entries.iter().filter(|entry| !entry.is_over(self.now_ms))
    }

    /// Drops the others but for the first and the last, by which is judged what is missing before and behind them.
    pub fn drop_over(&mut self) {
        let (now_ms, end, mut at) = (self.now_ms, self.entries.len(), 0);
        self.entries.retain(|entry| {
            at += 1;
            at == 1 || at == end || !entry.is_over(now_ms)
        });
    }

    /// Where the history ends, or offset 0 of the newest epoch if there is none.
    #[must_use]
    pub fn end(&self) -> Position {
        self.ends.map_or(Position { epoch: self.top, offset: 0 }, |ends| ends.last)
    }

    /// Appends the next page of the same range. If Redis went back between the two, only what is beyond the entries so far.
    pub fn extend(&mut self, mut page: Self) {
        let reached = self.last_entry();
        let expected = reached.map(|last| last.offset + 1);
        // Trimmed or lost while paging.
        self.hole |= page.hole || page.first_offset().is_some_and(|got| expected != Some(got));
        page.entries.retain(|entry| reached.is_none() || entry.position > reached);
        self.take(page);
    }

    /// Appends the next page of a range that is read newest first. It ends where it did at the first page: what came since
    /// is not in it.
    pub fn extend_backwards(&mut self, mut page: Self) {
        let reached = self.last_entry();
        let expected = reached.map(|last| last.offset.saturating_sub(1));
        // Trimmed, lost or replaced while paging.
        let gone = page.ends.is_none_or(|ends| reached.is_some_and(|last| ends.first > last));
        self.hole |= page.hole || gone || page.first_offset().is_some_and(|got| expected != Some(got));
        page.entries.retain(|entry| reached.is_none() || entry.position < reached);
        self.take(Self { ends: None, ..page });
    }

    fn last_entry(&self) -> Option<Position> {
        self.entries.last().and_then(|last| last.position)
    }

    fn first_offset(&self) -> Option<u64> {
        self.entries.first().and_then(|first| first.position).map(|first| first.offset)
    }

    fn take(&mut self, page: Self) {
        self.entries.extend(page.entries);
        self.read_to = page.read_to.or(self.read_to);
        self.top = page.top;
        self.now_ms = page.now_ms;
        if let (Some(ends), Some(latest)) = (&mut self.ends, page.ends) {
            ends.last = latest.last;
        }
        self.more = page.more;
    }

    /// Why the entries are not everything after `cursor`; `None` if they are.
    #[must_use]
    pub fn gap_after(&self, cursor: Position) -> Option<GapReason> {
        self.gap_before(cursor).or_else(|| {
            let first = self.entries.first().and_then(|entry| entry.position);
            let skipped = first.is_some_and(|first| first.offset > cursor.offset + 1);
            (self.hole || skipped).then_some(GapReason::Middle)
        })
    }

    /// Why something is lost between `cursor` and where the history goes on for it. Says nothing of what is missing among
    /// the entries, or in front of the first one.
    #[must_use]
    pub fn gap_before(&self, cursor: Position) -> Option<GapReason> {
        let state = match self.ends {
            None => StreamState::Gone { lost_epoch: self.lost_epoch },
            Some(Ends { first, last, .. }) => StreamState::Living {
                first,
                last,
                end_of_cursor_epoch: self.end_of_cursor_epoch,
                lost_epoch: self.lost_epoch,
            },
        };
        classify(cursor, self.top, state).gap
    }

    /// [`Self::gap_before`] for someone who was there all the time: a history that was born again after `last` was
    /// delivered, and of which everything is kept, is no gap.
    #[must_use]
    pub fn gap_before_while_live(&self, last: Position) -> Option<GapReason> {
        if self.is_born_after(last) { None } else { self.gap_before(last) }
    }

    /// Whether it is another history than that of `last`, and there from its first entry on.
    #[must_use]
    pub fn is_born_after(&self, last: Position) -> bool {
        self.ends.is_some_and(|ends| ends.first.offset == 1 && ends.first.epoch > last.epoch)
    }

    /// Where the epoch of `cursor` ended, if the history goes on right behind that after `position`.
    #[must_use]
    pub fn end_before(&self, cursor: Position, position: Position) -> Option<Position> {
        let end = self.end_of_cursor_epoch.filter(|end| *end == position.offset)?;
        Some(Position { epoch: cursor.epoch, offset: end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(ends: Option<(u64, u64, u64)>) -> Range {
        Range {
            top: 50,
            now_ms: 0,
            ends: ends.map(|(epoch, first, last)| Ends {
                raw: Position { epoch, offset: first },
                first: Position { epoch, offset: first },
                last: Position { epoch, offset: last },
            }),
            lost_epoch: None,
            end_of_cursor_epoch: None,
            entries: Vec::new(),
            read_to: None,
            more: false,
            hole: false,
        }
    }

    #[test]
    fn a_history_born_again_is_a_gap_only_for_who_was_away() {
        let range = range(Some((20, 1, 3)));
        let cursor = Position { epoch: 10, offset: 7 };
        assert_eq!(range.gap_before_while_live(cursor), None);
        assert_eq!(range.gap_after(cursor), Some(GapReason::EpochReset));
    }

    #[test]
    fn a_damaged_entry_is_a_gap_in_the_middle() {
        let mut range = range(Some((20, 1, 3)));
        range.end_of_cursor_epoch = Some(3);
        let cursor = Position { epoch: 20, offset: 1 };
        assert_eq!(range.gap_after(cursor), None);
        range.hole = true;
        assert_eq!(range.gap_after(cursor), Some(GapReason::Middle));
    }

    fn page(last: (u64, u64), entries: &[(u64, u64)]) -> Range {
        let at = |(epoch, offset)| Position { epoch, offset };
        let channel = Channel::parse("a").unwrap();
        let entry = |position| Publication {
            channel: channel.clone(),
            position: Some(at(position)),
            time_ms: 0,
            stored: crate::broker::Stored::default(),
        };
        let entries: Vec<_> = entries.iter().map(|position| Arc::new(entry(*position))).collect();
        let read_to = entries.last().and_then(|entry| entry.position);
        Range { entries, read_to, ..range(Some((5, 1, 0))).ending(at(last)) }
    }

    impl Range {
        fn ending(mut self, last: Position) -> Self {
            self.ends = self.ends.map(|ends| Ends { last, ..ends });
            self
        }

        fn read(&self) -> (Vec<(u64, u64)>, bool) {
            let position = |entry: &Arc<Publication>| entry.position.map(|at| (at.epoch, at.offset));
            (self.entries.iter().filter_map(position).collect(), self.hole)
        }
    }

    #[test]
    fn a_page_after_a_rollback_brings_no_entry_again() {
        let mut first = page((6, 5), &[(5, 2), (6, 3), (6, 4)]);
        first.extend(page((7, 4), &[(5, 1), (5, 2), (7, 3), (7, 4)]));
        assert_eq!(first.read(), (vec![(5, 2), (6, 3), (6, 4), (7, 3), (7, 4)], true));
        let mut first = page((6, 5), &[(6, 3), (6, 4)]);
        first.extend(page((6, 6), &[(6, 5), (6, 6)]));
        assert_eq!(first.read(), (vec![(6, 3), (6, 4), (6, 5), (6, 6)], false));
    }

    #[test]
    fn a_page_that_is_read_backwards_tells_what_is_missing_of_it_and_before_it() {
        let both = |next: Range| {
            let mut first = page((5, 9), &[(5, 9), (5, 8)]);
            first.extend_backwards(next);
            first.read()
        };
        assert_eq!(both(page((5, 9), &[(5, 7), (5, 6)])), (vec![(5, 9), (5, 8), (5, 7), (5, 6)], false));
        let damaged = Range { hole: true, ..page((5, 9), &[(5, 7), (5, 5)]) };
        assert_eq!(both(damaged), (vec![(5, 9), (5, 8), (5, 7), (5, 5)], true));
        assert_eq!(both(page((5, 9), &[(5, 6)])), (vec![(5, 9), (5, 8), (5, 6)], true));
        assert!(both(Range { ends: None, ..page((5, 9), &[]) }).1);
        let born_again = range(Some((7, 1, 2)));
        assert_eq!(both(born_again), (vec![(5, 9), (5, 8)], true));
        // What is published meanwhile is not in it.
        let mut first = page((5, 9), &[(5, 9), (5, 8)]);
        first.extend_backwards(page((5, 11), &[(5, 7)]));
        assert_eq!(first.end(), Position { epoch: 5, offset: 9 });
    }

    #[test]
    fn what_is_over_is_dropped_without_a_hole() {
        let over = |range: &mut Range, offsets: &[u64]| {
            for entry in &mut range.entries {
                if offsets.contains(&entry.position.unwrap().offset) {
                    Arc::make_mut(entry).stored.ttl_ms = 1;
                }
            }
            range.now_ms = 1;
            range.drop_over();
        };
        let living =
            |range: &Range| range.living().map(|entry| entry.position.unwrap().offset).collect::<Vec<_>>();
        let mut all = page((5, 8), &[(5, 2), (5, 3), (5, 4), (5, 5)]);
        over(&mut all, &[2, 3, 5]);
        assert_eq!((all.read().0, living(&all)), (vec![(5, 2), (5, 4), (5, 5)], vec![4]));
        all.extend(Range { now_ms: 1, ..page((5, 8), &[(5, 6), (5, 7), (5, 8)]) });
        over(&mut all, &[7]);
        assert_eq!((living(&all), all.hole), (vec![4, 6, 8], false));
    }

    #[test]
    fn without_history_the_end_is_offset_zero_of_the_newest_epoch() {
        assert_eq!(range(None).end(), Position { epoch: 50, offset: 0 });
    }
}
