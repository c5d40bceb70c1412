//! Who on this shard listens to a channel: a hash map of exact names and a trie of patterns.
//!
//! Members are keys of the shard's subscriptions. Joining and leaving take constant time, also where many listen:
//! a subscription remembers its [`Seat`], and whoever moves into a freed place is told.

use ahash::RandomState;
use hashbrown::HashMap;
use slab::Slab;

use crate::channel::{Channel, PatternTrie, Target};

/// Where a subscription sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat {
    target: u32,
    place: u32,
}

/// What leaving changed.
#[derive(Debug, PartialEq, Eq)]
pub struct Left {
    /// This member now has this seat.
    pub moved: Option<(u32, Seat)>,
    /// Nobody listens to this target any more.
    pub last: Option<Target>,
}

/// The subscriptions of one shard, by target.
#[derive(Debug, Default)]
pub struct Index {
    targets: Slab<Entry>,
    exact: HashMap<Channel, u32, RandomState>,
    patterns: PatternTrie<u32>,
}

#[derive(Debug)]
struct Entry {
    target: Target,
    members: Vec<u32>,
}

impl Index {
    /// Adds `member` to those who listen to `target`.
    pub fn join(&mut self, target: &Target, member: u32) -> Seat {
        let known = match target {
            Target::Channel(channel) => self.exact.get(channel).copied(),
            Target::Pattern(pattern) => self.patterns.get(pattern).copied(),
        };
        let id = known.unwrap_or_else(|| {
            let id = self.targets.insert(Entry { target: target.clone(), members: Vec::new() }) as u32;
            match target {
                Target::Channel(channel) => {
                    self.exact.insert(channel.clone(), id);
                }
                Target::Pattern(pattern) => {
                    self.patterns.insert(pattern, id);
                }
            }
            id
        });
        let members = &mut self.targets[id as usize].members;
        members.push(member);
        Seat { target: id, place: members.len() as u32 - 1 }
    }

    /// Removes whoever has `seat`.
    pub fn leave(&mut self, seat: Seat) -> Left {
        let entry = &mut self.targets[seat.target as usize];
        entry.members.swap_remove(seat.place as usize);
        let moved = entry.members.get(seat.place as usize).map(|member| (*member, seat));
        if !entry.members.is_empty() {
            return Left { moved, last: None };
        }
        let target = self.targets.remove(seat.target as usize).target;
        match &target {
            Target::Channel(channel) => {
                self.exact.remove(channel);
            }
            Target::Pattern(pattern) => {
                self.patterns.remove(pattern);
            }
        }
        Left { moved, last: Some(target) }
    }

    /// What the seat listens to.
    #[must_use]
    pub fn target(&self, seat: Seat) -> &Target {
        &self.targets[seat.target as usize].target
    }

    /// Calls `found` with the members of every target that `channel` matches.
    pub fn listeners(&self, channel: &Channel, found: &mut impl FnMut(&[u32])) {
        if let Some(id) = self.exact.get(channel) {
            found(&self.targets[*id as usize].members);
        }
        self.patterns.for_each_match(channel.as_str(), &mut |id| found(&self.targets[*id as usize].members));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listeners(index: &Index, channel: &str) -> Vec<u32> {
        let mut found = Vec::new();
        index.listeners(&Channel::parse(channel).unwrap(), &mut |members| found.extend_from_slice(members));
        found.sort_unstable();
        found
    }

    #[test]
    fn members_are_found_by_name_and_by_pattern_until_they_leave() {
        let mut index = Index::default();
        let target = |name| Target::parse(name).unwrap();
        let mut seats: Vec<_> = ["a.b", "a.b", "a.*", "**", "a.b"]
            .iter()
            .zip(0..)
            .map(|(name, key)| index.join(&target(name), key))
            .collect();
        assert_eq!(listeners(&index, "a.b"), [0, 1, 2, 3, 4]);
        assert_eq!(listeners(&index, "b"), [3]);
        let left = index.leave(seats[0]);
        assert_eq!(left, Left { moved: Some((4, seats[0])), last: None });
        seats[4] = seats[0];
        assert_eq!(listeners(&index, "a.b"), [1, 2, 3, 4]);
        assert_eq!(index.leave(seats[4]).last, None);
        assert_eq!(index.leave(Seat { place: 0, ..seats[1] }).last, Some(target("a.b")));
        assert_eq!(index.leave(seats[2]).last, Some(target("a.*")));
        assert_eq!(listeners(&index, "a.b"), [3]);
    }
}
