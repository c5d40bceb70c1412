//! The Redis crate as a transport for one TCP connection. The only file that names the crate.
//!
//! The crate's own reconnection, retries, redirections and timeouts are off: they run writes twice and follow
//! redirections found in data.
//!
//! Invariants:
//! - A command is queued when [`Caller::call`] is invoked, not when its future is polled; commands reach the server
//!   in that order, and dropping the future does not take the command back.
//! - A command is never sent twice. [`CallError::NeverSent`] is answered only before it was given to the crate; any
//!   failure after that is [`CallError::MaybeExecuted`] and ends the connection.
//! - Dropping the [`Wire`] closes its socket and fails what is under way.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use fred::{
    clients::Client,
    error::{Error, ErrorKind},
    interfaces::{ClientLike, EventInterface},
    types::{
        ClusterHash, ConnectHandle, CustomCommand, KeyspaceEvent, Message, Resp3Frame, RespVersion, Value,
        config::{Config, ConnectionConfig, Server, ServerConfig, TcpConfig, TlsConfig},
    },
};
use futures_util::FutureExt;
use tokio::{
    sync::{broadcast, watch},
    task::AbortHandle,
    time::{Instant, sleep_until, timeout},
};

use super::{
    command::{Command, CommandName},
    error::{CallError, ConnectError},
    locate::Address,
    options::RedisOptions,
    reply::{RedisError, Reply},
};

/// Owns the socket: dropping it ends the connection.
#[derive(Debug)]
pub(super) struct Wire(Caller);

impl Wire {
    /// Opens the socket, authenticates, selects the database. Safe to cancel.
    pub(super) async fn open(options: &RedisOptions, address: &Address) -> Result<Self, ConnectError> {
        let client = client_for(options, address, tls_of(options, address).await?);
        let swallowed = (client.message_rx(), client.keyspace_event_rx());
        let wire = Self(Caller(Arc::new(Shared {
            client: client.clone(),
            closed: watch::channel(None).0,
            router: OnceLock::new(),
            swallowed,
        })));
        // Polled once before the router starts, so that it cannot miss the router's word.
        let mut connected = Box::pin(client.wait_for_connect());
        let early = (&mut connected).now_or_never();
        wire.0.follow(client.connect());
        let outcome = match early {
            Some(outcome) => outcome,
            // The crate bounds connecting and greeting one by one, hence twice and a little.
            None => timeout(options.connect_timeout * 2 + Duration::from_millis(100), connected)
                .await
                .unwrap_or_else(|_| Err(Error::new(ErrorKind::Timeout, "timed out"))),
        };
        match outcome {
            Ok(()) => Ok(wire),
            Err(error) => Err(refusal(options, address, &error)),
        }
    }

    pub(super) fn caller(&self) -> &Caller {
        &self.0
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // A dropped client of the crate would leak its socket.
        self.0.end("dropped");
    }
}

/// Sends commands over a [`Wire`] without keeping it open.
#[derive(Clone)]
pub(super) struct Caller(Arc<Shared>);

struct Shared {
    client: Client,
    /// `None` while open, then why it ended.
    closed: watch::Sender<Option<Arc<str>>>,
    /// The crate's task that owns the socket.
    router: OnceLock<AbortHandle>,
    /// Where the crate puts replies that it took for pub/sub. We never subscribe: anything here is a reply that went
    /// astray, and every later reply answers the wrong command.
    swallowed: (broadcast::Receiver<Message>, broadcast::Receiver<KeyspaceEvent>),
}

type PendingReply = Pin<Box<dyn Future<Output = Result<Resp3Frame, Error>> + Send>>;

/// A command that was handed to the crate.
struct Sent {
    /// The outcome, if it was there at once.
    early: Option<Result<Resp3Frame, Error>>,
    reply: PendingReply,
}

impl Caller {
    /// See [`Connection::call`](super::Connection::call).
    pub(super) fn call(
        &self,
        command: Command,
        deadline: Duration,
    ) -> impl Future<Output = Result<Reply, CallError>> + Send + use<> {
        let (name, blocks, since) = (command.name(), command.is_blocking(), Instant::now());
        let sent = self.send(command);
        let caller = self.clone();
        async move {
            let outcome = match sent {
                Ok(sent) => caller.answer(sent, name, since, deadline).await,
                Err(error) => Err(error),
            };
            record(name, blocks, since, &outcome);
            outcome
        }
    }

    /// Queues a command. The crate does so in the first poll of its future (nothing in it waits before), so that
    /// poll happens here.
    fn send(&self, command: Command) -> Result<Sent, CallError> {
        if let Some(reason) = self.closed_reason() {
            return Err(CallError::NeverSent(reason.to_string()));
        }
        let client = self.0.client.clone();
        let custom = CustomCommand::new_static(command.name().as_str(), ClusterHash::Custom(0), false);
        let args: Vec<Value> = command.into_args().into_iter().map(Value::Bytes).collect();
        let mut reply: PendingReply = Box::pin(async move { client.custom_raw(custom, args).await });
        let early = (&mut reply).now_or_never();
        Ok(Sent { early, reply })
    }

    async fn answer(
        &self,
        sent: Sent,
        name: CommandName,
        since: Instant,
        deadline: Duration,
    ) -> Result<Reply, CallError> {
        let outcome = match sent.early {
            Some(outcome) => outcome,
            None => tokio::select! {
                biased;
                outcome = sent.reply => outcome,
                reason = self.closed() => return Err(CallError::MaybeExecuted(reason.to_string())),
                () = sleep_until(since + deadline) => {
                    let reason = format!("no answer to {} within {} ms", name.as_str(), deadline.as_millis());
                    self.end(&reason);
                    return Err(CallError::MaybeExecuted(reason));
                }
            },
        };
        // The crate reports a swallowed reply before it hands out the next one, so this cannot be too late.
        if !self.0.swallowed.0.is_empty() || !self.0.swallowed.1.is_empty() {
            return Err(self.distrust("a reply was mistaken for a pub/sub message"));
        }
        match outcome.map(reply_of) {
            Ok(Ok(Reply::Error(error))) => {
                if error.ends_connection() {
                    self.end(&error.to_string());
                }
                Err(CallError::Server(error))
            }
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(reason)) => Err(self.distrust(reason)),
            Err(error) => Err(self.distrust(error.details())),
        }
    }

    /// Ends a connection whose next replies cannot be trusted.
    fn distrust(&self, reason: &str) -> CallError {
        self.end(reason);
        CallError::MaybeExecuted(self.closed_reason().map_or_else(|| reason.to_owned(), |r| r.to_string()))
    }

    /// Waits for the end and answers why it came. Safe to cancel.
    pub(super) async fn closed(&self) -> Arc<str> {
        let mut closed = self.0.closed.subscribe();
        let reason = match closed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone(),
            // The sender lives as long as `self`.
            Err(_) => None,
        };
        reason.unwrap_or_else(|| Arc::from("closed"))
    }

    /// Why it has ended, `None` while open.
    pub(super) fn closed_reason(&self) -> Option<Arc<str>> {
        self.0.closed.borrow().clone()
    }

    /// Closes the socket and fails what is under way; the first reason stays.
    pub(super) fn end(&self, reason: &str) {
        set_closed(&self.0.closed, reason);
        if let Some(router) = self.0.router.get() {
            router.abort();
        }
    }

    /// Turns the end of the crate's task into the `closed` watch.
    fn follow(&self, router: ConnectHandle) {
        let _ = self.0.router.set(router.abort_handle());
        let closed = self.0.closed.clone();
        let gauge = metrics::gauge!(crate::telemetry::metrics::REDIS_CONNECTIONS);
        gauge.increment(1.0);
        tokio::spawn(async move {
            match router.await {
                Ok(Ok(())) => set_closed(&closed, "closed"),
                Ok(Err(error)) => set_closed(&closed, error.details()),
                Err(_) => set_closed(&closed, "aborted"),
            }
            gauge.decrement(1.0);
        });
    }
}

impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caller").field("closed", &self.closed_reason()).finish_non_exhaustive()
    }
}

fn set_closed(closed: &watch::Sender<Option<Arc<str>>>, reason: &str) {
    closed.send_if_modified(|state| {
        let open = state.is_none();
        if open {
            *state = Some(Arc::from(reason));
        }
        open
    });
}

fn record(name: CommandName, blocks: bool, since: Instant, outcome: &Result<Reply, CallError>) {
    if let Err(error) = outcome {
        metrics::counter!(crate::telemetry::metrics::REDIS_ERRORS, "kind" => error.kind()).increment(1);
    }
    if !blocks && !matches!(outcome, Err(CallError::NeverSent(_))) {
        metrics::histogram!(crate::telemetry::metrics::REDIS_COMMAND_SECONDS, "command" => name.as_str())
            .record(since.elapsed().as_secs_f64());
    }
}

/// What TLS needs, read anew from its files.
async fn tls_of(options: &RedisOptions, address: &Address) -> Result<Option<TlsConfig>, ConnectError> {
    let Some(tls) = options.tls.clone() else { return Ok(None) };
    let read = tokio::task::spawn_blocking(move || tls.client_config()).await;
    match read.unwrap_or_else(|error| Err(error.to_string())) {
        Ok(config) => Ok(Some(TlsConfig::from(config))),
        Err(reason) => Err(ConnectError::Untrusted { address: address.to_string(), reason }),
    }
}

/// What a failed attempt means.
fn refusal(options: &RedisOptions, address: &Address, error: &Error) -> ConnectError {
    let (address, details) = (address.to_string(), error.details());
    let (kind, reason) = (error.kind(), details.to_owned());
    match options.tls.as_ref().and_then(|tls| tls.refusal(details)) {
        Some(reason) => ConnectError::Untrusted { address, reason },
        None if *kind == ErrorKind::Tls => ConnectError::Untrusted { address, reason },
        None if *kind == ErrorKind::Auth => ConnectError::Denied { address, reason },
        None => ConnectError::Unreachable { address, reason },
    }
}

/// A client that connects once and never retries, redirects or reconnects.
fn client_for(options: &RedisOptions, address: &Address, tls: Option<TlsConfig>) -> Client {
    let name = options.tls.as_ref().and_then(|tls| tls.server_name.clone());
    let server = match name {
        Some(name) => Server::new_with_tls(address.host.as_str(), address.port, Some(name)),
        None => Server::new(address.host.as_str(), address.port),
    };
    let config = Config {
        server: ServerConfig::Centralized { server },
        tls,
        fail_fast: true,
        version: RespVersion::RESP2,
        username: options.username.clone(),
        password: options.password.clone(),
        database: (options.db != 0).then_some(options.db),
        ..Config::default()
    };
    let connection = ConnectionConfig {
        connection_timeout: options.connect_timeout,
        internal_command_timeout: options.connect_timeout,
        max_command_attempts: 1,
        max_redirections: 0,
        tcp: TcpConfig { nodelay: Some(true), ..TcpConfig::default() },
        ..ConnectionConfig::default()
    };
    Client::new(config, None, Some(connection), None)
}

/// Converts without copying bytes; an error says that the frame is not RESP2.
fn reply_of(frame: Resp3Frame) -> Result<Reply, &'static str> {
    Ok(match frame {
        Resp3Frame::Null => Reply::Nil,
        Resp3Frame::Number { data, .. } => Reply::Int(data),
        Resp3Frame::BlobString { data, .. } => Reply::Bulk(data),
        Resp3Frame::SimpleString { data, .. } => Reply::Simple(data),
        Resp3Frame::SimpleError { data, .. } => Reply::Error(RedisError::parse(&data)),
        Resp3Frame::Array { data, .. } => Reply::Array(replies_of(data)?),
        // A nested array that looks like a pub/sub message; the crate puts one more element in front of it.
        Resp3Frame::Push { mut data, .. } if !data.is_empty() => {
            data.remove(0);
            Reply::Array(replies_of(data)?)
        }
        _ => return Err("the reply is not RESP2"),
    })
}

fn replies_of(frames: Vec<Resp3Frame>) -> Result<Vec<Reply>, &'static str> {
    frames.into_iter().map(reply_of).collect()
}
