//! Calls and surveys that clients of this shard ask for.

use std::{future::Future, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt as _;
use streamgate_proto::cloudevents::CloudEvent;
use tokio::time::Instant;

use super::{ConnId, Shard, State};
use crate::{
    error::{ClientError, ErrorCode},
    peers::Place,
    rpc,
    session::{Effects, Now, ReplyTo, RpcRequest, Session, Survey},
    telemetry::metrics::{RPC_CALLS, RPC_SECONDS},
};

impl Shard {
    /// Has a call answered, unless its client goes before.
    pub(super) fn rpc(&self, state: &mut State, id: ConnId, reply: ReplyTo, request: RpcRequest) {
        let limit = self.patience(request.timeout_ms);
        let timeout_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let started = Instant::now();
        let take = move |session: &mut Session,
                         now: Now,
                         outcome: Result<CloudEvent, ClientError>,
                         fx: &mut Effects| {
            let code = outcome.as_ref().err().map_or("ok", |error| error.code.as_str());
            metrics::counter!(RPC_CALLS, "outcome" => code).increment(1);
            metrics::histogram!(RPC_SECONDS).record(started.elapsed().as_secs_f64());
            session.rpc_done(now, reply, outcome, fx);
        };
        let (shard, request) = (self.clone(), RpcRequest { timeout_ms, ..request });
        let answer = async move { within(limit, shard.0.rpc.call(request, limit)).await };
        self.wait_for(state, id, answer, take);
    }

    /// Offers a client to all nodes as one who answers calls.
    pub(super) fn serve(&self, state: &mut State, id: ConnId, reply: Option<ReplyTo>, methods: Vec<String>) {
        let place = Place { shard: self.0.number, conn: id };
        self.0.rpc.responders.offer(place, methods);
        let shown = self.0.rpc.cards.changed();
        let Some(reply) = reply else { return };
        let limit = self.0.settings.limits.load().request_timeout;
        let shown = async move {
            match shown.await {
                Ok(shown) => shown.map_err(|error| (&error).into()),
                Err(_) => Err(ClientError::new(ErrorCode::NotAvailable, "the node is shutting down")),
            }
        };
        self.begin(state, id.key);
        let shard = self.clone();
        tokio::task::spawn_local(async move {
            let outcome = within(limit, shown).await;
            shard.end(id);
            shard.with_session(id, |_, session, now, fx| session.serving(now, reply, outcome, fx));
        });
    }

    /// Asks the subscribers of a channel, on all nodes, unless who asks goes before.
    pub(super) fn survey(&self, state: &mut State, id: ConnId, survey: Survey) {
        let Survey { reply, request_id, channel, event, timeout_ms } = survey;
        let (peers, limit) = (self.0.rpc.peers.clone(), self.patience(timeout_ms));
        let bytes = state.connections[id.key as usize].session.largest();
        let answers = async move { rpc::survey(&peers, &channel, event, limit, bytes).await };
        self.wait_for(state, id, answers, move |session, now, outcome, fx| {
            session.survey_done(now, reply, request_id, outcome, fx);
        });
    }

    /// How long a client is willing to wait, and the server.
    fn patience(&self, timeout_ms: u64) -> Duration {
        match timeout_ms {
            0 => self.0.rpc_timeout,
            wanted => self.0.rpc_timeout.min(Duration::from_millis(wanted)),
        }
    }

    /// Awaits `answer` beside the shard, and lets the session take it. When the connection ends it is dropped. A client that
    /// waits for too many is refused at once.
    fn wait_for<T: 'static>(
        &self,
        state: &mut State,
        id: ConnId,
        answer: impl Future<Output = Result<T, ClientError>> + 'static,
        take: impl FnOnce(&mut Session, Now, Result<T, ClientError>, &mut Effects) + 'static,
    ) {
        if let Err(error) = self.begin_asking(state, id.key) {
            return self.let_session(state, id.key, |session, now, fx| take(session, now, Err(error), fx));
        }
        let leaving = state.connections[id.key as usize].leaving();
        let shard = self.clone();
        tokio::task::spawn_local(async move {
            // A handler is the embedding program's: its panic must not end the shard, nor leave the caller waiting.
            let answer = AssertUnwindSafe(answer).catch_unwind();
            let outcome = tokio::select! {
                outcome = answer => outcome,
                () = leaving.cancelled() => return shard.end_asking(id),
            };
            shard.end_asking(id);
            let outcome =
                outcome.unwrap_or_else(|_| Err(ClientError::new(ErrorCode::Internal, "the handler failed")));
            shard.with_session(id, |_, session, now, fx| take(session, now, outcome, fx));
        });
    }
}

/// Waits at most `limit`.
async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| {
        Err(ClientError::new(ErrorCode::RpcTimeout, format!("no answer within {limit:?}")))
    })
}
