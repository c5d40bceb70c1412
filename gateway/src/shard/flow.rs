//! How publications reach one subscription: held while it opens, then replay, then live.
//!
//! A pure state machine. Invariants: publications of a channel leave in the order of their positions, none twice;
//! what was held back beyond [`HOLD_BYTES`] is not lost but asked for again ([`Step::Refetch`]); a gap stays in its place
//! among the publications, and only who came after the loss is not told of it.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::gap::{Gap, is_given_out_again};
use crate::{
    broker::{GapReason, PatternCursors, Publication, Subscribed},
    channel::{Channel, Target},
    position::Position,
    session::Recovered,
};

/// Live publications that one opening or replaying subscription may hold, in bytes of events.
pub const HOLD_BYTES: usize = 256 * 1024;

/// What is held of a publication that the connection has already, in bytes.
const ELSEWHERE_BYTES: usize = 64;

/// The state of one subscription.
#[derive(Debug, Default)]
pub enum Flow {
    /// Publications pass through.
    #[default]
    Live,
    /// As live, but what is not after the position was replayed before: the broker may still deliver it for others.
    Settling(Position),
    /// The same for a pattern, by channel.
    SettlingPattern(Box<HashMap<Channel, Position>>),
    /// They wait for the broker's answer or for the end of the replay.
    Behind(Box<Behind>),
}

/// What a subscription that is not live keeps.
#[derive(Debug, Default)]
pub struct Behind {
    /// The broker has answered.
    opened: bool,
    /// It is a pattern's subscription.
    pattern: bool,
    /// Ask for a `recover_complete` at the end.
    announce: bool,
    replay: VecDeque<Arc<Publication>>,
    held: VecDeque<Held>,
    held_bytes: usize,
    overflowed: bool,
    /// Up to here everything was replayed or not asked for, by channel.
    tops: HashMap<Channel, Position>,
    marker: Option<String>,
    /// Gaps to report, by channel, before the replay of later publications.
    gaps: Vec<(Channel, Option<Position>, GapReason)>,
    outcome: Recovered,
}

/// What came while the subscription was behind, in its order.
#[derive(Debug)]
enum Held {
    Publication(Arc<Publication>),
    /// The connection has got it by another subscription: of this one it only moves the place where it stands.
    Elsewhere(Channel, Position),
    Gap(Gap),
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
        Self::Behind(Box::new(Behind { announce, ..Behind::default() }))
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
            Self::SettlingPattern(tops) => {
                let Some(position) = publication.position else { return true };
                let new = tops.get(&publication.channel).is_none_or(|top| position > *top);
                if new && tops.remove(&publication.channel).is_some() && tops.is_empty() {
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
            Self::Settling(top) => Some(top),
            Self::SettlingPattern(tops) => tops.get(&publication.channel),
            Self::Live | Self::Behind(_) => None,
        };
        top.zip(publication.position).is_some_and(|(top, position)| is_given_out_again(*top, position))
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
            Self::SettlingPattern(tops) => gap.pass(tops),
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
        // It has got nothing since its answer, and the re-read tells whether that still holds.
        let before = if let Self::Settling(top) = self { *top } else { before };
        if self.is_live() {
            *self = Self::Behind(Box::new(Behind { opened: true, ..Behind::default() }));
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
            let tops = std::mem::take(&mut behind.tops);
            *self = match (behind.pattern, tops.values().next()) {
                (_, None) => Self::Live,
                (false, Some(top)) => Self::Settling(*top),
                (true, Some(_)) => Self::SettlingPattern(Box::new(tops)),
            };
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
        let Self::Behind(behind) = self else { return };
        for held in &mut behind.held {
            if matches!(held, Held::Publication(one) if Arc::ptr_eq(one, publication)) {
                behind.held_bytes -= weight(publication);
                // Without a position it moves nothing: the channel's own beginning stands for it.
                let position = publication.position.unwrap_or(Position { epoch: 0, offset: 0 });
                behind.held_bytes += ELSEWHERE_BYTES;
                *held = Held::Elsewhere(publication.channel.clone(), position);
            }
        }
    }

    /// Forgets what a pattern still filters; called when nothing old can be under way any more.
    pub fn settled(&mut self) {
        if matches!(self, Self::SettlingPattern(_)) {
            *self = Self::Live;
        }
    }
}

impl Behind {
    fn hold(&mut self, publication: &Arc<Publication>) {
        let size = weight(publication);
        // What has a position can be asked for again, so nothing of it is held after an overflow; what has none
        // carries no continuity promise and is dropped when there is no room.
        if self.overflowed || self.held_bytes + size > HOLD_BYTES {
            if let Some(position) = publication.position {
                self.miss(&publication.channel, before(position));
            }
            return;
        }
        self.held_bytes += size;
        self.held.push_back(Held::Publication(publication.clone()));
    }

    /// Only the last of each run is kept, so many of one channel cost no more than one.
    fn hold_elsewhere(&mut self, channel: &Channel, position: Position) {
        match self.held.back_mut() {
            Some(Held::Elsewhere(last, at)) if last == channel => *at = position,
            // Without room, or to be asked for again, it is as if the connection had not got it.
            _ if self.overflowed || self.held_bytes + ELSEWHERE_BYTES > HOLD_BYTES => {}
            _ => {
                self.held_bytes += ELSEWHERE_BYTES;
                self.held.push_back(Held::Elsewhere(channel.clone(), position));
            }
        }
    }

    fn hold_gap(&mut self, gap: &Gap) {
        if self.overflowed {
            // What is asked for again starts before it, and the answer tells.
            self.start_before(gap);
        } else {
            self.held.push_back(Held::Gap(gap.clone()));
        }
    }

    fn opened(&mut self, target: &Target, answer: Subscribed) {
        self.opened = true;
        self.pattern = matches!(target, Target::Pattern(_));
        if let Target::Channel(channel) = target {
            self.outcome.position =
                answer.positions.iter().find(|(name, _)| name == channel).map(|(_, at)| *at);
        }
        for (channel, position) in answer.positions {
            let top = self.tops.entry(channel).or_insert(position);
            *top = (*top).max(position);
        }
        if answer.marker.is_some() {
            self.marker = answer.marker;
        }
        let Some(catchup) = answer.catchup else { return };
        self.outcome.truncated |= catchup.truncated;
        for part in catchup.channels {
            if let Some(reason) = part.gap {
                self.outcome.gap.get_or_insert(reason);
                // Without a `recover_complete` to come, the gap is told by itself.
                if self.pattern || !self.announce {
                    self.gaps.push((part.channel.clone(), first_known(&part.publications), reason));
                }
            }
            if let Some(last) = part.publications.iter().filter_map(|p| p.position).max() {
                let top = self.tops.entry(part.channel).or_insert(last);
                *top = (*top).max(last);
            }
            self.replay.extend(part.publications);
        }
    }

    fn step(&mut self) -> Option<Step> {
        if !self.opened {
            return Some(Step::Wait);
        }
        if let Some((channel, position, reason)) = self.gaps.pop() {
            return Some(Step::Gap(channel, position, reason));
        }
        if let Some(publication) = self.replay.pop_front() {
            return Some(Step::Replay(publication));
        }
        if self.overflowed {
            return Some(Step::Refetch(self.restart()));
        }
        if std::mem::take(&mut self.announce) {
            self.outcome.marker.clone_from(&self.marker);
            return Some(Step::Complete(std::mem::take(&mut self.outcome)));
        }
        while let Some(held) = self.held.pop_front() {
            match held {
                Held::Gap(gap) if gap.pass(&mut self.tops) => {
                    return Some(Step::Gap(gap.channel, gap.position, gap.reason));
                }
                Held::Gap(_) => {}
                Held::Elsewhere(channel, position) => {
                    self.held_bytes -= ELSEWHERE_BYTES;
                    if let Some(top) = self.tops.get_mut(&channel) {
                        *top = (*top).max(position);
                    }
                }
                Held::Publication(publication) => {
                    if let Some(step) = self.take_held(publication) {
                        return Some(step);
                    }
                }
            }
        }
        None
    }

    /// What a held publication leads to; `None` if it was replayed.
    fn take_held(&mut self, publication: Arc<Publication>) -> Option<Step> {
        let (channel, position) = (&publication.channel, publication.position);
        let overtaken =
            self.tops.get(channel).zip(position).filter(|(top, at)| is_given_out_again(**top, *at));
        if let Some((_, position)) = overtaken {
            let (channel, position) = (channel.clone(), before(position));
            self.tops.insert(channel.clone(), position);
            self.held.push_front(Held::Publication(publication));
            return Some(Step::Gap(channel, Some(position), GapReason::EpochReset));
        }
        self.held_bytes -= weight(&publication);
        if !self.is_new(&publication) {
            return None;
        }
        if let Some(position) = position {
            self.tops.insert(channel.clone(), position);
        }
        Some(Step::Live(publication))
    }

    /// Forgets what was held, and waits for a new answer that starts at the tops.
    fn restart(&mut self) -> PatternCursors {
        self.opened = false;
        self.overflowed = false;
        for held in std::mem::take(&mut self.held) {
            match held {
                Held::Gap(gap) => self.start_before(&gap),
                // It is read again from where this one stands.
                Held::Elsewhere(..) => {}
                Held::Publication(publication) => {
                    if let Some(position) = publication.position {
                        self.tops.entry(publication.channel.clone()).or_insert(before(position));
                    }
                }
            }
        }
        self.held_bytes = 0;
        PatternCursors { channels: self.tops.clone(), marker: self.marker.clone() }
    }

    /// The channel, if nothing else is known of it, is read again from before the loss.
    fn start_before(&mut self, gap: &Gap) {
        if let Some(after) = gap.after {
            self.tops.entry(gap.channel.clone()).or_insert(after);
        }
    }

    /// What comes after `seen`, and what is held of the channel, has to be asked for again.
    fn miss(&mut self, channel: &Channel, seen: Position) {
        self.overflowed = true;
        let held = self.held.iter().find_map(|held| match held {
            Held::Publication(publication) if publication.channel == *channel => {
                publication.position.map(before)
            }
            Held::Gap(gap) if gap.channel == *channel => gap.after,
            _ => None,
        });
        let seen = held.unwrap_or(seen);
        self.tops.entry(channel.clone()).or_insert(seen);
    }

    fn is_new(&self, publication: &Publication) -> bool {
        match (publication.position, self.tops.get(&publication.channel)) {
            (Some(position), Some(top)) => position > *top,
            _ => true,
        }
    }
}

/// About what a held publication costs.
fn weight(publication: &Publication) -> usize {
    publication.stored.event.len() + 128
}

/// Where the replay of a channel with a gap begins: just before the first publication that is left.
fn first_known(publications: &[Arc<Publication>]) -> Option<Position> {
    publications.first()?.position.map(before)
}

/// The cursor that has seen everything up to, but not including, `position`.
fn before(position: Position) -> Position {
    Position { offset: position.offset.saturating_sub(1), ..position }
}

#[cfg(test)]
mod tests;
