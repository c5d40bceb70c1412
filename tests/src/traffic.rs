//! Publishes and subscriptions that go on while something is done to the servers, and what became of them.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use streamgate_client::{Client, Event, Gap, Message, PublishAck, PublishOptions, Status};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::MissedTickBehavior,
};

use crate::{events, history::Recorder, within};

/// Longer than anything that these suites do to a server.
const PATIENCE: Duration = Duration::from_secs(120);
/// Publishes in one beat.
const GROUP: usize = 5;

/// A publish that was acknowledged, if need be after retries of the client library with one key.
#[derive(Debug, Clone)]
pub struct Acked {
    /// Where to.
    pub channel: String,
    /// What tells it from all others; its idempotency key, too.
    pub payload: String,
    /// The acknowledgement.
    pub ack: PublishAck,
    /// How long it took.
    pub took: Duration,
}

/// Publishes at a steady rate, until stopped.
pub struct Publishing {
    stop: watch::Sender<bool>,
    task: JoinHandle<Vec<Acked>>,
}

impl Publishing {
    /// Starts to publish `rate` events a second, in turn to `channels` and through `clients`.
    ///
    /// # Panics
    /// When it is stopped, if a publish failed: the library tries again after a retryable error, so it was another.
    #[must_use]
    pub fn start(clients: Vec<Client>, channels: Vec<String>, rate: usize) -> Self {
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(publish(clients, channels, rate, stopped));
        Self { stop, task }
    }

    /// Stops and waits for all acknowledgements.
    pub async fn stop(self) -> Vec<Acked> {
        self.stop.send_replace(true);
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .expect("all publishes are acked")
            .expect("no publish fails")
    }
}

async fn publish(
    clients: Vec<Client>,
    channels: Vec<String>,
    rate: usize,
    mut stopped: watch::Receiver<bool>,
) -> Vec<Acked> {
    let mut beat = tokio::time::interval(Duration::from_secs(1) * GROUP as u32 / rate as u32);
    beat.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut acks, mut done, mut number) = (FuturesUnordered::new(), Vec::new(), 0);
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => break,
            _ = beat.tick() => {
                for _ in 0..GROUP {
                    let client = clients[number % clients.len()].clone();
                    let channel = channels[number / clients.len() % channels.len()].clone();
                    acks.push(publish_one(client, channel, number));
                    number += 1;
                }
            }
            Some(acked) = acks.next() => done.push(acked),
        }
    }
    done.extend(acks.collect::<Vec<_>>().await);
    done
}

async fn publish_one(client: Client, channel: String, number: usize) -> Acked {
    let (payload, began) = (format!("{channel}/{number}"), Instant::now());
    let options = PublishOptions { timeout: Some(PATIENCE), ..PublishOptions::with_key(&payload) };
    let ack = client.publish(&channel, events::text(&payload, &payload), options).await;
    let ack = ack.unwrap_or_else(|error| panic!("{payload}: {error}"));
    Acked { channel, payload, ack, took: began.elapsed() }
}

/// A client with subscriptions, and everything that they yield.
pub struct Listener {
    /// For reports.
    pub name: String,
    heard: Arc<Mutex<Heard>>,
    count: watch::Receiver<usize>,
    /// Its subscriptions; ended with it.
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Heard {
    messages: Vec<Message>,
    gaps: Vec<Gap>,
    /// Why it was disconnected, and what else should not happen.
    troubles: Vec<String>,
}

impl Listener {
    /// Subscribes to each of `targets` and listens from now on.
    pub async fn start(name: impl Into<String>, client: Client, targets: &[&str]) -> Self {
        let (counter, count) = watch::channel(0);
        let (heard, counter) = (Arc::new(Mutex::new(Heard::default())), Arc::new(counter));
        let mut tasks = JoinSet::new();
        for target in targets {
            let mut subscription =
                within("a subscription", client.subscribe(*target)).await.expect("the subscription is made");
            let (heard, counter) = (heard.clone(), counter.clone());
            tasks.spawn(async move {
                while let Some(event) = subscription.next().await {
                    let mut heard = heard.lock().expect("nobody panics with it");
                    match event {
                        Event::Message(message) => heard.messages.push(message),
                        Event::Gap(gap) => heard.gaps.push(gap),
                        other => heard.troubles.push(format!("{other:?}")),
                    }
                    counter.send_replace(heard.messages.len());
                }
            });
        }
        let (mut status, noted) = (client.status(), heard.clone());
        status.mark_unchanged();
        tasks.spawn(async move {
            while status.changed().await.is_ok() {
                let now = status.borrow_and_update().clone();
                if !matches!(now, Status::Connected { .. }) {
                    noted.lock().expect("nobody panics with it").troubles.push(format!("{now:?}"));
                }
            }
            drop(client);
        });
        Self { name: name.into(), heard, count, _tasks: tasks }
    }

    /// Waits until so many messages were heard in all.
    ///
    /// # Panics
    /// It takes longer than [`DEADLINE`](crate::DEADLINE).
    pub async fn heard(&self, messages: usize) {
        let mut count = self.count.clone();
        let waiting = tokio::time::timeout(crate::DEADLINE, count.wait_for(|count| *count >= messages)).await;
        assert!(waiting.is_ok(), "{} heard {} of {messages}", self.name, *self.count.borrow());
    }

    /// What it heard up to now.
    #[must_use]
    pub fn messages(&self) -> Vec<Message> {
        self.heard.lock().expect("nobody panics with it").messages.clone()
    }

    /// The gaps that it was told up to now.
    #[must_use]
    pub fn gaps(&self) -> Vec<Gap> {
        self.heard.lock().expect("nobody panics with it").gaps.clone()
    }

    /// Ends the test if it was disconnected, or told anything but messages and gaps.
    ///
    /// # Panics
    /// With what happened.
    pub fn assert_undisturbed(&self) {
        let heard = self.heard.lock().expect("nobody panics with it");
        assert!(heard.troubles.is_empty(), "{}: {:?}", self.name, heard.troubles);
    }
}

/// Waits until every listener has heard everything, and compares: each publication once, in one order, no gap told,
/// nobody disconnected.
///
/// # Panics
/// With what is wrong.
pub async fn assert_all_heard(acked: &[Acked], listeners: &[Listener]) {
    let recorder = Recorder::default();
    listeners.iter().for_each(|listener| recorder.listens(&listener.name, "**"));
    for Acked { channel, payload, ack, .. } in acked {
        recorder.stored(channel, ack, payload);
    }
    for listener in listeners {
        listener.heard(acked.len()).await;
        listener.messages().iter().for_each(|message| recorder.saw(&listener.name, message));
    }
    recorder.assert_sound();
    for listener in listeners {
        assert_eq!(listener.gaps(), [], "{}", listener.name);
        listener.assert_undisturbed();
    }
}

/// The longest that a publish took, and how many took longer than `bound`.
#[must_use]
pub fn slowest(acked: &[Acked], bound: Duration) -> (Duration, usize) {
    let longest = acked.iter().map(|acked| acked.took).max().unwrap_or_default();
    (longest, acked.iter().filter(|acked| acked.took > bound).count())
}
