//! What was sent against what arrived.
//!
//! A stream is one publisher's sequence in one channel, a receiver a client that is subscribed to it from its beginning
//! (or recovers what it missed). Publisher and receivers may be in different ledgers, which are merged at the end.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{stamp::Stamp, topology::Stream};
use crate::report::result::Correctness;

/// Everything that was sent and received by the clients of one thread.
#[derive(Debug, Default)]
pub struct Ledger {
    sent: HashMap<u32, Sent>,
    /// By stream, then by place among its receivers, how far they have got: one past the highest sequence that came. Four
    /// bytes for each receiver of each stream, since rooms have the square of their members of them.
    next: Vec<Vec<u32>>,
    /// By stream and place: below that, not come.
    missing: HashMap<(u32, u32), BTreeSet<u32>, ahash::RandomState>,
    /// What came again, and what came to somebody for whom it was not meant, by stream and client.
    strange: HashSet<(u32, u32, u64), ahash::RandomState>,
    duplicated: u64,
    /// By stream.
    reordered: HashMap<u32, u64>,
    misrouted: u64,
    gaps: u64,
    disconnected: u64,
    /// What else was due and has come.
    due: u64,
    come: u64,
}

/// What was sent of one stream.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Sent {
    count: u64,
    acked: u64,
    refused: BTreeSet<u64>,
    unanswered: BTreeSet<u64>,
}

/// What one receiver has got of one stream.
struct Seen<'a> {
    /// One past the highest that came.
    next: u64,
    /// Below that, not come.
    missing: &'a BTreeSet<u32>,
}

impl Seen<'_> {
    /// How many came, each counted once.
    fn come(&self) -> u64 {
        self.next - self.missing.len() as u64
    }

    /// How many came of those that had to.
    fn due_and_come(&self, sent: &Sent) -> u64 {
        let missing =
            |sequence| u32::try_from(sequence).is_ok_and(|sequence| self.missing.contains(&sequence));
        let came = |sequence: &&u64| **sequence < self.next && !missing(**sequence);
        let optional = sent.refused.iter().chain(&sent.unanswered).filter(came).count() as u64;
        // Never more than were sent, unless a stamp was made up.
        (self.come() - optional).min(sent.acked)
    }
}

impl Ledger {
    /// A publication goes out; its sequence number must be the next of its stream.
    pub fn sent(&mut self, stream: u32, sequence: u64) {
        let sent = self.sent.entry(stream).or_default();
        debug_assert_eq!(sent.count, sequence, "stream {stream}");
        sent.count = sequence + 1;
        sent.unanswered.insert(sequence);
    }

    /// It was accepted.
    pub fn acked(&mut self, stream: u32, sequence: u64) {
        let sent = self.sent.entry(stream).or_default();
        sent.acked += u64::from(sent.unanswered.remove(&sequence));
    }

    /// It was refused: it must not have an effect, but may (`NOT_AVAILABLE` leaves that open).
    pub fn refused(&mut self, stream: u32, sequence: u64) {
        let sent = self.sent.entry(stream).or_default();
        if sent.unanswered.remove(&sequence) {
            sent.refused.insert(sequence);
        }
    }

    /// A delivery to the receiver at this `place` of its stream, or to a client that is none; true if it is the first of
    /// this publication to this client.
    pub fn delivered(&mut self, client: u32, place: Option<usize>, stamp: Stamp) -> bool {
        let Stamp { stream, sequence, .. } = stamp;
        // A stamp with more than that was made up.
        let (Some(place), Some(sequence)) =
            (place, u32::try_from(sequence).ok().filter(|one| *one < u32::MAX))
        else {
            let new = self.strange.insert((stream, client, sequence));
            self.misrouted += u64::from(new);
            self.duplicated += u64::from(!new);
            return new;
        };
        let next = self.next_of(stream, place);
        if sequence >= *next {
            let skipped = std::mem::replace(next, sequence + 1)..sequence;
            if !skipped.is_empty() {
                self.missing.entry((stream, place as u32)).or_default().extend(skipped);
            }
            return true;
        }
        let late = self.missing.get_mut(&(stream, place as u32)).is_some_and(|gone| gone.remove(&sequence));
        if late {
            *self.reordered.entry(stream).or_default() += 1;
        }
        self.duplicated += u64::from(!late);
        late
    }

    fn next_of(&mut self, stream: u32, place: usize) -> &mut u32 {
        let stream = stream as usize;
        if self.next.len() <= stream {
            self.next.resize_with(stream + 1, Vec::new);
        }
        let places = &mut self.next[stream];
        if places.len() <= place {
            places.resize(place + 1, 0);
        }
        &mut places[place]
    }

    /// The server announced a loss.
    pub fn gap(&mut self) {
        self.gaps += 1;
    }

    /// A connection ended by itself.
    pub fn disconnected(&mut self) {
        self.disconnected += 1;
    }

    /// Something other than a publication was due so many times, and has come so many times, not counting repeats.
    pub fn other(&mut self, due: u64, come: u64, repeated: u64) {
        self.due += due;
        self.come += come;
        self.duplicated += repeated;
    }

    /// So many came to somebody that nobody had meant them for.
    pub fn misrouted(&mut self, count: u64) {
        self.misrouted += count;
    }

    /// Takes over another thread's entries.
    pub fn merge(&mut self, other: Self) {
        self.sent.extend(other.sent);
        for (stream, places) in (0_u32..).zip(other.next) {
            // A receiver is in one thread, so only one of them knows more than nothing.
            for (place, next) in places.into_iter().enumerate().filter(|(_, next)| *next > 0) {
                *self.next_of(stream, place) = next;
            }
        }
        self.missing.extend(other.missing);
        self.strange.extend(other.strange);
        self.duplicated += other.duplicated;
        for (stream, times) in other.reordered {
            *self.reordered.entry(stream).or_default() += times;
        }
        self.misrouted += other.misrouted;
        self.gaps += other.gaps;
        self.disconnected += other.disconnected;
        self.due += other.due;
        self.come += other.come;
    }

    /// The verdict on these streams: each receiver of each is judged by itself, so nothing makes up for a loss elsewhere.
    pub fn judge(&self, streams: &[Stream]) -> Correctness {
        let mut verdict = Correctness {
            duplicated: self.duplicated,
            misrouted: self.misrouted,
            gaps: self.gaps,
            disconnected: self.disconnected,
            ..Correctness::default()
        };
        let none = BTreeSet::new();
        verdict.delivered += self.strange.len() as u64;
        for (number, stream) in (0_u32..).zip(streams) {
            // Calls that are under way together may overtake each other.
            if stream.method.is_none() {
                verdict.reordered += self.reordered.get(&number).copied().unwrap_or_default();
            }
            let sent = self.sent.get(&number);
            for place in 0..stream.receivers.count {
                let next = self.next.get(number as usize).and_then(|places| places.get(place)).copied();
                let missing = self.missing.get(&(number, place as u32)).unwrap_or(&none);
                let seen = Seen { next: next.unwrap_or(0).into(), missing };
                verdict.delivered += seen.come();
                match sent {
                    Some(sent) => {
                        verdict.expected += sent.acked;
                        verdict.lost += sent.acked - seen.due_and_come(sent);
                    }
                    None => verdict.misrouted += seen.come(),
                }
            }
            let Some(sent) = sent else { continue };
            verdict.published += sent.count;
            verdict.acked += sent.acked;
            verdict.refused += sent.refused.len() as u64;
            verdict.unanswered += sent.unanswered.len() as u64;
        }
        verdict.expected += self.due;
        verdict.delivered += self.come;
        verdict.lost += self.due.saturating_sub(self.come);
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::topology::Receivers;

    /// Streams 0 and 1, the second one with these receivers.
    fn streams(receivers: std::ops::Range<usize>) -> [Stream; 2] {
        let stream = |receivers| Stream { publisher: 0, channel: "a".into(), method: None, receivers };
        [stream(Receivers::default()), stream(Receivers::of(receivers))]
    }

    fn stamp(sequence: u64) -> Stamp {
        Stamp { run: 0, stream: 1, sequence, due: 0 }
    }

    fn sent(acked: u64, refused: &[u64]) -> Ledger {
        let mut ledger = Ledger::default();
        for sequence in 0..acked + refused.len() as u64 {
            ledger.sent(1, sequence);
            if refused.contains(&sequence) {
                ledger.refused(1, sequence);
            } else {
                ledger.acked(1, sequence);
            }
        }
        ledger
    }

    #[test]
    fn what_came_once_and_in_order_is_correct() {
        let (mut ledger, mut receiver) = (sent(3, &[]), Ledger::default());
        for sequence in 0..3 {
            assert!(receiver.delivered(7, Some(0), stamp(sequence)));
        }
        ledger.merge(receiver);
        let verdict = ledger.judge(&streams(7..8));
        assert_eq!((verdict.expected, verdict.delivered, verdict.lost), (3, 3, 0));
        assert!(!verdict.fault());
    }

    #[test]
    fn losses_in_the_middle_at_the_end_and_of_everything_are_counted() {
        let mut ledger = sent(5, &[]);
        for sequence in [0, 2, 3] {
            ledger.delivered(7, Some(0), stamp(sequence));
        }
        // The second receiver got nothing.
        assert_eq!(ledger.judge(&streams(7..9)).lost, 2 + 5);
    }

    #[test]
    fn repeats_and_changes_of_order_are_told_apart() {
        let mut ledger = sent(3, &[]);
        assert!(ledger.delivered(7, Some(0), stamp(0)));
        assert!(ledger.delivered(7, Some(0), stamp(2)));
        assert!(ledger.delivered(7, Some(0), stamp(1)));
        assert!(!ledger.delivered(7, Some(0), stamp(1)));
        let verdict = ledger.judge(&streams(7..8));
        assert_eq!((verdict.lost, verdict.reordered, verdict.duplicated), (0, 1, 1));
        let calls = streams(7..8).map(|stream| Stream { method: Some("m".into()), ..stream });
        let verdict = ledger.judge(&calls);
        assert_eq!(
            (verdict.lost, verdict.reordered, verdict.duplicated),
            (0, 0, 1),
            "calls may overtake each other"
        );
    }

    #[test]
    fn what_was_refused_or_not_answered_may_come_and_need_not() {
        for come in [false, true] {
            let mut ledger = sent(2, &[1]);
            ledger.sent(1, 3);
            for sequence in 0..4 {
                if come || sequence == 0 || sequence == 2 {
                    ledger.delivered(7, Some(0), stamp(sequence));
                }
            }
            let verdict = ledger.judge(&streams(7..8));
            assert_eq!((verdict.lost, verdict.refused, verdict.unanswered), (0, 1, 1), "{come}");
        }
    }

    #[test]
    fn threads_know_their_own_receivers() {
        let (mut ledger, mut one, mut two) = (sent(3, &[]), Ledger::default(), Ledger::default());
        (0..3).for_each(|sequence| assert!(one.delivered(7, Some(0), stamp(sequence))));
        [0, 2].into_iter().for_each(|sequence| assert!(two.delivered(8, Some(1), stamp(sequence))));
        ledger.merge(two);
        ledger.merge(one);
        let verdict = ledger.judge(&streams(7..9));
        assert_eq!((verdict.expected, verdict.delivered, verdict.lost), (6, 5, 1));
    }

    #[test]
    fn what_nobody_has_sent_is_misrouted() {
        let mut ledger = Ledger::default();
        assert!(ledger.delivered(7, Some(0), stamp(0)));
        assert!(ledger.delivered(7, Some(0), Stamp { sequence: u64::MAX, ..stamp(0) }));
        let verdict = ledger.judge(&streams(7..8));
        assert_eq!((verdict.misrouted, verdict.delivered, verdict.expected), (2, 2, 0));
    }

    #[test]
    fn what_came_to_somebody_else_makes_up_for_no_loss() {
        let mut ledger = sent(3, &[]);
        (0..3).for_each(|sequence| assert!(ledger.delivered(6, None, stamp(sequence))));
        let verdict = ledger.judge(&streams(7..8));
        assert_eq!((verdict.lost, verdict.misrouted, verdict.delivered), (3, 3, 3));
        assert!(verdict.fault());
    }
}
