//! Redis's clock, as this node knows it.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use super::connection::Connection;

/// This node's clock, set by what each new connection tells of the server's. In a Cluster the masters' clocks are taken to
/// agree.
#[derive(Debug, Default)]
pub(super) struct Clock {
    ahead_ms: AtomicI64,
}

impl Clock {
    /// Milliseconds since the Unix epoch by the clock of the server that `connection` leads to; without one, of the server
    /// of before.
    pub(super) fn now_ms(&self, connection: Option<&Connection>) -> u64 {
        if let Some(connection) = connection {
            self.ahead_ms.store(connection.hello().clock_ahead_ms, Ordering::Relaxed);
        }
        unix_ms().saturating_add_signed(self.ahead_ms.load(Ordering::Relaxed))
    }
}

/// How far a clock that showed `time_ms` is ahead of this node's, which showed `asked_ms` before and `answered_ms` after it.
pub(super) fn ahead_ms(time_ms: u64, asked_ms: u64, answered_ms: u64) -> i64 {
    let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    signed(time_ms).saturating_sub(signed(asked_ms.midpoint(answered_ms)))
}

/// This node's clock.
pub(super) fn unix_ms() -> u64 {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(unix.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_compared_with_the_middle_of_the_question() {
        assert_eq!(ahead_ms(1_500, 1_000, 1_020), 490);
        assert_eq!(ahead_ms(500, 1_000, 1_020), -510);
        assert_eq!(ahead_ms(1_010, 1_000, 1_020), 0);
    }

    #[test]
    fn without_a_connection_the_clock_of_before_goes_on() {
        let clock = Clock { ahead_ms: AtomicI64::new(-5_000) };
        assert!(clock.now_ms(None) <= unix_ms() - 4_000);
    }
}
