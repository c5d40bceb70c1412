//! Asking nodes and answering them.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use prost::Message as _;
use tokio::{
    runtime::Handle,
    sync::mpsc,
    task::AbortHandle,
    time::{Instant, MissedTickBehavior, interval, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    letter::{Answer, AnswerBody, Ask, AskBody, Body, Letter, unknown},
    posting,
};
use crate::{
    broker::{Addressee, Broker, BrokerError, NodeId},
    error::{ClientError, ErrorCode},
    telemetry::metrics::{ASKS, LATE_ANSWERS},
};

/// How often it is looked whether nodes that answers are awaited from still live. Two looks in a row without one, and it is
/// taken for dead.
const LOOK: Duration = Duration::from_millis(500);
/// Longest that an ask of another node is worked on, whatever it says.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// Asks of others that are worked on at a time; more are answered `NOT_AVAILABLE`.
const MOST_SERVED: usize = 100_000;

/// Carries out what a node is asked, on this node.
pub trait Respond: Send + Sync + 'static {
    /// Answers within `timeout`, after which nobody waits any more. Dropping the future ends the work.
    fn respond(&self, ask: Ask, timeout: Duration) -> BoxFuture<'static, Result<Answer, ClientError>>;
}

/// This node's way to the others. Cheap to clone.
#[derive(Clone)]
pub struct Peers(Arc<Inner>);

struct Inner {
    broker: Arc<dyn Broker>,
    respond: OnceLock<Arc<dyn Respond>>,
    runtime: Handle,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, Waiting>>,
    /// Asks of others that are being worked on, until their answer is sent.
    serving: Mutex<HashMap<(u64, u64), AbortHandle>>,
}

/// What a node answered.
type Answered = (NodeId, Result<Answer, ClientError>);

/// Somebody who waits for an answer, or for several.
struct Waiting {
    to: mpsc::UnboundedSender<Answered>,
    /// Nodes that have not answered yet.
    from: HashSet<NodeId>,
}

/// A place among those who wait; given up when it is dropped.
struct Seat<'a> {
    inner: &'a Arc<Inner>,
    id: u64,
}

impl Peers {
    /// The node's side of `broker`. Within a runtime, on which the work for others is done.
    #[must_use]
    pub fn new(broker: Arc<dyn Broker>, stop: CancellationToken) -> Self {
        announce();
        let inner = Arc::new(Inner {
            broker: broker.clone(),
            respond: OnceLock::new(),
            runtime: Handle::current(),
            next: AtomicU64::new(1),
            waiting: Mutex::default(),
            serving: Mutex::default(),
        });
        let weak = Arc::downgrade(&inner);
        broker.take_letters(Arc::new(move |letter| {
            if let Some(inner) = weak.upgrade() {
                inner.take(letter);
            }
        }));
        tokio::spawn(watch_lives(Arc::downgrade(&inner), stop));
        Self(inner)
    }

    /// Names who carries out what this node is asked. Only the first time counts.
    pub fn respond_with(&self, respond: Arc<dyn Respond>) {
        if self.0.respond.set(respond).is_err() {
            tracing::error!("what this node is asked is carried out by somebody else already");
        }
    }

    /// The broker that letters go through.
    #[must_use]
    pub fn broker(&self) -> &Arc<dyn Broker> {
        &self.0.broker
    }

    /// Asks one node, perhaps this one.
    ///
    /// # Errors
    /// What the node says; `NOT_FOUND` if it is gone before it was asked, `PROXY_ERROR` if it is gone since; `RPC_TIMEOUT`,
    /// also if it is not known whether it was asked; `NOT_AVAILABLE` if it was not, as the broker cannot be reached.
    ///
    /// Cancel: the node is told that nobody waits any more.
    pub async fn ask(&self, node: NodeId, ask: Ask, timeout: Duration) -> Result<Answer, ClientError> {
        if self.0.broker.node() == Some(node) {
            return self.ask_here(ask, timeout).await;
        }
        let deadline = Instant::now() + timeout;
        let (seat, mut answers) = self.0.sit(HashSet::from([node]));
        let letter = seat.letter(ask, timeout);
        match posting::send(&*self.0.broker, Addressee::Node(node), letter, deadline)
            .await
            .map_err(refused)?
        {
            None => return Err(late(timeout)),
            Some(taken) if taken.is_empty() => {
                return Err(ClientError::new(ErrorCode::NotFound, "that node is gone"));
            }
            Some(_) => {}
        }
        match timeout_at(deadline, answers.recv()).await {
            Ok(Some((_, outcome))) => outcome,
            Ok(None) => Err(gone()),
            Err(_) => Err(late(timeout)),
        }
    }

    /// Asks this node.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn ask_here(&self, ask: Ask, timeout: Duration) -> Result<Answer, ClientError> {
        let Some(respond) = self.0.respond.get() else { return Err(starting()) };
        let answer = respond.respond(ask, timeout);
        tokio::time::timeout(timeout, answer).await.unwrap_or_else(|_| Err(late(timeout)))
    }

    /// Asks every node that lives, this one included, and collects what comes in time; those that did not answer are
    /// in it with an error.
    ///
    /// # Errors
    /// `NOT_AVAILABLE` if the others cannot be reached; `RPC_TIMEOUT` if it is not known until then who they are.
    ///
    /// Cancel: as [`Self::ask`].
    pub async fn ask_every(&self, ask: Ask, timeout: Duration) -> Result<Vec<Answered>, ClientError> {
        let here = self.0.broker.node().ok_or_else(starting)?;
        let deadline = Instant::now() + timeout;
        let (seat, mut answers) = self.0.sit(HashSet::new());
        let letter = seat.letter(ask.clone(), timeout);
        let others = async {
            let sent =
                posting::send(&*self.0.broker, Addressee::Every, letter, deadline).await.map_err(refused)?;
            let mut from = sent.ok_or_else(|| late(timeout))?;
            from.remove(&here);
            seat.expect(&from);
            let mut outcomes = Vec::with_capacity(from.len() + 1);
            while !from.is_empty() {
                match timeout_at(deadline, answers.recv()).await {
                    Ok(Some((node, outcome))) => {
                        if from.remove(&node) {
                            outcomes.push((node, outcome));
                        }
                    }
                    Ok(None) | Err(_) => break,
                }
            }
            outcomes.extend(from.into_iter().map(|node| (node, Err(late(timeout)))));
            Ok::<_, ClientError>(outcomes)
        };
        let (own, others) = tokio::join!(self.ask_here(ask, timeout), others);
        let mut outcomes = others?;
        outcomes.push((here, own));
        outcomes.sort_by_key(|(node, _)| *node);
        Ok(outcomes)
    }
}

impl Inner {
    /// A seat for an answer of each of `from`.
    fn sit(self: &Arc<Self>, from: HashSet<NodeId>) -> (Seat<'_>, mpsc::UnboundedReceiver<Answered>) {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (to, answers) = mpsc::unbounded_channel();
        lock(&self.waiting).insert(id, Waiting { to, from });
        (Seat { inner: self, id }, answers)
    }

    fn take(self: Arc<Self>, bytes: Bytes) {
        let Letter { id, from, body } = match Letter::decode(bytes) {
            Ok(letter) => letter,
            Err(error) => return tracing::warn!(%error, "a letter cannot be read"),
        };
        match body {
            Some(Body::Answer(answer)) => self.answered(id, NodeId(from), answer.outcome()),
            Some(Body::Drop(_)) => {
                if let Some(task) = lock(&self.serving).remove(&(from, id)) {
                    task.abort();
                }
            }
            // This node answers itself without letters.
            Some(Body::Ask(_)) if self.broker.node() == Some(NodeId(from)) => {}
            Some(Body::Ask(ask)) => self.serve(id, from, ask),
            None => self.reply(id, from, Err(unknown())),
        }
    }

    fn answered(&self, id: u64, node: NodeId, outcome: Result<Answer, ClientError>) {
        let mut waiting = lock(&self.waiting);
        let heard = waiting.get_mut(&id).is_some_and(|seat| {
            seat.from.remove(&node);
            // Whoever sat there has got up meanwhile if this fails.
            seat.to.send((node, outcome)).is_ok()
        });
        if !heard {
            metrics::counter!(LATE_ANSWERS, "from" => "node").increment(1);
        }
    }

    fn serve(self: Arc<Self>, id: u64, from: u64, body: AskBody) {
        let timeout = Duration::from_millis(body.timeout_ms).min(LONGEST);
        let deadline = Instant::now() + timeout;
        let (Some(ask), Some(respond)) = (body.ask, self.respond.get().cloned()) else {
            return self.reply(id, from, Err(unknown()));
        };
        let mut serving = lock(&self.serving);
        if serving.len() >= MOST_SERVED {
            drop(serving);
            let full = ClientError::new(ErrorCode::NotAvailable, "the node is asked too much at a time");
            return self.reply(id, from, Err(full));
        }
        metrics::counter!(ASKS, "ask" => kind(&ask)).increment(1);
        let inner = self.clone();
        let task = self.runtime.spawn(async move {
            let answered = timeout_at(deadline, respond.respond(ask, timeout)).await;
            let answer = inner.answer(id, answered.unwrap_or_else(|_| Err(late(timeout))));
            // Who asked waits for it, also while the broker is away, and takes it once however often it comes.
            posting::send_surely(&*inner.broker, NodeId(from), answer.encode_to_vec().into(), deadline).await;
            lock(&inner.serving).remove(&(from, id));
        });
        // The task takes its entry away when it is done: it cannot be before this, as the lock is held.
        serving.insert((from, id), task.abort_handle());
    }

    fn reply(&self, id: u64, to: u64, outcome: Result<Answer, ClientError>) {
        self.post(NodeId(to), self.answer(id, outcome));
    }

    fn answer(&self, id: u64, outcome: Result<Answer, ClientError>) -> Letter {
        Letter { id, from: self.name(), body: Some(Body::Answer(AnswerBody::of(outcome))) }
    }

    /// Sends without waiting: who waits for it has a deadline.
    fn post(&self, to: NodeId, letter: Letter) {
        let posted = self.broker.post(Addressee::Node(to), letter.encode_to_vec().into());
        self.runtime.spawn(async move {
            if let Err(error) = posted.await {
                tracing::debug!(%error, node = %to, "a letter could not be sent");
            }
        });
    }

    fn name(&self) -> u64 {
        self.broker.node().map_or(0, |node| node.0)
    }
}

impl Seat<'_> {
    fn letter(&self, ask: Ask, timeout: Duration) -> Bytes {
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let body = Some(Body::Ask(AskBody { timeout_ms, ask: Some(ask) }));
        Letter { id: self.id, from: self.inner.name(), body }.encode_to_vec().into()
    }

    /// Names whom answers are awaited from; some may have answered already.
    fn expect(&self, from: &HashSet<NodeId>) {
        if let Some(waiting) = lock(&self.inner.waiting).get_mut(&self.id) {
            waiting.from.clone_from(from);
        }
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let Some(left) = lock(&self.inner.waiting).remove(&self.id) else { return };
        for node in left.from {
            let letter = Letter { id: self.id, from: self.inner.name(), body: Some(Body::Drop(true)) };
            self.inner.post(node, letter);
        }
    }
}

/// Ends the waiting for nodes that are dead. While the broker is away nobody is known to be.
async fn watch_lives(inner: Weak<Inner>, stop: CancellationToken) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut missed: HashSet<NodeId> = HashSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = looks.tick() => {}
        }
        let Some(inner) = inner.upgrade() else { return };
        let awaited: HashSet<NodeId> =
            lock(&inner.waiting).values().flat_map(|waiting| waiting.from.iter().copied()).collect();
        if awaited.is_empty() {
            missed.clear();
            continue;
        }
        let Ok(living) = inner.broker.nodes().await else { continue };
        let living: HashSet<_> = living.into_iter().map(|(node, _)| node).collect();
        let absent: HashSet<_> = awaited.difference(&living).copied().collect();
        for node in absent.intersection(&missed) {
            for waiting in lock(&inner.waiting).values_mut() {
                if waiting.from.remove(node) {
                    // Whoever sat there has got up meanwhile if this fails.
                    let _ = waiting.to.send((*node, Err(gone())));
                }
            }
        }
        missed = absent;
    }
}

/// Makes the metrics known before the first ask.
fn announce() {
    for kind in ["call", "survey", "disconnect", "subscribe", "unsubscribe", "send", "sessions", "yield"] {
        metrics::counter!(ASKS, "ask" => kind).increment(0);
    }
    for from in ["client", "node"] {
        metrics::counter!(LATE_ANSWERS, "from" => from).increment(0);
    }
}

fn kind(ask: &Ask) -> &'static str {
    match ask {
        Ask::Call(_) => "call",
        Ask::Survey(_) => "survey",
        Ask::Disconnect(_) => "disconnect",
        Ask::Subscribe(_) => "subscribe",
        Ask::Unsubscribe(_) => "unsubscribe",
        Ask::Send(_) => "send",
        Ask::Sessions(_) => "sessions",
        Ask::Yield(_) => "yield",
    }
}

fn late(timeout: Duration) -> ClientError {
    ClientError::new(ErrorCode::RpcTimeout, format!("no answer within {timeout:?}"))
}

/// Nobody was asked.
fn refused(error: BrokerError) -> ClientError {
    (&error).into()
}

fn gone() -> ClientError {
    ClientError::new(ErrorCode::ProxyError, "the node that was to answer is gone")
}

fn starting() -> ClientError {
    ClientError::new(ErrorCode::NotAvailable, "the node has not started yet")
}

/// Nothing panics while it is held.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
