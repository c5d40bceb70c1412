//! Who on this shard is told of joins and leaves: few of many subscriptions, so they are kept apart.

use ahash::AHashMap;

use super::index::{Index, Seat};
use crate::channel::{Channel, Target};

/// Watching subscriptions by target and by key.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    index: Index,
    by_key: AHashMap<u32, Watcher>,
}

#[derive(Debug)]
struct Watcher {
    seat: Seat,
    /// Its client knows that it watches: it is acknowledged.
    live: bool,
}

impl Watchers {
    /// Adds the subscription `key`, which is told of nothing until [`Self::go_live`]; nothing if it is there.
    pub fn add(&mut self, key: u32, target: &Target) {
        let index = &mut self.index;
        self.by_key.entry(key).or_insert_with(|| Watcher { seat: index.join(target, key), live: false });
    }

    /// Removes the subscription `key`, if it watches; the target if it was the last one to watch it.
    pub fn remove(&mut self, key: u32) -> Option<Target> {
        let watcher = self.by_key.remove(&key)?;
        let left = self.index.leave(watcher.seat);
        if let Some((moved, seat)) = left.moved
            && let Some(moved) = self.by_key.get_mut(&moved)
        {
            moved.seat = seat;
        }
        left.last
    }

    /// From now on it is told.
    pub fn go_live(&mut self, key: u32) {
        if let Some(watcher) = self.by_key.get_mut(&key) {
            watcher.live = true;
        }
    }

    /// Whether it is told.
    pub fn is_live(&self, key: u32) -> bool {
        self.by_key.get(&key).is_some_and(|watcher| watcher.live)
    }

    /// Calls `found` with each that is told of `channel`.
    pub fn of(&self, channel: &Channel, found: &mut impl FnMut(u32)) {
        self.index.listeners(channel, &mut |keys| {
            keys.iter().copied().filter(|key| self.is_live(*key)).for_each(&mut *found);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(watchers: &Watchers, channel: &str) -> Vec<u32> {
        let mut found = Vec::new();
        watchers.of(&Channel::parse(channel).unwrap(), &mut |key| found.push(key));
        found.sort_unstable();
        found
    }

    #[test]
    fn watchers_are_told_once_they_are_live_and_until_they_go() {
        let mut watchers = Watchers::default();
        let target = |name| Target::parse(name).unwrap();
        for (key, name) in [(0, "a.b"), (1, "a.b"), (2, "a.*"), (3, "b")] {
            watchers.add(key, &target(name));
        }
        watchers.add(0, &target("a.b"));
        assert!(told(&watchers, "a.b").is_empty());
        for key in 0..4 {
            watchers.go_live(key);
        }
        assert_eq!((told(&watchers, "a.b"), told(&watchers, "b")), (vec![0, 1, 2], vec![3]));
        assert_eq!((watchers.remove(0), watchers.remove(0)), (None, None));
        assert_eq!(told(&watchers, "a.b"), [1, 2]);
        assert_eq!(watchers.remove(1), Some(target("a.b")));
        assert_eq!(watchers.remove(2), Some(target("a.*")));
        assert!(told(&watchers, "a.b").is_empty() && watchers.remove(9).is_none());
    }
}
