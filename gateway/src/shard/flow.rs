//! How publications reach one subscription: held while it opens, then replay, then live.
//!
//! A pure state machine. Invariants: publications of a channel leave in the order of their positions, none twice;
//! what was held back beyond [`HOLD_BYTES`] is not lost but asked for again ([`Step::Refetch`]).

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use crate::{
    broker::{GapReason, PatternCursors, Publication, Subscribed},
    channel::{Channel, Target},
    position::Position,
    session::Recovered,
};

/// Live publications that one opening or replaying subscription may hold, in bytes of events.
pub const HOLD_BYTES: usize = 256 * 1024;

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
    held: VecDeque<Arc<Publication>>,
    held_bytes: usize,
    overflowed: bool,
    /// Up to here everything was replayed or not asked for, by channel.
    tops: HashMap<Channel, Position>,
    marker: Option<String>,
    /// Gaps to report, by channel, before the replay of later publications.
    gaps: Vec<(Channel, Option<Position>, GapReason)>,
    outcome: Recovered,
}

/// What to do next for a subscription that is behind.
#[derive(Debug)]
pub enum Step {
    /// Send as a replay.
    Replay(Arc<Publication>),
    /// Say that the recovery is complete; comes exactly once, if it was asked for.
    Complete(Recovered),
    /// Report a gap of one channel of a pattern.
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

    /// Takes the broker's answer, then steps may be taken.
    pub fn opened(&mut self, target: &Target, answer: Subscribed) {
        if let Self::Behind(behind) = self {
            behind.opened(target, answer);
        }
    }

    /// What the mailbox could not take of `channel` after `before` is missing: it is asked for again. A live
    /// subscription must be one to the channel itself, for a pattern needs its marker to ask again.
    pub fn fall_behind(&mut self, channel: &Channel, before: Position) {
        let before = if let Self::Settling(top) = self { before.max(*top) } else { before };
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

    /// Drops a held publication that the connection has got through another subscription.
    pub fn forget(&mut self, publication: &Arc<Publication>) {
        if let Self::Behind(behind) = self {
            let held = behind.held.len();
            behind.held.retain(|one| !Arc::ptr_eq(one, publication));
            behind.held_bytes -= (held - behind.held.len()) * weight(publication);
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
        self.held.push_back(publication.clone());
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
        while let Some(publication) = self.held.pop_front() {
            self.held_bytes -= weight(&publication);
            if self.is_new(&publication) {
                if let Some(position) = publication.position {
                    self.tops.insert(publication.channel.clone(), position);
                }
                return Some(Step::Live(publication));
            }
        }
        None
    }

    /// Forgets what was held, and waits for a new answer that starts at the tops.
    fn restart(&mut self) -> PatternCursors {
        self.opened = false;
        self.overflowed = false;
        for publication in std::mem::take(&mut self.held) {
            if let Some(position) = publication.position {
                self.tops.entry(publication.channel.clone()).or_insert(before(position));
            }
        }
        self.held_bytes = 0;
        PatternCursors { channels: self.tops.clone(), marker: self.marker.clone() }
    }

    /// What comes after `seen`, and what is held of the channel, has to be asked for again.
    fn miss(&mut self, channel: &Channel, seen: Position) {
        self.overflowed = true;
        let held = self.held.iter().find(|publication| publication.channel == *channel);
        let seen = held.and_then(|first| first.position).map_or(seen, before);
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
mod tests {
    use super::*;
    use crate::broker::{Catchup, ChannelCatchup, Stored};

    fn channel() -> Channel {
        Channel::parse("a").unwrap()
    }

    fn target() -> Target {
        Target::Channel(channel())
    }

    fn publication(offset: u64, bytes: usize) -> Arc<Publication> {
        let stored = Stored { event: vec![0; bytes].into(), ..Stored::default() };
        Arc::new(Publication {
            channel: channel(),
            position: Some(Position { epoch: 1, offset }),
            time_ms: 0,
            stored,
        })
    }

    fn answer(top: u64, replay: std::ops::RangeInclusive<u64>) -> Subscribed {
        let publications = replay.map(|offset| publication(offset, 1)).collect();
        Subscribed {
            positions: vec![(channel(), Position { epoch: 1, offset: top })],
            marker: None,
            catchup: Some(Catchup {
                channels: vec![ChannelCatchup { channel: channel(), publications, gap: None }],
                truncated: false,
            }),
        }
    }

    fn drain(flow: &mut Flow) -> Vec<String> {
        let mut steps = Vec::new();
        while let Some(step) = flow.step() {
            let offset = |p: &Publication| p.position.map_or(0, |at| at.offset);
            steps.push(match step {
                Step::Replay(p) => format!("replay {}", offset(&p)),
                Step::Live(p) => format!("live {}", offset(&p)),
                Step::Complete(outcome) => format!("complete {}", outcome.position.map_or(0, |at| at.offset)),
                Step::Gap(..) => "gap".into(),
                Step::Refetch(cursors) => {
                    steps.push(format!("refetch {}", cursors.channels[&channel()].offset));
                    break;
                }
                Step::Wait => break,
            });
        }
        steps
    }

    #[test]
    fn the_replay_comes_first_then_complete_then_what_was_held_without_what_was_replayed() {
        let mut flow = Flow::opening(true);
        for offset in 4..=6 {
            assert!(!flow.accept(&publication(offset, 1)));
        }
        assert!(matches!(flow.step(), Some(Step::Wait)));
        flow.opened(&target(), answer(5, 3..=5));
        assert_eq!(drain(&mut flow), ["replay 3", "replay 4", "replay 5", "complete 5", "live 6"]);
        assert!(flow.is_live() && flow.accept(&publication(7, 1)));
    }

    #[test]
    fn what_was_replayed_is_not_sent_again_when_the_broker_delivers_it_late() {
        let mut flow = Flow::opening(false);
        flow.opened(&target(), answer(5, 4..=5));
        assert_eq!(drain(&mut flow), ["replay 4", "replay 5"]);
        let sent: Vec<_> = (4..=7).filter(|offset| flow.accept(&publication(*offset, 1))).collect();
        assert_eq!(sent, [6, 7]);
        assert!(matches!(flow, Flow::Live));
    }

    #[test]
    fn what_could_not_be_held_is_asked_for_again_before_complete() {
        let mut flow = Flow::opening(true);
        flow.opened(&target(), answer(2, 1..=2));
        assert!(!flow.accept(&publication(3, HOLD_BYTES)));
        assert!(!flow.accept(&publication(4, 1)));
        assert_eq!(drain(&mut flow), ["replay 1", "replay 2", "refetch 2"]);
        assert!(!flow.accept(&publication(5, 1)));
        flow.opened(&target(), answer(4, 3..=4));
        assert_eq!(drain(&mut flow), ["replay 3", "replay 4", "complete 4", "live 5"]);
    }

    #[test]
    fn a_gap_of_what_is_read_again_is_told_where_no_complete_follows() {
        let mut flow = Flow::Live;
        flow.fall_behind(&channel(), Position { epoch: 1, offset: 3 });
        assert_eq!(drain(&mut flow), ["refetch 3"]);
        let mut answer = answer(9, 8..=9);
        for part in &mut answer.catchup.as_mut().unwrap().channels {
            part.gap = Some(GapReason::HeadTrimmed);
        }
        flow.opened(&target(), answer);
        assert_eq!(drain(&mut flow), ["gap", "replay 8", "replay 9"]);
    }

    #[test]
    fn what_was_sent_live_is_not_asked_for_again() {
        let mut flow = Flow::opening(false);
        for offset in 1..=2 {
            flow.accept(&publication(offset, HOLD_BYTES / 2 - 200));
        }
        flow.opened(&target(), Subscribed { catchup: None, ..answer(0, 1..=1) });
        assert!(matches!(flow.step(), Some(Step::Live(_))));
        assert!(!flow.accept(&publication(3, HOLD_BYTES / 2 + 1)), "there is no room for it");
        let Some(Step::Refetch(cursors)) = flow.step() else { panic!("not asked for") };
        assert_eq!(cursors.channels[&channel()].offset, 1);
    }

    #[test]
    fn a_live_subscription_that_fell_behind_reads_again_from_where_it_was() {
        let mut flow = Flow::Live;
        flow.fall_behind(&channel(), Position { epoch: 1, offset: 3 });
        assert!(!flow.accept(&publication(9, 1)));
        assert_eq!(drain(&mut flow), ["refetch 3"]);
        assert!(!flow.accept(&publication(10, 1)));
        flow.opened(&target(), answer(9, 4..=9));
        let steps = drain(&mut flow);
        assert_eq!(
            steps,
            ["replay 4", "replay 5", "replay 6", "replay 7", "replay 8", "replay 9", "live 10"]
        );
    }
}
