//! Publishes of one session that wait: for a backend's verdict, or behind one that does. They leave in the order in which they
//! came.

use std::collections::VecDeque;

use streamgate_proto::v1::PublishOptions;

use super::ReplyTo;
use crate::{broker::Publish, channel::Channel};

/// Publishes that one session may have waiting.
const MOST_WAITING: usize = 256;

impl Batch {
    fn holds(&self, number: u64) -> bool {
        (self.first..self.first + self.len).contains(&number)
    }
}

/// The publishes that wait. Pure: what is asked and what is sent is the caller's.
#[derive(Debug, Default)]
pub(super) struct PublishQueue {
    /// Number of the first entry.
    first: u64,
    entries: VecDeque<Entry>,
    batches: Vec<Batch>,
}

/// A publish of which the verdict is to come; its event is with whoever decides.
#[derive(Debug)]
pub(super) struct Draft {
    pub reply: ReplyTo,
    pub channel: Channel,
    pub options: PublishOptions,
}

#[derive(Debug)]
enum Entry {
    Asked(Box<Draft>),
    Allowed(ReplyTo, Box<Publish>),
    /// Allowed, while others of its batch are not yet.
    Held(ReplyTo, Box<Publish>),
    Refused,
}

/// Publishes that leave together or not at all: a row of entries.
#[derive(Debug)]
struct Batch {
    first: u64,
    len: u64,
    /// Verdicts to come.
    asked: u64,
}

impl PublishQueue {
    /// Whether nothing waits: what is allowed goes at once.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Why there is no room for so many more.
    pub fn full(&self, more: usize) -> Option<String> {
        let full = self.entries.len() + more > MOST_WAITING;
        full.then(|| format!("more than {MOST_WAITING} publishes wait until a backend allows them"))
    }

    /// Adds one that is to be asked about; its number is for [`Self::draft`].
    pub fn ask(&mut self, draft: Draft) -> u64 {
        self.entries.push_back(Entry::Asked(Box::new(draft)));
        self.first + self.entries.len() as u64 - 1
    }

    /// Adds one that is allowed, behind those that wait.
    pub fn wait(&mut self, reply: ReplyTo, publish: Box<Publish>) {
        self.entries.push_back(Entry::Allowed(reply, publish));
    }

    /// Takes the one of that number out, if it still waits for its verdict; its place stays.
    pub fn draft(&mut self, number: u64) -> Option<Draft> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let entry = self.entries.get_mut(at).filter(|entry| matches!(entry, Entry::Asked(_)))?;
        match std::mem::replace(entry, Entry::Refused) {
            Entry::Asked(draft) => Some(*draft),
            Entry::Allowed(..) | Entry::Held(..) | Entry::Refused => None,
        }
    }

    /// Puts what became of a draft that is allowed into its place.
    pub fn allow(&mut self, number: u64, reply: ReplyTo, publish: Box<Publish>) {
        let at = number.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        if let Some(entry) = at.and_then(|at| self.entries.get_mut(at)) {
            *entry = match self.batches.iter().any(|batch| batch.holds(number)) {
                true => Entry::Held(reply, publish),
                false => Entry::Allowed(reply, publish),
            };
        }
        self.judged_of_batch(number);
    }

    /// Makes the last `len` entries, all of them asked about, a batch.
    pub fn bind(&mut self, len: usize) {
        let len = len as u64;
        let first = self.first + self.entries.len() as u64 - len;
        self.batches.push(Batch { first, len, asked: len });
    }

    /// Takes note that the draft of that number is refused. Of a batch nothing leaves then: answers to whom that is to be told,
    /// with the place of the refused one in the batch. `None`: it was alone.
    pub fn refuse(&mut self, number: u64) -> Option<(u64, Vec<ReplyTo>)> {
        let at = self.batches.iter().position(|batch| batch.holds(number))?;
        let batch = self.batches.swap_remove(at);
        let start = usize::try_from(batch.first.checked_sub(self.first)?).ok()?;
        let mut replies = Vec::new();
        for entry in self.entries.iter_mut().skip(start).take(batch.len as usize) {
            match std::mem::replace(entry, Entry::Refused) {
                Entry::Asked(draft) => replies.push(draft.reply),
                Entry::Allowed(reply, _) | Entry::Held(reply, _) => replies.push(reply),
                Entry::Refused => {}
            }
        }
        Some((number - batch.first, replies))
    }

    /// Counts a verdict; with the last one the batch may leave.
    fn judged_of_batch(&mut self, number: u64) {
        let Some(at) = self.batches.iter().position(|batch| batch.holds(number)) else { return };
        let batch = &mut self.batches[at];
        batch.asked -= 1;
        if batch.asked > 0 {
            return;
        }
        let Batch { first, len, .. } = self.batches.swap_remove(at);
        let start = usize::try_from(first.saturating_sub(self.first)).unwrap_or(usize::MAX);
        for entry in self.entries.iter_mut().skip(start).take(len as usize) {
            *entry = match std::mem::replace(entry, Entry::Refused) {
                Entry::Held(reply, publish) => Entry::Allowed(reply, publish),
                other => other,
            };
        }
    }

    /// The next one that may go.
    pub fn next(&mut self) -> Option<(ReplyTo, Box<Publish>)> {
        while !matches!(self.entries.front()?, Entry::Asked(_) | Entry::Held(..)) {
            self.first += 1;
            if let Some(Entry::Allowed(reply, publish)) = self.entries.pop_front() {
                return Some((reply, publish));
            }
        }
        None
    }
}
