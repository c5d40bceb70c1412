//! Where a publication stands in its channel's history (DESIGN section 5, "Positions").

use std::{fmt, str::FromStr};

/// `(epoch, offset)` of a publication, or of the end of a history.
///
/// Offsets are contiguous within a channel and go on across epochs of a living history; a history that
/// expired or was removed starts again at offset 1 in a newer epoch. Offset 0 with an epoch means: no history
/// existed when `epoch` was the newest of its partition, whatever came later is missing from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// Never repeats within a channel; grows. On the wire a string that clients must not interpret.
    pub epoch: u64,
    /// 1 for the first publication.
    pub offset: u64,
}

impl Position {
    /// The position that the wire form names. An epoch that this deployment could not have given out becomes
    /// epoch 0, which no history ever holds: recovery then answers `EPOCH_RESET`.
    #[must_use]
    pub fn from_wire(epoch: &str, offset: u64) -> Self {
        Self { epoch: epoch.parse().unwrap_or(0), offset }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.offset)
    }
}

/// The text was not `epoch:offset`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a position, `epoch:offset` is expected")]
pub struct PositionError(String);

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (epoch, offset) = text.split_once(':')?;
            Some(Self { epoch: epoch.parse().ok()?, offset: offset.parse().ok()? })
        };
        parse().ok_or_else(|| PositionError(text.to_owned()))
    }
}
