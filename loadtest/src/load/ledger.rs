//! What was sent against what arrived.
//!
//! A stream is one publisher's sequence in one channel, a receiver a client that is subscribed to it from its beginning
//! (or recovers what it missed). Publisher and receivers may be in different ledgers, which are merged at the end.

use std::collections::{BTreeSet, HashMap};

use super::{stamp::Stamp, topology::Stream};
use crate::report::result::Correctness;

/// Everything that was sent and received by the clients of one thread.
#[derive(Debug, Default)]
pub struct Ledger {
    sent: HashMap<u32, Sent>,
    /// By client and stream.
    seen: HashMap<(u32, u32), Seen, ahash::RandomState>,
    duplicated: u64,
    reordered: u64,
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
#[derive(Debug, Default)]
struct Seen {
    /// One past the highest that came.
    next: u64,
    /// Below that, not come.
    missing: BTreeSet<u64>,
}

impl Seen {
    /// How many came, each counted once.
    fn come(&self) -> u64 {
        self.next - self.missing.len() as u64
    }

    /// How many came of those that had to.
    fn due_and_come(&self, sent: &Sent) -> u64 {
        let came = |sequence: &&u64| **sequence < self.next && !self.missing.contains(sequence);
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

    /// A delivery; true if it is the first of this publication to this client.
    pub fn delivered(&mut self, client: u32, stamp: Stamp) -> bool {
        let seen = self.seen.entry((client, stamp.stream)).or_default();
        let sequence = stamp.sequence;
        if sequence >= seen.next {
            seen.missing.extend(seen.next..sequence);
            seen.next = sequence + 1;
            return true;
        }
        let late = seen.missing.remove(&sequence);
        self.reordered += u64::from(late);
        self.duplicated += u64::from(!late);
        late
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
        self.seen.extend(other.seen);
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
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
            reordered: self.reordered,
            misrouted: self.misrouted,
            gaps: self.gaps,
            disconnected: self.disconnected,
            ..Correctness::default()
        };
        let unknown = Seen::default();
        for (number, stream) in (0_u32..).zip(streams) {
            let Some(sent) = self.sent.get(&number) else { continue };
            verdict.published += sent.count;
            verdict.acked += sent.acked;
            verdict.refused += sent.refused.len() as u64;
            verdict.unanswered += sent.unanswered.len() as u64;
            for client in stream.receivers.all() {
                let client = u32::try_from(client).unwrap_or(u32::MAX);
                let seen = self.seen.get(&(client, number)).unwrap_or(&unknown);
                verdict.expected += sent.acked;
                verdict.lost += sent.acked - seen.due_and_come(sent);
            }
        }
        for (&(client, stream), seen) in &self.seen {
            let known = streams.get(stream as usize).filter(|_| self.sent.contains_key(&stream));
            let meant = known.is_some_and(|stream| stream.receivers.contains(client as usize));
            verdict.delivered += seen.come();
            if !meant {
                verdict.misrouted += seen.come();
            }
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
        let stream = |receivers| Stream { publisher: 0, channel: "a".into(), receivers };
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
            assert!(receiver.delivered(7, stamp(sequence)));
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
            ledger.delivered(7, stamp(sequence));
        }
        // The second receiver got nothing.
        assert_eq!(ledger.judge(&streams(7..9)).lost, 2 + 5);
    }

    #[test]
    fn repeats_and_changes_of_order_are_told_apart() {
        let mut ledger = sent(3, &[]);
        assert!(ledger.delivered(7, stamp(0)));
        assert!(ledger.delivered(7, stamp(2)));
        assert!(ledger.delivered(7, stamp(1)));
        assert!(!ledger.delivered(7, stamp(1)));
        let verdict = ledger.judge(&streams(7..8));
        assert_eq!((verdict.lost, verdict.reordered, verdict.duplicated), (0, 1, 1));
    }

    #[test]
    fn what_was_refused_or_not_answered_may_come_and_need_not() {
        for come in [false, true] {
            let mut ledger = sent(2, &[1]);
            ledger.sent(1, 3);
            for sequence in 0..4 {
                if come || sequence == 0 || sequence == 2 {
                    ledger.delivered(7, stamp(sequence));
                }
            }
            let verdict = ledger.judge(&streams(7..8));
            assert_eq!((verdict.lost, verdict.refused, verdict.unanswered), (0, 1, 1), "{come}");
        }
    }

    #[test]
    fn what_came_to_somebody_else_makes_up_for_no_loss() {
        let mut ledger = sent(3, &[]);
        (0..3).for_each(|sequence| assert!(ledger.delivered(6, stamp(sequence))));
        let verdict = ledger.judge(&streams(7..8));
        assert_eq!((verdict.lost, verdict.misrouted, verdict.delivered), (3, 3, 3));
        assert!(verdict.fault());
    }
}
