//! What users use of a node, over all their connections.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::Bucket;

/// How far the clocks of two threads may look apart before it counts as a clock that was set back, in milliseconds.
const SKEW_MS: u64 = 1_000;

/// The users that are connected. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Users(Arc<Mutex<HashMap<Arc<str>, Arc<User>>>>);

#[derive(Debug, Default)]
struct User {
    /// Connections that count. Changed only under the lock of [`Users`], as the next.
    connections: AtomicUsize,
    /// Those, and visits.
    stays: AtomicUsize,
    publishes: Mutex<(Bucket, u64)>,
}

/// A connection or visit of a user; dropping it ends it, and the user's account with the last one.
#[derive(Debug)]
pub struct Stay {
    users: Users,
    /// It is a connection.
    counts: bool,
    id: Arc<str>,
    user: Arc<User>,
}

impl Users {
    /// Counts a connection of `user_id`; `None` if it has `limit` of them already.
    #[must_use]
    pub fn enter(&self, user_id: &str, limit: Option<usize>) -> Option<Stay> {
        self.stay(user_id, true, limit)
    }

    /// Opens the account of `user_id` without counting a connection: for requests that have none.
    #[must_use]
    pub fn visit(&self, user_id: &str) -> Option<Stay> {
        self.stay(user_id, false, None)
    }

    fn stay(&self, user_id: &str, counts: bool, limit: Option<usize>) -> Option<Stay> {
        let mut users = held(&self.0);
        let (id, user) = match users.get_key_value(user_id) {
            Some((id, user)) => (id.clone(), user.clone()),
            None => (Arc::from(user_id), Arc::default()),
        };
        if limit.is_some_and(|limit| user.connections.load(Ordering::Relaxed) >= limit) {
            return None;
        }
        user.connections.fetch_add(usize::from(counts), Ordering::Relaxed);
        user.stays.fetch_add(1, Ordering::Relaxed);
        users.entry(id.clone()).or_insert_with(|| user.clone());
        Some(Stay { users: self.clone(), counts, id, user })
    }

    /// Users with a connection.
    #[must_use]
    pub fn len(&self) -> usize {
        held(&self.0).len()
    }

    /// Whether nobody with a user id is connected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Stay {
    /// Takes one of the publishes that the user may make in a second, over all connections; `false` if none is left.
    #[must_use]
    pub fn take_publish(&self, unix_ms: u64, per_second: u32) -> bool {
        let (bucket, latest) = &mut *held(&self.user.publishes);
        // Shards look at the clock in turn: it must not refill what it has refilled.
        let set_back = unix_ms.saturating_add(SKEW_MS) < *latest;
        *latest = if set_back { unix_ms } else { unix_ms.max(*latest) };
        bucket.take(*latest, per_second)
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        let mut users = held(&self.users.0);
        self.user.connections.fetch_sub(usize::from(self.counts), Ordering::Relaxed);
        if self.user.stays.fetch_sub(1, Ordering::Relaxed) == 1
            && let Entry::Occupied(entry) = users.entry(self.id.clone())
        {
            entry.remove();
        }
    }
}

/// A panic elsewhere leaves counts that are whole.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_count_by_user_and_are_forgotten_with_the_last() {
        let users = Users::default();
        let first = users.enter("ann", Some(2)).unwrap();
        let second = users.enter("ann", Some(2)).unwrap();
        assert!(users.enter("ann", Some(2)).is_none());
        let other = users.enter("bob", Some(1)).unwrap();
        assert!(users.enter("ann", None).is_some(), "no limit");
        drop(first);
        let third = users.enter("ann", Some(2)).unwrap();
        drop((second, third));
        assert_eq!(users.len(), 1);
        drop(other);
        assert!(users.is_empty());
    }

    #[test]
    fn a_visit_is_no_connection_and_shares_the_account() {
        let users = Users::default();
        let visit = users.visit("ann").unwrap();
        let first = users.enter("ann", Some(1)).unwrap();
        assert!(users.enter("ann", Some(1)).is_none());
        let given = (0..10).filter(|n| [&visit, &first][n % 2].take_publish(100_000, 4)).count();
        assert_eq!(given, 4);
        drop(first);
        assert_eq!(users.len(), 1, "the visit goes on");
        assert!(users.enter("ann", Some(1)).is_some());
        drop(visit);
        assert!(users.is_empty());
    }

    #[test]
    fn all_connections_of_a_user_share_its_publishes() {
        let users = Users::default();
        let (one, two) = (users.enter("ann", None).unwrap(), users.enter("ann", None).unwrap());
        let taken = |at: u64| (0..20).filter(|n| [&one, &two][n % 2].take_publish(at, 10)).count();
        assert_eq!(taken(100_000), 10);
        // Clocks of two shards that look apart give nothing away.
        let mut given = 0;
        for _ in 0..100 {
            given += usize::from(one.take_publish(100_000, 10)) + usize::from(two.take_publish(99_990, 10));
        }
        assert_eq!(given, 0);
        assert_eq!(taken(100_500), 5);
        assert_eq!(taken(1_000), 0, "a clock that is set back gives nothing");
        assert_eq!(taken(2_000), 10, "and goes on from there");
        assert!(users.enter("bob", None).unwrap().take_publish(2_000, 10));
    }
}
