//! Books of what was published and what each subscriber saw, and the audit that compares the two.
//!
//! Pure: tests write down what happened, [`Ledger::audit`] says what is wrong with it. The promise that it audits is
//! DESIGN section 1: what was acknowledged is seen by every subscriber, once, in one order, unaltered.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use streamgate_client::{Message, Position, PublishAck};
use streamgate_proto::cloudevents::{CloudEvent, Data};

/// More faults than this are only counted.
const GREATEST_REPORT: usize = 20;

/// A publication at its place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The channel.
    pub channel: String,
    /// Epoch of its position.
    pub epoch: u64,
    /// Offset of its position; goes on across epochs.
    pub offset: u64,
    /// What tells this publication from all others.
    pub payload: String,
}

/// What one subscriber saw must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Two publications were acknowledged at one position, or one of them was at two.
    AckedTwice(Entry, Entry),
    /// Was acknowledged, and this subscriber never saw it.
    Missing(String, Entry),
    /// Seen more than once.
    Twice(String, Entry),
    /// Seen after one of a later position.
    OutOfOrder(String, Entry, Entry),
    /// The offsets do not follow each other.
    Hole(String, Entry, Entry),
    /// Seen, but never published, or acknowledged elsewhere.
    Foreign(String, Entry),
    /// Two subscribers saw them in different orders.
    Disagreement(String, String),
}

/// Acknowledgements and sightings of one test.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    acked: Vec<Entry>,
    unanswered: BTreeSet<String>,
    seen: BTreeMap<String, Vec<Entry>>,
}

impl Entry {
    /// A publication at a client's position.
    ///
    /// # Panics
    /// The epoch is not a number: not a position of this gateway.
    #[must_use]
    pub fn new(channel: &str, position: &Position, payload: &str) -> Self {
        let epoch = position.epoch.parse().unwrap_or_else(|_| panic!("{position} is no position"));
        Self { channel: channel.to_owned(), epoch, offset: position.offset, payload: payload.to_owned() }
    }

    /// Where it stands in its channel.
    fn place(&self) -> (u64, u64) {
        (self.epoch, self.offset)
    }
}

impl Ledger {
    /// Writes down an acknowledgement.
    ///
    /// # Panics
    /// It has no position.
    pub fn acked(&mut self, channel: &str, ack: &PublishAck, payload: &str) {
        let position =
            ack.position.as_ref().unwrap_or_else(|| panic!("{payload} was acked without a position"));
        self.acked.push(Entry::new(channel, position, payload));
    }

    /// Writes down a publish whose outcome is unknown: it may be seen or not.
    pub fn unanswered(&mut self, payload: &str) {
        self.unanswered.insert(payload.to_owned());
    }

    /// Writes down that `subscriber` listens: it must see everything, even if it never saw anything.
    pub fn listens(&mut self, subscriber: &str) {
        self.seen.entry(subscriber.to_owned()).or_default();
    }

    /// Writes down what `subscriber` was given.
    ///
    /// # Panics
    /// It has no position.
    pub fn saw(&mut self, subscriber: &str, message: &Message) {
        let position =
            message.position.as_ref().unwrap_or_else(|| panic!("{} has no position", message.channel));
        self.saw_entry(subscriber, Entry::new(&message.channel, position, &payload_of(&message.event)));
    }

    /// Like [`saw`](Self::saw), for clients of other kinds.
    pub fn saw_entry(&mut self, subscriber: &str, entry: Entry) {
        self.seen.entry(subscriber.to_owned()).or_default().push(entry);
    }

    /// How many publishes were acknowledged.
    #[must_use]
    pub fn acknowledgements(&self) -> usize {
        self.acked.len()
    }

    /// Everything that is wrong.
    #[must_use]
    pub fn audit(&self) -> Vec<Fault> {
        let mut faults = self.audit_acks();
        let acked: BTreeSet<&Entry> = self.acked.iter().collect();
        let orders: Vec<(&String, Vec<&Entry>)> = self
            .seen
            .iter()
            .map(|(name, entries)| {
                self.audit_subscriber(name, entries, &acked, &mut faults);
                (name, entries.iter().collect())
            })
            .collect();
        for pair in orders.windows(2) {
            let [(one, first), (other, second)] = pair else { continue };
            if by_channel(first) != by_channel(second) {
                faults.push(Fault::Disagreement((*one).clone(), (*other).clone()));
            }
        }
        faults
    }

    /// Ends the test if anything is wrong.
    ///
    /// # Panics
    /// With the faults.
    pub fn assert_sound(&self) {
        let faults = self.audit();
        let report: Vec<String> = faults.iter().take(GREATEST_REPORT).map(ToString::to_string).collect();
        assert!(
            faults.is_empty(),
            "{} faults among {} acknowledged publications:\n{}",
            faults.len(),
            self.acked.len(),
            report.join("\n")
        );
    }

    fn audit_acks(&self) -> Vec<Fault> {
        let (mut places, mut payloads) = (BTreeMap::new(), BTreeMap::new());
        let mut faults = Vec::new();
        for entry in &self.acked {
            let before = places.insert((&entry.channel, entry.offset), entry);
            let before = before.or(payloads.insert(&entry.payload, entry));
            if let Some(before) = before {
                faults.push(Fault::AckedTwice(before.clone(), entry.clone()));
            }
        }
        faults
    }

    fn audit_subscriber(
        &self,
        name: &str,
        entries: &[Entry],
        acked: &BTreeSet<&Entry>,
        faults: &mut Vec<Fault>,
    ) {
        let mut known = BTreeSet::new();
        let mut last: BTreeMap<&str, &Entry> = BTreeMap::new();
        for entry in entries {
            if !known.insert(entry) {
                faults.push(Fault::Twice(name.to_owned(), entry.clone()));
                continue;
            }
            if !acked.contains(entry) && !self.unanswered.contains(&entry.payload) {
                faults.push(Fault::Foreign(name.to_owned(), entry.clone()));
            }
            if let Some(before) = last.insert(&entry.channel, entry) {
                if before.place() >= entry.place() {
                    faults.push(Fault::OutOfOrder(name.to_owned(), before.clone(), entry.clone()));
                } else if before.offset + 1 != entry.offset {
                    faults.push(Fault::Hole(name.to_owned(), before.clone(), entry.clone()));
                }
            }
        }
        let missing = acked.iter().filter(|entry| !known.contains(*entry));
        faults.extend(missing.map(|entry| Fault::Missing(name.to_owned(), (*entry).clone())));
    }
}

/// The text of an event's data.
///
/// # Panics
/// The event has none.
#[must_use]
pub fn payload_of(event: &CloudEvent) -> String {
    match &event.data {
        Some(Data::TextData(text)) => text.clone(),
        Some(Data::BinaryData(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        other => panic!("an event with text is expected, this one has {other:?}"),
    }
}

fn by_channel<'a>(entries: &[&'a Entry]) -> BTreeMap<&'a str, Vec<&'a Entry>> {
    let mut channels: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    for entry in entries {
        channels.entry(&entry.channel).or_default().push(entry);
    }
    channels
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} {}:{})", self.payload, self.channel, self.epoch, self.offset)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AckedTwice(one, other) => write!(f, "acked twice: {one} and {other}"),
            Self::Missing(name, entry) => write!(f, "{name} misses {entry}"),
            Self::Twice(name, entry) => write!(f, "{name} saw {entry} twice"),
            Self::OutOfOrder(name, before, entry) => write!(f, "{name} saw {entry} after {before}"),
            Self::Hole(name, before, entry) => write!(f, "{name} saw nothing between {before} and {entry}"),
            Self::Foreign(name, entry) => write!(f, "{name} saw {entry}, which was not acked there"),
            Self::Disagreement(one, other) => write!(f, "{one} and {other} saw different orders"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(offset: u64) -> Entry {
        Entry { channel: "a".to_owned(), epoch: 7, offset, payload: format!("p{offset}") }
    }

    /// Three acknowledged publications, and what two subscribers saw of them.
    fn history(one: &[u64], other: &[u64]) -> Ledger {
        let mut ledger = Ledger { acked: (1..=3).map(entry).collect(), ..Ledger::default() };
        for (name, offsets) in [("one", one), ("other", other)] {
            ledger.listens(name);
            for offset in offsets {
                ledger.saw_entry(name, entry(*offset));
            }
        }
        ledger
    }

    #[test]
    fn a_sound_history_has_no_faults() {
        assert_eq!(history(&[1, 2, 3], &[1, 2, 3]).audit(), []);
        history(&[1, 2, 3], &[1, 2, 3]).assert_sound();
    }

    #[test]
    fn what_was_acked_and_not_seen_is_found() {
        let faults = history(&[1, 2, 3], &[1, 2]).audit();
        assert!(faults.contains(&Fault::Missing("other".into(), entry(3))), "{faults:?}");
        let faults = history(&[1, 2, 3], &[]).audit();
        assert_eq!(faults.iter().filter(|fault| matches!(fault, Fault::Missing(..))).count(), 3);
    }

    #[test]
    fn a_hole_is_found_beside_what_is_missing() {
        let faults = history(&[1, 3], &[1, 3]).audit();
        assert!(faults.contains(&Fault::Hole("one".into(), entry(1), entry(3))), "{faults:?}");
        assert!(faults.contains(&Fault::Missing("one".into(), entry(2))));
    }

    #[test]
    fn what_was_seen_twice_is_found_also_when_far_apart() {
        let faults = history(&[1, 2, 3], &[1, 2, 3, 1]).audit();
        assert!(faults.contains(&Fault::Twice("other".into(), entry(1))), "{faults:?}");
    }

    #[test]
    fn a_changed_order_is_found() {
        let faults = history(&[1, 2, 3], &[2, 1, 3]).audit();
        assert!(faults.contains(&Fault::OutOfOrder("other".into(), entry(2), entry(1))), "{faults:?}");
        assert!(faults.contains(&Fault::Disagreement("one".into(), "other".into())));
    }

    #[test]
    fn what_nobody_published_is_found_unless_its_publish_got_no_answer() {
        let mut ledger = history(&[1, 2, 3, 4], &[1, 2, 3, 4]);
        assert!(ledger.audit().contains(&Fault::Foreign("one".into(), entry(4))));
        ledger.unanswered("p4");
        assert_eq!(ledger.audit(), []);
    }

    #[test]
    fn an_altered_payload_is_found() {
        let mut ledger = history(&[1, 2], &[1, 2, 3]);
        let altered = Entry { payload: "q3".to_owned(), ..entry(3) };
        ledger.saw_entry("one", altered.clone());
        let faults = ledger.audit();
        assert!(faults.contains(&Fault::Foreign("one".into(), altered)), "{faults:?}");
        assert!(faults.contains(&Fault::Missing("one".into(), entry(3))));
    }

    #[test]
    fn two_acks_of_one_position_and_two_positions_of_one_publish_are_found() {
        let mut ledger = history(&[], &[]);
        let same_place = Entry { payload: "other".to_owned(), ..entry(3) };
        ledger.acked.push(same_place.clone());
        let again = Entry { payload: "p1".to_owned(), ..entry(9) };
        ledger.acked.push(again.clone());
        let faults = ledger.audit();
        assert!(faults.contains(&Fault::AckedTwice(entry(3), same_place)), "{faults:?}");
        assert!(faults.contains(&Fault::AckedTwice(entry(1), again)), "{faults:?}");
    }

    #[test]
    fn offsets_that_go_on_in_a_new_epoch_are_no_hole() {
        let mut ledger = Ledger::default();
        for entry in [entry(1), Entry { epoch: 8, ..entry(2) }] {
            ledger.acked.push(entry.clone());
            ledger.saw_entry("one", entry);
        }
        assert_eq!(ledger.audit(), []);
    }

    #[test]
    fn channels_are_judged_each_by_itself() {
        let mut ledger = Ledger::default();
        let other = Entry { channel: "b".to_owned(), epoch: 9, payload: "of b".to_owned(), ..entry(1) };
        ledger.acked.extend([entry(1), other.clone(), entry(2)]);
        for seen in [entry(1), other.clone(), entry(2)] {
            ledger.saw_entry("one", seen);
        }
        for seen in [other, entry(1), entry(2)] {
            ledger.saw_entry("two", seen);
        }
        assert_eq!(ledger.audit(), []);
    }
}
