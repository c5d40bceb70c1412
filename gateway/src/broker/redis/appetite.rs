//! How many entries a read of the inboxes asks for. Pure.
//!
//! An entry holds one publication or many, of any size, and one read answers that many entries of every inbox: the number
//! follows the size of what came. A reply that takes longer than its deadline to make, to send and to parse would end
//! the connection, and the same read would come again.

/// Entries of one inbox at first, and at most.
const FIRST: u64 = 8;
const MOST: u64 = 512;
/// Bytes of a reply that are enough, and too many.
const ENOUGH: usize = 1024 * 1024;
const TOO_MANY: usize = 4 * 1024 * 1024;

/// See the module.
#[derive(Debug)]
pub struct Appetite(u64);

impl Default for Appetite {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Appetite {
    /// Entries of each inbox to ask for.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0
    }

    /// Takes note of a reply: its bytes, and the entries of the inbox that brought most.
    pub fn took(&mut self, bytes: usize, entries: usize) {
        if bytes > TOO_MANY {
            self.0 = (self.0 / 2).max(1);
        } else if bytes < ENOUGH && entries as u64 >= self.0 {
            self.0 = (self.0 * 2).min(MOST);
        }
    }

    /// Begins anew, on a connection that has shown nothing yet.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_entries_are_read_by_hundreds_and_large_ones_by_few() {
        let mut appetite = Appetite::default();
        for _ in 0..10 {
            let full = appetite.count() as usize;
            appetite.took(full * 300, full);
        }
        assert_eq!(appetite.count(), MOST);
        for _ in 0..10 {
            appetite.took(TOO_MANY + 1, 3);
        }
        assert_eq!(appetite.count(), 1, "one is always asked for");
    }

    #[test]
    fn replies_that_are_not_full_or_large_enough_change_nothing() {
        let mut appetite = Appetite::default();
        appetite.took(500, 3);
        appetite.took(ENOUGH, FIRST as usize);
        appetite.took(TOO_MANY, FIRST as usize);
        assert_eq!(appetite.count(), FIRST);
    }
}
