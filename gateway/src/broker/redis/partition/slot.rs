//! What a partition knows of one channel that somebody here listens to.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{
    super::{
        continuity::{Step, judge},
        replay_cache::ReplayCache,
    },
    Permit,
};
use crate::{
    broker::{BrokerError, GapReason, Publication, SinkId, Start, Subscribed, interest::SinkSet},
    position::Position,
};

/// Publications that are held while a back-fill is under way; beyond that all are dropped and read again.
const GREATEST_HELD: usize = 1_000;
/// A cache is used for so long after its read.
const CACHE_LIFE: Duration = Duration::from_secs(5);

/// State of one channel.
#[derive(Debug)]
pub struct Slot {
    /// Delivered up to here; `None` until that is known, and for channels without history.
    pub last: Option<Position>,
    /// The inbox may have lost publications after `last`: a history of another epoch is not taken for one that was born
    /// again, before this is settled by a comparison with Redis.
    pub doubtful: bool,
    /// Set while `last` is only known from a read and nothing was delivered yet; holds the last inbox entry up to it.
    pub stragglers: Option<Position>,
    /// A back-fill that is under way or waits for a connection.
    pub fill: Option<Fill>,
    /// Whether Redis knows of this node's interest in the channel by name.
    pub registered: bool,
    /// Grows when that interest is withdrawn: an answer to an earlier call proves nothing any more.
    pub version: u64,
    /// A read for those who wait is under way; deliveries since then.
    pub reading: Option<Tail>,
    /// Sinks that were answered a position that is still to come through the inbox: they have everything up to it.
    pub skips: Vec<(SinkId, Position)>,
    /// Subscribers without an answer so far.
    pub waiters: Vec<Waiter>,
    /// For recoveries.
    pub cache: Option<Cached>,
    /// Reads for recoveries since there was a cache.
    pub reads: u32,
    /// When something was last delivered or checked.
    pub seen: Instant,
}

/// A replay cache with the time of its last use.
#[derive(Debug)]
pub struct Cached {
    pub cache: ReplayCache,
    pub used: Instant,
    /// Redis' clock at `read`; the clock here may differ.
    pub now_ms: u64,
    pub read: Instant,
}

impl Cached {
    /// Whether it may still be used: a history that was removed elsewhere is not noticed at once.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.read.elapsed() < CACHE_LIFE
    }
}

/// A subscriber that waits.
#[derive(Debug)]
pub struct Waiter {
    pub sink: SinkId,
    pub start: Start<Position>,
    pub reply: oneshot::Sender<Result<Subscribed, BrokerError>>,
    /// It was unsubscribed again meanwhile.
    pub cancelled: bool,
    /// [`Slot::version`] when it came.
    pub version: u64,
    /// The whole history was read in vain for this one: read its own part.
    pub own_read: bool,
    pub _permit: Permit,
}

/// Deliveries during a read.
#[derive(Debug, Default)]
pub struct Tail {
    /// In order.
    pub entries: Vec<Arc<Publication>>,
    /// They are not everything.
    pub broken: bool,
}

impl Tail {
    /// Whether everything that follows `end`, where the read ended, is known.
    #[must_use]
    pub fn follows(&self, end: Position) -> bool {
        let next = self.entries.iter().filter_map(|entry| entry.position).find(|position| *position > end);
        !self.broken && next.is_none_or(|next| judge(end, next) == Step::Next)
    }

    /// What follows `end`, where the read ended; `None` if that is not all known.
    #[must_use]
    pub fn after(mut self, end: Position) -> Option<Vec<Arc<Publication>>> {
        let follows = self.follows(end);
        self.entries.retain(|entry| entry.position > Some(end));
        follows.then_some(self.entries)
    }
}

/// A hole that is being filled.
#[derive(Debug, Default)]
pub struct Fill {
    /// Publications after the hole, in order of arrival.
    pub held: Vec<Arc<Publication>>,
    /// Too many were held and dropped: the read must be followed by another.
    pub dropped: bool,
    /// A read is under way.
    pub under_way: bool,
    /// Reads that did not close the hole.
    pub vain: u32,
    /// A read has shown that there is more than was delivered.
    pub unread: bool,
    /// A loss that is still to be told: the reads so far have brought nothing but what was delivered before it.
    pub passing: Option<Passing>,
}

/// What is left of a history that lost what was delivered last, and is longer than one read: it is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passing {
    /// Passed over up to here; [`Slot::last`] stays what was delivered.
    pub to: Position,
    /// Why there is a gap.
    pub reason: GapReason,
}

impl Fill {
    /// Where to read on from; `last`: what was delivered last.
    #[must_use]
    pub fn cursor(&self, last: Position) -> Position {
        self.passing.map_or(last, |passing| passing.to)
    }

    /// Keeps a publication for after the read.
    pub fn hold(&mut self, publication: Arc<Publication>) {
        if self.held.len() >= GREATEST_HELD {
            self.held.clear();
            self.dropped = true;
        }
        if !self.dropped {
            self.held.push(publication);
        }
    }

    /// Whether there was more after `from` of what went before a history that begins at `first`.
    #[must_use]
    pub fn knows_of_more(&self, from: Position, first: Position) -> bool {
        let of_before = |at: Position| from < at && at.epoch < first.epoch;
        self.unread || self.dropped || self.positions().any(of_before)
    }

    /// Whether something of what is after `from`, up to `to`, is held.
    #[must_use]
    pub fn holds_of(&self, from: Position, to: Position) -> bool {
        self.positions().any(|at| from < at && at <= to)
    }

    fn positions(&self) -> impl Iterator<Item = Position> {
        self.held.iter().filter_map(|held| held.position)
    }
}

impl Slot {
    pub fn new(last: Option<Position>) -> Self {
        Self {
            last,
            doubtful: false,
            stragglers: None,
            fill: None,
            registered: false,
            version: 0,
            reading: None,
            skips: Vec::new(),
            waiters: Vec::new(),
            cache: None,
            reads: 0,
            seen: Instant::now(),
        }
    }

    /// Whether Redis is to know of this node's interest in the channel by name, or may be told by a call under way.
    #[must_use]
    pub fn wants_interest(&self) -> bool {
        self.registered || self.waiters.iter().any(|waiter| !waiter.cancelled)
    }

    /// Learns from a read where the history ends, if nothing was delivered yet.
    pub fn learn_end(&mut self, end: Position) {
        if self.last.is_none() {
            self.last = Some(end);
            self.stragglers = Some(Position { epoch: 0, offset: 0 });
        }
    }

    /// Whether a publication up to `last` must be delivered all the same: it was in the inbox before the read that
    /// told `last`, and somebody else's subscription may have been answered with an earlier position.
    pub fn is_straggler(&mut self, position: Position) -> bool {
        match &mut self.stragglers {
            Some(before) if *before < position => {
                *before = position;
                true
            }
            _ => false,
        }
    }

    /// Answers those who were unsubscribed with the interest they waited for: no read to come is for them.
    pub fn dismiss_withdrawn(&mut self) {
        let version = self.version;
        for waiter in self.waiters.extract_if(.., |waiter| waiter.cancelled && waiter.version != version) {
            // Who does not wait any more needs no answer.
            let _ = waiter.reply.send(Ok(Subscribed::default()));
        }
    }

    /// Notes that a subscriber of `sink` was answered `end`; `known`: the sink takes part in deliveries already.
    pub fn answered(&mut self, sink: SinkId, end: Position, known: bool) {
        // What was learned from a read was delivered to nobody: who has less is to get the rest, also if the inbox loses it.
        if self.stragglers.is_some() && self.last > Some(end) {
            self.last = Some(end);
        }
        if known { self.skip_no_further(sink, end) } else { self.skip_until(sink, end) }
    }

    /// Notes that a sink that is new to the channel was answered `end`.
    fn skip_until(&mut self, sink: SinkId, end: Position) {
        // It may have been here before, and gone.
        self.skips.retain(|(other, _)| *other != sink);
        if self.stragglers.is_some() || self.last < Some(end) {
            self.skips.push((sink, end));
        }
    }

    /// Notes that another subscriber of a sink that takes part already was answered `end`: what follows must reach the
    /// sink, which keeps it from those who have it.
    fn skip_no_further(&mut self, sink: SinkId, end: Position) {
        for (_, until) in self.skips.iter_mut().filter(|(other, _)| *other == sink) {
            *until = end.min(*until);
        }
    }

    /// Takes those out of `sinks` who have the publication at `position` already.
    pub fn without_skipping(&mut self, mut sinks: SinkSet, position: Position) -> SinkSet {
        self.skips.retain(|(sink, end)| {
            let skips = position <= *end;
            if skips {
                sinks.remove(*sink);
            }
            skips
        });
        sinks
    }

    /// Takes note of a delivery.
    pub fn delivered(&mut self, publication: &Arc<Publication>) {
        self.seen = Instant::now();
        self.last = publication.position.or(self.last);
        self.stragglers = None;
        if let Some(cached) = &mut self.cache {
            cached.cache.append(publication);
        }
        if let Some(tail) = &mut self.reading {
            tail.entries.push(publication.clone());
        }
    }

    /// Continuity is lost: nothing before can be replayed from memory.
    pub fn broken(&mut self) {
        self.cache = None;
        if let Some(tail) = &mut self.reading {
            tail.broken = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{broker::Stored, channel::Channel};

    fn at(offset: u64) -> Position {
        Position { epoch: 5, offset }
    }

    fn entry(offset: u64) -> Arc<Publication> {
        let channel = Channel::parse("a").unwrap();
        Arc::new(Publication { channel, position: Some(at(offset)), time_ms: 0, stored: Stored::default() })
    }

    #[test]
    fn a_sink_skips_what_is_in_its_answer_and_others_do_not() {
        let mut slot = Slot::new(Some(at(3)));
        let mut sinks = SinkSet::default();
        sinks.insert(SinkId(1));
        sinks.insert(SinkId(2));
        slot.skip_until(SinkId(1), at(5));
        slot.skip_until(SinkId(2), at(3));
        let who = |set: SinkSet| set.iter().map(|sink| sink.0).collect::<Vec<_>>();
        assert_eq!(who(slot.without_skipping(sinks, at(4))), [2]);
        assert_eq!(who(slot.without_skipping(sinks, at(5))), [2]);
        assert_eq!(who(slot.without_skipping(sinks, at(6))), [1, 2]);
        assert!(slot.skips.is_empty());
    }

    #[test]
    fn who_was_withdrawn_before_its_read_is_answered_and_not_read_for() {
        let mut slot = Slot::new(None);
        let mut wait = |version, cancelled| {
            let (reply, answer) = oneshot::channel();
            let (sink, start, _permit) = (SinkId(1), Start::After(at(2)), Permit::default());
            slot.waiters.push(Waiter { sink, start, reply, cancelled, version, own_read: false, _permit });
            answer
        };
        let (mut withdrawn, mut again) = (wait(0, true), wait(1, false));
        slot.version = 1;
        slot.dismiss_withdrawn();
        assert!(withdrawn.try_recv().unwrap().unwrap().positions.is_empty());
        assert!(again.try_recv().is_err() && slot.waiters.len() == 1);
    }

    #[test]
    fn a_sink_gets_what_any_of_its_subscribers_lacks() {
        let mut slot = Slot::new(Some(at(10)));
        let mut sinks = SinkSet::default();
        sinks.insert(SinkId(1));
        slot.skip_until(SinkId(1), at(12));
        slot.skip_no_further(SinkId(1), at(10));
        assert_eq!(slot.without_skipping(sinks, at(11)).iter().count(), 1);
    }

    #[test]
    fn a_sink_that_comes_back_does_not_skip_for_its_former_answer() {
        let mut slot = Slot::new(Some(at(10)));
        slot.skip_until(SinkId(1), at(12));
        slot.skip_until(SinkId(1), at(10));
        assert!(slot.skips.is_empty());
    }

    #[test]
    fn what_was_in_the_inbox_before_the_end_was_learned_is_let_through_once() {
        let mut slot = Slot::new(None);
        slot.learn_end(at(5));
        assert!(slot.is_straggler(at(4)) && !slot.is_straggler(at(4)) && slot.is_straggler(at(5)));
        slot.delivered(&entry(6));
        assert!(!slot.is_straggler(at(5)));
        assert_eq!(slot.last, Some(at(6)));
    }

    #[test]
    fn who_is_answered_less_than_another_read_told_is_not_left_to_the_inbox() {
        let mut slot = Slot::new(None);
        slot.learn_end(at(5));
        slot.answered(SinkId(1), at(5), false);
        slot.answered(SinkId(2), at(3), false);
        // What is missing after 3 is read, should 6 be the next to come.
        assert_eq!(slot.last, Some(at(3)));
        let mut sinks = SinkSet::default();
        sinks.insert(SinkId(1));
        sinks.insert(SinkId(2));
        assert_eq!(slot.without_skipping(sinks, at(4)).iter().collect::<Vec<_>>(), [SinkId(2)]);
        // What was delivered stays so.
        slot.delivered(&entry(4));
        slot.answered(SinkId(3), at(3), false);
        assert_eq!(slot.last, Some(at(4)));
    }

    #[test]
    fn a_tail_follows_the_read_or_is_of_no_use() {
        let tail =
            |offsets: &[u64]| Tail { entries: offsets.iter().map(|n| entry(*n)).collect(), broken: false };
        assert_eq!(tail(&[3, 4, 5, 6]).after(at(4)).unwrap().len(), 2);
        assert_eq!(tail(&[3, 4]).after(at(4)).unwrap().len(), 0);
        assert!(tail(&[6, 7]).after(at(4)).is_none());
        assert!(Tail { broken: true, ..tail(&[5]) }.after(at(4)).is_none());
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut fill = Fill::default();
        for n in 0..=GREATEST_HELD as u64 {
            fill.hold(entry(n));
        }
        assert!(fill.dropped && fill.held.is_empty());
    }
}
