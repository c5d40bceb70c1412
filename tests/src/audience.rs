//! Clients that listen for the whole of a test, and others that publish meanwhile: what outages must not disturb.
//!
//! [`Audience`] keeps everything that its listeners are told, and knows whether one of them ever lost its connection.
//! [`Publishing`] publishes one event after the other; each is sent again under its own idempotency key until it is
//! stored. Both end in a [`History`](crate::history::History).

use std::{collections::BTreeSet, time::Duration};

use streamgate::channel::Pattern;
use streamgate_client::{Client, Event, Gap, Message, PublishAck, PublishOptions, Status, SubscribeOptions};
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinHandle},
};

use crate::{
    cluster, events,
    gateway::Addrs,
    history::{Recorder, payload_of},
    raw::Via,
    within,
};

/// Longer than any outage of these tests: a publish must not give up before Redis is back.
const PATIENCE: Duration = Duration::from_secs(180);

/// A publish that was acknowledged.
#[derive(Debug, Clone)]
pub struct Acked {
    /// Where to.
    pub channel: String,
    /// What tells it from all others.
    pub payload: String,
    /// The acknowledgement.
    pub ack: PublishAck,
}

/// One subscription of a client of its own.
pub struct Listener {
    /// Node, transport and target.
    pub name: String,
    /// Channel or pattern.
    pub target: String,
    /// The client.
    pub client: Client,
    status: watch::Receiver<Status>,
    heard: watch::Receiver<Vec<Event>>,
    task: AbortHandle,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Listener {
    /// Subscribes and listens from now on.
    pub async fn start(name: String, client: Client, options: SubscribeOptions, target: &str) -> Self {
        let mut status = client.status();
        let mut subscription = client.subscribe(options.unbounded()).await.expect("a subscription");
        assert!(matches!(*status.borrow_and_update(), Status::Connected { .. }), "{name} is connected");
        let (sender, heard) = watch::channel(Vec::new());
        let task = tokio::spawn(async move {
            while let Some(event) = subscription.next().await {
                sender.send_modify(|heard: &mut Vec<Event>| heard.push(event));
            }
        });
        Self { name, target: target.to_owned(), client, status, heard, task: task.abort_handle() }
    }

    /// Whether publications of `channel` are for it.
    #[must_use]
    pub fn listens_to(&self, channel: &str) -> bool {
        self.target == channel || Pattern::parse(&self.target).is_ok_and(|pattern| pattern.matches(channel))
    }

    /// Everything so far.
    #[must_use]
    pub fn heard(&self) -> Vec<Event> {
        self.heard.borrow().clone()
    }

    /// The messages so far, of one channel.
    #[must_use]
    pub fn messages(&self, channel: &str) -> Vec<Message> {
        let message = |event: &Event| match event {
            Event::Message(message) if message.channel == channel => Some(message.clone()),
            _ => None,
        };
        self.heard.borrow().iter().filter_map(message).collect()
    }

    /// The gaps so far.
    #[must_use]
    pub fn gaps(&self) -> Vec<Gap> {
        let gap = |event: &Event| if let Event::Gap(gap) = event { Some(gap.clone()) } else { None };
        self.heard.borrow().iter().filter_map(gap).collect()
    }

    /// Waits until what was heard is as wanted.
    ///
    /// # Panics
    /// It is not in time; tells the last that was heard.
    pub async fn until(&self, what: &str, wanted: impl Fn(&[Event]) -> bool) {
        let mut heard = self.heard.clone();
        let waiting = heard.wait_for(|heard| wanted(heard));
        if !matches!(tokio::time::timeout(crate::DEADLINE, waiting).await, Ok(Ok(_))) {
            let heard = self.heard();
            let last = &heard[heard.len().saturating_sub(3)..];
            panic!("{}: {what} did not come; {} events, the last ones {last:?}", self.name, heard.len());
        }
    }

    /// Asserts that its connection was never lost.
    ///
    /// # Panics
    /// It was.
    pub fn assert_stayed(&self) {
        let changed = self.status.has_changed().unwrap_or(true);
        assert!(!changed, "{} was disconnected: {:?}", self.name, *self.status.borrow());
    }
}

/// Many listeners.
#[derive(Default)]
pub struct Audience(pub Vec<Listener>);

impl Audience {
    /// A listener for each target over each transport on each node.
    pub async fn assemble(nodes: &[Addrs], targets: &[&str]) -> Self {
        let mut listeners = Vec::new();
        for (number, node) in nodes.iter().enumerate() {
            for via in Via::ALL {
                for target in targets {
                    let client = cluster::connect(&[*node], via).await;
                    let name = format!("{target} via {via:?} on node {number}");
                    let options = SubscribeOptions::new(*target);
                    listeners.push(Listener::start(name, client, options, target).await);
                }
            }
        }
        Self(listeners)
    }

    /// Waits until everyone has heard everything that was acknowledged on its channels.
    pub async fn heard_all(&self, acked: &[Acked]) {
        for listener in &self.0 {
            let wanted: BTreeSet<&str> = acked
                .iter()
                .filter(|acked| listener.listens_to(&acked.channel))
                .map(|acked| acked.payload.as_str())
                .collect();
            let payload = |event: &Event| match event {
                Event::Message(message) => Some(payload_of(&message.event)),
                _ => None,
            };
            let enough = |heard: &[Event]| {
                let heard: BTreeSet<String> = heard.iter().filter_map(payload).collect();
                wanted.iter().all(|wanted| heard.contains(*wanted))
            };
            let what = format!("all of {} messages", wanted.len());
            listener.until(&what, enough).await;
        }
    }

    /// Asserts that nobody ever lost the connection.
    pub fn assert_stayed(&self) {
        self.0.iter().for_each(Listener::assert_stayed);
    }

    /// Asserts that everyone heard nothing but messages.
    ///
    /// # Panics
    /// Somebody was told of something else.
    pub fn assert_only_messages(&self) {
        for listener in &self.0 {
            let other = listener.heard().into_iter().find(|event| !matches!(event, Event::Message(_)));
            assert_eq!(other, None, "{} was told of it", listener.name);
        }
    }

    /// Asserts that everyone heard everything that was acknowledged once and in order, and besides it only what is
    /// `unanswered`.
    pub fn assert_sound(&self, acked: &[Acked], unanswered: &[String]) {
        let channels: BTreeSet<&str> = acked.iter().map(|acked| acked.channel.as_str()).collect();
        for channel in channels {
            let recorder = Recorder::default();
            let listeners = || self.0.iter().filter(|listener| listener.listens_to(channel));
            listeners().for_each(|listener| recorder.listens(&listener.name, channel));
            for payload in unanswered {
                recorder.publishing(payload, channel, payload);
                recorder.history().left_open(payload);
            }
            for acked in acked.iter().filter(|acked| acked.channel == channel) {
                recorder.stored(channel, &acked.ack, &acked.payload);
            }
            for listener in listeners() {
                listener.messages(channel).iter().for_each(|message| recorder.saw(&listener.name, message));
            }
            recorder.assert_sound();
        }
    }
}

/// A client that publishes until it is told to stop.
pub struct Publishing {
    stop: watch::Sender<bool>,
    task: JoinHandle<Vec<Acked>>,
    acked: watch::Receiver<usize>,
}

impl Publishing {
    /// Publishes to the channels in turn, one event at a time, with a pause after each.
    #[must_use]
    pub fn start(client: Client, tag: &str, channels: &[&str], pause: Duration) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (count, acked) = watch::channel(0);
        let channels: Vec<String> = channels.iter().map(|&channel| channel.to_owned()).collect();
        let tag = tag.to_owned();
        let task = tokio::spawn(async move {
            let mut acks = Vec::new();
            for (number, channel) in channels.iter().cycle().enumerate() {
                if *stopped.borrow() {
                    break;
                }
                let payload = format!("{tag} {number}");
                acks.push(publish(&client, channel, &payload).await);
                count.send_replace(acks.len());
                tokio::time::sleep(pause).await;
            }
            acks
        });
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

    /// Stops after the publish that is under way, and answers all that were acknowledged.
    pub async fn stop(self) -> Vec<Acked> {
        self.stop.send_replace(true);
        within("the last publish", self.task).await.expect("the publisher ends well")
    }
}

/// Publishes an event with this text; it is tried until it is stored.
///
/// # Panics
/// It was refused.
pub async fn publish(client: &Client, channel: &str, payload: &str) -> Acked {
    let options = PublishOptions { timeout: Some(PATIENCE), ..PublishOptions::default() };
    let ack = client.publish(channel, events::text(payload, payload), options).await;
    let ack = ack.unwrap_or_else(|error| panic!("{payload} was not stored: {error}"));
    Acked { channel: channel.to_owned(), payload: payload.to_owned(), ack }
}
