//! Notices a connection that died without a word.

use std::time::{Duration, Instant};

/// So many intervals of silence mean that the connection is dead.
const PATIENCE: u32 = 3;

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Beat {
    Fine,
    /// Ask for a sign of life, and give one.
    Ping,
    /// Nothing heard for this long.
    Dead(Duration),
}

/// Watches one connection. A server that pings is only listened to; any other is pinged, which also keeps its idle
/// timeout from closing a client that only listens.
#[derive(Debug)]
pub(super) struct Heartbeat {
    interval: Duration,
    heard: Instant,
    /// When to ping next, if it is on us.
    ping_at: Option<Instant>,
}

impl Heartbeat {
    /// `server_ms`: how often the server pings, 0 if it does not; then this side pings every `own`.
    pub(super) fn new(server_ms: u32, own: Duration, now: Instant) -> Self {
        if server_ms > 0 {
            return Self { interval: Duration::from_millis(server_ms.into()), heard: now, ping_at: None };
        }
        Self { interval: own, heard: now, ping_at: Some(now + own) }
    }

    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    pub(super) fn deadline(&self) -> Instant {
        let dead = self.heard + self.interval * PATIENCE;
        self.ping_at.map_or(dead, |ping| ping.min(dead))
    }

    pub(super) fn beat(&mut self, now: Instant) -> Beat {
        let silence = now.saturating_duration_since(self.heard);
        if silence >= self.interval * PATIENCE {
            return Beat::Dead(silence);
        }
        match self.ping_at {
            Some(at) if at <= now => {
                self.ping_at = Some(now + self.interval);
                Beat::Ping
            }
            _ => Beat::Fine,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_server_that_pings_is_dead_after_three_silent_intervals() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(1000, 20 * SECOND, start);
        assert_eq!(heartbeat.beat(start + 2 * SECOND), Beat::Fine);
        heartbeat.heard(start + 2 * SECOND);
        assert_eq!(heartbeat.deadline(), start + 5 * SECOND);
        assert_eq!(heartbeat.beat(start + 5 * SECOND), Beat::Dead(3 * SECOND));
    }

    #[test]
    fn a_server_that_does_not_ping_is_pinged() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(0, SECOND, start);
        assert_eq!(heartbeat.deadline(), start + SECOND);
        assert_eq!(heartbeat.beat(start + SECOND), Beat::Ping);
        assert_eq!(heartbeat.beat(start + SECOND), Beat::Fine);
        assert_eq!(heartbeat.beat(start + 3 * SECOND), Beat::Dead(3 * SECOND));
    }
}
