//! Clients that listen for the whole of a test, and others that publish meanwhile: what outages must not disturb.
//!
//! [`Audience`] keeps everything that its listeners are told, and knows whether one of them ever lost its connection.
//! [`Publishing`] publishes at a steady pace; each event is sent again under its own idempotency key until it is
//! stored. Both end in a [`History`](crate::history::History), which judges them.

mod listener;
mod publishing;

use std::collections::BTreeSet;

use streamgate_client::Event;

pub use listener::Listener;
pub use publishing::{Acked, Publishing, publish, slowest};

use crate::{
    cluster,
    gateway::Addrs,
    history::{Recorder, payload_of},
    raw::Via,
};

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
                    listeners.push(Listener::start(name, client, &[target]).await);
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
                // Counted first: this is asked at every event.
                if heard.len() < wanted.len() {
                    return false;
                }
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
        self.judge(acked, unanswered, false);
    }

    /// As [`Self::assert_sound`], where acknowledged writes may have been lost: those who heard them must have been told,
    /// and the rest is as ever.
    pub fn assert_honest(&self, acked: &[Acked], unanswered: &[String]) {
        self.judge(acked, unanswered, true);
    }

    fn judge(&self, acked: &[Acked], unanswered: &[String], lossy: bool) {
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
            if lossy {
                let now = recorder.now();
                recorder.history().lossy_restart(now);
            }
            for listener in listeners() {
                for event in listener.heard() {
                    let told = match &event {
                        Event::Message(message) => message.channel == channel,
                        Event::Gap(gap) => lossy && gap.channel == channel,
                        _ => false,
                    };
                    if told {
                        recorder.event(&listener.name, &event);
                    }
                }
            }
            recorder.assert_sound();
        }
    }

    /// Waits until everyone has heard everything, and asserts that there was nothing else: each publication once and in
    /// order, nobody told of anything, nobody disconnected.
    pub async fn assert_undisturbed(&self, acked: &[Acked]) {
        self.heard_all(acked).await;
        self.assert_only_messages();
        self.assert_sound(acked, &[]);
        self.assert_stayed();
    }
}
