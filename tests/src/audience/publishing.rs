//! Clients that publish while something is done to the servers.

use std::time::{Duration, Instant};

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use streamgate_client::{Client, PublishAck, PublishOptions};
use tokio::{sync::watch, task::JoinHandle, time::MissedTickBehavior};

use crate::{events, within};

/// Longer than any outage of these tests: a publish must not give up before Redis is back.
const PATIENCE: Duration = Duration::from_secs(180);
/// Publishes in one beat, where they do not wait for each other.
const GROUP: usize = 5;

/// A publish that was acknowledged, if need be after retries of the client library with one key.
#[derive(Debug, Clone)]
pub struct Acked {
    /// Where to.
    pub channel: String,
    /// What tells it from all others. Its idempotency key, too, if [`Publishing`] sent it.
    pub payload: String,
    /// The acknowledgement.
    pub ack: PublishAck,
    /// How long it took.
    pub took: Duration,
}

/// Publishes until it is told to stop.
pub struct Publishing {
    stop: watch::Sender<bool>,
    task: JoinHandle<Vec<Acked>>,
    acked: watch::Receiver<usize>,
}

/// When the next events go.
#[derive(Clone, Copy)]
struct Pace {
    every: Duration,
    /// So many at once.
    group: usize,
    /// Not before all those of before were acknowledged.
    in_turn: bool,
}

impl Publishing {
    /// Publishes to the channels in turn, one event at a time, with a pause between them.
    #[must_use]
    pub fn start(client: Client, tag: &str, channels: &[&str], pause: Duration) -> Self {
        let channels = channels.iter().map(|&channel| channel.to_owned()).collect();
        let pace = Pace { every: pause, group: 1, in_turn: true };
        Self::spawn(vec![client], tag, channels, pace)
    }

    /// Publishes `rate` events a second, in turn to `channels` and through `clients`, whatever becomes of them.
    #[must_use]
    pub fn at_rate(clients: Vec<Client>, channels: Vec<String>, rate: usize) -> Self {
        let every = Duration::from_secs(1) * GROUP as u32 / rate as u32;
        Self::spawn(clients, "", channels, Pace { every, group: GROUP, in_turn: false })
    }

    fn spawn(clients: Vec<Client>, tag: &str, channels: Vec<String>, pace: Pace) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (count, acked) = watch::channel(0);
        let task = tokio::spawn(run(clients, tag.to_owned(), channels, pace, stopped, count));
        Self { stop, task, acked }
    }

    /// Waits until so many were acknowledged.
    pub async fn acked(&self, count: usize) {
        let mut acked = self.acked.clone();
        within(&format!("{count} acks"), acked.wait_for(|acked| *acked >= count))
            .await
            .expect("it publishes");
    }

    /// How many were acknowledged so far.
    #[must_use]
    pub fn count(&self) -> usize {
        *self.acked.borrow()
    }

    /// Stops, and answers all that were acknowledged, with what is under way.
    pub async fn stop(self) -> Vec<Acked> {
        self.stop.send_replace(true);
        within("the last publishes", self.task).await.expect("the publisher ends well")
    }
}

async fn run(
    clients: Vec<Client>,
    tag: String,
    channels: Vec<String>,
    pace: Pace,
    mut stopped: watch::Receiver<bool>,
    count: watch::Sender<usize>,
) -> Vec<Acked> {
    let mut beat = tokio::time::interval(pace.every);
    let missed = if pace.in_turn { MissedTickBehavior::Delay } else { MissedTickBehavior::Burst };
    beat.set_missed_tick_behavior(missed);
    let (mut acks, mut done, mut number) = (FuturesUnordered::new(), Vec::new(), 0);
    loop {
        let free = !pace.in_turn || acks.is_empty();
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => break,
            _ = beat.tick(), if free => {
                for _ in 0..pace.group {
                    let client = clients[number % clients.len()].clone();
                    let channel = channels[number / clients.len() % channels.len()].clone();
                    let payload = format!("{tag} {number}");
                    acks.push(async move { keyed(&client, &channel, &payload).await }.boxed());
                    number += 1;
                }
            }
            Some(acked) = acks.next() => {
                done.push(acked);
                count.send_replace(done.len());
            }
        }
    }
    done.extend(acks.collect::<Vec<_>>().await);
    done
}

async fn keyed(client: &Client, channel: &str, payload: &str) -> Acked {
    send(client, channel, payload, PublishOptions::with_key(payload)).await
}

/// Publishes an event with this text; it is tried until it is stored.
///
/// # Panics
/// It was refused.
pub async fn publish(client: &Client, channel: &str, payload: &str) -> Acked {
    send(client, channel, payload, PublishOptions::default()).await
}

async fn send(client: &Client, channel: &str, payload: &str, options: PublishOptions) -> Acked {
    let (options, began) = (PublishOptions { timeout: Some(PATIENCE), ..options }, Instant::now());
    let ack = client.publish(channel, events::text(payload, payload), options).await;
    let ack = ack.unwrap_or_else(|error| panic!("{payload} was not stored: {error}"));
    Acked { channel: channel.to_owned(), payload: payload.to_owned(), ack, took: began.elapsed() }
}

/// The longest that a publish took, and how many took longer than `bound`.
#[must_use]
pub fn slowest(acked: &[Acked], bound: Duration) -> (Duration, usize) {
    let longest = acked.iter().map(|acked| acked.took).max().unwrap_or_default();
    (longest, acked.iter().filter(|acked| acked.took > bound).count())
}
