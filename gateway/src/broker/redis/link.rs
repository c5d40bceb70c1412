//! Keeps one connection open.
//!
//! Owns the supervisor task: opens, loads the scripts, ends at the server whatever was open before, publishes, waits for
//! the end, tries again after a jittered pause. While no connection is published, calls fail at once as never sent. The link never repeats a command.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    command::Command,
    connection::Connection,
    error::{CallError, ConnectError},
    formers::Formers,
    identity,
    locate::{Address, Locate},
    options::RedisOptions,
    reply::Reply,
    script::Script,
};

/// How long a server may keep silent while a connection is opened before it is asked again where the master is.
const SILENCE: Duration = Duration::from_millis(500);

/// What the link is doing. The texts are for operators and hold no credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkStatus {
    /// Never yet connected, and why.
    Starting(String),
    /// Connected; the number counts the connections of this link from 1.
    Up(u64),
    /// Was connected before, and why it is not now.
    Away(String),
    /// Stopped by [`Link::stop`] or by dropping the link.
    Stopped,
}

/// A connection that is reopened when it ends. Dropping it stops it and closes the connection.
#[derive(Debug)]
pub struct Link {
    name: String,
    current: watch::Receiver<Option<Arc<Connection>>>,
    status: watch::Receiver<LinkStatus>,
    stop: CancellationToken,
}

impl Link {
    /// Starts to connect to where `locate` says. `name` tells several links apart in logs; `scripts` are loaded on
    /// every new connection before it is published. Must be called within a Tokio runtime.
    #[must_use]
    pub fn start(
        name: impl Into<String>,
        locate: Arc<dyn Locate>,
        options: Arc<RedisOptions>,
        scripts: Vec<&'static Script>,
    ) -> Self {
        let (current_tx, current) = watch::channel(None);
        let (status_tx, status) =
            watch::channel(LinkStatus::Starting(format!("connecting to Redis at {}", options.address())));
        let stop = CancellationToken::new();
        let name: String = name.into();
        let own_name = name.clone();
        let supervisor =
            Supervisor { name, locate, options, scripts, current: current_tx, status: status_tx };
        tokio::spawn(supervisor.run(stop.clone()));
        Self { name: own_name, current, status, stop }
    }

    /// What tells it apart from others.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The open connection, `None` while there is none.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Connection>> {
        self.current.borrow().clone()
    }

    /// Follows the open connection.
    #[must_use]
    pub fn connections(&self) -> watch::Receiver<Option<Arc<Connection>>> {
        self.current.clone()
    }

    /// Follows what the link is doing.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<LinkStatus> {
        self.status.clone()
    }

    /// Waits for an open connection; `None` once the link is stopped. Safe to cancel.
    pub async fn connected(&self) -> Option<Arc<Connection>> {
        // A connection that has just ended is still published for a moment.
        let open = |current: &Option<Arc<Connection>>| current.as_ref().is_some_and(|c| !c.is_closed());
        self.current.clone().wait_for(open).await.ok()?.clone()
    }

    /// [`Connection::call`] on the open connection; fails at once as never sent if there is none.
    pub fn call(
        &self,
        command: Command,
        deadline: Duration,
    ) -> impl Future<Output = Result<Reply, CallError>> + Send + use<> {
        let call = self.open_connection().map(|connection| connection.call(command, deadline));
        async move { call?.await }
    }

    /// [`Connection::call_script`] on the open connection; fails at once as never sent if there is none.
    pub fn call_script(
        &self,
        script: &'static Script,
        keys: Vec<Bytes>,
        args: Vec<Bytes>,
        deadline: Duration,
    ) -> impl Future<Output = Result<Reply, CallError>> + Send + use<> {
        let call =
            self.open_connection().map(|connection| connection.call_script(script, keys, args, deadline));
        async move { call?.await }
    }

    /// Closes the connection and stops trying. What is under way fails as maybe executed.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    fn open_connection(&self) -> Result<Arc<Connection>, CallError> {
        self.current().ok_or_else(|| {
            let error = CallError::NeverSent(match &*self.status.borrow() {
                LinkStatus::Starting(reason) | LinkStatus::Away(reason) => reason.clone(),
                LinkStatus::Up(_) => "reconnecting".to_owned(),
                LinkStatus::Stopped => "stopped".to_owned(),
            });
            metrics::counter!(crate::telemetry::metrics::REDIS_ERRORS, "kind" => error.kind()).increment(1);
            error
        })
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Supervisor {
    name: String,
    locate: Arc<dyn Locate>,
    options: Arc<RedisOptions>,
    scripts: Vec<&'static Script>,
    current: watch::Sender<Option<Arc<Connection>>>,
    status: watch::Sender<LinkStatus>,
}

impl Supervisor {
    async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.keep_open() => {}
        }
        if let Some(connection) = self.current.send_replace(None) {
            // Others may still hold it.
            connection.end("the link was stopped");
        }
        self.status.send_replace(LinkStatus::Stopped);
    }

    async fn keep_open(&self) {
        let mut backoff = Backoff::new(self.options.backoff_min, self.options.backoff_max);
        let (mut generation, mut formers) = (0, Formers::default());
        loop {
            match self.open(generation + 1, &mut formers).await {
                Ok(connection) => {
                    generation += 1;
                    formers.add(connection.hello());
                    let since = Instant::now();
                    self.serve(Arc::new(connection)).await;
                    // A connection that ends as soon as it is opened must not be reopened in a hot loop.
                    if since.elapsed() >= self.options.backoff_max {
                        backoff.reset();
                    }
                }
                Err(error) => self.report_absence(error.to_string()),
            }
            sleep(backoff.next_pause()).await;
        }
    }

    /// Publishes the connection until it ends.
    async fn serve(&self, connection: Arc<Connection>) {
        let generation = connection.generation();
        tracing::info!(link = self.name, redis = %connection.address(), generation, "connected to Redis");
        self.current.send_replace(Some(Arc::clone(&connection)));
        self.status.send_replace(LinkStatus::Up(generation));
        // A blocking read may be before the question.
        let deadline = self.options.command_timeout + Duration::from_secs(2);
        let address = connection.address();
        let reason = tokio::select! {
            reason = identity::closed_or_changed(&connection, deadline) => reason,
            () = self.locate.moved_from(address) => {
                // Others may hold it; what is under way may have been executed.
                connection.end("the master is elsewhere now");
                connection.closed().await
            }
        };
        self.current.send_replace(None);
        self.locate.suspect(address);
        self.report_absence(format!("connection to Redis at {address} lost: {reason}"));
    }

    async fn open(&self, generation: u64, formers: &mut Formers) -> Result<Connection, ConnectError> {
        let address = self.locate.locate().await?;
        let opened = tokio::select! {
            opened = self.open_at(&address, generation, formers) => opened,
            // A server that is stopped takes connections and answers none. What was opened so far is closed.
            () = self.elsewhere(&address) => Err(ConnectError::Unreachable {
                address: address.to_string(),
                reason: "the master is elsewhere now".to_owned(),
            }),
        };
        if opened.is_err() {
            self.locate.suspect(&address);
        }
        opened
    }

    /// Resolves when the master turns out to be elsewhere, while nothing is heard from `address`.
    async fn elsewhere(&self, address: &Address) {
        let doubting = async {
            loop {
                sleep(SILENCE).await;
                self.locate.suspect(address);
            }
        };
        tokio::select! {
            () = self.locate.moved_from(address) => {}
            () = doubting => {}
        }
    }

    async fn open_at(
        &self,
        address: &Address,
        generation: u64,
        formers: &mut Formers,
    ) -> Result<Connection, ConnectError> {
        let connection = Connection::open(&self.options, address, generation).await?;
        let unusable = |reason: String| ConnectError::Unusable { address: address.to_string(), reason };
        match self.locate.owned_key() {
            Some(key) => connection.must_own(key, self.options.command_timeout).await?,
            // It would redirect all that is not in its own slots.
            None if connection.hello().clustered => {
                return Err(unusable(
                    "it belongs to a Redis Cluster: set broker.redis.mode to cluster".to_owned(),
                ));
            }
            None => {}
        }
        if let Some(refusal) = connection.hello().version.and_then(|version| version.refusal()) {
            return Err(unusable(refusal));
        }
        connection
            .load_scripts(&self.scripts, self.options.command_timeout)
            .await
            .map_err(|error| unusable(format!("SCRIPT LOAD: {error}")))?;
        formers
            .end_at(&connection, self.options.command_timeout)
            .await
            .map_err(|error| unusable(format!("CLIENT KILL: {error}")))?;
        Ok(connection)
    }

    fn report_absence(&self, reason: String) {
        self.status.send_if_modified(|status| {
            let next = match status {
                LinkStatus::Starting(_) => LinkStatus::Starting(reason),
                _ => LinkStatus::Away(reason),
            };
            let changed = *status != next;
            if changed {
                // Said once for each new reason, not for each attempt.
                if let LinkStatus::Starting(reason) | LinkStatus::Away(reason) = &next {
                    tracing::warn!(link = self.name, "{reason}");
                }
                *status = next;
            }
            changed
        });
    }
}

/// Doubling pauses, each drawn from the upper half of its range, so that nodes do not come back in step.
struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    fn reset(&mut self) {
        self.next = self.min;
    }

    fn next_pause(&mut self) -> Duration {
        let ceiling = self.next;
        self.next = (ceiling * 2).min(self.max);
        ceiling.mul_f64(0.5 + rand::random::<f64>() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_are_jittered() {
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
        for ceiling in [20, 40, 80, 160, 320, 640, 1000, 1000] {
            let pause = backoff.next_pause();
            let ceiling = Duration::from_millis(ceiling);
            assert!(pause >= ceiling / 2 && pause <= ceiling, "{pause:?} of {ceiling:?}");
        }
        backoff.reset();
        assert!(backoff.next_pause() <= Duration::from_millis(20));
    }
}
