//! What clients of this shard are to answer: calls and surveys.
//!
//! A question that a client owes an answer to is kept with its connection: whoever waits sees its sender dropped when the
//! connection ends, at once. A late or unasked answer is counted and dropped.
//!
//! Nobody is closed for what others ask of it: a question is put to a client only while it has room for it, as replays are.
//! Whoever asks is told if it has none.

use std::{rc::Rc, sync::Arc, time::Duration};

use ahash::AHashMap;
use bytes::Bytes;
use streamgate_proto::{cloudevents::CloudEvent, v1::OutboundMessage};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{ConnId, Shard, State, SurveyBudget};
use crate::{
    channel::Channel,
    error::{ClientError, ErrorCode},
    peers::{CallAsk, Outcome, SurveyAnswers},
    session::{Ticket, survey_frame},
    telemetry::metrics::LATE_ANSWERS,
    transport::Wire,
};

/// Questions that one client may owe answers to at a time: more than one asker may have under way, so that one alone does
/// not keep the others out.
const MOST_OWED: usize = 4_096;

/// What became of a call that a client was to be given.
#[derive(Debug)]
pub enum CallOutcome {
    /// It was answered, or there is no answer for this reason.
    Ended(Answered),
    /// The client has no room for it, and was not given it.
    NoRoom,
}

type Answered = Result<CloudEvent, ClientError>;

/// Answers that a client owes.
#[derive(Default)]
pub(super) struct Owed {
    calls: AHashMap<String, oneshot::Sender<Answered>>,
    surveys: AHashMap<Rc<str>, mpsc::UnboundedSender<Outcome>>,
    /// What the server asked the session to do.
    tickets: AHashMap<Ticket, oneshot::Sender<Result<(), ClientError>>>,
    next_ticket: u64,
}

impl Owed {
    /// Whether somebody waits for an answer to a call or a survey.
    pub fn awaited(&self) -> bool {
        !self.calls.is_empty() || !self.surveys.is_empty()
    }

    /// A ticket for whoever is to be told what became of it.
    pub fn ticket(&mut self, told: oneshot::Sender<Result<(), ClientError>>) -> Ticket {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.tickets.insert(ticket, told);
        ticket
    }

    /// Who is to be told what became of it.
    pub fn told(&mut self, ticket: Ticket) -> Option<oneshot::Sender<Result<(), ClientError>>> {
        self.tickets.remove(&ticket)
    }

    fn is_full(&self) -> bool {
        self.calls.len() + self.surveys.len() >= MOST_OWED
    }
}

/// The client has as much to answer, or to read, as it may.
#[derive(Debug)]
struct NoRoom;

impl Shard {
    /// Has a client answer a call.
    pub(super) fn call_client(
        &self,
        conn: ConnId,
        call: CallAsk,
        limit: Duration,
        reply: oneshot::Sender<CallOutcome>,
    ) {
        let request_id = uuid::Uuid::new_v4().to_string();
        let Some(given) = self.give_call(conn, &request_id, call, limit) else { return };
        let mut reply = Given(Some(reply));
        let answered = match given {
            Ok(answered) => answered,
            Err(refused) => return reply.send(refused),
        };
        let shard = self.clone();
        tokio::task::spawn_local(async move {
            let outcome = tokio::select! {
                answered = timeout(limit, answered) => match answered {
                    Ok(Ok(outcome)) => outcome,
                    Ok(Err(_)) => Err(vanished()),
                    Err(_) => Err(ClientError::new(ErrorCode::RpcTimeout, format!("no answer within {limit:?}"))),
                },
                () = reply.closed() => Err(vanished()),
            };
            if let Some(owed) = shard.0.state.borrow_mut().owed(conn) {
                owed.calls.remove(&request_id);
            }
            reply.send(CallOutcome::Ended(outcome));
        });
    }

    /// Queues a call for a client, and tells where its answer comes; `None`: the client is gone.
    fn give_call(
        &self,
        conn: ConnId,
        request_id: &str,
        call: CallAsk,
        limit: Duration,
    ) -> Option<Result<oneshot::Receiver<Answered>, CallOutcome>> {
        let now = self.now();
        let timeout_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let state = &mut *self.0.state.borrow_mut();
        let connection = state.connection(conn).filter(|connection| connection.session.is_open())?;
        let wire = connection.outlet.wire();
        let message = connection.session.call(now, request_id, call, timeout_ms);
        let frame = match message.and_then(|message| question_frame(wire, &message)) {
            Ok(frame) => frame,
            Err(error) => return Some(Err(CallOutcome::Ended(Err(error)))),
        };
        if self.pose(state, conn, frame).is_err() {
            return Some(Err(CallOutcome::NoRoom));
        }
        let (answer, answered) = oneshot::channel();
        state.connection(conn)?.owed().calls.insert(request_id.to_owned(), answer);
        self.flush_in_time(state, conn);
        Some(Ok(answered))
    }

    /// Queues what a client is to answer, if less than half of its write queue is in use then: what is live needs the
    /// rest, and whoever asks must not have it closed.
    fn pose(&self, state: &mut State, conn: ConnId, frame: Bytes) -> Result<(), NoRoom> {
        let Some(connection) = state.connection(conn) else { return Err(NoRoom) };
        if connection.owed.as_ref().is_some_and(|owed| owed.is_full()) {
            return Err(NoRoom);
        }
        let outlet = &mut connection.outlet;
        let half = outlet.limit() / 2;
        let fits = |queued: usize| queued == 0 || queued + frame.len() <= half;
        if !fits(outlet.queued_bytes()) {
            // What was queued in one batch does not make a client slow.
            outlet.flush();
            if !fits(outlet.queued_bytes()) {
                return Err(NoRoom);
            }
        }
        outlet.push(frame).map_err(|_| NoRoom)?;
        self.0.meters.sent.increment(1);
        state.mark_dirty(conn.key);
        Ok(())
    }

    /// Takes a client's answer to a call.
    pub(super) fn call_answered(&self, state: &mut State, conn: ConnId, request_id: &str, outcome: Answered) {
        let waiting = state.owed(conn).and_then(|owed| owed.calls.remove(request_id));
        if waiting.is_none_or(|waiting| waiting.send(outcome).is_err()) {
            late();
        }
    }

    /// Asks the subscribers of a channel, as many as the budget allows.
    pub(super) fn survey_clients(
        &self,
        channel: &Channel,
        event: &CloudEvent,
        limit: Duration,
        budget: Arc<SurveyBudget>,
        reply: oneshot::Sender<SurveyAnswers>,
    ) {
        let request_id: Rc<str> = uuid::Uuid::new_v4().to_string().into();
        let (to, mut outcomes) = mpsc::unbounded_channel();
        let mut asked = self.0.state.borrow_mut().subscribers(channel);
        let most = budget.ask(asked.len());
        let truncated = most < asked.len();
        asked.truncate(most);
        // The senders are with the connections: none is left when all have answered or are gone.
        self.pose_survey(&asked, &request_id, event, to);
        let shard = self.clone();
        tokio::task::spawn_local(async move {
            let mut answers =
                SurveyAnswers { asked: asked.len() as u64, truncated, ..SurveyAnswers::default() };
            let collect = async {
                while let Some(outcome) = outcomes.recv().await {
                    if budget.answer(prost::Message::encoded_len(&outcome)) {
                        answers.outcomes.push(outcome);
                    } else {
                        answers.truncated = true;
                    }
                }
            };
            // What has come by then is the answer.
            let ended = timeout(limit, collect).await;
            if ended.is_err() {
                let state = &mut *shard.0.state.borrow_mut();
                for conn in asked {
                    if let Some(owed) = state.owed(conn) {
                        owed.surveys.remove(&request_id);
                    }
                }
            }
            // Who does not wait any more needs no answer.
            let _ = reply.send(answers);
        });
    }

    /// Queues the question for everybody, encoded once for each form in use. Who cannot be asked has answered with that.
    fn pose_survey(
        &self,
        asked: &[ConnId],
        request_id: &Rc<str>,
        event: &CloudEvent,
        to: mpsc::UnboundedSender<Outcome>,
    ) {
        let state = &mut *self.0.state.borrow_mut();
        let message = survey_frame(&self.0.settings, self.now(), request_id, event);
        let mut frames: [Option<Result<Bytes, ClientError>>; Wire::COUNT] = Default::default();
        for conn in asked {
            let Some(connection) = state.connection(*conn) else { continue };
            let wire = connection.outlet.wire();
            let frame = frames[wire.index()].get_or_insert_with(|| match &message {
                Ok(message) => question_frame(wire, message),
                Err(error) => Err(error.clone()),
            });
            let posed = frame.clone().and_then(|frame| {
                self.pose(state, *conn, frame).map_err(|NoRoom| {
                    ClientError::new(ErrorCode::NotAvailable, "the session has no room for another question")
                })
            });
            let Some(connection) = state.connection(*conn) else { continue };
            match posed {
                Ok(()) => drop(connection.owed().surveys.insert(request_id.clone(), to.clone())),
                Err(error) => {
                    let (session_id, error) = (connection.session.id().to_owned(), Some(error.to_wire()));
                    // The one who collects is there until this function ends.
                    let _ = to.send(Outcome { session_id, event: None, error });
                }
            }
        }
        self.flush(state);
    }

    /// Takes a client's answer to a survey.
    pub(super) fn survey_answered(
        &self,
        state: &mut State,
        conn: ConnId,
        request_id: &str,
        outcome: Answered,
    ) {
        let session_id = state.connection(conn).map(|connection| connection.session.id().to_owned());
        let waiting = state.owed(conn).and_then(|owed| owed.surveys.remove(request_id));
        let (event, error) = match outcome {
            Ok(event) => (Some(event), None),
            Err(error) => (None, Some(error.to_wire())),
        };
        let outcome = Outcome { session_id: session_id.unwrap_or_default(), event, error };
        if waiting.is_none_or(|waiting| waiting.send(outcome).is_err()) {
            late();
        }
    }
}

/// Who waits for the answer to a call that was given: told that nobody answers if the shard ends before. Without a word the
/// call would count as not given, and be given to somebody else.
struct Given(Option<oneshot::Sender<CallOutcome>>);

impl Given {
    fn send(&mut self, outcome: CallOutcome) {
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
        self.send(CallOutcome::Ended(Err(vanished())));
    }
}

impl State {
    /// What a connection owes, if anything.
    pub(super) fn owed(&mut self, conn: ConnId) -> Option<&mut Owed> {
        self.connection(conn)?.owed.as_deref_mut()
    }

    /// The open connections that are subscribed to `channel`, by its name or by patterns, each once. Not those whose clients
    /// could not answer: whoever asks would only wait for them.
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
            .filter(|key| {
                let session = &self.connections[*key as usize].session;
                session.is_open() && session.takes_questions()
            })
            .map(|key| ConnId { key, serial: self.connections[key as usize].serial })
            .collect()
    }
}

/// Encodes what a client is to answer. What its encoding cannot carry is the asker's fault, not the client's.
fn question_frame(wire: Wire, message: &OutboundMessage) -> Result<Bytes, ClientError> {
    wire.frame(message).map_err(|error| {
        ClientError::bad_request(format!("the client that is asked cannot be sent this: {error}"))
    })
}

fn vanished() -> ClientError {
    ClientError::new(ErrorCode::ProxyError, "the client left before it answered")
}

fn late() {
    metrics::counter!(LATE_ANSWERS, "from" => "client").increment(1);
}
