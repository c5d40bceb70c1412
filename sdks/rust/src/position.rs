//! Where messages stand in the history of their channel, and how far a subscription has come.

use std::{collections::BTreeMap, fmt, str::FromStr};

use streamgate_proto::v1;

/// A place in the history of one channel: `epoch:offset` in text.
///
/// Offset 0 with an epoch is a valid cursor: no history existed then, whatever came later is still missing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Position {
    /// Which history; opaque. Changes when acknowledged messages were lost or the history started anew.
    pub epoch: String,
    /// Contiguous number of the message; 1 for the first one.
    pub offset: u64,
}

impl Position {
    /// Whether a message here comes after `cursor`. Epochs that are numbers are ordered; of others only equality is
    /// known, and what cannot be proven old counts as new.
    #[must_use]
    pub fn is_after(&self, cursor: &Self) -> bool {
        if self.epoch == cursor.epoch {
            return self.offset > cursor.offset;
        }
        match (self.epoch.parse::<u64>(), cursor.epoch.parse::<u64>()) {
            (Ok(own), Ok(other)) => own > other,
            _ => true,
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.offset)
    }
}

/// The text was not `epoch:offset`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a position: `epoch:offset` is expected, as in 1767225600000:42")]
pub struct PositionError(String);

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (epoch, offset) = text.rsplit_once(':')?;
            let offset = offset.parse().ok()?;
            (!epoch.is_empty()).then(|| Self { epoch: epoch.to_owned(), offset })
        };
        parse().ok_or_else(|| PositionError(text.to_owned()))
    }
}

impl From<v1::Position> for Position {
    fn from(wire: v1::Position) -> Self {
        Self { epoch: wire.epoch, offset: wire.offset }
    }
}

impl From<Position> for v1::Position {
    fn from(position: Position) -> Self {
        Self { epoch: position.epoch, offset: position.offset }
    }
}

/// How far a subscription has come, by channel. Save it, and a later subscription goes on from there.
///
/// For a pattern there is one more entry, under the pattern itself: an opaque mark of when the subscription began, by
/// which the server finds the channels that are new since.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursors(BTreeMap<String, Position>);

impl Cursors {
    /// Nothing seen yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The cursor of `channel`.
    #[must_use]
    pub fn get(&self, channel: &str) -> Option<&Position> {
        self.0.get(channel)
    }

    /// Sets the cursor of `channel`.
    pub fn insert(&mut self, channel: impl Into<String>, position: Position) {
        self.0.insert(channel.into(), position);
    }

    /// True if there is no cursor at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Channels and their cursors, ordered by channel.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Position)> {
        self.0.iter().map(|(channel, position)| (channel.as_str(), position))
    }

    /// Moves the cursor of `channel` to `position`; false if it is there or past it already.
    pub(crate) fn advance(&mut self, channel: &str, position: &Position) -> bool {
        match self.0.get_mut(channel) {
            None => {
                self.0.insert(channel.to_owned(), position.clone());
            }
            Some(cursor) if !position.is_after(cursor) => return false,
            // The usual case leaves the epoch's text alone.
            Some(cursor) if cursor.epoch == position.epoch => cursor.offset = position.offset,
            Some(cursor) => cursor.clone_from(position),
        }
        true
    }
}

impl FromIterator<(String, Position)> for Cursors {
    fn from_iter<I: IntoIterator<Item = (String, Position)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Position {
        text.parse().unwrap()
    }

    #[test]
    fn epochs_compare_as_numbers_when_they_are() {
        assert!(at("9:3").is_after(&at("9:2")) && !at("9:2").is_after(&at("9:2")));
        assert!(at("10:1").is_after(&at("9:500")) && !at("9:500").is_after(&at("10:1")));
        assert!(at("x:1").is_after(&at("y:9")) && at("y:1").is_after(&at("x:9")));
    }

    #[test]
    fn text_forms_round_trip_and_others_are_refused() {
        assert_eq!(at("17:42").to_string(), "17:42");
        for bad in ["", "17", ":1", "17:", "17:x", "17:-1"] {
            assert!(bad.parse::<Position>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn cursors_only_move_forward() {
        let mut cursors = Cursors::new();
        assert!(cursors.advance("a", &at("1:0")) && cursors.advance("a", &at("1:5")));
        assert!(!cursors.advance("a", &at("1:5")) && !cursors.advance("a", &at("1:4")));
        assert!(cursors.advance("a", &at("2:1")) && !cursors.advance("a", &at("1:9")));
        assert_eq!(cursors.get("a"), Some(&at("2:1")));
    }
}
