//! What a node has a shard do with one of its sessions, for other clients or for backends.
//!
//! A call or a survey that a client owes an answer to is kept with its connection: whoever waits sees its sender dropped
//! when the connection ends, at once. A late or unasked answer is counted and dropped.

use std::{sync::Arc, time::Duration};

use ahash::AHashMap;
use streamgate_proto::cloudevents::CloudEvent;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{ConnId, Shard, State};
use crate::{
    channel::Channel,
    error::{ClientError, CloseCode, ErrorCode},
    peers::{CallAsk, Outcome, SessionInfo, SurveyAnswers},
    session::{Effects, Session, Ticket},
    telemetry::metrics::LATE_ANSWERS,
};

/// Bytes of answers that a survey collects at most on one shard.
const SURVEY_BYTES: usize = 4 * 1024 * 1024;
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
        reply: oneshot::Sender<Result<CloudEvent, ClientError>>,
    },
    /// Ask everybody here who is subscribed to a channel, and collect what they answer.
    Survey {
        /// To what.
        channel: Channel,
        /// The question.
        event: Arc<CloudEvent>,
        /// For how long.
        timeout: Duration,
        /// Answers that are wanted at most.
        most: usize,
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

/// Answers that a client owes.
#[derive(Default)]
pub(super) struct Owed {
    calls: AHashMap<String, oneshot::Sender<Result<CloudEvent, ClientError>>>,
    surveys: AHashMap<String, mpsc::UnboundedSender<Outcome>>,
    /// What the server asked the session to do.
    tickets: AHashMap<Ticket, oneshot::Sender<Result<(), ClientError>>>,
    next_ticket: u64,
}

impl Owed {
    /// Whether somebody waits for an answer to a call or a survey.
    pub fn awaited(&self) -> bool {
        !self.calls.is_empty() || !self.surveys.is_empty()
    }
}

impl Shard {
    /// Does it.
    pub(super) fn run_errand(&self, errand: Errand) {
        match errand {
            Errand::Call { conn, call, timeout, reply } => self.call_client(conn, *call, timeout, reply),
            Errand::Survey { channel, event, timeout, most, reply } => {
                self.survey_clients(&channel, &event, timeout, most, reply);
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

    fn call_client(
        &self,
        conn: ConnId,
        call: CallAsk,
        limit: Duration,
        reply: oneshot::Sender<Result<CloudEvent, ClientError>>,
    ) {
        let request_id = uuid::Uuid::new_v4().to_string();
        let (answer, answered) = oneshot::channel();
        if let Some(connection) = self.0.state.borrow_mut().connection(conn) {
            connection.owed().calls.insert(request_id.clone(), answer);
        }
        let timeout_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let mut given = None;
        self.with_open(
            conn,
            |session, now, fx| session.call(now, &request_id, call, timeout_ms, fx),
            |outcome| given = Some(outcome),
        );
        let outcome = match given {
            Some(Ok(())) => None,
            Some(Err(error)) => Some(Err(error)),
            None => return,
        };
        let mut reply = Given(Some(reply));
        let shard = self.clone();
        tokio::task::spawn_local(async move {
            let outcome = match outcome {
                Some(refused) => refused,
                None => tokio::select! {
                    answered = timeout(limit, answered) => match answered {
                        Ok(Ok(outcome)) => outcome,
                        Ok(Err(_)) => Err(vanished()),
                        Err(_) => Err(ClientError::new(ErrorCode::RpcTimeout, format!("no answer within {limit:?}"))),
                    },
                    () = reply.closed() => Err(vanished()),
                },
            };
            if let Some(owed) = shard.owed(&mut shard.0.state.borrow_mut(), conn) {
                owed.calls.remove(&request_id);
            }
            reply.send(outcome);
        });
    }

    /// Takes a client's answer to a call.
    pub(super) fn call_answered(
        &self,
        state: &mut State,
        conn: ConnId,
        request_id: &str,
        outcome: Result<CloudEvent, ClientError>,
    ) {
        let waiting = self.owed(state, conn).and_then(|owed| owed.calls.remove(request_id));
        if waiting.is_none_or(|waiting| waiting.send(outcome).is_err()) {
            late();
        }
    }

    fn survey_clients(
        &self,
        channel: &Channel,
        event: &Arc<CloudEvent>,
        limit: Duration,
        most: usize,
        reply: oneshot::Sender<SurveyAnswers>,
    ) {
        let request_id = uuid::Uuid::new_v4().to_string();
        let (to, mut outcomes) = mpsc::unbounded_channel();
        let asked = self.0.state.borrow_mut().subscribers(channel);
        for conn in &asked {
            if let Some(connection) = self.0.state.borrow_mut().connection(*conn) {
                connection.owed().surveys.insert(request_id.clone(), to.clone());
            }
            self.with_session(*conn, |_, session, now, fx| session.surveyed(now, &request_id, event, fx));
        }
        // The others are with the connections: none is left when all have answered or are gone.
        drop(to);
        let shard = self.clone();
        tokio::task::spawn_local(async move {
            let mut answers = SurveyAnswers { asked: asked.len() as u64, ..SurveyAnswers::default() };
            let mut room = SURVEY_BYTES;
            let collect = async {
                while let Some(outcome) = outcomes.recv().await {
                    let size = prost::Message::encoded_len(&outcome);
                    if answers.outcomes.len() >= most || size > room {
                        answers.truncated = true;
                        continue;
                    }
                    room -= size;
                    answers.outcomes.push(outcome);
                }
            };
            // What has come by then is the answer.
            let ended = timeout(limit, collect).await;
            if ended.is_err() {
                let state = &mut *shard.0.state.borrow_mut();
                for conn in asked {
                    if let Some(owed) = shard.owed(state, conn) {
                        owed.surveys.remove(&request_id);
                    }
                }
            }
            // Who does not wait any more needs no answer.
            let _ = reply.send(answers);
        });
    }

    /// Takes a client's answer to a survey.
    pub(super) fn survey_answered(
        &self,
        state: &mut State,
        conn: ConnId,
        request_id: &str,
        outcome: Result<CloudEvent, ClientError>,
    ) {
        let session_id = state.connection(conn).map(|connection| connection.session.id().to_owned());
        let waiting = self.owed(state, conn).and_then(|owed| owed.surveys.remove(request_id));
        let (event, error) = match outcome {
            Ok(event) => (Some(event), None),
            Err(error) => (None, Some(error.to_wire())),
        };
        let outcome = Outcome { session_id: session_id.unwrap_or_default(), event, error };
        if waiting.is_none_or(|waiting| waiting.send(outcome).is_err()) {
            late();
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
        let owed = connection.owed();
        owed.next_ticket += 1;
        let ticket = Ticket(owed.next_ticket);
        owed.tickets.insert(ticket, told);
        Some(ticket)
    }

    /// Takes what became of something that the server asked a session to do.
    pub(super) fn told(
        &self,
        state: &mut State,
        conn: ConnId,
        ticket: Ticket,
        outcome: Result<(), ClientError>,
    ) {
        if let Some(waiting) = self.owed(state, conn).and_then(|owed| owed.tickets.remove(&ticket)) {
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

    /// What a connection owes, if anything.
    fn owed<'a>(&self, state: &'a mut State, conn: ConnId) -> Option<&'a mut Owed> {
        state.connection(conn)?.owed.as_deref_mut()
    }
}

/// Who waits for the answer to a call that was given: told that nobody answers if the shard ends before. Without a word the
/// call would count as not given, and be given to somebody else.
struct Given(Option<oneshot::Sender<Result<CloudEvent, ClientError>>>);

impl Given {
    fn send(&mut self, outcome: Result<CloudEvent, ClientError>) {
        if let Some(reply) = self.0.take() {
            // Who does not wait any more needs no answer.
            let _ = reply.send(outcome);
        }
    }

    /// Resolves when nobody waits any more. Cancel: safe.
    async fn closed(&mut self) {
        if let Some(reply) = &mut self.0 {
            reply.closed().await;
        }
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        self.send(Err(vanished()));
    }
}

impl State {
    /// The open connections that are subscribed to `channel`, by its name or by patterns, each once.
    fn subscribers(&mut self, channel: &Channel) -> Vec<ConnId> {
        let mut keys = Vec::new();
        self.index.listeners(channel, &mut |members| keys.extend_from_slice(members));
        let mut connections: Vec<_> = keys
            .into_iter()
            .filter_map(|key| Some(self.subscriptions.get(key as usize)?.connection))
            .collect();
        connections.sort_unstable();
        connections.dedup();
        connections
            .into_iter()
            .filter(|key| self.connections[*key as usize].session.is_open())
            .map(|key| ConnId { key, serial: self.connections[key as usize].serial })
            .collect()
    }
}

fn vanished() -> ClientError {
    ClientError::new(ErrorCode::ProxyError, "the client left before it answered")
}

fn late() {
    metrics::counter!(LATE_ANSWERS, "from" => "client").increment(1);
}
