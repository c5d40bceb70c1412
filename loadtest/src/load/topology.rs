//! Who listens to what, and who publishes where.

use std::{collections::HashMap, sync::Arc};

use crate::clients::dialect::Subscription;

/// All clients of a run and all streams between them.
#[derive(Debug)]
pub struct Topology {
    /// A number that no other run has had, for the names of channels.
    id: u32,
    /// What each client subscribes to, by its number.
    pub clients: Vec<Vec<Subscription>>,
    /// The streams, by their number.
    pub streams: Vec<Stream>,
    /// The place among the nodes where a client connects, where that matters; the others are spread.
    pub homes: HashMap<usize, usize>,
}

/// One publisher's publications to one channel, or its calls of one method.
#[derive(Debug, Clone)]
pub struct Stream {
    /// The client that publishes.
    pub publisher: usize,
    /// Where to.
    pub channel: Arc<str>,
    /// What is called; none: it is published.
    pub method: Option<Arc<str>>,
    /// Clients that get each publication; of a call, the one that answers.
    pub receivers: Receivers,
}

/// Clients with evenly spaced numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Receivers {
    /// The first one.
    pub first: usize,
    /// How many they are.
    pub count: usize,
    /// From one to the next; at least 1 if there are several.
    pub step: usize,
}

impl Receivers {
    /// These clients, one after the other.
    pub fn of(clients: std::ops::Range<usize>) -> Self {
        Self { first: clients.start, count: clients.len(), step: 1 }
    }

    /// How many come before this client, if it is one.
    pub fn place(&self, client: usize) -> Option<usize> {
        let beyond = client.checked_sub(self.first)?;
        let step = self.step.max(1);
        (beyond % step == 0 && beyond / step < self.count).then_some(beyond / step)
    }

    /// Whether this client is one.
    pub fn contains(&self, client: usize) -> bool {
        self.place(client).is_some()
    }

    /// All of them.
    pub fn all(self) -> impl Iterator<Item = usize> {
        (0..self.count).map(move |number| self.first + number * self.step)
    }
}

impl Default for Topology {
    fn default() -> Self {
        Self { id: rand::random(), clients: Vec::new(), streams: Vec::new(), homes: HashMap::new() }
    }
}

impl Topology {
    /// A channel of this run: what another one left on the server is not there.
    pub fn channel(&self, name: impl std::fmt::Display) -> String {
        format!("load.{:08x}.{name}", self.id)
    }

    /// Adds a client.
    pub fn client(&mut self, subscriptions: Vec<Subscription>) -> usize {
        self.clients.push(subscriptions);
        self.clients.len() - 1
    }

    /// Adds a client that connects to this node, if there are so many, else to one of those before it in turn.
    pub fn client_at(&mut self, node: usize) -> usize {
        let client = self.client(Vec::new());
        self.homes.insert(client, node);
        client
    }

    /// Adds a stream of publications.
    pub fn stream(&mut self, publisher: usize, channel: &str, receivers: Receivers) {
        self.streams.push(Stream { publisher, channel: channel.into(), method: None, receivers });
    }

    /// Adds a stream of calls.
    pub fn calls(&mut self, caller: usize, channel: &str, method: &str, receivers: Receivers) {
        let (channel, method) = (channel.into(), Some(method.into()));
        self.streams.push(Stream { publisher: caller, channel, method, receivers });
    }

    /// The methods that a client answers.
    pub fn methods_of(&self, client: usize) -> Vec<String> {
        let answers = self.streams.iter().filter(|stream| stream.receivers.contains(client));
        answers.filter_map(|stream| stream.method.as_deref().map(str::to_owned)).collect()
    }

    /// Deliveries for one publication to each stream.
    pub fn deliveries(&self) -> u64 {
        self.streams.iter().map(|stream| stream.receivers.count as u64).sum()
    }
}

impl Subscription {
    /// A channel or pattern from now on, nothing else wanted.
    pub fn live(channel: impl Into<String>) -> Self {
        Self { channel: channel.into(), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receivers_are_those_that_they_list() {
        let stepped = Receivers { first: 5, count: 3, step: 10 };
        let listed: Vec<usize> = (0..100).filter(|client| stepped.contains(*client)).collect();
        assert_eq!(listed, [5, 15, 25]);
        assert_eq!(
            listed.iter().map(|client| stepped.place(*client)).collect::<Vec<_>>(),
            [0, 1, 2].map(Some)
        );
        assert_eq!(stepped.all().collect::<Vec<_>>(), listed);
        assert_eq!(Receivers::of(3..5).all().collect::<Vec<_>>(), [3, 4]);
        assert!(!Receivers::default().contains(0));
    }

    #[test]
    fn channels_of_two_runs_differ() {
        let (one, two) = (Topology::default(), Topology::default());
        assert_ne!(one.channel("a"), two.channel("a"));
    }
}
