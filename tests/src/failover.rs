//! Clients of several nodes through a failover. What they publish and see is one [`History`](crate::history::History),
//! which ends with its checker; the histories that are left, read through every node, are part of it.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use streamgate_client::{
    Client, Event, HistoryOptions, Message, PublishOptions, Status, SubscribeOptions, matches,
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{cluster, events::text, gateway::Addrs, history::Recorder, raw::Via, sentinel::FAILOVER, within};

/// Between two publishes of one publisher.
const BEAT: Duration = Duration::from_millis(4);

/// Clients of several nodes, and what they wrote down.
pub struct Audience {
    /// What happened, written down by everybody.
    pub recorder: Recorder,
    progress: Arc<watch::Sender<Progress>>,
    /// One of each transport at each node, those of one node together.
    clients: Vec<(String, Client)>,
    /// Name and target of each subscription.
    subscriptions: Vec<(String, String)>,
    channels: Vec<String>,
    /// What became of connections that must not end.
    lost: Arc<Mutex<Vec<String>>>,
    tasks: Vec<JoinHandle<()>>,
}

/// How far everybody is: what tests wait for.
#[derive(Default)]
struct Progress {
    acked: usize,
    /// Subscription and payload.
    seen: HashSet<(String, String)>,
}

impl Audience {
    /// One client of each transport at each node, each subscribed to all channels: those on gRPC by a pattern that
    /// must match them all.
    pub async fn at(nodes: &[Addrs], channels: &[&str], pattern: &str) -> Self {
        let mut audience = Self {
            recorder: Recorder::default(),
            progress: Arc::default(),
            clients: Vec::new(),
            subscriptions: Vec::new(),
            channels: channels.iter().map(|channel| (*channel).to_owned()).collect(),
            lost: Arc::default(),
            tasks: Vec::new(),
        };
        for (number, node) in nodes.iter().enumerate() {
            for via in Via::ALL {
                let name = format!("{via:?} at node {number}");
                let client = cluster::connect(&[*node], via).await;
                let targets = if via == Via::Grpc { &[pattern][..] } else { channels };
                for target in targets {
                    audience.listen(format!("{name}, {target}"), &client, target).await;
                }
                audience.watch_over(&name, &client);
                audience.clients.push((name, client));
            }
        }
        audience
    }

    async fn listen(&mut self, name: String, client: &Client, target: &str) {
        let options = SubscribeOptions::new(target).unbounded();
        let mut subscription = client.subscribe(options).await.expect("subscribes");
        self.recorder.listens(&name, target);
        self.subscriptions.push((name.clone(), target.to_owned()));
        let (recorder, progress) = (self.recorder.clone(), self.progress.clone());
        self.tasks.push(tokio::spawn(async move {
            while let Some(event) = subscription.next().await {
                recorder.event(&name, &event);
                if let Event::Message(message) = &event {
                    let seen = (name.clone(), message.event.id.clone());
                    progress.send_modify(|progress| {
                        progress.seen.insert(seen);
                    });
                }
            }
        }));
    }

    fn watch_over(&mut self, name: &str, client: &Client) {
        let (mut status, lost, name) = (client.status(), self.lost.clone(), name.to_owned());
        self.tasks.push(tokio::spawn(async move {
            while status.changed().await.is_ok() {
                let now = status.borrow_and_update().clone();
                if matches!(now, Status::Disconnected { .. }) {
                    lost.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{name}: {now:?}"));
                }
            }
        }));
    }

    /// Publishes one payload to a channel through a client and writes down the outcome; whether it was acknowledged.
    pub async fn publish(&self, client: usize, channel: &str, payload: &str) -> bool {
        let client = self.clients[client % self.clients.len()].1.clone();
        self.publisher(client).publish(channel, payload).await
    }

    fn publisher(&self, client: Client) -> Publisher {
        Publisher { client, recorder: self.recorder.clone(), progress: self.progress.clone() }
    }

    /// Publishes on, through every second client, until cancelled.
    #[must_use]
    pub fn keep_publishing(&self, stop: &CancellationToken) -> Vec<JoinHandle<()>> {
        let start = |(number, (_, client)): (usize, &(String, Client))| {
            let (publisher, stop) = (self.publisher(client.clone()), stop.clone());
            let channels = self.channels.clone();
            tokio::spawn(async move {
                let mut beat = tokio::time::interval(BEAT);
                for (count, channel) in channels.iter().cycle().enumerate() {
                    beat.tick().await;
                    if stop.is_cancelled() {
                        return;
                    }
                    publisher.publish(channel, &format!("p{number}.{count}")).await;
                }
            })
        };
        self.clients.iter().enumerate().step_by(2).map(start).collect()
    }

    async fn until(&self, what: &str, holds: impl Fn(&Progress) -> bool) {
        let mut progress = self.progress.subscribe();
        let waited = timeout(FAILOVER, progress.wait_for(|progress| holds(progress))).await.is_ok();
        assert!(waited, "{what}: not within {FAILOVER:?}; {}", self.summary());
    }

    /// Waits for so many more acknowledgements.
    pub async fn more_acks(&self, count: usize) {
        let wanted = self.progress.borrow().acked + count;
        self.until("acknowledgements", |progress| progress.acked >= wanted).await;
    }

    /// Waits until everybody who listens to this channel has seen this payload.
    pub async fn all_see(&self, channel: &str, payload: &str) {
        let listening: Vec<_> = self
            .subscriptions
            .iter()
            .filter(|(_, target)| matches(target, channel))
            .map(|(name, _)| (name.clone(), payload.to_owned()))
            .collect();
        let all = |progress: &Progress| listening.iter().all(|pair| progress.seen.contains(pair));
        self.until(&format!("{payload} in {channel}"), all).await;
    }

    /// Publishes a last payload to each channel until it is acknowledged, and waits until every subscriber has it.
    pub async fn finish(&self) {
        for channel in &self.channels {
            let mut attempt = 0;
            let last = loop {
                let payload = format!("end.{channel}.{attempt}");
                if self.publish(attempt, channel, &payload).await {
                    break payload;
                }
                attempt += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            };
            self.all_see(channel, &last).await;
        }
    }

    /// How many gaps each subscriber was told of in this channel.
    #[must_use]
    pub fn gaps(&self, channel: &str) -> Vec<usize> {
        let told = self.recorder.history().gaps_in(channel);
        let live = |name: &String| self.subscriptions.iter().any(|(subscription, _)| subscription == name);
        told.into_iter().filter(|(name, _)| live(name)).map(|(_, gaps)| gaps).collect()
    }

    /// Reads what is left of the histories through every node, and ends the test if anything is wrong. Answers a
    /// summary.
    ///
    /// # Panics
    /// With the report.
    pub async fn judge(&self) -> String {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone();
        assert!(lost.is_empty(), "connections were lost: {lost:?}");
        for channel in &self.channels {
            self.read_back(channel).await;
        }
        self.recorder.assert_sound();
        self.summary()
    }

    /// Each node's view of a history is one more subscriber of it, one that is owed all that was ever acknowledged.
    async fn read_back(&self, channel: &str) {
        let mut views: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, client) in self.clients.iter().step_by(Via::ALL.len()) {
            let messages = whole_history(client, channel).await;
            let reader = format!("history of {channel}, {name}");
            self.recorder.history().subscribed(&reader, channel, Duration::ZERO);
            messages.iter().for_each(|message| self.recorder.saw(&reader, message));
            let line = |message: &Message| format!("{:?} {}", message.position, message.event.id);
            views.insert(reader, messages.iter().map(line).collect());
        }
        let mut views = views.into_values();
        let first = views.next().expect("a node");
        assert!(views.all(|view| view == first), "the nodes have different histories of {channel}");
    }

    fn summary(&self) -> String {
        let history = self.recorder.history();
        let (acked, unknown) = (history.acknowledged(), history.unknown());
        format!("{acked} acked, {unknown} unknown, gaps told: {:?}", history.gaps())
    }
}

impl Drop for Audience {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// A client that writes down what becomes of its publishes.
struct Publisher {
    client: Client,
    recorder: Recorder,
    progress: Arc<watch::Sender<Progress>>,
}

impl Publisher {
    async fn publish(&self, channel: &str, payload: &str) -> bool {
        self.recorder.publishing(payload, channel, payload);
        let outcome = self.client.publish(channel, text(payload, payload), PublishOptions::default()).await;
        self.recorder.answered(payload, &outcome);
        if outcome.is_ok() {
            self.progress.send_modify(|progress| progress.acked += 1);
        }
        outcome.is_ok()
    }
}

/// All that there is, page by page.
async fn whole_history(client: &Client, channel: &str) -> Vec<Message> {
    let mut messages: Vec<Message> = Vec::new();
    loop {
        let since = messages.last().and_then(|message| message.position.clone());
        let options = HistoryOptions { since, ..HistoryOptions::default() };
        let page = within("a page of history", client.history(channel, options)).await.expect("a page");
        let (more, some) = (page.truncated, !page.messages.is_empty());
        messages.extend(page.messages);
        if !(more && some) {
            return messages;
        }
    }
}
