//! The one place through which deliveries of a channel pass: continuity and back-fill.

use std::{cmp::Ordering, sync::Arc};

use super::{
    super::{
        continuity::{Step, continues, judge, reason_of_hole},
        entry::{InboxContent, InboxEntry},
        queues,
        range::{Part, Range},
    },
    actor::{Actor, Done},
    slot::{Fill, Passing, Slot},
};
use crate::{
    broker::{BrokerError, Delivery, GapReason, Publication},
    channel::Channel,
    position::Position,
};

/// Reads in a row that do not close a hole before it is reported.
const VAIN_READS: u32 = 2;

/// What is missing between two positions; see [`Delivery::Gap`].
struct Lost {
    after: Position,
    left: Option<Position>,
    position: Position,
    reason: GapReason,
}

impl Lost {
    /// What is missing between `last` and `next`, the next one that is there.
    fn between(last: Position, next: Position) -> Self {
        Self { after: last, left: None, position: before(next), reason: reason_of_hole(last, next) }
    }
}

impl Actor {
    pub(super) fn take_entries(&mut self, entries: Vec<InboxEntry>) {
        for entry in entries {
            match entry.content {
                Ok(InboxContent::Publication(publication)) => self.take_publication(publication),
                Ok(InboxContent::Presence(event)) => self.take_presence(event),
                Ok(InboxContent::Taken { channel, session }) => self.take_over(channel, session),
                Ok(InboxContent::Letter(letter)) => self.environment.sinks.take_letter(letter),
                Ok(InboxContent::Jobs { queue, settled }) => {
                    self.tell_desk(queues::Request::Woken { queue, settled });
                }
                // A channel with history finds the hole by itself.
                Err(error) => tracing::error!(sequence = entry.sequence, %error, "an inbox entry is damaged"),
            }
        }
    }

    /// The desk ends with the broker, as this does.
    pub(super) fn tell_desk(&self, request: queues::Request) {
        let _ = self.environment.queues.send(request);
    }

    fn take_publication(&mut self, publication: Arc<Publication>) {
        let Some(position) = publication.position else {
            return self.deliver(&publication);
        };
        let name = publication.channel.as_str();
        let listened = !self.interest.listeners(name).is_empty() || self.is_awaited(name);
        if !listened && !self.slots.contains_key(&publication.channel) {
            return self.note_stray(&publication.channel);
        }
        let unseen = self.unseen_birth(&publication.channel, position);
        let slot = self.slots.entry(publication.channel.clone()).or_insert_with(|| Slot::new(None));
        slot.last = slot.last.or(unseen);
        if let Some(fill) = &mut slot.fill {
            return fill.hold(publication);
        }
        // The first one that is seen of a channel starts it: the inbox has everything since the interest began, or
        // the birth of the channel is known to have been missed.
        let doubted = slot.doubtful && slot.last.is_some_and(|last| last.epoch != position.epoch);
        match slot.last.map_or(Step::Next, |last| judge(last, position)) {
            Step::Next if !doubted => {
                slot.delivered(&publication);
                self.deliver(&publication);
            }
            Step::Duplicate => {
                if slot.is_straggler(position) {
                    self.deliver(&publication);
                }
            }
            Step::Next | Step::Hole => {
                let mut fill = Fill::default();
                fill.hold(publication.clone());
                slot.fill = Some(fill);
                self.start_fill(&publication.channel);
            }
        }
    }

    /// Hands a publication to whoever listens and does not have it yet.
    fn deliver(&mut self, publication: &Arc<Publication>) {
        let mut sinks = self.interest.listeners(publication.channel.as_str());
        if let Some(position) = publication.position {
            if let Some(slot) = self.slots.get_mut(&publication.channel).filter(|slot| !slot.skips.is_empty())
            {
                sinks = slot.without_skipping(sinks, position);
            }
            self.keep_for_scans(publication);
        }
        self.environment.sinks.deliver(sinks, &Delivery::Publication(publication.clone()));
    }

    /// Tells a loss after what was delivered last to everybody who listens, and goes on after it. A shard keeps it from
    /// those who came after the loss.
    fn skip_lost(&mut self, channel: &Channel, lost: Lost) {
        let Lost { after, left, position, reason } = lost;
        metrics::counter!(crate::telemetry::metrics::GAPS, "reason" => reason.as_str()).increment(1);
        tracing::warn!(%channel, %reason, "continuity is lost");
        if let Some(slot) = self.slots.get_mut(channel) {
            slot.broken();
            slot.last = Some(position);
        }
        self.break_scans(channel);
        let sinks = self.interest.listeners(channel.as_str());
        let (channel, after, position) = (channel.clone(), Some(after), Some(position));
        self.environment.sinks.deliver(sinks, &Delivery::Gap { channel, after, left, position, reason });
    }

    /// Asks for what follows the last delivery. Without a connection the next tick tries again.
    pub(super) fn start_fill(&mut self, channel: &Channel) {
        let Some(Slot { last: Some(last), fill, .. }) = self.slots.get_mut(channel) else { return };
        let fill = fill.get_or_insert_default();
        if fill.under_way {
            return;
        }
        let from = fill.cursor(*last);
        let Ok(caller) = self.caller() else { return };
        if let Some(fill) = self.slots.get_mut(channel).and_then(|slot| slot.fill.as_mut()) {
            fill.under_way = true;
        }
        metrics::counter!(crate::telemetry::metrics::BACKFILLS).increment(1);
        let policy = self.environment.policies.of(channel.as_str());
        let call = caller.read(channel, policy, Part::After(from));
        let (channel, doubts) = (channel.clone(), self.doubts);
        self.later(async move { Done::Filled { channel, from, doubts, outcome: call.await } });
    }

    pub(super) fn finish_fill(
        &mut self,
        channel: &Channel,
        from: Position,
        doubts: u64,
        outcome: Result<Range, BrokerError>,
    ) {
        // The interest may have ended and begun again meanwhile.
        let Some(slot) = self.slots.get_mut(channel) else { return };
        let Some(mut fill) = slot.fill.take() else { return };
        fill.under_way = false;
        let (Some(last), Ok(range)) = (slot.last, outcome) else {
            slot.fill = Some(fill);
            return;
        };
        if fill.cursor(last) != from {
            slot.fill = Some(fill);
            return self.start_fill(channel);
        }
        fill.passing = self.deliver_range(channel, last, doubts == self.doubts, &range, &fill);
        if range.more || fill.dropped {
            (fill.dropped, fill.unread) = (false, true);
            if let Some(slot) = self.slots.get_mut(channel) {
                slot.fill = Some(fill);
            }
            return self.start_fill(channel);
        }
        self.deliver_held(channel, fill);
    }

    /// Delivers what a back-fill brought beyond `last`, and says where something is missing: also what a read before has
    /// found to be, and returns it if there is still nothing beyond `last`. `settles`: the read was asked for after whatever
    /// made the channel doubtful; `fill`: what waits behind it.
    fn deliver_range(
        &mut self,
        channel: &Channel,
        last: Position,
        settles: bool,
        range: &Range,
        fill: &Fill,
    ) -> Option<Passing> {
        // A history that lost the epoch of `last` is read from its start: what is before that was delivered.
        let new: Vec<_> = range
            .entries
            .iter()
            .filter_map(|entry| Some((entry, entry.position.filter(|position| *position > last)?)))
            .collect();
        let first = new.first().map(|(_, position)| *position);
        let doubtful = self.slots.get(channel).is_some_and(|slot| slot.doubtful);
        if let Some(slot) = self.slots.get_mut(channel).filter(|_| settles) {
            slot.doubtful = false;
        }
        let gap = match fill.passing {
            Some(passing) => Some(passing.reason),
            None => gap_before(last, doubtful, range, fill),
        };
        let mut reached = last;
        if let Some(reason) = gap {
            let read = range.read_to.or(range.entries.last().and_then(|entry| entry.position));
            if let Some(to) = read.filter(|_| range.more && first.is_none()) {
                if let Some(slot) = self.slots.get_mut(channel) {
                    slot.broken();
                }
                return Some(Passing { to, reason });
            }
            reached = first.map_or(range.end(), before);
            // What a later read says of the end of an epoch is that of another one.
            let left = if fill.passing.is_none() { range.end_before(last, reached) } else { None };
            self.skip_lost(channel, Lost { after: last, left, position: reached, reason });
        }
        for (publication, position) in new {
            // Redis went back between two pages.
            if position <= reached {
                continue;
            }
            // Only at its beginning may a read show a history that was born again in peace: of one that was replaced
            // between two pages, the rest was not read.
            let whole = continues(reached, position)
                || first == Some(position) && judge(reached, position) == Step::Next;
            if !whole {
                self.skip_lost(channel, Lost::between(reached, position));
            }
            if let Some(slot) = self.slots.get_mut(channel) {
                slot.delivered(publication);
            }
            self.deliver(publication);
            reached = position;
        }
        self.tell_end(channel, reached, range, fill);
        None
    }

    /// Tells what is missing behind `reached`, the last one that a read brought.
    fn tell_end(&mut self, channel: &Channel, reached: Position, range: &Range, fill: &Fill) {
        if range.more {
            return;
        }
        let position = range.end();
        let reason = match reached.cmp(&position) {
            // The end cannot be read, or is gone. What is held of it is delivered, and what is missing before that told.
            Ordering::Less if range.hole && !fill.holds_of(reached, position) => GapReason::Middle,
            // Lost again since it was read.
            Ordering::Greater => GapReason::EpochReset,
            Ordering::Less | Ordering::Equal => return,
        };
        self.skip_lost(channel, Lost { after: reached, left: None, position, reason });
    }

    /// Lets what was held go on. What still does not continue is read for again, and reported when that is in vain.
    fn deliver_held(&mut self, channel: &Channel, fill: Fill) {
        let mut held = fill.held.into_iter();
        while let Some(publication) = held.next() {
            let Some(slot) = self.slots.get_mut(channel) else { return };
            let (Some(last), Some(position)) = (slot.last, publication.position) else { continue };
            // A doubt that came after the read is for another one.
            let doubted = slot.doubtful && last.epoch != position.epoch;
            match judge(last, position) {
                Step::Duplicate => continue,
                step if doubted || step == Step::Hole && fill.vain < VAIN_READS => {
                    let vain = fill.vain + u32::from(step == Step::Hole);
                    let held = std::iter::once(publication).chain(held).collect();
                    slot.fill = Some(Fill { held, vain, ..Fill::default() });
                    return self.start_fill(channel);
                }
                Step::Hole => self.skip_lost(channel, Lost::between(last, position)),
                Step::Next => {}
            }
            if let Some(slot) = self.slots.get_mut(channel) {
                slot.delivered(&publication);
            }
            self.deliver(&publication);
        }
    }
}

/// Why something is lost between `last`, what was delivered last, and where the history goes on.
fn gap_before(last: Position, doubtful: bool, range: &Range, fill: &Fill) -> Option<GapReason> {
    let outlived = range.ends.is_some_and(|ends| fill.knows_of_more(last, ends.first));
    if doubtful || outlived { range.gap_before(last) } else { range.gap_before_while_live(last) }
}

/// The position that has everything up to, but not including, `position`.
fn before(position: Position) -> Position {
    Position { offset: position.offset.saturating_sub(1), ..position }
}
