//! Values by name that are forgotten after a time: idempotency records and session records.

use std::{collections::BTreeSet, sync::Arc};

use ahash::AHashMap;

/// Bookkeeping of one value: its map entry, its place in the queue, and the allocation of its name.
const OVERHEAD: usize = 160;

#[derive(Debug)]
pub(super) struct Expiring<V> {
    values: AHashMap<Arc<str>, Kept<V>>,
    /// Expiry in milliseconds since the Unix epoch, soonest first; exactly one item for each value.
    queue: BTreeSet<(u64, Arc<str>)>,
    bytes: usize,
}

#[derive(Debug)]
struct Kept<V> {
    value: V,
    expires_ms: u64,
    bytes: usize,
}

impl<V> Expiring<V> {
    pub(super) fn new() -> Self {
        Self { values: AHashMap::new(), queue: BTreeSet::new(), bytes: 0 }
    }

    /// Bytes that a value of `bytes` named `name` will count.
    pub(super) fn cost(name: &str, bytes: usize) -> usize {
        OVERHEAD + name.len() + size_of::<V>() + bytes
    }

    /// Bytes in use.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps or replaces; `bytes` is what the value holds beyond its own size.
    pub(super) fn insert(&mut self, name: &str, value: V, bytes: usize, expires_ms: u64) {
        self.remove(name);
        let name: Arc<str> = name.into();
        let bytes = Self::cost(&name, bytes);
        self.bytes += bytes;
        self.queue.insert((expires_ms, name.clone()));
        self.values.insert(name, Kept { value, expires_ms, bytes });
    }

    /// The value, unless it has expired.
    pub(super) fn get(&self, name: &str, now_ms: u64) -> Option<&V> {
        self.values.get(name).filter(|kept| kept.expires_ms > now_ms).map(|kept| &kept.value)
    }

    /// The same, to be changed without another size.
    pub(super) fn get_mut(&mut self, name: &str, now_ms: u64) -> Option<&mut V> {
        self.values.get_mut(name).filter(|kept| kept.expires_ms > now_ms).map(|kept| &mut kept.value)
    }

    /// Forgets what has expired.
    pub(super) fn expire(&mut self, now_ms: u64) {
        while let Some((expires_ms, name)) = self.queue.first() {
            if *expires_ms > now_ms {
                break;
            }
            let name = name.clone();
            self.remove(&name);
        }
    }

    pub(super) fn remove(&mut self, name: &str) {
        if let Some((name, kept)) = self.values.remove_entry(name) {
            self.bytes -= kept.bytes;
            self.queue.remove(&(kept.expires_ms, name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_expire_and_give_their_bytes_back() {
        let mut values = Expiring::new();
        values.insert("a", 1, 10, 100);
        values.insert("b", 2, 10, 200);
        values.insert("a", 3, 10, 150);
        assert_eq!(values.bytes(), 2 * Expiring::<i32>::cost("a", 10));
        assert_eq!(values.get("a", 149), Some(&3));
        assert_eq!(values.get("a", 150), None);
        values.expire(150);
        assert_eq!(values.bytes(), Expiring::<i32>::cost("b", 10));
        values.expire(200);
        assert_eq!((values.bytes(), values.queue.len(), values.values.len()), (0, 0, 0));
    }
}
