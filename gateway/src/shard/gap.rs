//! Whom a loss of continuity concerns. Pure.

use super::tops::Tops;
use crate::{broker::GapReason, channel::Channel, position::Position};

/// A [`Delivery::Gap`](crate::broker::Delivery::Gap).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The channel concerned.
    pub channel: Channel,
    /// The last position delivered before the loss.
    pub after: Option<Position>,
    /// Where the former epoch really ended, if delivery goes on right behind that.
    pub left: Option<Position>,
    /// Where delivery goes on.
    pub position: Option<Position>,
    /// Why.
    pub reason: GapReason,
}

impl Gap {
    /// Whether a subscription that was answered `top`, and got nothing since, has lost nothing: it came after the loss, or has
    /// exactly what is left. In doubt it has not: a gap too many is better than one that is hidden.
    #[must_use]
    pub fn is_passed_by(&self, top: Position) -> bool {
        let (Some(after), Some(position)) = (self.after, self.position) else { return false };
        // Delivery goes on where it stood: what is missing comes behind it, for everybody.
        if position == after {
            return false;
        }
        // All of the former epoch, too: a publisher may have begun the new one before the node looked.
        if top == position || Some(top) == self.left {
            return true;
        }
        // A history that ends before what was delivered, and did not begin anew: also what is beyond `after` in this epoch
        // may be what was lost.
        let rolled_back = position <= after && top.epoch == after.epoch;
        top > after && top > position && !rolled_back
    }

    /// Lets the gap pass a subscription that stands at `tops`: whether it is to be told, and then goes on behind it.
    pub fn pass(&self, tops: &mut Tops) -> bool {
        if tops.stand(&self.channel).is_some_and(|stand| self.is_passed_by(stand)) {
            return false;
        }
        match self.position {
            Some(position) => tops.set(self.channel.clone(), position),
            None => _ = tops.remove(&self.channel),
        }
        true
    }
}

/// Whether `position` proves that `top` was lost: offsets go on across epochs, so a newer one that gave the offset out again
/// began before it. A history that was born again starts at 1, and may have expired in peace.
#[must_use]
pub fn is_given_out_again(top: Position, position: Position) -> bool {
    position.epoch > top.epoch && position.offset <= top.offset && position.offset != 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at((epoch, offset): (u64, u64)) -> Position {
        Position { epoch, offset }
    }

    fn gap(after: (u64, u64), position: (u64, u64)) -> Gap {
        Gap {
            channel: Channel::parse("a").unwrap(),
            after: Some(at(after)),
            left: None,
            position: Some(at(position)),
            reason: GapReason::EpochReset,
        }
    }

    #[test]
    fn who_was_answered_by_the_new_history_is_past_the_loss_and_who_was_by_the_old_one_is_not() {
        let reset = gap((5, 50), (6, 40));
        assert!(reset.is_passed_by(at((6, 43))) && reset.is_passed_by(at((6, 40))));
        for affected in [(5, 3), (5, 40), (5, 50), (5, 52), (6, 39)] {
            assert!(!reset.is_passed_by(at(affected)), "{affected:?}");
        }
    }

    #[test]
    fn of_a_history_that_only_became_shorter_nobody_of_its_epoch_is_past_the_loss() {
        let shorter = gap((5, 50), (5, 40));
        for affected in [(5, 39), (5, 45), (5, 50), (5, 52)] {
            assert!(!shorter.is_passed_by(at(affected)), "{affected:?}");
        }
        assert!(shorter.is_passed_by(at((6, 41))));
    }

    #[test]
    fn a_hole_behind_what_was_delivered_concerns_everybody() {
        for anybody in [(5, 50), (5, 40), (6, 55)] {
            assert!(!gap((5, 50), (5, 50)).is_passed_by(at(anybody)), "{anybody:?}");
        }
    }

    #[test]
    fn who_was_answered_exactly_what_is_left_has_lost_nothing() {
        assert!(gap((5, 50), (5, 40)).is_passed_by(at((5, 40))));
        assert!(!gap((5, 50), (6, 40)).is_passed_by(at((5, 40))), "the old history may have ended elsewhere");
    }

    #[test]
    fn who_was_answered_all_that_is_left_of_the_old_epoch_has_lost_nothing_though_a_new_one_has_begun() {
        let reset = Gap { left: Some(at((5, 40))), ..gap((5, 50), (6, 40)) };
        assert!(reset.is_passed_by(at((5, 40))));
        for affected in [(5, 39), (5, 41), (5, 50), (5, 52), (6, 39)] {
            assert!(!reset.is_passed_by(at(affected)), "{affected:?}");
        }
        let in_front = Gap { left: Some(at((5, 50))), ..gap((5, 50), (5, 50)) };
        assert!(!in_front.is_passed_by(at((5, 50))), "what is missing comes behind it");
    }

    #[test]
    fn a_trim_does_not_concern_who_was_answered_behind_it() {
        let trim = gap((5, 50), (5, 80));
        assert!(trim.is_passed_by(at((5, 80))) && !trim.is_passed_by(at((5, 79))));
    }

    #[test]
    fn what_says_too_little_is_told() {
        let unknown =
            [Gap { after: None, ..gap((5, 1), (6, 1)) }, Gap { position: None, ..gap((5, 1), (6, 1)) }];
        assert!(unknown.iter().all(|gap| !gap.is_passed_by(at((7, 9)))));
    }

    #[test]
    fn only_an_offset_given_out_again_proves_a_loss() {
        assert!(is_given_out_again(at((5, 52)), at((6, 52))) && is_given_out_again(at((5, 52)), at((6, 40))));
        for sound in [(5, 53), (6, 53), (6, 60), (6, 1), (5, 40)] {
            assert!(!is_given_out_again(at((5, 52)), at(sound)), "{sound:?}");
        }
    }
}
