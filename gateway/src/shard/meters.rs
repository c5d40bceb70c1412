//! The shard's metrics, looked up once.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::{
    broker::{BrokerError, Published},
    error::CloseCode,
    telemetry::metrics as names,
    transport::Wire,
};

const WIRES: [Wire; Wire::COUNT] =
    [Wire::WsJson, Wire::WsProto, Wire::Grpc, Wire::WsEvents, Wire::Sse, Wire::Http];

/// Handles of what is counted for every message.
pub(super) struct Meters {
    /// Open connections, by [`Wire::index`].
    pub connections: [Gauge; Wire::COUNT],
    /// Frames from clients, by [`Wire::index`].
    pub received: [Counter; Wire::COUNT],
    /// Frames to clients.
    pub sent: Counter,
    /// Open subscriptions.
    pub subscriptions: Gauge,
    /// Seconds from the broker's time of a publication to its place in a client's write queue.
    pub latency: Histogram,
    /// Connections closed with 3512.
    pub slow: Counter,
    /// Publishes that were stored or handed on.
    acked: Counter,
    /// Publishes whose idempotency key was known.
    duplicate: Counter,
    /// Publishes that the broker did not take.
    failed: Counter,
    /// Publishes that were not let in.
    pub refused: Counter,
}

impl Meters {
    pub fn new() -> Self {
        let publishes = |outcome: &'static str| counter!(names::PUBLISHES, "outcome" => outcome);
        Self {
            connections: WIRES.map(|wire| gauge!(names::CONNECTIONS, "transport" => wire.label())),
            received: WIRES.map(|wire| counter!(names::MESSAGES_IN, "transport" => wire.label())),
            sent: counter!(names::MESSAGES_OUT),
            subscriptions: gauge!(names::SUBSCRIPTIONS),
            latency: histogram!(names::PUBLISH_DELIVER_SECONDS),
            slow: counter!(names::SLOW_CONSUMERS),
            acked: publishes("acked"),
            duplicate: publishes("duplicate"),
            failed: publishes("failed"),
            refused: publishes("refused"),
        }
    }

    /// Counts what became of a publish that the broker was asked for.
    pub fn published(&self, result: &Result<Published, BrokerError>) {
        let outcome = match result {
            Ok(Published { duplicate: false, .. }) => &self.acked,
            Ok(Published { duplicate: true, .. }) => &self.duplicate,
            Err(_) => &self.failed,
        };
        outcome.increment(1);
    }

    /// Counts a close that the server decided.
    pub fn closed(&self, code: CloseCode) {
        if code == CloseCode::SlowConsumer {
            self.slow.increment(1);
        }
        counter!(names::CLOSES, "code" => code.code().to_string()).increment(1);
    }
}
