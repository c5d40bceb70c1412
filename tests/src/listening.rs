//! Taking what a subscription of the client library yields, with a deadline.

use futures_util::FutureExt as _;
use streamgate_client::{Client, Event, Gap, Message, Recovered, Subscription};

use crate::within;

/// The next event.
///
/// # Panics
/// There is none in time, or the subscription ended.
pub async fn event(subscription: &mut Subscription) -> Event {
    within("the next event", subscription.next()).await.expect("the subscription goes on")
}

/// The next message; anything else panics.
pub async fn message(subscription: &mut Subscription) -> Message {
    match event(subscription).await {
        Event::Message(message) => message,
        other => panic!("{other:?} instead of a message"),
    }
}

/// The next messages; anything else panics.
pub async fn messages(subscription: &mut Subscription, count: usize) -> Vec<Message> {
    let mut messages = Vec::with_capacity(count);
    for _ in 0..count {
        messages.push(message(subscription).await);
    }
    messages
}

/// What a recovery yielded.
#[derive(Debug)]
pub struct Recovery {
    /// The messages, in the order in which they came.
    pub messages: Vec<Message>,
    /// The gaps that were told before the end.
    pub gaps: Vec<Gap>,
    /// The end.
    pub end: Recovered,
}

impl Recovery {
    /// `channel offset` of each message, or `channel` and the reason of each gap behind them.
    #[must_use]
    pub fn places(&self) -> Vec<String> {
        self.messages.iter().map(|message| format!("{} {}", message.channel, message.offset)).collect()
    }

    /// Offsets of the messages.
    #[must_use]
    pub fn offsets(&self) -> Vec<u64> {
        self.messages.iter().map(|message| message.offset).collect()
    }

    /// The reason of the gap that the end tells; empty if none.
    #[must_use]
    pub fn reason(&self) -> &str {
        self.end.gap.as_ref().map_or("", |reason| reason.as_str())
    }
}

/// Takes everything up to the end of a recovery.
///
/// # Panics
/// The subscription ended, or something came that does not belong there.
pub async fn recovery(subscription: &mut Subscription) -> Recovery {
    let (mut messages, mut gaps) = (Vec::new(), Vec::new());
    loop {
        match event(subscription).await {
            Event::Message(message) => messages.push(message),
            Event::Gap(gap) => gaps.push(gap),
            Event::Recovered(end) => return Recovery { messages, gaps, end },
            other => panic!("{other:?} within a recovery"),
        }
    }
}

/// Asserts that nothing has arrived up to now: the answer to a ping comes behind everything that the node had written
/// before.
pub async fn assert_quiet(client: &Client, subscription: &mut Subscription) {
    client.ping().await.expect("the node answers");
    if let Some(event) = subscription.next().now_or_never() {
        panic!("{event:?} where nothing was expected");
    }
}
