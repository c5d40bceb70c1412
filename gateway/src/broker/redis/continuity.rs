//! Whether a publication continues what was delivered of its channel. Pure.

use crate::position::Position;

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
    let continues = last.offset.checked_add(1) == Some(next.offset);
    let born_again = next.epoch > last.epoch && next.offset == 1;
    if continues || born_again { Step::Next } else { Step::Hole }
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
    fn anything_else_is_a_hole() {
        assert_eq!(step((5, 7), (5, 9)), Step::Hole);
        assert_eq!(step((5, 7), (9, 5)), Step::Hole);
        assert_eq!(step((5, u64::MAX), (9, 3)), Step::Hole);
    }
}
