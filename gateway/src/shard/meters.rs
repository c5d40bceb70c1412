//! The shard's metrics, looked up once.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::{error::CloseCode, transport::Wire};

const WIRES: [Wire; Wire::COUNT] = [Wire::WsJson, Wire::WsProto, Wire::Grpc];

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
}

impl Meters {
    pub fn new() -> Self {
        Self {
            connections: WIRES.map(|wire| gauge!("streamgate_connections", "transport" => wire.label())),
            received: WIRES.map(|wire| counter!("streamgate_messages_in_total", "transport" => wire.label())),
            sent: counter!("streamgate_messages_out_total"),
            subscriptions: gauge!("streamgate_subscriptions"),
            latency: histogram!("streamgate_publish_deliver_seconds"),
            slow: counter!("streamgate_slow_consumers_total"),
        }
    }

    /// Counts a close that the server decided.
    pub fn closed(&self, code: CloseCode) {
        if code == CloseCode::SlowConsumer {
            self.slow.increment(1);
        }
        counter!("streamgate_closes_total", "code" => code.code().to_string()).increment(1);
    }
}
