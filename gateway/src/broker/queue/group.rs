//! Names of groups.

use std::{fmt, sync::Arc};

/// The group of a queue channel, and of a subscription that names none.
pub const DEFAULT_GROUP: &str = "default";
/// Longest name, in bytes.
const MAX_BYTES: usize = 64;

/// A checked name of a group: letters, digits, `-`, `_` and `.` of ASCII, at most 64. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group(Arc<str>);

/// Why a name is refused. The text is fit for the client that sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no name for a group: from 1 to {MAX_BYTES} letters, digits, '-', '_' and '.' are")]
pub struct GroupError(String);

impl Group {
    /// Checks a name; the empty one stands for the default group.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn parse(name: &str) -> Result<Self, GroupError> {
        let name = if name.is_empty() { DEFAULT_GROUP } else { name };
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.len() > MAX_BYTES || !name.bytes().all(legal) {
            return Err(GroupError(name.chars().take(MAX_BYTES + 1).collect()));
        }
        Ok(Self(name.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Group {
    fn default() -> Self {
        Self(DEFAULT_GROUP.into())
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_a_short_word_and_the_default_has_a_name() {
        assert_eq!(Group::parse("").unwrap(), Group::default());
        assert_eq!(Group::parse("mail-workers_v1.2").unwrap().as_str(), "mail-workers_v1.2");
        for wrong in ["a b", "a/b", "ä", "a:b", &"x".repeat(65)] {
            assert!(Group::parse(wrong).is_err(), "{wrong}");
        }
    }
}
