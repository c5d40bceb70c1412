//! Where on this node a session is.

use std::sync::{Mutex, MutexGuard, PoisonError};

use ahash::{AHashMap, AHashSet};
use uuid::Uuid;

use crate::shard::ConnId;

/// Stripes of the table: a power of two, so that shards seldom wait for each other.
const STRIPES: usize = 64;

/// A connection of one of this node's shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// Number of the shard.
    pub shard: u16,
    /// Its name for the connection.
    pub conn: ConnId,
}

/// What became of a session that opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// Nobody on this node had it.
    Alone,
    /// It was here, over this connection, which is to be closed.
    Took(Place),
    /// A later connection on this node has it already: nothing was noted, and this one is to be closed.
    Late,
}

/// A session's place, and the tenure of its connection.
type Held = (Place, u32);

/// The open sessions of this node, by id and by user. Written when one opens and when it ends. A session has one place.
#[derive(Debug)]
pub struct Places {
    sessions: [Mutex<AHashMap<Uuid, Held>>; STRIPES],
    users: [Mutex<AHashMap<Box<str>, AHashSet<Place>>>; STRIPES],
    hasher: ahash::RandomState,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            sessions: std::array::from_fn(|_| Mutex::default()),
            users: std::array::from_fn(|_| Mutex::default()),
            hasher: ahash::RandomState::new(),
        }
    }
}

impl Places {
    /// Notes a session that opened, unless a connection of a later tenure has it; `user` is empty if it is anonymous.
    #[must_use]
    pub fn open(&self, session: &str, user: &str, place: Place, tenure: u32) -> Opened {
        let mut opened = Opened::Alone;
        if let Ok(id) = Uuid::try_parse(session) {
            let mut sessions = lock(&self.sessions[self.stripe(&id)]);
            match sessions.get(&id) {
                Some((_, held)) if *held > tenure => return Opened::Late,
                Some((former, _)) if *former != place => opened = Opened::Took(*former),
                _ => {}
            }
            sessions.insert(id, (place, tenure));
        }
        if !user.is_empty() {
            lock(&self.users[self.stripe(user)]).entry(user.into()).or_default().insert(place);
        }
        opened
    }

    /// Forgets a session, unless another connection has it now.
    pub fn close(&self, session: &str, user: &str, place: Place) {
        if let Ok(id) = Uuid::try_parse(session) {
            let mut sessions = lock(&self.sessions[self.stripe(&id)]);
            if sessions.get(&id).is_some_and(|(held, _)| *held == place) {
                sessions.remove(&id);
            }
        }
        if !user.is_empty() {
            let mut users = lock(&self.users[self.stripe(user)]);
            if let Some(places) = users.get_mut(user) {
                places.remove(&place);
                if places.is_empty() {
                    users.remove(user);
                }
            }
        }
    }

    /// Where a session is.
    #[must_use]
    pub fn session(&self, session: &str) -> Option<Place> {
        self.held(session).map(|(place, _)| place)
    }

    /// Where a session is, if over a connection of an earlier tenure.
    #[must_use]
    pub fn before(&self, session: &str, tenure: u32) -> Option<Place> {
        self.held(session).filter(|(_, held)| *held < tenure).map(|(place, _)| place)
    }

    /// Where the sessions of a user are.
    #[must_use]
    pub fn user(&self, user: &str) -> Vec<Place> {
        let users = lock(&self.users[self.stripe(user)]);
        users.get(user).map(|places| places.iter().copied().collect()).unwrap_or_default()
    }

    /// How many sessions there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.sessions.iter().map(|stripe| lock(stripe).len()).sum()
    }

    fn held(&self, session: &str) -> Option<Held> {
        let id = Uuid::try_parse(session).ok()?;
        lock(&self.sessions[self.stripe(&id)]).get(&id).copied()
    }

    fn stripe<T: std::hash::Hash + ?Sized>(&self, key: &T) -> usize {
        usize::try_from(self.hasher.hash_one(key) % STRIPES as u64).unwrap_or(0)
    }
}

/// Nothing panics while it is held.
fn lock<T>(stripe: &Mutex<T>) -> MutexGuard<'_, T> {
    stripe.lock().unwrap_or_else(PoisonError::into_inner)
}
