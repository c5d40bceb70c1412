//! What a node has a shard do with one of its sessions, for other clients or for backends.
//!
//! What clients are to answer, calls and surveys, is in [`super::questions`].

use std::{sync::Arc, time::Duration};

use streamgate_proto::cloudevents::CloudEvent;
use tokio::sync::oneshot;

use super::{CallOutcome, ConnId, Shard, State, SurveyBudget};
use crate::{
    channel::Channel,
    error::{ClientError, CloseCode},
    peers::{CallAsk, SessionInfo, SurveyAnswers},
    session::{Effects, Session, Ticket},
};

/// Connections that one page of sessions looks at.
const LOOKED_AT: usize = 20_000;

/// One thing to do. A reply that is dropped says that the session is not, or no longer, there.
pub enum Errand {
    /// Give a client a call, and wait for its answer.
    Call {
        /// Who.
        conn: ConnId,
        /// What.
        call: Box<CallAsk>,
        /// For how long.
        timeout: Duration,
        /// Who waits; the call is forgotten when nobody does any more.
        reply: oneshot::Sender<CallOutcome>,
    },
    /// Ask everybody here who is subscribed to a channel, and collect what they answer.
    Survey {
        /// To what.
        channel: Channel,
        /// The question.
        event: Arc<CloudEvent>,
        /// For how long.
        timeout: Duration,
        /// What that may cost on all shards together.
        budget: Arc<SurveyBudget>,
        /// Who waits.
        reply: oneshot::Sender<SurveyAnswers>,
    },
    /// Close a session.
    Disconnect {
        /// Which.
        conn: ConnId,
        /// Code on the wire.
        code: CloseCode,
        /// Reason on the wire.
        reason: String,
        /// Who waits.
        reply: oneshot::Sender<()>,
    },
    /// Close a connection whose session has a later one.
    Yield {
        /// Which.
        conn: ConnId,
        /// Who waits.
        reply: Option<oneshot::Sender<()>>,
    },
    /// Subscribe a session, or unsubscribe it.
    Subscribe {
        /// Which.
        conn: ConnId,
        /// Channels or patterns.
        channels: Vec<String>,
        /// Whether to unsubscribe.
        leave: bool,
        /// Who waits; results in the order of the channels.
        reply: oneshot::Sender<Vec<Result<(), ClientError>>>,
    },
    /// Hand an event to a session.
    Send {
        /// Which.
        conn: ConnId,
        /// Channel that it is shown with.
        channel: String,
        /// The event.
        event: Arc<CloudEvent>,
        /// Who waits.
        reply: oneshot::Sender<Result<(), ClientError>>,
    },
    /// Tell of sessions.
    Sessions {
        /// Only of this user, if it is not empty.
        user: String,
        /// Only of this type, if it is not empty.
        client_type: String,
        /// Number of the connection to begin with.
        from: u32,
        /// How many at most.
        limit: usize,
        /// Who waits; with the number of the connection to go on with.
        reply: oneshot::Sender<(Vec<SessionInfo>, Option<u32>)>,
    },
}

impl Shard {
    /// Does it.
    pub(super) fn run_errand(&self, errand: Errand) {
        match errand {
            Errand::Call { conn, call, timeout, reply } => self.call_client(conn, *call, timeout, reply),
            Errand::Survey { channel, event, timeout, budget, reply } => {
                self.survey_clients(&channel, &event, timeout, budget, reply);
            }
            Errand::Disconnect { conn, code, reason, reply } => {
                self.with_open(
                    conn,
                    |session, _, fx| session.close(code, &reason, fx),
                    |()| {
                        // Who does not wait any more needs no answer.
                        let _ = reply.send(());
                    },
                );
            }
            Errand::Yield { conn, reply } => {
                let state = &mut *self.0.state.borrow_mut();
                if self.move_away(state, conn)
                    && let Some(reply) = reply
                {
                    // As above.
                    let _ = reply.send(());
                }
                self.flush(state);
            }
            Errand::Subscribe { conn, channels, leave, reply } => {
                self.subscribe_client(conn, &channels, leave, reply);
            }
            Errand::Send { conn, channel, event, reply } => {
                self.with_open(
                    conn,
                    |session, now, fx| session.hand(now, &channel, event.as_ref().clone(), fx),
                    |handed| {
                        // As above.
                        let _ = reply.send(handed);
                    },
                );
            }
            Errand::Sessions { user, client_type, from, limit, reply } => {
                // As above.
                let _ = reply.send(self.sessions(&user, &client_type, from, limit));
            }
        }
    }

    /// Lets an open session work, and tells what came out; nothing is told of one that is not there.
    fn with_open<T>(
        &self,
        conn: ConnId,
        work: impl FnOnce(&mut Session, crate::session::Now, &mut Effects) -> T,
        tell: impl FnOnce(T),
    ) {
        let mut told = None;
        self.with_session(conn, |_, session, now, fx| {
            if session.is_open() {
                told = Some(work(session, now, fx));
            }
        });
        if let Some(told) = told {
            tell(told);
        }
    }

    fn subscribe_client(
        &self,
        conn: ConnId,
        channels: &[String],
        leave: bool,
        reply: oneshot::Sender<Vec<Result<(), ClientError>>>,
    ) {
        let mut results = Vec::with_capacity(channels.len());
        for channel in channels {
            let (told, result) = oneshot::channel();
            if leave {
                self.with_open(
                    conn,
                    |session, now, fx| session.unsubscribe_by_server(now, channel, fx),
                    |outcome| drop(told.send(outcome)),
                );
            } else {
                let Some(ticket) = self.ticket(conn, told) else { return };
                self.with_open(
                    conn,
                    |session, now, fx| session.subscribe_by_server(now, ticket, channel, fx),
                    |()| {},
                );
            }
            results.push(result);
        }
        tokio::task::spawn_local(async move {
            let mut outcomes = Vec::with_capacity(results.len());
            for result in results {
                // Gone: then there is no answer at all.
                let Ok(outcome) = result.await else { return };
                outcomes.push(outcome);
            }
            // Who does not wait any more needs no answer.
            let _ = reply.send(outcomes);
        });
    }

    /// A ticket for something that an open session is to do.
    fn ticket(&self, conn: ConnId, told: oneshot::Sender<Result<(), ClientError>>) -> Option<Ticket> {
        let state = &mut *self.0.state.borrow_mut();
        let connection = state.connection(conn).filter(|connection| connection.session.is_open())?;
        Some(connection.owed().ticket(told))
    }

    /// Takes what became of something that the server asked a session to do.
    pub(super) fn told(
        &self,
        state: &mut State,
        conn: ConnId,
        ticket: Ticket,
        outcome: Result<(), ClientError>,
    ) {
        if let Some(waiting) = state.owed(conn).and_then(|owed| owed.told(ticket)) {
            // Who does not wait any more needs no answer.
            let _ = waiting.send(outcome);
        }
    }

    fn sessions(
        &self,
        user: &str,
        client_type: &str,
        from: u32,
        limit: usize,
    ) -> (Vec<SessionInfo>, Option<u32>) {
        let state = self.0.state.borrow();
        let mut found = Vec::new();
        let last = state.connections.capacity();
        for key in from as usize..last {
            if found.len() >= limit || key - from as usize >= LOOKED_AT {
                return (found, Some(key as u32));
            }
            let Some(connection) = state.connections.get(key) else { continue };
            let session = &connection.session;
            let wanted = session.is_open()
                && session.is_public()
                && (user.is_empty() || session.user_id() == user)
                && (client_type.is_empty() || session.client_type() == client_type);
            if wanted {
                found.push(SessionInfo {
                    session_id: session.id().to_owned(),
                    user_id: session.user_id().to_owned(),
                    client_id: session.client_id().to_owned(),
                    client_type: session.client_type().to_owned(),
                    connected_at: session.connected_at(),
                    transport: connection.outlet.wire().label().to_owned(),
                    subscriptions: u32::try_from(session.subscription_count()).unwrap_or(u32::MAX),
                });
            }
        }
        (found, None)
    }
}
