//! Publishes of one session that wait: for a backend's verdict, or behind one that does. They leave in the order in which they
//! came.

use std::collections::VecDeque;

use streamgate_proto::v1::PublishOptions;

use super::ReplyTo;
use crate::{broker::Publish, channel::Channel};

/// Publishes that one session may have waiting.
const MOST_WAITING: usize = 256;

/// The publishes that wait. Pure: what is asked and what is sent is the caller's.
#[derive(Debug, Default)]
pub(super) struct PublishQueue {
    /// Number of the first entry.
    first: u64,
    entries: VecDeque<Entry>,
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
    Refused,
}

impl PublishQueue {
    /// Whether nothing waits: what is allowed goes at once.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Why there is no room for one more.
    pub fn full(&self) -> Option<String> {
        let full = self.entries.len() >= MOST_WAITING;
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
            Entry::Allowed(..) | Entry::Refused => None,
        }
    }

    /// Puts what became of a draft that is allowed into its place.
    pub fn allow(&mut self, number: u64, reply: ReplyTo, publish: Box<Publish>) {
        let at = number.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        if let Some(entry) = at.and_then(|at| self.entries.get_mut(at)) {
            *entry = Entry::Allowed(reply, publish);
        }
    }

    /// The next one that may go.
    pub fn next(&mut self) -> Option<(ReplyTo, Box<Publish>)> {
        while !matches!(self.entries.front()?, Entry::Asked(_)) {
            self.first += 1;
            if let Some(Entry::Allowed(reply, publish)) = self.entries.pop_front() {
                return Some((reply, publish));
            }
        }
        None
    }
}
