//! Channel names and patterns (PROTOCOL part A, "Behaviour").
//!
//! A name is dot-separated, case-sensitive, at most [`MAX_BYTES`] bytes of UTF-8, without empty segments,
//! white space or control characters. `*` is legal only as a whole segment of a pattern and matches exactly
//! one segment; `**` is legal only as the last segment and matches zero or more.

mod relation;
mod trie;

use std::{borrow::Borrow, fmt, sync::Arc};

pub use relation::{covers, covers_segments, overlaps, overlaps_segments};
pub use trie::PatternTrie;

/// Longest channel name or pattern, in bytes of UTF-8.
pub const MAX_BYTES: usize = 255;

/// A checked channel name. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel(Arc<str>);

/// A checked pattern: at least one segment is `*`, or the last one is `**`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern(Arc<str>);

/// What a subscription names: one channel or every channel that a pattern matches.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Target {
    /// Exactly this channel.
    Channel(Channel),
    /// Every channel that matches, also those that do not exist yet.
    Pattern(Pattern),
}

/// Why a name is refused. The text is fit for the client that sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing between the quotes.
    #[error("the channel is empty")]
    Empty,
    /// Longer than [`MAX_BYTES`].
    #[error("the channel has {got} bytes, at most {MAX_BYTES} are allowed")]
    TooLong {
        /// Bytes of the refused name.
        got: usize,
    },
    /// Two dots in a row, or one at an end.
    #[error("the channel {0:?} has an empty segment")]
    EmptySegment(String),
    /// White space or a control character.
    #[error(
        "the channel {name:?} contains {character:?}, white space and control characters are not allowed"
    )]
    Character {
        /// The refused name.
        name: String,
        /// The first character that is not allowed.
        character: char,
    },
    /// A star that is not a whole segment, or `**` before the end.
    #[error("the pattern {0:?} is malformed: `*` stands for a whole segment, `**` only for the last ones")]
    Star(String),
    /// A pattern where a channel is needed, as in a publish.
    #[error("{0:?} is a pattern, a channel is needed")]
    IsPattern(String),
}

impl Target {
    /// Checks `name` and tells whether it is a channel or a pattern.
    ///
    /// # Errors
    /// [`NameError`] names the first rule that `name` breaks.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        let stars = check(name)?;
        let name: Arc<str> = name.into();
        Ok(if stars { Self::Pattern(Pattern(name)) } else { Self::Channel(Channel(name)) })
    }

    /// The name as the client wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Channel(channel) => channel.as_str(),
            Self::Pattern(pattern) => pattern.as_str(),
        }
    }
}

impl Channel {
    /// Checks `name`.
    ///
    /// # Errors
    /// [`NameError`], also for a pattern.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        match Target::parse(name)? {
            Target::Channel(channel) => Ok(channel),
            Target::Pattern(pattern) => Err(NameError::IsPattern(pattern.as_str().to_owned())),
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Pattern {
    /// Checks `name`.
    ///
    /// # Errors
    /// [`NameError`]; a plain channel is [`NameError::Star`].
    pub fn parse(name: &str) -> Result<Self, NameError> {
        match Target::parse(name)? {
            Target::Pattern(pattern) => Ok(pattern),
            Target::Channel(channel) => Err(NameError::Star(channel.as_str().to_owned())),
        }
    }

    /// The pattern.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The segments before the first star, joined by dots: `a.b` for `a.b.*.c`, empty for `**`.
    #[must_use]
    pub fn literal_prefix(&self) -> &str {
        match self.0.find('*') {
            Some(0) | None => "",
            // Before a star there is always a dot.
            Some(star) => &self.0[..star - 1],
        }
    }

    /// Whether the pattern matches `channel`.
    #[must_use]
    pub fn matches(&self, channel: &str) -> bool {
        glob(&self.0, channel)
    }
}

/// Whether the checked pattern (or plain name) `pattern` matches the checked name `channel`.
#[must_use]
pub fn glob(pattern: &str, channel: &str) -> bool {
    let mut names = channel.split('.');
    for segment in pattern.split('.') {
        match (segment, names.next()) {
            ("**", _) => return true,
            ("*", Some(_)) => {}
            (literal, Some(name)) if literal == name => {}
            _ => return false,
        }
    }
    names.next().is_none()
}

/// Whether `text` can be one segment of a name: not empty, no dot, star, white space or control character.
#[must_use]
pub fn is_segment(text: &str) -> bool {
    (1..=MAX_BYTES).contains(&text.len())
        && !text.contains(|c: char| matches!(c, '.' | '*') || c.is_whitespace() || c.is_control())
}

/// Every literal prefix that a pattern matching `channel` can have, shortest first: for `a.b`: ``, `a`, `a.b`.
pub fn literal_prefixes(channel: &str) -> impl Iterator<Item = &str> {
    std::iter::once("").chain(
        channel
            .char_indices()
            .filter(|(_, c)| *c == '.')
            .map(|(at, _)| &channel[..at])
            .chain(std::iter::once(channel)),
    )
}

/// Checks the rules of both kinds; `true` if `name` is a pattern.
fn check(name: &str) -> Result<bool, NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > MAX_BYTES {
        return Err(NameError::TooLong { got: name.len() });
    }
    if let Some(character) = name.chars().find(|c| c.is_whitespace() || c.is_control()) {
        return Err(NameError::Character { name: name.to_owned(), character });
    }
    let mut stars = false;
    let mut segments = name.split('.').peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "" => return Err(NameError::EmptySegment(name.to_owned())),
            "*" => stars = true,
            "**" if segments.peek().is_none() => stars = true,
            _ if segment.contains('*') => return Err(NameError::Star(name.to_owned())),
            _ => {}
        }
    }
    Ok(stars)
}

macro_rules! text {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.as_str())
            }
        }
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }
    )*};
}
text!(Channel, Pattern);

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_star_matches_one_segment_two_match_zero_or_more() {
        let one = Pattern::parse("a.*").unwrap();
        assert!(one.matches("a.b") && !one.matches("a") && !one.matches("a.b.c"));
        let many = Pattern::parse("a.**").unwrap();
        assert!(many.matches("a") && many.matches("a.b") && many.matches("a.b.c") && !many.matches("b.a"));
        let all = Pattern::parse("**").unwrap();
        assert!(all.matches("a") && all.matches("a.b.c"));
        let middle = Pattern::parse("a.*.c").unwrap();
        assert!(middle.matches("a.x.c") && !middle.matches("a.c") && !middle.matches("a.x.y"));
    }

    #[test]
    fn malformed_names_are_refused_with_their_reason() {
        assert_eq!(Target::parse(""), Err(NameError::Empty));
        assert_eq!(Target::parse(&"x".repeat(256)), Err(NameError::TooLong { got: 256 }));
        for name in [".a", "a.", "a..b"] {
            assert_eq!(Target::parse(name), Err(NameError::EmptySegment(name.into())));
        }
        for name in ["a b", "a\tb", "a\u{0}", "a\u{a0}b"] {
            assert!(matches!(Target::parse(name), Err(NameError::Character { .. })), "{name:?}");
        }
        for name in ["a*", "a.*b", "a.**.b", "***"] {
            assert_eq!(Target::parse(name), Err(NameError::Star(name.into())));
        }
        assert_eq!(Channel::parse("a.*"), Err(NameError::IsPattern("a.*".into())));
    }

    #[test]
    fn the_prefixes_of_a_channel_include_that_of_every_pattern_that_matches() {
        assert_eq!(literal_prefixes("a.b.c").collect::<Vec<_>>(), ["", "a", "a.b", "a.b.c"]);
        for pattern in ["**", "a.**", "a.*.c", "a.b.c.**", "*.b.c"] {
            let pattern = Pattern::parse(pattern).unwrap();
            assert!(pattern.matches("a.b.c"));
            assert!(literal_prefixes("a.b.c").any(|p| p == pattern.literal_prefix()), "{pattern}");
        }
    }
}
