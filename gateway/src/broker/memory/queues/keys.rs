//! Lines of jobs with one ordering key: only the first of each may be handed out.

use std::{collections::BTreeSet, sync::Arc};

use ahash::AHashMap;

use super::job::JobNumber;

/// Of each key, the jobs that are not settled.
#[derive(Debug, Default)]
pub(super) struct Keys(AHashMap<Arc<str>, BTreeSet<JobNumber>>);

impl Keys {
    /// Puts a job in the line of its key, if it has one; answers the key as it is kept.
    pub fn enter(&mut self, key: Option<&str>, job: JobNumber) -> Option<Arc<str>> {
        let key = key?;
        let kept = self.0.get_key_value(key).map_or_else(|| Arc::from(key), |(kept, _)| kept.clone());
        self.0.entry(kept.clone()).or_default().insert(job);
        Some(kept)
    }

    /// Whether no other job is before this one.
    pub fn is_first(&self, key: Option<&str>, job: JobNumber) -> bool {
        let line = key.and_then(|key| self.0.get(key));
        line.is_none_or(|line| line.first() == Some(&job))
    }

    /// Takes a job out of its line; answers whose turn it is now, if that has changed.
    pub fn leave(&mut self, key: Option<&str>, job: JobNumber) -> Option<JobNumber> {
        let key = key?;
        let line = self.0.get_mut(key)?;
        let was_first = line.first() == Some(&job);
        line.remove(&job);
        let next = line.first().copied();
        if next.is_none() {
            self.0.remove(key);
        }
        next.filter(|_| was_first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_has_its_turn_when_the_first_leaves() {
        let mut keys = Keys::default();
        assert_eq!(keys.enter(None, 1), None);
        for job in [2, 3, 4] {
            assert_eq!(keys.enter(Some("k"), job).as_deref(), Some("k"));
        }
        assert!(keys.is_first(None, 1) && keys.is_first(Some("k"), 2) && !keys.is_first(Some("k"), 3));
        assert_eq!(keys.leave(Some("k"), 3), None);
        assert_eq!(keys.leave(Some("k"), 2), Some(4));
        assert_eq!(keys.leave(Some("k"), 4), None);
        assert!(keys.0.is_empty());
    }
}
