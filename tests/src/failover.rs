//! What clients see of a failover, and the judge of it.
//!
//! Like [`History`](crate::history::History) the judge knows that acknowledged publications may be lost, if that is announced:
//! a gap with `EPOCH_RESET`. Everything else holds as ever: what is delivered is in order and without holes, nothing
//! comes twice, and no position ever carries two payloads.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use streamgate_client::{Client, Event, GapReason, Position, PublishOptions, Status};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{events::text, gateway::Addrs, history::payload_of, raw::Via, sentinel::FAILOVER};

/// Epoch and offset.
type Place = (u64, u64);

/// Something that a subscriber got from one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    Message(Place, String),
    Reset,
}

/// What happened, written down by everybody.
#[derive(Debug, Default)]
pub struct Books {
    /// Channel, position and payload of each acknowledgement.
    acked: Vec<(String, Place, String)>,
    /// Payloads whose publish failed: stored or not.
    unknown: BTreeSet<String>,
    /// By subscriber and channel.
    seen: BTreeMap<(String, String), Vec<Item>>,
}

/// Clients of several nodes, and what they wrote down.
pub struct Audience {
    books: Arc<watch::Sender<Books>>,
    clients: Vec<(String, Client)>,
    channels: Vec<String>,
    /// What became of connections that must not end.
    lost: Arc<Mutex<Vec<String>>>,
    tasks: Vec<JoinHandle<()>>,
}

fn place(position: Option<&Position>) -> Place {
    let position = position.expect("a position");
    (position.epoch.parse().expect("an epoch"), position.offset)
}

impl Audience {
    /// One client of each transport at each node, each subscribed to all channels: those on gRPC by a pattern that
    /// must match them all.
    pub async fn at(nodes: &[Addrs], channels: &[&str], pattern: &str) -> Self {
        let mut audience = Self {
            books: Arc::new(watch::Sender::new(Books::default())),
            clients: Vec::new(),
            channels: channels.iter().map(|channel| (*channel).to_owned()).collect(),
            lost: Arc::default(),
            tasks: Vec::new(),
        };
        for (number, node) in nodes.iter().enumerate() {
            for via in Via::ALL {
                let name = format!("{via:?} at node {number}");
                let client = crate::cluster::connect(&[*node], via).await;
                let targets = if via == Via::Grpc { &[pattern][..] } else { channels };
                for target in targets {
                    audience.listen(&name, &client, target).await;
                }
                audience.watch_over(&name, &client);
                audience.clients.push((name, client));
            }
        }
        audience
    }

    async fn listen(&mut self, name: &str, client: &Client, target: &str) {
        let mut subscription = client.subscribe(target).await.expect("subscribes");
        let (books, name) = (self.books.clone(), name.to_owned());
        self.tasks.push(tokio::spawn(async move {
            while let Some(event) = subscription.next().await {
                let (channel, item) = match event {
                    Event::Message(message) => {
                        let place = place(message.position.as_ref());
                        (message.channel, Item::Message(place, payload_of(&message.event)))
                    }
                    Event::Gap(gap) if gap.reason == GapReason::EpochReset => (gap.channel, Item::Reset),
                    // The end of the test.
                    Event::Closed(_) => return,
                    other => panic!("{name}: {other:?}"),
                };
                books.send_modify(|books| {
                    books.seen.entry((name.clone(), channel)).or_default().push(item);
                });
            }
        }));
    }

    fn watch_over(&mut self, name: &str, client: &Client) {
        let (mut status, lost, name) = (client.status(), self.lost.clone(), name.to_owned());
        self.tasks.push(tokio::spawn(async move {
            while status.changed().await.is_ok() {
                let now = status.borrow_and_update().clone();
                if matches!(now, Status::Disconnected { .. }) {
                    lost.lock().expect("not poisoned").push(format!("{name}: {now:?}"));
                }
            }
        }));
    }

    /// Publishes one payload to a channel through a client and writes down the outcome; whether it was acknowledged.
    pub async fn publish(&self, client: usize, channel: &str, payload: &str) -> bool {
        let client = &self.clients[client % self.clients.len()].1;
        note(&self.books, client, channel, payload).await
    }

    /// Publishes on, through one client of each node in turn, until cancelled.
    #[must_use]
    pub fn keep_publishing(&self, stop: &CancellationToken) -> Vec<JoinHandle<()>> {
        let publisher = |(number, (_, client)): (usize, &(String, Client))| {
            let (books, client, stop) = (self.books.clone(), client.clone(), stop.clone());
            let channels = self.channels.clone();
            tokio::spawn(async move {
                let mut beat = tokio::time::interval(Duration::from_millis(4));
                for count in 0.. {
                    beat.tick().await;
                    if stop.is_cancelled() {
                        return;
                    }
                    let channel = &channels[count % channels.len()];
                    note(&books, &client, channel, &format!("p{number}.{count}")).await;
                }
            })
        };
        self.clients.iter().enumerate().step_by(2).map(publisher).collect()
    }

    /// Waits until the books are so.
    pub async fn until(&self, what: &str, holds: impl Fn(&Books) -> bool) {
        let mut books = self.books.subscribe();
        let waited = timeout(FAILOVER, books.wait_for(|books| holds(books))).await.is_ok();
        assert!(waited, "{what}: not within {FAILOVER:?}; {}", self.books.borrow().summary());
    }

    /// Waits for so many more acknowledgements.
    pub async fn more_acks(&self, count: usize) {
        let wanted = self.books.borrow().acked.len() + count;
        self.until("acknowledgements", |books| books.acked.len() >= wanted).await;
    }

    /// Publishes a last payload to each channel until it is acknowledged, and waits until every subscriber has it.
    pub async fn finish(&self) {
        for channel in &self.channels {
            let mut attempt = 0;
            while !self.publish(attempt, channel, &format!("end.{channel}.{attempt}")).await {
                attempt += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        let pairs = || {
            let names = self.clients.iter().map(|(name, _)| name.clone());
            names.flat_map(|name| self.channels.iter().map(move |channel| (name.clone(), channel.clone())))
        };
        let last = |books: &Books, channel: &str| {
            books.acked.iter().rev().find(|(of, _, _)| of == channel).map(|(_, place, _)| *place)
        };
        self.until("the last publications", |books| {
            pairs().all(|pair| {
                let end = last(books, &pair.1);
                let seen = books.seen.get(&pair).map_or(&[][..], Vec::as_slice);
                seen.iter().any(|item| matches!(item, Item::Message(place, _) if Some(*place) == end))
            })
        })
        .await;
    }

    /// How many resets each subscriber was told of in this channel.
    #[must_use]
    pub fn resets(&self, channel: &str) -> Vec<usize> {
        let books = self.books.borrow();
        let count = |name: &String| {
            let seen = books.seen.get(&(name.clone(), channel.to_owned()));
            seen.map_or(0, |seen| seen.iter().filter(|item| **item == Item::Reset).count())
        };
        self.clients.iter().map(|(name, _)| count(name)).collect()
    }

    /// Ends the test if anything is wrong, and answers a summary.
    ///
    /// # Panics
    /// With the faults.
    #[must_use]
    pub fn judge(&self) -> String {
        let lost = self.lost.lock().expect("not poisoned").clone();
        assert!(lost.is_empty(), "connections were lost: {lost:?}");
        let books = self.books.borrow();
        let mut faults = books.two_histories();
        for ((name, channel), items) in &books.seen {
            faults.extend(books.faults_of(name, channel, items));
        }
        let shown: Vec<_> = faults.iter().take(20).cloned().collect();
        assert!(faults.is_empty(), "{} faults; {}:\n{}", faults.len(), books.summary(), shown.join("\n"));
        books.summary()
    }
}

impl Drop for Audience {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn note(books: &watch::Sender<Books>, client: &Client, channel: &str, payload: &str) -> bool {
    let outcome = client.publish(channel, text(payload, payload), PublishOptions::default()).await;
    books.send_modify(|books| match &outcome {
        Ok(ack) => {
            books.acked.push((channel.to_owned(), place(ack.position.as_ref()), payload.to_owned()));
        }
        Err(_) => {
            books.unknown.insert(payload.to_owned());
        }
    });
    outcome.is_ok()
}

impl Books {
    /// How many messages whose payload begins so were delivered.
    #[must_use]
    pub fn deliveries(&self, beginning: &str) -> usize {
        let begins =
            |item: &&Item| matches!(item, Item::Message(_, payload) if payload.starts_with(beginning));
        self.seen.values().flatten().filter(begins).count()
    }

    fn summary(&self) -> String {
        let resets: usize = self.seen.values().flatten().filter(|item| **item == Item::Reset).count();
        format!("{} acked, {} unknown, {resets} resets told", self.acked.len(), self.unknown.len())
    }

    /// Positions that carry two payloads, wherever they were seen or acknowledged.
    fn two_histories(&self) -> Vec<String> {
        let seen = self.seen.iter().flat_map(|((_, channel), items)| {
            items.iter().filter_map(move |item| match item {
                Item::Message(place, payload) => Some((channel, place, payload)),
                Item::Reset => None,
            })
        });
        let acked = self.acked.iter().map(|(channel, place, payload)| (channel, place, payload));
        let mut known: BTreeMap<(&String, &Place), &String> = BTreeMap::new();
        let mut faults = Vec::new();
        for (channel, place, payload) in seen.chain(acked) {
            let first = known.entry((channel, place)).or_insert(payload);
            if *first != payload {
                faults.push(format!("{channel} {place:?} is both {first} and {payload}"));
            }
        }
        faults
    }

    /// Faults in what one subscriber got of one channel.
    fn faults_of(&self, name: &str, channel: &str, items: &[Item]) -> Vec<String> {
        let mut faults = Vec::new();
        let (mut payloads, mut known) = (BTreeSet::new(), BTreeSet::new());
        let (mut last, mut reset) = (None::<Place>, false);
        for item in items {
            let Item::Message(at, payload) = item else {
                reset = true;
                // With the history its idempotency records were lost: what had no answer and was sent again is new.
                known.clear();
                continue;
            };
            payloads.insert(payload.as_str());
            if !known.insert(payload.as_str()) {
                faults.push(format!("{name}: {channel} {at:?} {payload} twice"));
            }
            match last {
                Some(before) if reset && at.0 <= before.0 => {
                    faults.push(format!("{name}: {channel} {at:?} after a reset behind {before:?}"));
                }
                Some(before) if !reset && (at.1 != before.1 + 1 || at.0 < before.0) => {
                    faults.push(format!("{name}: {channel} {at:?} follows {before:?} without a word"));
                }
                _ => {}
            }
            (last, reset) = (Some(*at), false);
        }
        let announced = items.contains(&Item::Reset);
        let missing = self
            .acked
            .iter()
            .filter(|(of, _, payload)| of == channel && !payloads.contains(payload.as_str()) && !announced);
        faults
            .extend(missing.map(|(_, at, payload)| format!("{name}: {channel} {at:?} {payload} is missing")));
        faults
    }
}
