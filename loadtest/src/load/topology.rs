//! Who listens to what, and who publishes where.

use std::sync::Arc;

use crate::clients::dialect::Target;

/// All clients of a run and all streams between them.
#[derive(Debug, Default)]
pub struct Topology {
    /// What each client subscribes to, by its number.
    pub clients: Vec<Vec<Target>>,
    /// The streams, by their number.
    pub streams: Vec<Stream>,
}

/// One publisher's publications to one channel.
#[derive(Debug, Clone)]
pub struct Stream {
    /// The client that publishes.
    pub publisher: usize,
    /// Where to.
    pub channel: Arc<str>,
    /// Clients that get each publication.
    pub receivers: u32,
}

impl Topology {
    /// Adds a client.
    pub fn client(&mut self, targets: Vec<Target>) -> usize {
        self.clients.push(targets);
        self.clients.len() - 1
    }

    /// Adds a stream.
    pub fn stream(&mut self, publisher: usize, channel: &str, receivers: usize) {
        let receivers = u32::try_from(receivers).unwrap_or(u32::MAX);
        self.streams.push(Stream { publisher, channel: channel.into(), receivers });
    }

    /// Deliveries for one publication to each stream.
    pub fn deliveries(&self) -> u64 {
        self.streams.iter().map(|stream| u64::from(stream.receivers)).sum()
    }
}

impl Target {
    /// A channel or pattern from now on, nothing else wanted.
    pub fn live(channel: impl Into<String>) -> Self {
        Self { channel: channel.into(), ..Self::default() }
    }
}
