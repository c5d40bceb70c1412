//! Whether a publication continues what was delivered of its channel. Pure.

use crate::{broker::GapReason, position::Position};

/// The judgement of [`judge`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Deliver it.
    Next,
    /// It was delivered already.
    Duplicate,
    /// Publications between `last` and this one are missing.
    Hole,
}

/// Judges `next` after `last`, the position delivered last (offset 0: no history existed then).
///
/// A newer epoch continues the offsets of a living history; one that starts at offset 1 is a history that was born
/// again after it expired or was removed.
#[must_use]
pub fn judge(last: Position, next: Position) -> Step {
    if next <= last {
        return Step::Duplicate;
    }
    let born_again = next.epoch > last.epoch && next.offset == 1;
    if continues(last, next) || born_again { Step::Next } else { Step::Hole }
}

/// Whether one and the same history has `next` right after `last`.
#[must_use]
pub fn continues(last: Position, next: Position) -> bool {
    next > last && last.offset.checked_add(1) == Some(next.offset)
}

/// Why there is a hole between the two: a newer epoch that gives offsets out again began before `last`, which is lost.
#[must_use]
pub fn reason_of_hole(last: Position, next: Position) -> GapReason {
    let given_out_again = next.epoch > last.epoch && next.offset <= last.offset;
    if given_out_again { GapReason::EpochReset } else { GapReason::Middle }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(last: (u64, u64), next: (u64, u64)) -> Step {
        let at = |(epoch, offset)| Position { epoch, offset };
        judge(at(last), at(next))
    }

    #[test]
    fn the_next_offset_continues_also_in_a_newer_epoch() {
        assert_eq!(step((5, 7), (5, 8)), Step::Next);
        assert_eq!(step((5, 7), (9, 8)), Step::Next);
    }

    #[test]
    fn a_history_born_again_starts_at_one() {
        assert_eq!(step((5, 7), (9, 1)), Step::Next);
        assert_eq!(step((5, 0), (9, 1)), Step::Next);
        assert_eq!(step((5, 7), (9, 2)), Step::Hole);
    }

    #[test]
    fn what_is_not_newer_is_a_duplicate() {
        assert_eq!(step((5, 7), (5, 7)), Step::Duplicate);
        assert_eq!(step((5, 7), (5, 1)), Step::Duplicate);
        assert_eq!(step((5, 7), (4, 8)), Step::Duplicate);
    }

    #[test]
    fn a_hole_before_an_offset_that_was_given_out_again_is_a_reset() {
        let reason = |last: (u64, u64), next: (u64, u64)| {
            let at = |(epoch, offset)| Position { epoch, offset };
            reason_of_hole(at(last), at(next))
        };
        assert_eq!(reason((5, 7), (6, 7)), GapReason::EpochReset);
        assert_eq!(reason((5, 7), (6, 1)), GapReason::EpochReset);
        assert_eq!(reason((5, 7), (6, 9)), GapReason::Middle);
        assert_eq!(reason((5, 7), (5, 9)), GapReason::Middle);
    }

    #[test]
    fn anything_else_is_a_hole() {
        assert_eq!(step((5, 7), (5, 9)), Step::Hole);
        assert_eq!(step((5, 7), (9, 5)), Step::Hole);
        assert_eq!(step((5, u64::MAX), (9, 3)), Step::Hole);
    }
}
