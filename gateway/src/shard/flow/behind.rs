//! What a subscription does that is not live: it waits for its answer, replays it, and holds what comes meanwhile.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use super::{
    super::{
        gap::{Gap, is_given_out_again},
        tops::Tops,
    },
    Flow, Step, before,
};
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
    /// Up to where everything was replayed or not asked for.
    tops: Tops,
    /// What the answer that is awaited reads on from; nothing before the first one.
    asked: HashMap<Channel, Position>,
    marker: Option<String>,
    /// Gaps to report, by channel, before the replay of later publications.
    gaps: Vec<(Channel, Option<Position>, GapReason)>,
    /// Channels of which the end of the replay was cut off, and where they go on: reported behind it.
    cuts: Vec<(Channel, Option<Position>)>,
    outcome: Recovered,
}

/// What came while the subscription was behind, in its order.
#[derive(Debug)]
enum Held {
    Publication(Arc<Publication>),
    /// The connection has got these by another subscription: of this one they only move the place where it stands.
    Elsewhere(Elsewhere),
    Gap(Gap),
}

/// A run of publications of one channel, within one epoch: the first of an epoch shows what was lost of the former one.
#[derive(Debug)]
struct Elsewhere {
    channel: Channel,
    first: Position,
    last: Position,
}

impl Elsewhere {
    fn new(channel: &Channel, position: Position) -> Self {
        Self { channel: channel.clone(), first: position, last: position }
    }

    /// Takes one more, if it belongs to the run.
    fn take(&mut self, channel: &Channel, position: Position) -> bool {
        let belongs = self.channel == *channel && self.last.epoch == position.epoch;
        if belongs {
            self.first = self.first.min(position);
            self.last = self.last.max(position);
        }
        belongs
    }
}

impl Behind {
    pub(super) fn opening(announce: bool) -> Self {
        Self { announce, ..Self::default() }
    }

    /// One that was live, and stands at `tops`.
    pub(super) fn reading_again(tops: Tops) -> Self {
        Self { opened: true, tops, ..Self::default() }
    }

    /// What it becomes when there is no step left.
    pub(super) fn settle(&mut self) -> Flow {
        let tops = std::mem::take(&mut self.tops);
        match tops.only().filter(|_| !self.pattern) {
            _ if tops.is_empty() => Flow::Live,
            Some(top) => Flow::Settling(top),
            None => Flow::SettlingEach(Box::new(tops)),
        }
    }

    pub(super) fn hold(&mut self, publication: &Arc<Publication>) {
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

    /// Of each run only the ends are kept, so many of one channel cost no more than one.
    pub(super) fn hold_elsewhere(&mut self, channel: &Channel, position: Position) {
        if let Some(Held::Elsewhere(run)) = self.held.back_mut()
            && run.take(channel, position)
        {
            return;
        }
        // Without room it could hide a loss: what is asked for again, from where this one stands, tells it.
        self.overflowed |= self.held_bytes + ELSEWHERE_BYTES > HOLD_BYTES;
        if !self.overflowed {
            self.held_bytes += ELSEWHERE_BYTES;
            self.held.push_back(Held::Elsewhere(Elsewhere::new(channel, position)));
        }
    }

    /// Drops a held publication that the connection has got through another subscription.
    pub(super) fn forget(&mut self, publication: &Arc<Publication>) {
        for held in &mut self.held {
            if matches!(held, Held::Publication(one) if Arc::ptr_eq(one, publication)) {
                self.held_bytes -= weight(publication);
                // Without a position it moves nothing: the channel's own beginning stands for it.
                let position = publication.position.unwrap_or(Position { epoch: 0, offset: 0 });
                self.held_bytes += ELSEWHERE_BYTES;
                *held = Held::Elsewhere(Elsewhere::new(&publication.channel, position));
            }
        }
    }

    pub(super) fn hold_gap(&mut self, gap: &Gap) {
        if self.overflowed {
            // What is asked for again starts before it, and the answer tells.
            self.start_before(gap);
        } else {
            self.held.push_back(Held::Gap(gap.clone()));
        }
    }

    pub(super) fn opened(&mut self, target: &Target, answer: Subscribed) {
        self.opened = true;
        self.pattern = matches!(target, Target::Pattern(_));
        if let Target::Channel(channel) = target {
            self.outcome.position =
                answer.positions.iter().find(|(name, _)| name == channel).map(|(_, at)| *at);
        }
        if answer.marker.is_some() {
            self.marker = answer.marker;
        }
        let asked = std::mem::take(&mut self.asked);
        let mut parts = answer.catchup.map(|catchup| {
            self.outcome.truncated |= catchup.truncated;
            catchup.channels
        });
        for part in parts.iter_mut().flatten() {
            // Of a history that lost the cursor's epoch all is read: what is before the cursor was sent.
            let before = asked.get(&part.channel).copied();
            part.publications.retain(|one| one.position.is_none() || one.position > before);
        }
        let lossy: HashSet<&Channel> =
            parts.iter().flatten().filter(|part| part.gap.is_some()).map(|part| &part.channel).collect();
        for (channel, position) in &answer.positions {
            self.tops.answered(channel.clone(), *position, lossy.contains(channel));
        }
        // Without a `recover_complete` to come, a gap is told by itself.
        let by_channel = self.pattern || !self.announce;
        for part in parts.into_iter().flatten() {
            if let Some(reason) = part.reason() {
                self.outcome.gap.get_or_insert(reason);
            }
            if let Some(reason) = part.gap.filter(|_| by_channel) {
                let first = first_known(&part.publications);
                let end = || self.tops.stand(&part.channel).filter(|_| !asked.is_empty());
                let position = first.or_else(end);
                self.gaps.push((part.channel.clone(), position, reason));
            }
            if part.cut && by_channel {
                let live = answer.positions.iter().find(|(name, _)| *name == part.channel);
                self.cuts.push((part.channel.clone(), live.map(|(_, position)| *position)));
            }
            if let Some(last) = part.publications.iter().filter_map(|one| one.position).max() {
                self.tops.answered(part.channel, last, false);
            }
            self.replay.extend(part.publications);
        }
    }

    pub(super) fn step(&mut self) -> Option<Step> {
        if !self.opened {
            return Some(Step::Wait);
        }
        if let Some((channel, position, reason)) = self.gaps.pop() {
            return Some(Step::Gap(channel, position, reason));
        }
        if let Some(publication) = self.replay.pop_front() {
            return Some(Step::Replay(publication));
        }
        if let Some((channel, position)) = self.cuts.pop() {
            return Some(Step::Gap(channel, position, GapReason::Truncated));
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
                Held::Elsewhere(run) => {
                    if let Some(gap) = self.go_back(&run.channel, run.first) {
                        self.held.push_front(Held::Elsewhere(run));
                        return Some(gap);
                    }
                    self.held_bytes -= ELSEWHERE_BYTES;
                    self.tops.pass_by(&run.channel, run.last);
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
        if let Some(gap) = position.and_then(|position| self.go_back(channel, position)) {
            self.held.push_front(Held::Publication(publication));
            return Some(gap);
        }
        self.held_bytes -= weight(&publication);
        if !self.is_new(&publication) {
            return None;
        }
        if let Some(position) = position {
            self.tops.set(channel.clone(), position);
        }
        Some(Step::Live(publication))
    }

    /// If `position` proves that where this one stands in the channel is lost, it goes back to before it, and the gap is told.
    fn go_back(&mut self, channel: &Channel, position: Position) -> Option<Step> {
        self.tops.stand(channel).filter(|top| is_given_out_again(*top, position))?;
        self.tops.set(channel.clone(), before(position));
        Some(Step::Gap(channel.clone(), Some(before(position)), GapReason::EpochReset))
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
                        self.tops.begin(&publication.channel, before(position));
                    }
                }
            }
        }
        self.held_bytes = 0;
        self.asked = self.tops.cursors();
        PatternCursors { channels: self.asked.clone(), marker: self.marker.clone() }
    }

    /// The channel, if nothing else is known of it, is read again from before the loss.
    fn start_before(&mut self, gap: &Gap) {
        if let Some(after) = gap.after {
            self.tops.begin(&gap.channel, after);
        }
    }

    /// What comes after `seen`, and what is held of the channel, has to be asked for again.
    pub(super) fn miss(&mut self, channel: &Channel, seen: Position) {
        self.overflowed = true;
        let held = self.held.iter().find_map(|held| match held {
            Held::Publication(publication) if publication.channel == *channel => {
                publication.position.map(before)
            }
            Held::Gap(gap) if gap.channel == *channel => gap.after,
            _ => None,
        });
        let seen = held.unwrap_or(seen);
        self.tops.begin(channel, seen);
    }

    fn is_new(&self, publication: &Publication) -> bool {
        match (publication.position, self.tops.seen(&publication.channel)) {
            (Some(position), Some(seen)) => position > seen,
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
