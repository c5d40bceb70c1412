//! One channel's history: contiguous publications of one epoch, trimmed at the head.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    broker::{Publication, Stored, recovery::StreamState},
    policy::ChannelPolicy,
    position::Position,
};

/// Bookkeeping of one entry: the publication, its reference counts, its place in the queue, its buffer's allocation.
const ENTRY_OVERHEAD: usize = size_of::<Publication>() + 80;

/// Bytes that an entry counts.
pub(super) fn entry_bytes(stored: &Stored) -> usize {
    let publisher = stored.publisher.as_ref().map_or(0, |who| who.client_id.len() + who.user_id.len());
    ENTRY_OVERHEAD + stored.id.len() + stored.event.len() + stored.exclude_session.len() + publisher
}

#[derive(Debug)]
pub(super) struct History {
    epoch: u64,
    /// Last offset ever written; the entries are the newest ones up to it.
    last: u64,
    last_time_ms: u64,
    entries: VecDeque<Arc<Publication>>,
    bytes: usize,
}

impl History {
    /// A history without entries, whose first will get offset 1.
    pub(super) fn new(epoch: u64) -> Self {
        Self { epoch, last: 0, last_time_ms: 0, entries: VecDeque::new(), bytes: 0 }
    }

    /// The position that the next entry must have.
    pub(super) fn next(&self) -> Position {
        Position { epoch: self.epoch, offset: self.last + 1 }
    }

    /// The last entry ever written.
    pub(super) fn last(&self) -> Position {
        Position { epoch: self.epoch, offset: self.last }
    }

    /// The first entry that is kept; [`Self::next`] if there is none.
    pub(super) fn first(&self) -> Position {
        Position { epoch: self.epoch, offset: self.last + 1 - self.entries.len() as u64 }
    }

    /// Bytes of the entries.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// When the first kept entry was written.
    pub(super) fn oldest_ms(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.time_ms)
    }

    /// Takes the publication at [`Self::next`].
    pub(super) fn append(&mut self, publication: Arc<Publication>) {
        debug_assert_eq!(publication.position, Some(self.next()));
        self.last += 1;
        self.last_time_ms = publication.time_ms;
        self.bytes += entry_bytes(&publication.stored);
        self.entries.push_back(publication);
    }

    /// Whether the last publication is so old that the whole history is gone.
    pub(super) fn expired(&self, policy: &ChannelPolicy, now_ms: u64) -> bool {
        too_old(self.last_time_ms, policy, now_ms)
    }

    /// Drops what the policy does not keep: by age, then by number.
    pub(super) fn trim(&mut self, policy: &ChannelPolicy, now_ms: u64) {
        while self.entries.front().is_some_and(|entry| too_old(entry.time_ms, policy, now_ms)) {
            self.pop();
        }
        while self.entries.len() as u64 > policy.history_size {
            self.pop();
        }
    }

    /// Drops the oldest entries until the rest has at most `bytes`.
    pub(super) fn shrink(&mut self, bytes: usize) {
        while self.bytes > bytes && !self.entries.is_empty() {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= entry_bytes(&entry.stored);
        }
    }

    /// What a recovery from `cursor` needs to know.
    pub(super) fn state(&self, cursor: Position, lost_epoch: Option<u64>) -> StreamState {
        StreamState::Living {
            first: self.first(),
            last: self.last(),
            end_of_cursor_epoch: (cursor.epoch == self.epoch).then_some(self.last),
            lost_epoch,
        }
    }

    /// Kept entries with a greater offset.
    pub(super) fn after(
        &self,
        offset: u64,
    ) -> impl DoubleEndedIterator<Item = &Arc<Publication>> + ExactSizeIterator {
        let skip = offset.saturating_sub(self.first().offset - 1);
        self.entries.range(self.index(skip)..)
    }

    /// Kept entries before `position`, oldest first. Positions of other epochs compare by epoch.
    pub(super) fn before(
        &self,
        position: Position,
    ) -> impl DoubleEndedIterator<Item = &Arc<Publication>> + ExactSizeIterator {
        let end = match position.epoch.cmp(&self.epoch) {
            std::cmp::Ordering::Less => 0,
            std::cmp::Ordering::Equal => position.offset.saturating_sub(self.first().offset),
            std::cmp::Ordering::Greater => u64::MAX,
        };
        self.entries.range(..self.index(end))
    }

    /// Offset right before the first kept entry that is not older than `time_ms`.
    pub(super) fn before_time(&self, time_ms: u64) -> u64 {
        let older = self.entries.partition_point(|entry| entry.time_ms < time_ms);
        self.first().offset - 1 + older as u64
    }

    fn index(&self, wanted: u64) -> usize {
        usize::try_from(wanted).unwrap_or(usize::MAX).min(self.entries.len())
    }
}

fn too_old(time_ms: u64, policy: &ChannelPolicy, now_ms: u64) -> bool {
    u128::from(now_ms.saturating_sub(time_ms)) >= policy.history_ttl.as_millis()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::channel::Channel;

    fn filled(count: u64) -> History {
        let mut history = History::new(7);
        for n in 1..=count {
            let position = history.next();
            assert_eq!(position.offset, n);
            history.append(Arc::new(Publication {
                channel: Channel::parse("a").unwrap(),
                position: Some(position),
                time_ms: n * 10,
                stored: Stored { event: vec![0; 100].into(), ..Stored::default() },
            }));
        }
        history
    }

    fn offsets<'a>(entries: impl Iterator<Item = &'a Arc<Publication>>) -> Vec<u64> {
        entries.map(|entry| entry.position.unwrap().offset).collect()
    }

    fn policy(history_size: u64, ttl_ms: u64) -> ChannelPolicy {
        ChannelPolicy { history_size, history_ttl: Duration::from_millis(ttl_ms), ..ChannelPolicy::default() }
    }

    #[test]
    fn trimming_by_number_and_age_keeps_the_newest_and_their_offsets() {
        let mut history = filled(5);
        history.trim(&policy(3, 1_000), 50);
        assert_eq!(offsets(history.after(0)), [3, 4, 5]);
        history.trim(&policy(3, 20), 60);
        assert_eq!(offsets(history.after(0)), [5]);
        assert_eq!((history.first().offset, history.next().offset), (5, 6));
        assert!(!history.expired(&policy(3, 20), 69) && history.expired(&policy(3, 20), 70));
    }

    #[test]
    fn shrinking_to_nothing_keeps_counting() {
        let mut history = filled(3);
        let one = history.bytes() / 3;
        history.shrink(2 * one);
        assert_eq!(offsets(history.after(0)), [2, 3]);
        history.shrink(0);
        assert_eq!((history.bytes(), history.is_empty()), (0, true));
        assert_eq!((history.first().offset, history.last().offset), (4, 3));
    }

    #[test]
    fn ranges_take_any_offset() {
        let mut history = filled(5);
        history.shrink(history.bytes() / 5 * 4);
        assert_eq!(offsets(history.after(3)), [4, 5]);
        assert_eq!(offsets(history.after(1)), [2, 3, 4, 5]);
        assert_eq!(offsets(history.after(9)), [0; 0]);
        assert_eq!(offsets(history.before(Position { epoch: 7, offset: 4 })), [2, 3]);
        assert_eq!(offsets(history.before(Position { epoch: 7, offset: 0 })), [0; 0]);
        assert_eq!(offsets(history.before(Position { epoch: 6, offset: 9 })), [0; 0]);
        assert_eq!(offsets(history.before(Position { epoch: 8, offset: 0 })), [2, 3, 4, 5]);
        assert_eq!(history.before_time(0), 1);
        assert_eq!(history.before_time(31), 3);
        assert_eq!(history.before_time(51), 5);
    }
}
