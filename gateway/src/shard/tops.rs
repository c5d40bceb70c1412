//! Where a subscription stands in its channels as long as it has got nothing live of them. Pure.

use std::collections::HashMap;

use crate::{channel::Channel, position::Position};

/// Positions by channel.
#[derive(Debug, Default)]
pub struct Tops {
    /// Up to here everything was replayed or not asked for: it is not sent again.
    seen: HashMap<Channel, Position>,
    /// Where an answer ended which told that what had been seen behind that is lost. Seldom any.
    fallen_back: HashMap<Channel, Position>,
}

impl Tops {
    /// Up to where nothing is to be sent.
    #[must_use]
    pub fn seen(&self, channel: &Channel) -> Option<Position> {
        self.seen.get(channel).copied()
    }

    /// Where it stands: what losses are judged by, and what is read on from.
    #[must_use]
    pub fn stand(&self, channel: &Channel) -> Option<Position> {
        self.fallen_back.get(channel).copied().or_else(|| self.seen(channel))
    }

    /// Takes what an answer says of where the channel ends; `lossy`: it told of a loss after the cursor.
    pub fn answered(&mut self, channel: Channel, end: Position, lossy: bool) {
        match self.seen(&channel) {
            Some(seen) if end <= seen => {
                let moves_on = self.fallen_back.get(&channel).is_some_and(|stand| *stand < end);
                if lossy && end < seen || moves_on {
                    self.fallen_back.insert(channel, end);
                }
            }
            _ => self.set(channel, end),
        }
    }

    /// Moves on to `position` if that is new, and the channel known.
    pub fn pass_by(&mut self, channel: &Channel, position: Position) {
        if self.seen(channel).is_some_and(|seen| position > seen) {
            self.set(channel.clone(), position);
        }
    }

    /// Stands at `position`, wherever it stood before.
    pub fn set(&mut self, channel: Channel, position: Position) {
        self.fallen_back.remove(&channel);
        self.seen.insert(channel, position);
    }

    /// Stands at `position`, unless the channel is known.
    pub fn begin(&mut self, channel: &Channel, position: Position) {
        self.seen.entry(channel.clone()).or_insert(position);
    }

    /// Forgets the channel; whether it was known.
    pub fn remove(&mut self, channel: &Channel) -> bool {
        self.fallen_back.remove(channel);
        self.seen.remove(channel).is_some()
    }

    /// Whether no channel is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// The position of the only channel, if that says all.
    #[must_use]
    pub fn only(&self) -> Option<Position> {
        self.seen.values().next().copied().filter(|_| self.seen.len() == 1 && self.fallen_back.is_empty())
    }

    /// Where to read on from.
    #[must_use]
    pub fn cursors(&self) -> HashMap<Channel, Position> {
        let mut cursors = self.seen.clone();
        cursors.extend(self.fallen_back.iter().map(|(channel, position)| (channel.clone(), *position)));
        cursors
    }
}
