//! Who cannot be told for now, while the others of a lane are: which items are read past, and when who is held is tried
//! again. Pure: the caller does the reading and the telling.
//!
//! The first event of who is held stays here, what comes after it stays in storage. When the first is done, the lane is
//! read from its beginning once more; until then its subject is read past, so that nothing of it overtakes. While nobody is
//! held the lane is always read from its beginning: what is done is not there any more.
//!
//! Bounds: [`MOST_HELD`] subjects, beyond which nothing new is read.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::event::Fact;
use crate::broker::WorkItem;

/// Items that are read together.
pub(super) const BATCH: usize = 64;
/// Subjects of a lane that are held.
const MOST_HELD: usize = 512;
/// First pause before who is held is tried again; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause of who is held though others were told meanwhile, and of who is held like everybody else.
const PAUSES: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(10));
/// Tries of an event, between each two of which others were told, after which it is given up: an hour.
const TRIES: u32 = 65;
/// How often a lane of which something is held is read from its beginning at least: storage may have lost its end, and be
/// written again from before what was read.
const READ_AGAIN: Duration = Duration::from_secs(60);

/// What became of an event that somebody was to be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// It was taken, or never will be.
    Taken,
    /// It was not taken.
    NotTaken,
    /// Nothing can be told now, neither it nor others.
    Away,
}

/// An event of a lane.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Item {
    pub id: String,
    pub fact: Fact,
}

/// See the module.
pub(super) struct Held {
    subjects: HashMap<String, Subject>,
    /// The last item that was read.
    position: Option<String>,
    /// When the lane was read from its beginning last.
    began: Instant,
    /// Events that were taken so far.
    taken: u64,
}

struct Subject {
    first: First,
    /// Whether later items of it were read past.
    more: bool,
    tries: u32,
    pause: Duration,
    /// How many events had been taken at the last try.
    taken: u64,
}

enum First {
    /// Waits for its time.
    Waits(Item, Instant),
    /// Is being told.
    Told(Item),
    /// Is done: what comes after it is to be read.
    Done,
}

impl Held {
    pub fn new(now: Instant) -> Self {
        Self { subjects: HashMap::new(), position: None, began: now, taken: 0 }
    }

    /// Which items to read next: those after an id, if there is one, and how many.
    pub fn wanted(&self) -> (Option<String>, usize) {
        let held = self.subjects.values().filter(|subject| !matches!(subject.first, First::Done));
        let most = if held.count() < MOST_HELD { BATCH } else { 0 };
        (self.position.clone(), most)
    }

    /// What has been read, as [`Self::wanted`] says, and dealt with. `stay`: some of it is to be read again.
    pub fn read(&mut self, last: Option<String>, end: bool, stay: bool, now: Instant) {
        if !stay && last.is_some() {
            self.position = last;
        }
        let again = self.to_read_again() || now.duration_since(self.began) >= READ_AGAIN;
        if self.subjects.is_empty() || (end && !stay && again) {
            self.subjects.retain(|_, subject| !matches!(subject.first, First::Done));
            self.position = None;
            self.began = now;
        }
    }

    /// Whether something that was read past has its turn.
    pub fn to_read_again(&self) -> bool {
        self.subjects.values().any(|subject| matches!(subject.first, First::Done))
    }

    /// Whether an item is to be read past.
    pub fn passes(&mut self, item: &WorkItem, subject: &str) -> bool {
        let Some(subject) = self.subjects.get_mut(subject) else { return false };
        // It comes itself when the lane is read from its beginning.
        let itself = match &subject.first {
            First::Waits(first, _) | First::Told(first) => first.id == item.id,
            First::Done => false,
        };
        subject.more |= !itself;
        true
    }

    /// Events were taken.
    pub fn count_taken(&mut self, count: usize) {
        self.taken = self.taken.saturating_add(count as u64);
    }

    /// Holds who was not told of this. `more`: later items of it were read.
    pub fn hold(&mut self, item: Item, more: bool, now: Instant) {
        let subject = item.fact.subject().to_owned();
        let first = First::Waits(item, now + FIRST_PAUSE);
        let held = Subject { first, more, tries: 1, pause: FIRST_PAUSE, taken: self.taken };
        self.subjects.insert(subject, held);
    }

    /// When the next one is to be tried again.
    pub fn due(&self) -> Option<Instant> {
        let due = |subject: &Subject| match subject.first {
            First::Waits(_, due) => Some(due),
            First::Told(_) | First::Done => None,
        };
        self.subjects.values().filter_map(due).min()
    }

    /// One that is to be tried again now: the caller owes the answer to [`Self::tried`].
    pub fn next_due(&mut self, now: Instant) -> Option<Item> {
        let due = self.due().filter(|due| *due <= now)?;
        let found = self
            .subjects
            .values_mut()
            .find(|subject| matches!(subject.first, First::Waits(_, waits) if waits == due))?;
        let First::Waits(item, _) = std::mem::replace(&mut found.first, First::Done) else { return None };
        found.first = First::Told(item.clone());
        Some(item)
    }

    /// What became of one that was tried again; answers whether it is done with, and whether by being given up.
    pub fn tried(&mut self, subject: &str, told: Told, now: Instant) -> Tried {
        let taken = self.taken;
        let Some(held) = self.subjects.get_mut(subject) else { return Tried::Held };
        let First::Told(item) = std::mem::replace(&mut held.first, First::Done) else { return Tried::Held };
        let alone = told == Told::NotTaken && taken > held.taken;
        held.taken = taken;
        held.tries += u32::from(alone);
        let outcome = match told {
            Told::Taken => {
                self.taken = self.taken.saturating_add(1);
                Tried::Done(item.id)
            }
            Told::NotTaken if held.tries >= TRIES => Tried::GivenUp(item.id),
            Told::NotTaken | Told::Away => {
                held.pause = (held.pause * 2).min(if alone { PAUSES.0 } else { PAUSES.1 });
                held.first = First::Waits(item, now + held.pause);
                return Tried::Held;
            }
        };
        if !held.more {
            self.subjects.remove(subject);
        }
        outcome
    }
}

/// See [`Held::tried`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tried {
    /// This item is done.
    Done(String),
    /// This item is done, though it was never taken.
    GivenUp(String),
    /// Its time comes again.
    Held,
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{broker::Occupancy, channel::Channel};

    fn item(id: &str, channel: &str) -> Item {
        let told = Occupancy { channel: Channel::parse(channel).unwrap(), occupied: true, time_ms: 7 };
        Item { id: id.to_owned(), fact: Fact::of_channel(told, id.to_owned()) }
    }

    fn stored(id: &str) -> WorkItem {
        WorkItem { id: id.to_owned(), payload: Bytes::new() }
    }

    fn at(seconds: u64, start: Instant) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_held_is_read_past_until_its_first_is_done_and_then_read_from_the_beginning() {
        let start = Instant::now();
        let mut held = Held::new(start);
        assert_eq!(held.wanted(), (None, BATCH));
        held.hold(item("1", "bad"), false, start);
        held.read(Some("2".into()), true, false, start);
        assert_eq!(held.wanted(), (Some("2".into()), BATCH));
        assert!(!held.passes(&stored("3"), "good"));
        assert!(held.passes(&stored("4"), "bad"));
        assert_eq!(held.next_due(start), None);
        assert_eq!(held.next_due(at(1, start)), Some(item("1", "bad")));
        assert_eq!(held.next_due(at(1, start)), None, "it is being told");
        assert_eq!(held.tried("bad", Told::Taken, start), Tried::Done("1".into()));
        // What is read before the beginning is come to must not overtake.
        assert!(held.passes(&stored("5"), "bad") && held.to_read_again());
        held.read(Some("5".into()), false, false, start);
        assert_eq!(held.wanted().0, Some("5".into()));
        held.read(None, true, false, start);
        assert_eq!((held.wanted().0, held.to_read_again()), (None, false));
        assert!(!held.passes(&stored("4"), "bad"));
    }

    #[test]
    fn what_comes_again_is_not_taken_for_more_of_the_same() {
        let start = Instant::now();
        let mut held = Held::new(start);
        held.hold(item("1", "bad"), false, start);
        assert!(held.passes(&stored("1"), "bad"));
        held.next_due(at(1, start)).unwrap();
        assert_eq!(held.tried("bad", Told::Taken, start), Tried::Done("1".into()));
        assert!(!held.to_read_again());
    }

    #[test]
    fn an_event_is_given_up_after_an_hour_in_which_others_were_told_and_never_in_an_outage() {
        let start = Instant::now();
        for (others, given_up) in [(1, true), (0, false)] {
            let mut held = Held::new(start);
            held.hold(item("1", "bad"), true, start);
            let (mut now, mut tries) = (start, 1);
            let mut outcome = Tried::Held;
            while outcome == Tried::Held && tries < 1_000 {
                held.count_taken(others);
                now = held.due().unwrap();
                held.next_due(now).unwrap();
                outcome = held.tried("bad", Told::NotTaken, now);
                tries += 1;
            }
            assert_eq!(outcome == Tried::GivenUp("1".into()), given_up);
            if given_up {
                let after = now.duration_since(start).as_secs();
                assert!((3_000..4_200).contains(&after), "{after} s");
                assert!(held.to_read_again(), "what comes after it has its turn");
            }
        }
    }

    #[test]
    fn nobody_counts_a_try_that_was_none() {
        let start = Instant::now();
        let mut held = Held::new(start);
        held.hold(item("1", "bad"), false, start);
        for _ in 0..2 * TRIES {
            held.count_taken(1);
            let due = held.due().unwrap();
            held.next_due(due).unwrap();
            assert_eq!(held.tried("bad", Told::Away, due), Tried::Held);
        }
    }

    #[test]
    fn nothing_new_is_read_while_as_many_are_held_as_may_be() {
        let start = Instant::now();
        let mut held = Held::new(start);
        for number in 0..MOST_HELD {
            held.hold(item(&number.to_string(), &format!("bad.{number}")), false, start);
        }
        assert_eq!(held.wanted().1, 0);
        held.next_due(at(1, start)).unwrap();
        assert_eq!(held.wanted().1, 0, "it is still there");
    }

    #[test]
    fn a_lane_is_read_from_its_beginning_once_in_a_while_and_always_if_nobody_is_held() {
        let start = Instant::now();
        let mut held = Held::new(start);
        held.read(Some("9".into()), false, false, start);
        assert_eq!(held.wanted().0, None);
        held.hold(item("1", "bad"), false, start);
        held.read(Some("9".into()), true, true, start);
        assert_eq!(held.wanted().0, None, "some of it is to be read again");
        held.read(Some("9".into()), true, false, start);
        assert_eq!(held.wanted().0, Some("9".into()));
        held.read(None, true, false, at(59, start));
        assert_eq!(held.wanted().0, Some("9".into()));
        held.read(None, true, false, at(60, start));
        assert_eq!(held.wanted().0, None);
    }
}
