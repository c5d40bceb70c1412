//! How much may wait for a partition.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::broker::BrokerError;

/// Most requests that wait.
const GREATEST_COUNT: usize = 100_000;
/// Most bytes that wait.
const GREATEST_BYTES: usize = 64 * 1024 * 1024;

/// Counts what waits.
#[derive(Debug, Clone, Default)]
pub struct Load(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

/// The share of one request; given back when dropped.
#[derive(Debug, Default)]
pub struct Permit {
    load: Load,
    bytes: usize,
    counted: bool,
}

impl Load {
    /// Counts a request.
    ///
    /// # Errors
    /// [`BrokerError::NotAvailable`], never sent, if too much waits already.
    pub fn admit(&self, bytes: usize) -> Result<Permit, BrokerError> {
        let permit = Permit { load: self.clone(), bytes, counted: true };
        let requests = self.0.requests.fetch_add(1, Ordering::Relaxed);
        let waiting = self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
        if requests < GREATEST_COUNT && waiting + bytes <= GREATEST_BYTES {
            return Ok(permit);
        }
        Err(BrokerError::NotAvailable {
            reason: format!("{requests} requests of {waiting} bytes wait for Redis already"),
            sent: false,
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.counted {
            self.load.0.requests.fetch_sub(1, Ordering::Relaxed);
            self.load.0.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_and_given_back() {
        let load = Load::default();
        let half = load.admit(GREATEST_BYTES / 2 + 1).unwrap();
        let refused = load.admit(GREATEST_BYTES / 2).unwrap_err();
        assert!(matches!(refused, BrokerError::NotAvailable { sent: false, .. }));
        drop(half);
        assert!(load.admit(GREATEST_BYTES).is_ok());
        assert_eq!(load.0.requests.load(Ordering::Relaxed), 0);
    }
}
