//! What each node shows of itself: its name, and the methods that its clients answer.
//!
//! A card is known late: who has gone may still be on one, and is then not found there. Who finds nobody on the cards
//! that are known reads them anew before it says so.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prost::Message as _;
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    broker::{Broker, BrokerError, NodeId},
    error::ClientError,
};

/// How often a card is shown anew though nothing changed, so that it is there again after Redis lost it.
const RENEW: Duration = Duration::from_secs(5);
/// How old the cards may be that responders are chosen from.
const FRESH: Duration = Duration::from_secs(1);

/// A node's card.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeCard {
    /// Version of the program.
    #[prost(string, tag = "1")]
    pub version: String,
    /// Name of its machine.
    #[prost(string, tag = "2")]
    pub host: String,
    /// When it started, milliseconds since the Unix epoch.
    #[prost(uint64, tag = "3")]
    pub started_at: u64,
    /// Its open sessions, some seconds ago.
    #[prost(uint64, tag = "4")]
    pub sessions: u64,
    /// Where WebSocket clients connect, as the node itself knows.
    #[prost(string, tag = "5")]
    pub websocket: String,
    /// Where gRPC clients connect.
    #[prost(string, tag = "6")]
    pub grpc: String,
    /// Its admin listener.
    #[prost(string, tag = "7")]
    pub admin: String,
    /// What its clients answer.
    #[prost(message, repeated, tag = "8")]
    pub offers: Vec<Offer>,
}

/// Methods that clients of a node answer.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Offer {
    /// Pattern over methods.
    #[prost(string, tag = "1")]
    pub methods: String,
    /// How many clients.
    #[prost(uint32, tag = "2")]
    pub clients: u32,
}

/// Makes this node's card.
pub type CardSource = Arc<dyn Fn() -> NodeCard + Send + Sync>;

/// Shows this node's card and knows those of the others. Cheap to clone.
#[derive(Clone)]
pub struct Cards(Arc<Inner>);

struct Inner {
    broker: Arc<dyn Broker>,
    /// Who waits until the card is shown as it is now.
    waiting: Mutex<Vec<oneshot::Sender<Result<(), BrokerError>>>>,
    changed: Notify,
    known: tokio::sync::Mutex<Read>,
}

/// What was read last.
#[derive(Default)]
struct Read {
    known: Option<Known>,
    /// When a read failed, and why.
    failed: Option<(Instant, ClientError)>,
}

#[derive(Clone)]
struct Known {
    read: Instant,
    nodes: Arc<[(NodeId, NodeCard)]>,
}

impl Cards {
    /// Cards through `broker`.
    #[must_use]
    pub fn new(broker: Arc<dyn Broker>) -> Self {
        let (waiting, changed, known) = (Mutex::default(), Notify::new(), tokio::sync::Mutex::default());
        Self(Arc::new(Inner { broker, waiting, changed, known }))
    }

    /// Shows what `source` makes: at each [`Self::changed`], and again every few seconds, until stopped.
    pub async fn show(self, source: CardSource, stop: CancellationToken) {
        loop {
            let waiting = std::mem::take(&mut *self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            let shown = self.0.broker.announce(source().encode_to_vec().into()).await;
            if let Err(error) = &shown {
                tracing::debug!(%error, "this node's card could not be shown");
            }
            for one in waiting {
                // Who does not wait any more needs no answer.
                let _ = one.send(shown.clone());
            }
            tokio::select! {
                () = stop.cancelled() => return,
                _ = timeout(RENEW, self.0.changed.notified()) => {}
            }
        }
    }

    /// Tells that the card would be another one now. The answer says when all nodes can see it; nobody need wait.
    pub fn changed(&self) -> oneshot::Receiver<Result<(), BrokerError>> {
        let (shown, answer) = oneshot::channel();
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(shown);
        self.0.changed.notify_one();
        answer
    }

    /// The nodes that live, as they were `age` ago at most. Who asks at the same time shares one read.
    ///
    /// # Errors
    /// The broker cannot be reached.
    pub async fn nodes(&self, age: Duration) -> Result<Arc<[(NodeId, NodeCard)]>, ClientError> {
        let asked = Instant::now();
        let mut known = self.0.known.lock().await;
        if let Some(known) = &known.known
            && known.read + age >= asked
        {
            return Ok(known.nodes.clone());
        }
        // It failed while this one waited for its turn: it is told so, and not made to wait as long again.
        if let Some((at, error)) = &known.failed
            && *at >= asked
        {
            return Err(error.clone());
        }
        let read = Instant::now();
        let nodes = match self.0.broker.nodes().await {
            Ok(nodes) => nodes,
            Err(error) => {
                let error = ClientError::from(&error);
                known.failed = Some((Instant::now(), error.clone()));
                return Err(error);
            }
        };
        let nodes = nodes.into_iter().map(|(node, card)| {
            let card = NodeCard::decode(card).unwrap_or_else(|error| {
                tracing::warn!(%node, %error, "a card cannot be read");
                NodeCard::default()
            });
            (node, card)
        });
        let nodes: Arc<[_]> = nodes.collect();
        *known = Read { known: Some(Known { read, nodes: nodes.clone() }), failed: None };
        Ok(nodes)
    }

    /// Cards that are good enough to choose by.
    ///
    /// # Errors
    /// The broker cannot be reached.
    pub async fn recent(&self) -> Result<Arc<[(NodeId, NodeCard)]>, ClientError> {
        self.nodes(FRESH).await
    }
}
