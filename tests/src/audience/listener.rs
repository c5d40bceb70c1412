//! One client that listens, and what it is told.

use streamgate::channel::Pattern;
use streamgate_client::{Client, Event, Gap, Message, Status, SubscribeOptions};
use tokio::{sync::watch, task::JoinSet};

/// A client with subscriptions, and everything that they yield.
pub struct Listener {
    /// For reports.
    pub name: String,
    /// Channels or patterns.
    pub targets: Vec<String>,
    /// The client.
    pub client: Client,
    status: watch::Receiver<Status>,
    heard: watch::Receiver<Heard>,
    /// Its subscriptions; ended with it.
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Heard {
    events: Vec<Event>,
    messages: usize,
}

impl Listener {
    /// Subscribes to each of `targets` and listens from now on.
    ///
    /// # Panics
    /// It cannot, or the client is not connected.
    pub async fn start(name: impl Into<String>, client: Client, targets: &[&str]) -> Self {
        let name = name.into();
        let mut status = client.status();
        let (sender, heard) = watch::channel(Heard::default());
        let mut tasks = JoinSet::new();
        for target in targets {
            let options = SubscribeOptions::new(*target).unbounded();
            let mut subscription = client.subscribe(options).await.expect("a subscription");
            let sender = sender.clone();
            tasks.spawn(async move {
                while let Some(event) = subscription.next().await {
                    sender.send_modify(|heard| {
                        heard.messages += usize::from(matches!(event, Event::Message(_)));
                        heard.events.push(event);
                    });
                }
            });
        }
        assert!(matches!(*status.borrow_and_update(), Status::Connected { .. }), "{name} is connected");
        let targets = targets.iter().map(|&target| target.to_owned()).collect();
        Self { name, targets, client, status, heard, _tasks: tasks }
    }

    /// Whether publications of `channel` are for it.
    #[must_use]
    pub fn listens_to(&self, channel: &str) -> bool {
        let takes = |target: &String| {
            target == channel || Pattern::parse(target).is_ok_and(|pattern| pattern.matches(channel))
        };
        self.targets.iter().any(takes)
    }

    /// Everything so far.
    #[must_use]
    pub fn heard(&self) -> Vec<Event> {
        self.heard.borrow().events.clone()
    }

    /// How many messages so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.heard.borrow().messages
    }

    /// The messages so far, of one channel.
    #[must_use]
    pub fn messages(&self, channel: &str) -> Vec<Message> {
        let message = |event: &Event| match event {
            Event::Message(message) if message.channel == channel => Some(message.clone()),
            _ => None,
        };
        self.heard.borrow().events.iter().filter_map(message).collect()
    }

    /// The gaps so far.
    #[must_use]
    pub fn gaps(&self) -> Vec<Gap> {
        let gap = |event: &Event| if let Event::Gap(gap) = event { Some(gap.clone()) } else { None };
        self.heard.borrow().events.iter().filter_map(gap).collect()
    }

    /// Waits until so many messages were heard in all.
    pub async fn hears(&self, messages: usize) {
        self.wait(&format!("{messages} messages"), |heard| heard.messages >= messages).await;
    }

    /// Waits until so many messages more were heard.
    pub async fn hears_more(&self, messages: usize) {
        self.hears(self.count() + messages).await;
    }

    /// Waits until what was heard is as wanted.
    pub async fn until(&self, what: &str, wanted: impl Fn(&[Event]) -> bool) {
        self.wait(what, |heard| wanted(&heard.events)).await;
    }

    /// # Panics
    /// It is not in time; tells the last that was heard.
    async fn wait(&self, what: &str, wanted: impl Fn(&Heard) -> bool) {
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
