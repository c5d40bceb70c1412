//! The stream of events that a subscriber takes.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_util::Stream;
use tokio::sync::mpsc;

use crate::{
    client::Client,
    engine::{Delivery, SubscriptionId},
    event::Event,
    options::SubscribeOptions,
    position::Cursors,
    target::is_pattern,
};

/// A subscription: a [`Stream`] of [`Event`]s that goes on across reconnects. Dropped, it unsubscribes.
///
/// It keeps its client open. It ends after [`Event::Closed`], or when the client is closed.
#[derive(Debug)]
pub struct Subscription {
    client: Client,
    id: SubscriptionId,
    target: String,
    cursors: Cursors,
    events: mpsc::Receiver<Delivery>,
}

impl Subscription {
    pub(crate) fn new(
        client: Client,
        id: SubscriptionId,
        options: &SubscribeOptions,
        events: mpsc::Receiver<Delivery>,
    ) -> Self {
        Self { client, id, target: options.target.clone(), cursors: options.cursors.clone(), events }
    }

    /// The channel or pattern.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// How far the subscriber has come: covers exactly the events that were taken from the stream. Saved, and given to
    /// [`SubscribeOptions::cursors`] later, the subscription goes on from there.
    ///
    /// Empty until the server has said where the subscription begins.
    #[must_use]
    pub fn cursors(&self) -> &Cursors {
        &self.cursors
    }

    /// The next event; `None` when there will be none. Safe to cancel: an event that was not returned is returned next.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let delivery = self.events.recv().await?;
            if let Some(event) = self.take(delivery) {
                return Some(event);
            }
        }
    }

    /// Keeps the books on what is taken.
    fn take(&mut self, delivery: Delivery) -> Option<Event> {
        let event = match delivery {
            Delivery::Cursors(cursors) => {
                self.cursors = cursors;
                return None;
            }
            Delivery::End(error) => Event::Closed(error),
            Delivery::Event(event) => event,
        };
        match &event {
            Event::Message(message) => {
                if let Some(position) = &message.position {
                    self.cursors.advance(&message.channel, position);
                }
            }
            Event::Gap(gap) => {
                if let Some(position) = &gap.position {
                    self.cursors.advance(&gap.channel, position);
                }
            }
            Event::Recovered(recovered) => match &recovered.position {
                Some(mark) if is_pattern(&self.target) => {
                    self.cursors.insert(self.target.clone(), mark.clone())
                }
                Some(position) => {
                    self.cursors.advance(&self.target, position);
                }
                None => {}
            },
            Event::Presence(_) | Event::Closed(_) => {}
        }
        Some(event)
    }
}

impl Stream for Subscription {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        loop {
            let Some(delivery) = ready!(self.events.poll_recv(context)) else { return Poll::Ready(None) };
            if let Some(event) = self.take(delivery) {
                return Poll::Ready(Some(event));
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.client.unsubscribe(self.id);
    }
}
