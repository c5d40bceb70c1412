//! Publishers and subscribers of a run: they write down everything, and go on through all faults.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use streamgate_client::{Client, Cursors, Event, PublishOptions, SubscribeOptions, Subscription, matches};
use tokio::{
    sync::{Semaphore, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, MissedTickBehavior, sleep, timeout},
};

use super::{rng::Rng, stage::Stage};
use crate::{
    cluster, events,
    gateway::Addrs,
    history::{Recorder, Seen},
    raw::Via,
};

/// Channels of a run.
pub const CHANNELS: usize = 10;
/// Matches all of them.
const PATTERN: &str = "load.*";
/// Publishers, and what each publishes in a second.
const PUBLISHERS: usize = 4;
const RATE: u64 = 50;
/// Publishes of one publisher that may wait for an answer.
const WAITING: usize = 200;
/// One attempt; the next has the same key.
const ATTEMPT: Duration = Duration::from_secs(4);
/// A publish that is not acked this long after the faults have ended will never be.
const PATIENCE: Duration = Duration::from_secs(60);

/// The name of a channel.
#[must_use]
pub fn channel(index: usize) -> String {
    format!("load.c{index}")
}

/// The last publication of a channel in a run.
fn last_of(channel: &str) -> String {
    format!("last of {channel}")
}

/// Clients under way. Dropping it ends them.
pub struct Load {
    stage: Arc<Stage>,
    publishing: watch::Sender<bool>,
    publishers: Vec<JoinHandle<()>>,
    subscribers: JoinSet<()>,
    /// Who has not seen the last publication of which channel.
    waiting: Arc<Waiting>,
}

/// Subscriptions, with the channels whose last publication they have not seen.
#[derive(Default)]
struct Waiting(watch::Sender<HashSet<(String, String)>>);

/// One subscription for the whole run.
#[derive(Clone)]
struct Listener {
    name: String,
    target: String,
    recorder: Recorder,
    waiting: Arc<Waiting>,
}

impl Load {
    /// Subscribes, and begins to publish.
    ///
    /// # Panics
    /// A client cannot connect to nodes that are ready.
    pub async fn start(stage: &Arc<Stage>, seed: u64) -> Self {
        let mut load = Self {
            stage: stage.clone(),
            publishing: watch::Sender::new(true),
            publishers: Vec::new(),
            subscribers: JoinSet::new(),
            waiting: Arc::default(),
        };
        for (number, via) in Via::ALL.into_iter().enumerate() {
            load.stays(number, via).await;
            load.comes_and_goes(number, via, Rng::new(seed ^ (1 + number as u64))).await;
        }
        for number in 0..PUBLISHERS {
            let via = Via::ALL.into_iter().cycle().nth(number).unwrap_or(Via::Grpc);
            let client = cluster::connect(&stage.addrs(number), via).await;
            let rng = Rng::new(seed ^ (0x1_0000 + number as u64));
            let publisher =
                Publisher { name: format!("p{number}"), client, recorder: stage.recorder.clone() };
            load.publishers.push(tokio::spawn(publisher.run(rng, load.publishing.subscribe())));
        }
        load
    }

    /// A client that stays for the whole run, with channels and the pattern.
    async fn stays(&mut self, number: usize, via: Via) {
        let client = cluster::connect(&self.stage.addrs(number), via).await;
        for target in [channel(number), channel(number + 3), channel(number + 6)] {
            self.listen(&client, format!("{via:?} {target}"), target).await;
        }
        // A client of its own: where targets overlap, one of them would only tell of what the other got.
        let client = cluster::connect(&self.stage.addrs(number + 1), via).await;
        self.listen(&client, format!("{via:?} {PATTERN}"), PATTERN.to_owned()).await;
    }

    async fn listen(&mut self, client: &Client, name: String, target: String) {
        let listener = self.listener(name, target);
        let subscription = listener.subscribe(client, Cursors::new()).await;
        listener.recorder.listens(&listener.name, &listener.target);
        self.subscribers.spawn(async move {
            let mut subscription = subscription;
            listener.take(&mut subscription).await;
        });
    }

    /// Clients that leave without a word and come back to another node, with their cursors.
    async fn comes_and_goes(&mut self, number: usize, via: Via, mut rng: Rng) {
        for (turn, target) in [channel(number + 1), PATTERN.to_owned()].into_iter().enumerate() {
            let listener = self.listener(format!("{via:?} {target} hopping"), target);
            let (stage, rng) = (self.stage.clone(), Rng::new(rng.next_u64()));
            let client = cluster::connect(&stage.addrs(number + turn), via).await;
            let subscription = listener.subscribe(&client, Cursors::new()).await;
            listener.recorder.listens(&listener.name, &listener.target);
            self.subscribers.spawn(listener.hop(stage, via, rng, client, subscription));
        }
    }

    fn listener(&self, name: String, target: String) -> Listener {
        self.waiting.expect(&name, &target);
        Listener { name, target, recorder: self.stage.recorder.clone(), waiting: self.waiting.clone() }
    }

    /// Publishes no more, waits for all acks, then publishes the last one of each channel and waits until everybody has
    /// seen it. What is still missing then is for the checker to tell.
    pub async fn finish(mut self) {
        self.publishing.send_replace(false);
        for publisher in std::mem::take(&mut self.publishers) {
            publisher.await.expect("a publisher ends");
        }
        let client = cluster::connect(&self.stage.addrs(0), Via::WsProto).await;
        let publisher = Publisher { name: String::new(), client, recorder: self.stage.recorder.clone() };
        for number in 0..CHANNELS {
            let channel = channel(number);
            publisher.publish(last_of(&channel), channel, Instant::now() + PATIENCE).await;
        }
        let mut waiting = self.waiting.0.subscribe();
        if timeout(PATIENCE, waiting.wait_for(HashSet::is_empty)).await.is_err() {
            println!("not seen within {PATIENCE:?}: {:?}", self.waiting.0.borrow());
        }
        // What comes twice would come now: there is no event for what does not happen.
        sleep(Duration::from_millis(500)).await;
        self.subscribers.shutdown().await;
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.publishers.iter().for_each(JoinHandle::abort);
    }
}

impl Waiting {
    fn expect(&self, name: &str, target: &str) {
        let channels = (0..CHANNELS).map(channel).filter(|channel| matches(target, channel));
        self.0.send_modify(|waiting| waiting.extend(channels.map(|channel| (name.to_owned(), channel))));
    }

    fn seen(&self, name: &str, id: &str) {
        let Some(channel) = id.strip_prefix("last of ") else { return };
        self.0.send_modify(|waiting| {
            waiting.remove(&(name.to_owned(), channel.to_owned()));
        });
    }
}

impl Listener {
    /// Subscribes, however long it takes. Refusals that do not pass are written down.
    async fn subscribe(&self, client: &Client, cursors: Cursors) -> Subscription {
        loop {
            let options = SubscribeOptions::new(&self.target).cursors(cursors.clone()).unbounded();
            match client.subscribe(options).await {
                Ok(subscription) => return subscription,
                Err(error) if error.is_retryable() => sleep(Duration::from_millis(50)).await,
                Err(error) => {
                    let error = format!("refused: {error}");
                    self.recorder.history().saw(&self.name, Seen::Ended { error });
                    sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// Writes down what comes, until the subscription ends.
    async fn take(&self, subscription: &mut Subscription) {
        while let Some(event) = subscription.next().await {
            self.recorder.event(&self.name, &event);
            if let Event::Message(message) = &event {
                self.waiting.seen(&self.name, &message.event.id);
            }
        }
    }

    /// Takes what comes, leaves, comes back at another node with its cursors, and so on. Ends when it is aborted.
    async fn hop(
        self,
        stage: Arc<Stage>,
        via: Via,
        mut rng: Rng,
        mut client: Client,
        mut subscription: Subscription,
    ) {
        loop {
            // Safe to cancel: what was taken from the stream is written down before the next wait.
            let _ = timeout(rng.millis(500, 6_000), self.take(&mut subscription)).await;
            let cursors = subscription.cursors().clone();
            drop(subscription);
            drop(client);
            sleep(rng.millis(0, 2_000)).await;
            let addrs: Vec<Addrs> = stage.addrs(rng.index(stage.slots.len()));
            client = cluster::builder(&addrs, via).build().expect("valid addresses");
            // Nothing was seen and nothing is known: it begins anew.
            let anew = cursors.is_empty();
            if anew {
                self.recorder.leaves(&self.name);
            }
            subscription = self.subscribe(&client, cursors).await;
            if anew {
                self.recorder.listens(&self.name, &self.target);
            }
        }
    }
}

/// Publishes with a key, again and again until it is acked.
#[derive(Clone)]
struct Publisher {
    name: String,
    client: Client,
    recorder: Recorder,
}

impl Publisher {
    /// Publishes steadily while it may, then waits for the last acks.
    async fn run(self, mut rng: Rng, mut going: watch::Receiver<bool>) {
        let mut beat = tokio::time::interval(Duration::from_millis(1_000 / RATE));
        beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (room, mut under_way) = (Arc::new(Semaphore::new(WAITING)), JoinSet::new());
        let give_up: Arc<Mutex<Option<Instant>>> = Arc::default();
        let mut number = 0;
        while *going.borrow_and_update() {
            tokio::select! {
                _ = beat.tick() => {}
                _ = going.changed() => continue,
            }
            // When many wait, this one waits as well.
            let Ok(permit) = room.clone().try_acquire_owned() else { continue };
            let (publisher, give_up) = (self.clone(), give_up.clone());
            let (id, channel) = (format!("{}/{number}", self.name), channel(rng.index(CHANNELS)));
            number += 1;
            under_way.spawn(async move {
                let _permit = permit;
                publisher.publish_patiently(id, channel, &give_up).await;
            });
            while under_way.try_join_next().is_some() {}
        }
        *give_up.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + PATIENCE);
        while under_way.join_next().await.is_some() {}
    }

    async fn publish_patiently(&self, id: String, channel: String, give_up: &Mutex<Option<Instant>>) {
        let data = data_of(&id);
        self.recorder.publishing(&id, &channel, &data);
        loop {
            if self.attempt(&id, &channel, &data).await {
                return;
            }
            let over = *give_up.lock().unwrap_or_else(PoisonError::into_inner);
            if over.is_some_and(|over| over <= Instant::now()) {
                return;
            }
        }
    }

    async fn publish(&self, id: String, channel: String, give_up: Instant) {
        self.publish_patiently(id, channel, &Mutex::new(Some(give_up))).await;
    }

    /// One attempt; whether it was acked.
    async fn attempt(&self, id: &str, channel: &str, data: &str) -> bool {
        let options = PublishOptions { timeout: Some(ATTEMPT), ..PublishOptions::with_key(id) };
        let answer = self.client.publish(channel, events::text(id, data), options).await;
        self.recorder.answered(id, &answer);
        if answer.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
        answer.is_ok()
    }
}

/// Tells one publish from another; long enough to fill more than one buffer now and then.
fn data_of(id: &str) -> String {
    format!("{id}:{}", "x".repeat(40 + id.len() * 7 % 100))
}
