//! The way of a call to who answers it.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use streamgate_proto::cloudevents::CloudEvent;
use tokio_util::sync::CancellationToken;

use super::{Handlers, Responders};
use crate::{
    broker::{Broker, NodeId},
    channel::glob,
    error::{ClientError, ErrorCode},
    hooks::Hooks,
    peers::{Answer, Ask, CallAsk, CallTarget, Cards, Peers, Places, Who},
    session::RpcRequest,
};

/// What the channel of a call to one session starts with; its id follows.
pub const TO_SESSION: &str = "$session.";

/// Nodes that a call is offered to, one after the other, if their responders have gone meanwhile or have no room for it.
const TRIES: u32 = 3;

/// Has calls answered: by the handlers of this process, by the session that is named, by a backend, or by one of the
/// clients that offer the method, wherever they are. Cheap to clone.
#[derive(Clone)]
pub struct Router {
    /// Of this process; they go first.
    pub handlers: Handlers,
    /// Backends; they go before clients.
    pub hooks: Hooks,
    /// The other nodes.
    pub peers: Peers,
    /// What other nodes offer.
    pub cards: Cards,
    /// Who on this node offers what.
    pub responders: Arc<Responders>,
    /// Where sessions of this node are.
    pub places: Arc<Places>,
}

impl Router {
    /// A router to the other nodes through `broker`; without handlers. Within a runtime.
    #[must_use]
    pub fn new(broker: Arc<dyn Broker>, stop: CancellationToken) -> Self {
        Self {
            handlers: Handlers::default(),
            hooks: Hooks::default(),
            peers: Peers::new(broker.clone(), stop),
            cards: Cards::new(broker),
            responders: Arc::default(),
            places: Arc::default(),
        }
    }

    /// Has a call of a client answered within `timeout`.
    ///
    /// # Errors
    /// `NO_PROXY` if nobody answers such calls, `NOT_FOUND` if the session that is named does not exist; what who answers
    /// says; `PROXY_ERROR` if they vanish; `NOT_AVAILABLE` if all of them have too much to do.
    ///
    /// Cancel: who answers is no longer waited for.
    pub fn call(
        &self,
        request: RpcRequest,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<CloudEvent, ClientError>> {
        if let Some(handler) = self.handlers.find(&request.channel, &request.method).cloned() {
            // It may panic: not before it is awaited.
            return Box::pin(async move { handler.call(request).await });
        }
        let session = request.channel.strip_prefix(TO_SESSION).map(ToOwned::to_owned);
        if session.is_none() && self.hooks.serves(&request.channel, &request.method) {
            return self.hooks.rpc(request, timeout);
        }
        let router = self.clone();
        Box::pin(async move {
            let call = CallAsk {
                target: None,
                channel: request.channel,
                method: request.method,
                event: Some(request.event),
                by_server: false,
            };
            match session {
                Some(session) => router.call_session(&session, call, timeout).await,
                None => router.call_responder(call, timeout).await,
            }
        })
    }

    /// Has one session answer, wherever it is.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn call_session(
        &self,
        session: &str,
        call: CallAsk,
        timeout: Duration,
    ) -> Result<CloudEvent, ClientError> {
        let call = CallAsk { target: Some(CallTarget::Who(Who::session(session))), ..call };
        match self.node_of(session).await? {
            Some(node) => answer_of(self.peers.ask(node, Ask::Call(call), timeout).await),
            None => Err(not_found(session)),
        }
    }

    /// The node that a session is on.
    ///
    /// # Errors
    /// The broker cannot be reached.
    pub async fn node_of(&self, session: &str) -> Result<Option<NodeId>, ClientError> {
        if self.places.session(session).is_some() {
            return Ok(self.peers.broker().node());
        }
        self.peers.broker().find_session(session).await.map_err(|error| (&error).into())
    }

    async fn call_responder(&self, call: CallAsk, timeout: Duration) -> Result<CloudEvent, ClientError> {
        let call = CallAsk { target: Some(CallTarget::Responder(true)), ..call };
        let (mut gone, mut busy) = (Vec::new(), false);
        for _ in 0..TRIES {
            let Some(node) = self.choose(&call.method, &gone).await? else { break };
            match self.peers.ask(node, Ask::Call(call.clone()), timeout).await {
                // Nobody was given the call: to offer it to another one is safe.
                Ok(Answer::Nobody(_)) => gone.push(node),
                Ok(Answer::Busy(_)) => {
                    busy = true;
                    gone.push(node);
                }
                Err(error) if error.code == ErrorCode::NotFound && error.given.is_none() => gone.push(node),
                answer => return answer_of(answer),
            }
        }
        Err(if busy { no_room() } else { nobody(&call) })
    }

    /// A node that has somebody to answer `method`; each as often as its clients are many.
    async fn choose(&self, method: &str, gone: &[NodeId]) -> Result<Option<NodeId>, ClientError> {
        let here = self.peers.broker().node();
        for age in [None, Some(Duration::ZERO)] {
            let nodes = match age {
                None => self.cards.recent().await,
                Some(age) => self.cards.nodes(age).await,
            };
            let nodes = match nodes {
                Ok(nodes) => nodes,
                // Whoever is here can be called all the same.
                Err(_) if here.is_some() && self.responders.pick(method).is_some() => return Ok(here),
                Err(error) => return Err(error),
            };
            let weigh = |offers: &[crate::peers::Offer]| -> u64 {
                let matching = offers.iter().filter(|offer| glob(&offer.methods, method));
                matching.map(|offer| u64::from(offer.clients)).sum()
            };
            let weights: Vec<_> = nodes
                .iter()
                .filter(|(node, _)| !gone.contains(node))
                .map(|(node, card)| {
                    // What is known of this node is never old.
                    let here = Some(*node) == here;
                    (*node, if here { self.responders.weight(method) } else { weigh(&card.offers) })
                })
                .collect();
            if let Some(node) = draw(&weights) {
                return Ok(Some(node));
            }
        }
        Ok(None)
    }
}

/// One of the nodes, by chance; none if all weigh nothing.
fn draw(weights: &[(NodeId, u64)]) -> Option<NodeId> {
    let sum: u64 = weights.iter().map(|(_, weight)| weight).sum();
    let mut at = rand::random::<u64>().checked_rem(sum)?;
    for (node, weight) in weights {
        match at.checked_sub(*weight) {
            None => return Some(*node),
            Some(left) => at = left,
        }
    }
    None
}

fn answer_of(answer: Result<Answer, ClientError>) -> Result<CloudEvent, ClientError> {
    match answer? {
        Answer::Called(event) => Ok(event),
        _ => Err(ClientError::new(ErrorCode::Internal, "a node answered something else than a call")),
    }
}

/// That no client of a node answers such calls.
#[must_use]
pub fn nobody(call: &CallAsk) -> ClientError {
    let text = format!("nothing serves method {:?} on {:?}", call.method, call.channel);
    ClientError::new(ErrorCode::NoProxy, text)
}

/// That whoever could answer has as much to do as it may. Nobody was given the call.
#[must_use]
pub fn no_room() -> ClientError {
    ClientError::new(ErrorCode::NotAvailable, "who would answer has no room for another call now")
}

/// That a session does not exist.
#[must_use]
pub fn not_found(session: &str) -> ClientError {
    ClientError::new(ErrorCode::NotFound, format!("there is no session {session:?}"))
}
