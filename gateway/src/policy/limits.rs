//! Limits that hold for every client, whatever the channel.

use std::time::Duration;

/// What one connection, or one user, may use; reloadable. Zero never means "unlimited".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Subscriptions of one client; one more closes it with 3505.
    pub subscriptions_per_client: usize,
    /// Bytes that may wait to be written to a client; more closes it with 3512.
    pub write_queue_bytes: usize,
    /// Publishes of one client per second (token bucket, the burst is one second's worth); above it:
    /// error `RATE_LIMITED`.
    pub publishes_per_second: u32,
    /// The same for all connections of a user to this node together; none: no limit.
    pub publishes_per_second_per_user: Option<u32>,
    /// Calls of one client per second: RPCs, surveys, and requests that a backend is asked about (publishes apart); above it:
    /// error `RATE_LIMITED`.
    pub calls_per_second: u32,
    /// Connections of one user to this node; one more is closed with 3504. None: no limit.
    pub connections_per_user: Option<usize>,
    /// Channels that one connection may publish or subscribe to for the first time, per minute; above it:
    /// error `RATE_LIMITED`.
    pub new_channels_per_minute: u32,
    /// Greatest assembled message from a client, in bytes; a larger one closes with 1009.
    pub frame_bytes: usize,
    /// Undecodable frames in a row before the client is closed with 3509.
    pub errors_in_a_row: u32,
    /// Time for the first frame, connect; later closes with 3502.
    pub connect_deadline: Duration,
    /// Silence of a client that closes it with 3511.
    pub idle_timeout: Duration,
    /// How often the server pings; a client of `streamgate.v1` is told. Below `idle_timeout`.
    pub ping_interval: Duration,
    /// How long a resume token of a broken connection brings the session back.
    pub resume_window: Duration,
    /// How long a server-side operation (publish, subscribe, history) may take before `NOT_AVAILABLE`.
    pub request_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            subscriptions_per_client: 1_000,
            write_queue_bytes: 1024 * 1024,
            publishes_per_second: 5_000,
            publishes_per_second_per_user: None,
            calls_per_second: 1_000,
            connections_per_user: None,
            new_channels_per_minute: 1_000,
            frame_bytes: 64 * 1024,
            errors_in_a_row: 20,
            connect_deadline: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(300),
            ping_interval: Duration::from_secs(25),
            resume_window: Duration::from_secs(600),
            request_timeout: Duration::from_secs(5),
        }
    }
}
