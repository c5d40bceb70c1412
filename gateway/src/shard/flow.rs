//! How publications reach one subscription: held while it opens, then replay, then live.
//!
//! A pure state machine. Invariants: publications of a channel leave in the order of their positions, none twice;
//! what was held back beyond [`HOLD_BYTES`] is not lost but asked for again ([`Step::Refetch`]); a gap stays in its place
//! among the publications, and only who came after the loss is not told of it.

mod behind;

use std::sync::Arc;

pub use behind::{Behind, HOLD_BYTES};

use super::{
    gap::{Gap, is_given_out_again},
    tops::Tops,
};
use crate::{
    broker::{GapReason, PatternCursors, Publication, Subscribed},
    channel::{Channel, Target},
    position::Position,
    session::Recovered,
};

/// The state of one subscription.
#[derive(Debug, Default)]
pub enum Flow {
    /// Publications pass through.
    #[default]
    Live,
    /// As live, but what is not after the position was replayed before: the broker may still deliver it for others.
    Settling(Position),
    /// The same by channel: for a pattern, or where what was replayed was told to be lost.
    SettlingEach(Box<Tops>),
    /// They wait for the broker's answer or for the end of the replay.
    Behind(Box<Behind>),
}

/// What to do next for a subscription that is behind.
#[derive(Debug)]
pub enum Step {
    /// Send as a replay.
    Replay(Arc<Publication>),
    /// Say that the recovery is complete; comes exactly once, if it was asked for.
    Complete(Recovered),
    /// Report a gap of one channel.
    Gap(Channel, Option<Position>, GapReason),
    /// Send as live.
    Live(Arc<Publication>),
    /// Subscribe again with these cursors (the channel's own position for a channel), then call
    /// [`Flow::opened`] again.
    Refetch(PatternCursors),
    /// Wait for the broker's answer.
    Wait,
}

impl Flow {
    /// A subscription whose request is under way; `announce`: it ends with a `recover_complete`.
    #[must_use]
    pub fn opening(announce: bool) -> Self {
        Self::Behind(Box::new(Behind::opening(announce)))
    }

    /// Whether publications pass through.
    #[must_use]
    pub fn is_live(&self) -> bool {
        !matches!(self, Self::Behind(_))
    }

    /// Takes a live publication; `true` if it is to be sent at once.
    pub fn accept(&mut self, publication: &Arc<Publication>) -> bool {
        match self {
            Self::Live => true,
            Self::Settling(top) => {
                let new = publication.position.is_none_or(|position| position > *top);
                if new && publication.position.is_some() {
                    *self = Self::Live;
                }
                new
            }
            Self::SettlingEach(tops) => {
                let Some(position) = publication.position else { return true };
                let new = tops.seen(&publication.channel).is_none_or(|seen| position > seen);
                if new && tops.remove(&publication.channel) && tops.is_empty() {
                    *self = Self::Live;
                }
                new
            }
            Self::Behind(behind) => {
                behind.hold(publication);
                false
            }
        }
    }

    /// Whether `publication`, which it passes, proves that what it was answered is lost: that is to be told first. A gap
    /// of the broker need not tell it: what the broker itself had delivered may still be there.
    #[must_use]
    pub fn is_overtaken_by(&self, publication: &Publication) -> bool {
        let top = match self {
            Self::Settling(top) => Some(*top),
            Self::SettlingEach(tops) => tops.stand(&publication.channel),
            Self::Live | Self::Behind(_) => None,
        };
        top.zip(publication.position).is_some_and(|(top, position)| is_given_out_again(top, position))
    }

    /// Takes a gap; `true` if it is to be told at once. Who is behind tells it in its place, and who came after the loss
    /// not at all.
    pub fn gap(&mut self, gap: &Gap) -> bool {
        match self {
            Self::Live => true,
            Self::Settling(top) => {
                let affected = !gap.is_passed_by(*top);
                if affected {
                    *self = gap.position.map_or(Self::Live, Self::Settling);
                }
                affected
            }
            Self::SettlingEach(tops) => gap.pass(tops),
            Self::Behind(behind) => {
                behind.hold_gap(gap);
                false
            }
        }
    }

    /// Takes the broker's answer, then steps may be taken.
    pub fn opened(&mut self, target: &Target, answer: Subscribed) {
        if let Self::Behind(behind) = self {
            behind.opened(target, answer);
        }
    }

    /// What the mailbox could not take of `channel` after `before` is missing: it is asked for again. A live
    /// subscription must be one to the channel itself, for a pattern needs its marker to ask again.
    pub fn fall_behind(&mut self, channel: &Channel, before: Position) {
        if self.is_live() {
            // If it has got nothing since its answer, the re-read tells whether that still holds.
            let tops = match std::mem::take(self) {
                Self::Settling(top) => {
                    let mut tops = Tops::default();
                    tops.set(channel.clone(), top);
                    tops
                }
                Self::SettlingEach(tops) => *tops,
                Self::Live | Self::Behind(_) => Tops::default(),
            };
            *self = Self::Behind(Box::new(Behind::reading_again(tops)));
        }
        if let Self::Behind(behind) = self {
            behind.miss(channel, before);
        }
    }

    /// The next step, `None` when the subscription is (or has just become) live.
    pub fn step(&mut self) -> Option<Step> {
        let Self::Behind(behind) = self else { return None };
        let step = behind.step();
        if step.is_none() {
            *self = behind.settle();
        }
        step
    }

    /// Takes a publication that the connection gets through another subscription.
    pub fn pass_by(&mut self, publication: &Publication) {
        if let Self::Behind(behind) = self
            && let Some(position) = publication.position
        {
            behind.hold_elsewhere(&publication.channel, position);
        }
    }

    /// Drops a held publication that the connection has got through another subscription.
    pub fn forget(&mut self, publication: &Arc<Publication>) {
        if let Self::Behind(behind) = self {
            behind.forget(publication);
        }
    }

    /// Forgets what a pattern still filters; called when nothing old can be under way any more.
    pub fn settled(&mut self) {
        if matches!(self, Self::SettlingEach(_)) {
            *self = Self::Live;
        }
    }
}

/// The cursor that has seen everything up to, but not including, `position`.
fn before(position: Position) -> Position {
    Position { offset: position.offset.saturating_sub(1), ..position }
}

#[cfg(test)]
mod tests;
