//! The handle that programs hold.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use streamgate_proto::{
    cloudevent::binary_form,
    cloudevents::CloudEvent,
    v1::{self, InboundMessage, inbound_message as inbound, outbound_message::Envelope},
};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    builder::Builder,
    driver::Command,
    engine::{Request, Retry, Subscribing},
    error::Error,
    event::Message,
    options::{HistoryOptions, PublishOptions, SubscribeOptions},
    position::Position,
    presence::PresenceView,
    status::Status,
    subscription::Subscription,
    unasked::{Listeners, Unasked},
};

/// A connection to a gateway that mends itself. Cheap to clone; all clones share the connection. It closes when the last
/// clone and the last subscription are dropped.
#[derive(Debug, Clone)]
pub struct Client(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    defaults: Defaults,
    /// Of subscriptions and handlers.
    next_id: AtomicU64,
}

/// What a client's requests need.
#[derive(Debug)]
pub(crate) struct Defaults {
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    pub(crate) status: watch::Receiver<Status>,
    pub(crate) unasked: Listeners,
    /// Frames may have to be JSON.
    pub(crate) json: bool,
    pub(crate) extended: bool,
    pub(crate) request_timeout: Duration,
    pub(crate) publish_timeout: Duration,
    /// Largest answer to a call or survey, as a frame.
    pub(crate) answer_bytes: usize,
}

/// A publish is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishAck {
    /// Where; `None` without history, and for clients without the extension.
    pub position: Option<Position>,
    /// Offset alone; 0 without history.
    pub offset: u64,
    /// The key was known: this is the position first given, and nothing was delivered again.
    pub duplicate: bool,
}

/// A page of a channel's history.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryPage {
    /// In the order asked for.
    pub messages: Vec<Message>,
    /// Current end of the history.
    pub position: Option<Position>,
    /// There is more: ask again with the last message's position as `since`.
    pub truncated: bool,
}

impl Client {
    /// A client of the gateway at `url`: `ws://host:port/ws`, `grpc://host:port`, or `host:port`, which means
    /// WebSocket.
    pub fn builder(url: impl Into<String>) -> Builder {
        Builder::new(url.into())
    }

    pub(crate) fn new(defaults: Defaults) -> Self {
        Self(Arc::new(Shared { defaults, next_id: AtomicU64::new(1) }))
    }

    /// What the connection does; the receiver sees every later state, or the last of several.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.0.defaults.status.clone()
    }

    /// The public name of this client's session, while it is connected: who is told it can [call](Self::call_session) this
    /// client. It stays the same over reconnects that the server recognises.
    #[must_use]
    pub fn session_id(&self) -> Option<String> {
        match &*self.0.defaults.status.borrow() {
            Status::Connected { session_id, .. } => Some(session_id.clone()),
            _ => None,
        }
    }

    /// Waits for a connection.
    ///
    /// # Errors
    /// Why there will never be one.
    pub async fn connected(&self) -> Result<(), Error> {
        let mut status = self.status();
        let found = status
            .wait_for(|status| matches!(status, Status::Connected { .. } | Status::Closed { .. }))
            .await
            .map_err(|_| Error::ClientClosed)?;
        match &*found {
            Status::Closed { error } => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Subscribes a channel or pattern; returns when the server has acknowledged.
    ///
    /// Subscriptions of one client may overlap: each gets every message that it matches. One target cannot be subscribed
    /// twice.
    ///
    /// # Errors
    /// The server's refusal, [`Error::AlreadySubscribed`], [`Error::Invalid`], [`Error::Timeout`].
    pub async fn subscribe(&self, options: impl Into<SubscribeOptions>) -> Result<Subscription, Error> {
        let options = options.into();
        options.check()?;
        let id = self.next_id();
        let (reply, answer) = oneshot::channel();
        let (outlet, events) = mpsc::channel(options.capacity);
        // Dropped before it is acknowledged, it unsubscribes itself.
        let subscription = Subscription::new(self.clone(), id, &options, events);
        self.command(Command::Subscribe(Subscribing { id, options, reply }, outlet))?;
        let answer = tokio::time::timeout(self.0.defaults.request_timeout, answer).await;
        answer.map_err(|_| Error::Timeout { what: "subscribe" })?.map_err(|_| self.gone())??;
        Ok(subscription)
    }

    /// What the server gives this client without its asking, from now on: messages of channels to which its token (the claim
    /// `channels`) or the server API has subscribed it, and those that backends publish to its session or its user. Taken right
    /// after [`Builder::build`], before the client is connected, it begins with the first of them. Several streams each get
    /// everything.
    ///
    /// A message that matches a subscription of this client goes there, and not here.
    ///
    /// ```no_run
    /// # async fn example(token: String) -> Result<(), streamgate_client::Error> {
    /// use streamgate_client::{Client, UnaskedEvent};
    /// let client = Client::builder("127.0.0.1:9080").token(token).build()?;
    /// let mut unasked = client.unasked()?;
    /// client.connected().await?;
    /// while let Some(event) = unasked.next().await {
    ///     if let UnaskedEvent::Message(message) = event {
    ///         println!("{}: {:?}", message.channel, message.event.data);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Why the client is closed.
    pub fn unasked(&self) -> Result<Unasked, Error> {
        self.0.defaults.unasked.listen().ok_or_else(|| self.gone())
    }

    /// Publishes `event` to `channel`, and waits until it is stored. If the connection breaks meanwhile, the publish is
    /// sent again with the same idempotency key: it happens once, or the error says that this is not known.
    ///
    /// It is on its way when the returned future is created, not when it is first polled: publishes made one after the
    /// other arrive in that order, whenever they are awaited.
    ///
    /// # Errors
    /// The server's refusal; [`Error::Timeout`] or, without a key, [`Error::OutcomeUnknown`]: it may be stored or not.
    pub fn publish(
        &self,
        channel: impl Into<String>,
        event: CloudEvent,
        options: PublishOptions,
    ) -> impl Future<Output = Result<PublishAck, Error>> + Send + 'static {
        let defaults = &self.0.defaults;
        let mut frame = InboundMessage { channel: channel.into(), ..InboundMessage::default() };
        let wrong = match options.check() {
            Ok(()) if frame.channel.is_empty() => Err(Error::Invalid("the channel is empty".to_owned())),
            checked => checked,
        };
        frame.envelope = Some(inbound::Envelope::Publish(self.carried(event)));
        let mut retry = Retry::UnlessSent;
        if defaults.extended {
            let wire = options.to_wire();
            if !wire.idempotency_key.is_empty() && !options.transient {
                retry = Retry::Always;
            }
            frame.publish_options = Some(wire);
        }
        let timeout = options.timeout.unwrap_or(defaults.publish_timeout);
        let answer = wrong.map(|()| self.send(frame, retry, timeout, "publish"));
        async move {
            match answer?.await? {
                Envelope::PublishAck(ack) => Ok(PublishAck {
                    position: ack.position.map(Position::from),
                    offset: ack.offset,
                    duplicate: ack.duplicate,
                }),
                other => Err(unexpected("publish", &other)),
            }
        }
    }

    /// Reads a page of history.
    ///
    /// # Errors
    /// The server's refusal, or [`Error::Timeout`].
    pub async fn history(&self, channel: &str, options: HistoryOptions) -> Result<HistoryPage, Error> {
        let request = inbound::Envelope::History(options.to_wire(channel));
        match self.ask(request, "history").await? {
            Envelope::History(page) => Ok(HistoryPage {
                messages: page.messages.into_iter().map(Message::from).collect(),
                position: page.position.map(Position::from),
                truncated: page.truncated,
            }),
            other => Err(unexpected("history", &other)),
        }
    }

    /// Who is on a channel now; not all of them, if `truncated` says so.
    ///
    /// # Errors
    /// The server's refusal, or [`Error::Timeout`].
    pub async fn presence(&self, channel: &str) -> Result<v1::Presence, Error> {
        let query = v1::PresenceQuery { channel: channel.to_owned() };
        match self.ask(inbound::Envelope::PresenceQuery(query), "presence").await? {
            Envelope::Presence(presence) => Ok(presence),
            other => Err(unexpected("presence", &other)),
        }
    }

    /// Subscribes a channel with a live view of who is on it; returns when that is known.
    ///
    /// ```no_run
    /// # async fn example(client: streamgate_client::Client) -> Result<(), streamgate_client::Error> {
    /// use streamgate_client::{Event, SubscribeOptions};
    /// // Ephemeral: looks on, without being one of them.
    /// let mut room = client.watch_presence(SubscribeOptions::new("room.blue").ephemeral()).await?;
    /// println!("{} are there", room.members().len());
    /// while let Some(event) = room.next().await {
    ///     if let Event::Presence(change) = event {
    ///         println!("{} {}, {} are there", change.member.client_id, change.joined, room.members().len());
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`subscribe`](Self::subscribe) and [`presence`](Self::presence); [`Error::Invalid`] for a pattern: it can be
    /// subscribed with [`SubscribeOptions::presence`], which tells of joins and leaves, but has no list.
    pub async fn watch_presence(&self, options: impl Into<SubscribeOptions>) -> Result<PresenceView, Error> {
        PresenceView::open(self, options.into()).await
    }

    /// Asks the server for a sign of life; the time it took.
    ///
    /// # Errors
    /// [`Error::Timeout`].
    pub async fn ping(&self) -> Result<Duration, Error> {
        let start = Instant::now();
        match self.ask(inbound::Envelope::Ping(v1::Ping {}), "ping").await? {
            Envelope::Pong(_) => Ok(start.elapsed()),
            other => Err(unexpected("ping", &other)),
        }
    }

    /// Closes the connection and ends all subscriptions. Requests without an answer fail with
    /// [`Error::ClientClosed`]. Returns when the server knows, or after a second.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.0.defaults.commands.send(Command::Close(done)).is_ok() {
            // An error means that it closed by itself meanwhile.
            let _ = closed.await;
        }
    }

    pub(crate) fn unsubscribe(&self, id: u64) {
        // An error means that there is no connection that could know of it.
        let _ = self.0.defaults.commands.send(Command::Unsubscribe(id));
    }

    pub(crate) fn defaults(&self) -> &Defaults {
        &self.0.defaults
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.0.next_id.fetch_add(1, Ordering::Relaxed)
    }

    async fn ask(&self, envelope: inbound::Envelope, what: &'static str) -> Result<Envelope, Error> {
        let frame = InboundMessage { envelope: Some(envelope), ..InboundMessage::default() };
        self.send(frame, Retry::Always, self.0.defaults.request_timeout, what).await
    }

    /// Hands a request over at once; the future is the answer.
    pub(crate) fn send(
        &self,
        frame: InboundMessage,
        retry: Retry,
        timeout: Duration,
        what: &'static str,
    ) -> impl Future<Output = Result<Envelope, Error>> + Send + 'static {
        let (reply, answer) = oneshot::channel();
        let deadline = tokio::time::Instant::now().into_std() + timeout;
        let sent = self.command(Command::Request(Request { frame, retry, deadline, what, reply }));
        // Not the client itself: an answer that nobody waits for must not keep the connection open.
        let status = self.status();
        async move {
            sent?;
            answer.await.unwrap_or_else(|_| Err(reason(&status)))
        }
    }

    pub(crate) fn command(&self, command: Command) -> Result<(), Error> {
        self.0.defaults.commands.send(command).map_err(|_| self.gone())
    }

    /// Why the client is closed.
    pub(crate) fn gone(&self) -> Error {
        reason(&self.0.defaults.status)
    }

    /// The event in a form that the encoding can carry, as the gateway would convert it for JSON clients.
    pub(crate) fn carried(&self, event: CloudEvent) -> CloudEvent {
        if self.0.defaults.json { binary_form(&event).into_owned() } else { event }
    }
}

fn reason(status: &watch::Receiver<Status>) -> Error {
    match &*status.borrow() {
        Status::Closed { error } => error.clone(),
        _ => Error::ClientClosed,
    }
}

pub(crate) fn unexpected(what: &str, envelope: &Envelope) -> Error {
    // Only the name: payloads do not belong in errors.
    let debug = format!("{envelope:?}");
    let name = debug.split('(').next().unwrap_or_default();
    Error::Protocol(format!("the answer to {what} is {name}"))
}
