//! Answering others: handlers of calls and surveys.

use std::{future::Future, time::Instant};

use streamgate_proto::{cloudevents::CloudEvent, shared};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use crate::{
    client::Client,
    driver::Command,
    engine::{Offered, Offering, ServingId, wire_error},
    error::Error,
    worker::{Handler, Worker},
};

/// Calls that a handler works on at once, if not said otherwise.
const CONCURRENCY: usize = 64;
/// Calls that wait for a handler that is busy; more are answered with `NOT_AVAILABLE`.
const WAITING: usize = 1024;

/// What to serve, and how. A text is a method pattern with the defaults.
///
/// ```
/// use streamgate_client::ServeOptions;
/// let options = ServeOptions::new("math.*").concurrency(4);
/// ```
#[derive(Debug, Clone)]
pub struct ServeOptions {
    method: String,
    concurrency: usize,
}

impl ServeOptions {
    /// The methods that `method` matches: a name with dots, `*` for one segment, a last `**` for any number.
    pub fn new(method: impl Into<String>) -> Self {
        Self { method: method.into(), concurrency: CONCURRENCY }
    }

    /// How many calls the handler works on at once (default 64, at least 1). Others wait their turn, 1,024 of them at most.
    #[must_use]
    pub fn concurrency(mut self, calls: usize) -> Self {
        self.concurrency = calls.max(1);
        self
    }
}

impl<T: Into<String>> From<T> for ServeOptions {
    fn from(method: T) -> Self {
        Self::new(method)
    }
}

/// A call to answer.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Call {
    /// Names the call.
    pub request_id: String,
    /// The channel that the caller named.
    pub channel: String,
    /// The method that the caller named.
    pub method: String,
    /// What the caller sent.
    pub event: CloudEvent,
    /// When nobody waits for the answer any more: the handler's future is dropped then.
    pub deadline: Instant,
}

/// The error with which a call is answered: the caller gets it as it is, so it should hold nothing that is not for them.
///
/// ```
/// use streamgate_client::CallError;
/// let error = CallError::new("OUT_OF_TEA", "only coffee is left").kind("kitchen");
/// assert_eq!(error.to_string(), "OUT_OF_TEA: only coffee is left");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallError {
    /// Stable code, for programs.
    pub code: String,
    /// Family of the error.
    pub kind: String,
    /// For people.
    pub message: String,
}

impl CallError {
    /// An error with `code` and `message`, of the kind `handler_error`.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), kind: "handler_error".to_owned(), message: message.into() }
    }

    /// Says another kind.
    #[must_use]
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.kind = kind.into();
        self
    }

    pub(crate) fn into_wire(self) -> shared::Error {
        wire_error(&self.code, &self.kind, self.message)
    }
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for CallError {}

/// What a handler's own calls come to: an error that was answered is passed on as it is.
impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::Server { code, kind, message } => Self { code, kind, message },
            Error::Timeout { .. } => Self::new("RPC_TIMEOUT", text).kind("timeout"),
            _ => Self::new("PROXY_ERROR", text).kind("proxy_error"),
        }
    }
}

/// A handler that answers, until this is dropped: calls that came before that are still answered. It keeps its client open.
#[derive(Debug)]
pub struct Serving {
    client: Client,
    id: ServingId,
    offered: watch::Receiver<Offered>,
    worker: JoinHandle<()>,
}

impl Serving {
    /// Why nothing comes any more: the server does not take the offer after a reconnect (a right was lost), or the client is
    /// closed. Waits for that. Safe to cancel.
    pub async fn ended(&mut self) -> Error {
        match self.offered.wait_for(|offered| matches!(offered, Offered::Ended(_))).await.as_deref() {
            Ok(Offered::Ended(error)) => error.clone(),
            _ => self.client.gone(),
        }
    }

    /// Takes the offer back, and waits until the calls that came before are answered.
    pub async fn stop(mut self) {
        self.client.unserve(self.id);
        // It ends with its last call; a panic of a handler does not reach it.
        let _ = (&mut self.worker).await;
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.client.unserve(self.id);
    }
}

impl Client {
    /// Answers calls of the methods that a pattern matches, calls by others to this session included; returns when the server
    /// has accepted, and calls come. They are offered again after every reconnect.
    ///
    /// Of several handlers that match, the first one made answers. A handler that fails or panics answers an error, and so does
    /// this client at once for a method that none of its handlers matches. When the deadline of a call is over, or the
    /// connection by which it came is gone, nobody waits for the answer: the handler's future is dropped.
    ///
    /// A handler that captures something is written `move |call| async move { ... }`: an async closure cannot lend it.
    ///
    /// A subscription of the same client that is not read stops calls, too: see [`SubscribeOptions::capacity`](
    /// crate::SubscribeOptions::capacity).
    ///
    /// ```no_run
    /// # async fn example(client: streamgate_client::Client) -> Result<(), streamgate_client::Error> {
    /// use streamgate_client::{CallError, CloudEventBuilder};
    /// let mut serving = client
    ///     .serve("shout", async |call| match call.event.data {
    ///         Some(streamgate_client::proto::cloudevents::Data::TextData(text)) => {
    ///             Ok(CloudEventBuilder::new("shouted").text(text.to_uppercase()).build())
    ///         }
    ///         _ => Err(CallError::new("NO_TEXT", "shout wants a text")),
    ///     })
    ///     .await?;
    /// // Others can call this client, and only it, by its session.
    /// println!("serving as {:?}", client.session_id());
    /// Err(serving.ended().await)
    /// # }
    /// ```
    ///
    /// # Errors
    /// The server's refusal (`ACL_ERROR` without the right `serve`, `BAD_REQUEST` for a bad pattern or more than 100 of them),
    /// [`Error::Timeout`].
    pub async fn serve<F, Fut>(&self, options: impl Into<ServeOptions>, handler: F) -> Result<Serving, Error>
    where
        F: Fn(Call) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<CloudEvent, CallError>> + Send + 'static,
    {
        let options = options.into();
        let handler = Handler::of_calls(handler);
        let mut serving = self.start(Some(options.method), handler, options.concurrency)?;
        let accepted = serving.offered.wait_for(|offered| *offered != Offered::NotYet);
        let offered = tokio::time::timeout(self.defaults().request_timeout, accepted).await;
        match offered.map_err(|_| Error::Timeout { what: "serve" })?.as_deref() {
            Ok(Offered::Ended(error)) => Err(error.clone()),
            Ok(_) => Ok(()),
            Err(_) => Err(self.gone()),
        }?;
        Ok(serving)
    }

    /// Answers surveys of the channels that this client is subscribed to. Of several handlers the last one made answers; without
    /// one this client answers with `NOT_SUPPORTED` at once, so that nobody waits for it. An answer may take a minute, if the
    /// survey waits so long.
    ///
    /// ```no_run
    /// # fn example(client: &streamgate_client::Client) -> Result<(), streamgate_client::Error> {
    /// use streamgate_client::CloudEventBuilder;
    /// let _answering = client.on_survey(async |_question| {
    ///     Ok(CloudEventBuilder::new("version").text(env!("CARGO_PKG_VERSION")).build())
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The client is closed.
    pub fn on_survey<F, Fut>(&self, handler: F) -> Result<Serving, Error>
    where
        F: Fn(CloudEvent) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<CloudEvent, CallError>> + Send + 'static,
    {
        self.start(None, Handler::of_surveys(handler), CONCURRENCY)
    }

    fn start(&self, method: Option<String>, handler: Handler, concurrency: usize) -> Result<Serving, Error> {
        let id = self.next_id();
        let (told, offered) = watch::channel(Offered::NotYet);
        let (outlet, work) = mpsc::channel(WAITING);
        let worker = Worker::new(self.defaults(), handler, concurrency);
        self.command(Command::Serve(Offering { id, method, told }, outlet))?;
        let worker = tokio::spawn(worker.run(work));
        Ok(Serving { client: self.clone(), id, offered, worker })
    }

    fn unserve(&self, id: ServingId) {
        // An error means that there is no connection by which calls could come.
        let _ = self.command(Command::Unserve(id));
    }
}
