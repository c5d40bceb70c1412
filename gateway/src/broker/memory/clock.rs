//! The broker's clock.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Wall time that never goes back: read once, then advanced by tokio's clock, which tests can pause and steer.
#[derive(Debug)]
pub(super) struct Clock {
    start_ms: u64,
    start: Instant,
}

impl Clock {
    pub(super) fn new() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX), start: Instant::now() }
    }

    /// Milliseconds since the Unix epoch.
    pub(super) fn now_ms(&self) -> u64 {
        self.start_ms.saturating_add(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}
