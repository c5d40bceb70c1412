//! Which sinks of this node listen to a channel: a map of exact names and a trie of patterns.
//!
//! Pure and unlocked. Interest is a set: the same target and sink twice count once, one removal ends it.

use ahash::AHashMap;

use super::SinkId;
use crate::channel::{Channel, Pattern, PatternTrie, Target};

/// A set of sinks, one bit for each [`SinkId`] (at most 64 to a broker).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct SinkSet(u64);

impl SinkSet {
    /// Whether nobody is in it.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `sink` is in it.
    #[must_use]
    pub fn contains(self, sink: SinkId) -> bool {
        self.0 & Self::bit(sink) != 0
    }

    /// Everyone who is in one or both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Adds `sink`.
    pub fn insert(&mut self, sink: SinkId) {
        self.0 |= Self::bit(sink);
    }

    /// Removes `sink`.
    pub fn remove(&mut self, sink: SinkId) {
        self.0 &= !Self::bit(sink);
    }

    /// Its sinks, lowest first.
    pub fn iter(self) -> impl Iterator<Item = SinkId> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let sink = u8::try_from(left.trailing_zeros()).ok().filter(|_| left != 0)?;
            left &= left - 1;
            Some(SinkId(sink))
        })
    }

    /// Zero for an id that no broker gives out.
    fn bit(sink: SinkId) -> u64 {
        1u64.checked_shl(u32::from(sink.0)).unwrap_or(0)
    }
}

/// The interest of all sinks of one broker.
#[derive(Debug, Default)]
pub struct Interest {
    exact: AHashMap<Channel, SinkSet>,
    patterns: AHashMap<Pattern, SinkSet>,
    trie: PatternTrie<SinkSet>,
}

impl Interest {
    /// Adds the interest of `sink`; `true` if nobody had interest in this very target before.
    pub fn insert(&mut self, target: &Target, sink: SinkId) -> bool {
        let set = match target {
            Target::Channel(channel) => self.exact.entry(channel.clone()).or_default(),
            Target::Pattern(pattern) => self.patterns.entry(pattern.clone()).or_default(),
        };
        let first = set.is_empty();
        set.insert(sink);
        if let Target::Pattern(pattern) = target {
            self.trie.insert(pattern, *set);
        }
        first
    }

    /// Removes the interest of `sink`; `true` if it was the last in this very target.
    pub fn remove(&mut self, target: &Target, sink: SinkId) -> bool {
        let set = match target {
            Target::Channel(channel) => self.exact.get_mut(channel),
            Target::Pattern(pattern) => self.patterns.get_mut(pattern),
        };
        let Some(set) = set.filter(|set| set.contains(sink)) else { return false };
        set.remove(sink);
        let left = *set;
        match target {
            Target::Channel(channel) if left.is_empty() => {
                self.exact.remove(channel);
            }
            Target::Channel(_) => {}
            Target::Pattern(pattern) if left.is_empty() => {
                self.trie.remove(pattern);
                self.patterns.remove(pattern);
            }
            Target::Pattern(pattern) => {
                self.trie.insert(pattern, left);
            }
        }
        left.is_empty()
    }

    /// Everyone who listens to `channel`, by name or by pattern.
    #[must_use]
    pub fn listeners(&self, channel: &str) -> SinkSet {
        let mut all = self.exact.get(channel).copied().unwrap_or_default();
        self.trie.for_each_match(channel, &mut |set| all = all.union(*set));
        all
    }

    /// Everyone with interest in this very target.
    #[must_use]
    pub fn of(&self, target: &Target) -> SinkSet {
        match target {
            Target::Channel(channel) => self.exact.get(channel),
            Target::Pattern(pattern) => self.patterns.get(pattern),
        }
        .copied()
        .unwrap_or_default()
    }

    /// The channels that somebody listens to by name.
    pub fn channels(&self) -> impl Iterator<Item = (&Channel, SinkSet)> {
        self.exact.iter().map(|(channel, set)| (channel, *set))
    }

    /// The patterns that somebody listens to.
    pub fn patterns(&self) -> impl Iterator<Item = (&Pattern, SinkSet)> {
        self.patterns.iter().map(|(pattern, set)| (pattern, *set))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(name: &str) -> Target {
        Target::parse(name).unwrap()
    }

    fn ids(set: SinkSet) -> Vec<u8> {
        set.iter().map(|sink| sink.0).collect()
    }

    #[test]
    fn listeners_are_found_by_name_and_by_every_pattern() {
        let mut interest = Interest::default();
        let targets = ["a.b", "a.*", "a.**", "**", "*.b", "a.*.c", "a.b.c.**"];
        for (sink, name) in targets.iter().enumerate() {
            assert!(interest.insert(&target(name), SinkId(u8::try_from(sink).unwrap())));
        }
        for channel in ["a", "a.b", "a.b.c", "a.x.c", "b", "x.b", "a.b.c.d"] {
            let expected: Vec<u8> = (0..)
                .zip(targets)
                .filter(|(_, name)| crate::channel::glob(name, channel))
                .map(|(sink, _)| sink)
                .collect();
            assert_eq!(ids(interest.listeners(channel)), expected, "{channel}");
        }
    }

    #[test]
    fn interest_is_a_set_and_removal_leaves_nothing_behind() {
        let mut interest = Interest::default();
        for name in ["a.b", "a.*.c", "x.**"] {
            assert!(interest.insert(&target(name), SinkId(63)));
            assert!(!interest.insert(&target(name), SinkId(63)));
            assert!(!interest.insert(&target(name), SinkId(0)));
            assert!(!interest.remove(&target(name), SinkId(63)));
            assert!(!interest.remove(&target(name), SinkId(63)));
            assert_eq!(ids(interest.of(&target(name))), [0]);
            assert!(interest.remove(&target(name), SinkId(0)));
        }
        assert!(interest.exact.is_empty() && interest.patterns.is_empty() && interest.trie.is_empty());
    }
}
