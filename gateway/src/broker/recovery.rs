//! What a cursor is worth: the one rule by which every broker judges a recovery (DESIGN section 5, "Positions").
//!
//! Pure: a cursor and what is known of the channel's history in, where to replay from and what to report out.

use super::GapReason;
use crate::position::Position;

/// What a broker knows of a channel's history at the moment of a recovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamState {
    /// There is no history now.
    Gone {
        /// Newest epoch of a history that this channel had and lost (expired, removed). `None` if the channel never had
        /// one; [`u64::MAX`] if it had one and its epochs are no longer known.
        lost_epoch: Option<u64>,
    },
    /// There is a history, though all its entries may have been evicted.
    Living {
        /// The first entry that is kept; if none is, the position right after `last`.
        first: Position,
        /// The last entry ever written.
        last: Position,
        /// Last offset that the cursor's epoch has in this history; `None` if the epoch is not in it.
        end_of_cursor_epoch: Option<u64>,
        /// Newest epoch of an earlier history that the channel lost before this one began; `None` if there was none
        /// or the broker does not know. Only cursors of offset 0 need it.
        lost_epoch: Option<u64>,
    },
}

/// The judgement of [`classify`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Replay every kept entry with a greater offset; `None`: there is nothing to replay.
    pub replay_after: Option<u64>,
    /// Why that is not, or cannot be proven to be, everything after the cursor.
    pub gap: Option<GapReason>,
}

impl Verdict {
    const fn new(replay_after: Option<u64>, gap: Option<GapReason>) -> Self {
        Self { replay_after, gap }
    }
}

/// Judges `cursor` against the channel's history. `top` is the highest epoch that the channel's partition ever
/// gave out; 0 if that is unknown (flushed).
///
/// A cursor of offset 0 says that no history existed when its epoch was the partition's top; histories that began
/// later have a greater epoch.
#[must_use]
pub fn classify(cursor: Position, top: u64, stream: StreamState) -> Verdict {
    let impossible = cursor.epoch == 0 || cursor.epoch > top;
    match stream {
        StreamState::Gone { .. } if impossible => Verdict::new(None, Some(GapReason::EpochReset)),
        // Somebody was given a position where nobody remembers a history: the memory itself was lost.
        StreamState::Gone { lost_epoch: None } => {
            Verdict::new(None, (cursor.offset > 0).then_some(GapReason::EpochReset))
        }
        StreamState::Gone { lost_epoch: Some(lost_epoch) } => {
            let lost = cursor.offset > 0 || lost_epoch > cursor.epoch;
            Verdict::new(None, lost.then_some(GapReason::Expired))
        }
        StreamState::Living { first, last, end_of_cursor_epoch, lost_epoch } => {
            let all = first.offset.saturating_sub(1);
            let (after, gap) = match end_of_cursor_epoch {
                _ if impossible => (all, Some(GapReason::EpochReset)),
                Some(end) if cursor.offset > end => (end.max(all), Some(GapReason::EpochReset)),
                Some(_) if cursor.offset < all => (all, Some(GapReason::HeadTrimmed)),
                Some(_) => (cursor.offset, None),
                None => (all, outside(cursor, first, lost_epoch)),
            };
            Verdict::new((after < last.offset).then_some(after), gap)
        }
    }
}

/// The gap of a cursor whose epoch is not in the living history that starts at `first`.
fn outside(cursor: Position, first: Position, lost_epoch: Option<u64>) -> Option<GapReason> {
    if cursor.offset < first.offset.saturating_sub(1) {
        return Some(GapReason::HeadTrimmed);
    }
    // No history existed at the cursor, and this one began afterwards and is whole.
    if cursor.offset == 0 && first.epoch > cursor.epoch {
        return lost_epoch.is_some_and(|epoch| epoch > cursor.epoch).then_some(GapReason::Expired);
    }
    Some(GapReason::EpochReset)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOP: u64 = 100;

    fn at(epoch: u64, offset: u64) -> Position {
        Position { epoch, offset }
    }

    fn judge(cursor: Position, stream: StreamState) -> (Option<u64>, Option<GapReason>) {
        let verdict = classify(cursor, TOP, stream);
        (verdict.replay_after, verdict.gap)
    }

    fn living(first: Position, last: Position, end_of_cursor_epoch: Option<u64>) -> StreamState {
        StreamState::Living { first, last, end_of_cursor_epoch, lost_epoch: None }
    }

    #[test]
    fn a_cursor_inside_its_epoch_is_whole_also_across_a_later_epoch() {
        assert_eq!(judge(at(10, 7), living(at(10, 3), at(10, 9), Some(9))), (Some(7), None));
        assert_eq!(judge(at(10, 7), living(at(10, 3), at(20, 9), Some(7))), (Some(7), None));
        assert_eq!(judge(at(10, 2), living(at(10, 3), at(10, 9), Some(9))), (Some(2), None));
        assert_eq!(judge(at(10, 9), living(at(10, 3), at(10, 9), Some(9))), (None, None));
    }

    #[test]
    fn a_cursor_before_the_first_kept_entry_is_head_trimmed() {
        let gap = Some(GapReason::HeadTrimmed);
        assert_eq!(judge(at(10, 1), living(at(10, 3), at(10, 9), Some(9))), (Some(2), gap));
        assert_eq!(judge(at(10, 1), living(at(20, 3), at(20, 9), None)), (Some(2), gap));
        // Everything was evicted.
        assert_eq!(judge(at(10, 8), living(at(10, 10), at(10, 9), Some(9))), (None, gap));
        assert_eq!(judge(at(10, 9), living(at(10, 10), at(10, 9), Some(9))), (None, None));
    }

    #[test]
    fn a_cursor_past_its_epochs_end_is_an_epoch_reset_and_replays_what_came_after() {
        let gap = Some(GapReason::EpochReset);
        assert_eq!(judge(at(10, 9), living(at(10, 3), at(20, 12), Some(7))), (Some(7), gap));
        assert_eq!(judge(at(10, 9), living(at(10, 3), at(10, 7), Some(7))), (None, gap));
    }

    #[test]
    fn an_epoch_that_is_not_in_the_history_is_an_epoch_reset_and_replays_all() {
        let gap = Some(GapReason::EpochReset);
        assert_eq!(judge(at(10, 2), living(at(20, 3), at(20, 9), None)), (Some(2), gap));
        assert_eq!(judge(at(10, 50), living(at(20, 1), at(20, 9), None)), (Some(0), gap));
        for epoch in [0, TOP + 1] {
            assert_eq!(judge(at(epoch, 1), living(at(20, 3), at(20, 9), None)), (Some(2), gap), "{epoch}");
            assert_eq!(judge(at(epoch, 0), StreamState::Gone { lost_epoch: None }), (None, gap), "{epoch}");
        }
    }

    #[test]
    fn a_lost_history_is_expired() {
        let gap = Some(GapReason::Expired);
        assert_eq!(judge(at(10, 3), StreamState::Gone { lost_epoch: Some(10) }), (None, gap));
        assert_eq!(judge(at(10, 3), StreamState::Gone { lost_epoch: Some(u64::MAX) }), (None, gap));
    }

    #[test]
    fn a_position_in_a_history_that_never_was_is_an_epoch_reset() {
        let gap = Some(GapReason::EpochReset);
        assert_eq!(judge(at(10, 3), StreamState::Gone { lost_epoch: None }), (None, gap));
    }

    #[test]
    fn offset_zero_is_whole_unless_something_came_and_went_since() {
        let (expired, trimmed) = (Some(GapReason::Expired), Some(GapReason::HeadTrimmed));
        assert_eq!(judge(at(10, 0), living(at(20, 1), at(20, 4), None)), (Some(0), None));
        assert_eq!(judge(at(10, 0), living(at(20, 3), at(20, 4), None)), (Some(2), trimmed));
        assert_eq!(judge(at(10, 0), StreamState::Gone { lost_epoch: None }), (None, None));
        assert_eq!(judge(at(10, 0), StreamState::Gone { lost_epoch: Some(9) }), (None, None));
        assert_eq!(judge(at(10, 0), StreamState::Gone { lost_epoch: Some(15) }), (None, expired));
        assert_eq!(judge(at(10, 0), StreamState::Gone { lost_epoch: Some(u64::MAX) }), (None, expired));
        let reborn = StreamState::Living {
            first: at(20, 1),
            last: at(20, 4),
            end_of_cursor_epoch: None,
            lost_epoch: Some(15),
        };
        assert_eq!(judge(at(10, 0), reborn), (Some(0), expired));
        assert_eq!(judge(at(16, 0), reborn), (Some(0), None));
        // A living history that is older than the cursor contradicts it.
        assert_eq!(
            judge(at(30, 0), living(at(20, 1), at(20, 4), None)),
            (Some(0), Some(GapReason::EpochReset))
        );
    }

    #[test]
    fn the_greatest_offset_does_not_overflow() {
        let gap = Some(GapReason::EpochReset);
        assert_eq!(judge(at(10, u64::MAX), living(at(20, 1), at(20, 4), None)), (Some(0), gap));
    }
}
