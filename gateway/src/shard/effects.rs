//! Carrying out what sessions want.

use std::{future::Future, time::Duration};

use streamgate_proto::v1::{OutboundMessage, outbound_message::Envelope};

use super::{ConnId, Shard, State, frames::encode};
use crate::{
    broker::BrokerError,
    error::{ClientError, CloseCode, ErrorCode},
    session::{Effect, Effects, Now, Session},
};

impl Shard {
    /// Carries out `fx` in order.
    pub(super) fn carry_out(&self, state: &mut State, key: u32, fx: Effects) {
        for effect in fx {
            // One of them may have filled the write queue: what follows is for nobody.
            if state.connections[key as usize].closing {
                break;
            }
            self.carry_out_one(state, key, effect);
        }
    }

    fn carry_out_one(&self, state: &mut State, key: u32, effect: Effect) {
        let id = ConnId { key, serial: state.connections[key as usize].serial };
        match effect {
            Effect::Send(message) => self.send(state, key, *message),
            Effect::SendPage(message) => {
                match encode(state.connections[key as usize].outlet.wire(), &message) {
                    Ok(page) => state.connections[key as usize].pages.push_back(page),
                    Err(code) => self.close_connection(state, key, code, code.reason()),
                }
                self.send_pages(state, key);
            }
            Effect::Opened => {
                self.place(state, key);
                if state.connections[key as usize].closing {
                    return;
                }
                let now = self.now();
                self.tell_connected(state, key, now);
                self.tick_connection(state, key, now);
            }
            Effect::TransportPing => {
                state.connections[key as usize].outlet.ping();
                state.mark_dirty(key);
            }
            Effect::Publish { reply, publish } => {
                let published = self.0.broker.publish(*publish);
                self.operate(state, id, published, move |shard, result| {
                    shard.0.meters.published(&result);
                    shard
                        .with_session(id, |_, session, now, fx| session.publish_done(now, reply, result, fx));
                });
            }
            Effect::PublishRefused => self.0.meters.refused.increment(1),
            Effect::Subscribe(batch) => self.subscribe(state, id, *batch),
            Effect::Unsubscribe(slots) => {
                for slot in slots {
                    self.drop_slot(state, key, slot);
                }
            }
            Effect::History { reply, query } => {
                let page = self.0.broker.history(query);
                self.operate(state, id, page, move |shard, result| {
                    shard
                        .with_session(id, |_, session, now, fx| session.history_done(now, reply, result, fx));
                });
            }
            Effect::Presence { reply, channel, limit } => self.ask_presence(state, id, reply, channel, limit),
            Effect::Authenticate { credential, asking } => {
                let authenticator = self.0.settings.authenticator.load();
                let outcome = authenticator.authenticate(*credential);
                self.begin(state, key);
                let shard = self.clone();
                tokio::task::spawn_local(async move {
                    let outcome = outcome.await;
                    shard.end(id);
                    shard.with_session(id, |_, session, now, fx| {
                        session.authenticated(now, asking, outcome, fx);
                    });
                });
            }
            Effect::Judge(judging) => self.judge(state, id, *judging),
            Effect::AskPublish { number, asked, event } => {
                self.ask_publish(state, id, number, *asked, *event);
            }
            Effect::LoadSession { session, connecting } => {
                let loaded = self.0.broker.load_session(&session);
                self.operate(state, id, loaded, move |shard, result| {
                    shard.with_session(id, |_, session, now, fx| {
                        session.session_loaded(now, *connecting, result, fx);
                    });
                });
            }
            Effect::SaveSession { session, tenure, record, ttl_ms } => {
                let saved = self.0.broker.save_session(&session, tenure, record, ttl_ms);
                let shard = self.clone();
                tokio::task::spawn_local(async move {
                    let outcome = saved.await;
                    shard.session_saved(id, session, tenure, outcome);
                });
            }
            Effect::Deadlines => self.tick_connection(state, key, self.now()),
            Effect::Yield { node, session, tenure } => self.have_yielded(node, session, tenure),
            Effect::GoesOn => state.connections[key as usize].told = false,
            Effect::Rpc { reply, request } => self.rpc(state, id, reply, *request),
            Effect::Serve { reply, methods } => self.serve(state, id, reply, methods),
            Effect::RpcResult { request_id, outcome } => self.call_answered(state, id, &request_id, outcome),
            Effect::Survey(survey) => self.survey(state, id, *survey),
            Effect::SurveyAnswer { request_id, outcome } => {
                self.survey_answered(state, id, &request_id, outcome);
            }
            Effect::Told { ticket, outcome } => self.told(state, id, ticket, outcome),
            Effect::Close { code, reason } => self.closed(state, key, code, &reason),
        }
    }

    /// Encodes a frame and queues it. What somebody else answered is told as an error if the client's encoding cannot carry it:
    /// nobody is closed for that.
    fn send(&self, state: &mut State, key: u32, message: OutboundMessage) {
        let wire = state.connections[key as usize].outlet.wire();
        let frame = encode(wire, &message).or_else(|code| match message.envelope {
            Some(Envelope::RpcReply(_) | Envelope::SurveyResult(_) | Envelope::Error(_)) => {
                let error = ClientError::new(ErrorCode::ProxyError, "the answer cannot be said in JSON");
                encode(wire, &OutboundMessage { envelope: Some(Envelope::Error(error.to_wire())), ..message })
            }
            _ => Err(code),
        });
        match frame {
            Ok(frame) => self.push(state, key, frame),
            Err(code) => self.close_connection(state, key, code, code.reason()),
        }
    }

    /// Tells the session something while effects of it are carried out.
    pub(super) fn let_session(
        &self,
        state: &mut State,
        key: u32,
        work: impl FnOnce(&mut Session, Now, &mut Effects),
    ) {
        let mut fx = Effects::new();
        work(&mut state.connections[key as usize].session, self.now(), &mut fx);
        self.carry_out(state, key, fx);
    }

    /// Queues a frame; a client whose queue is full is cut off.
    pub(super) fn push(&self, state: &mut State, key: u32, frame: bytes::Bytes) {
        let connection = &mut state.connections[key as usize];
        if connection.closing {
            return;
        }
        match connection.outlet.push(frame) {
            Ok(()) => {
                self.0.meters.sent.increment(1);
                state.mark_dirty(key);
            }
            Err(_) => {
                self.close_connection(state, key, CloseCode::SlowConsumer, CloseCode::SlowConsumer.reason())
            }
        }
    }

    /// Queues pages as long as less than half of the write queue is in use; a page takes a quarter at most, so a quarter is
    /// left for what is live. A client that asks for several at once is not cut for that, nor is what is live kept waiting
    /// behind all of them.
    pub(super) fn send_pages(&self, state: &mut State, key: u32) {
        let now_ms = self.now().mono_ms;
        loop {
            let connection = &mut state.connections[key as usize];
            let Some(page) = connection.pages.front() else { return };
            let outlet = &mut connection.outlet;
            if outlet.queued_bytes() >= outlet.limit() / 2 || outlet.push(page.clone()).is_err() {
                connection.stall.lasts_ms(outlet.taken_bytes(), now_ms);
                return;
            }
            connection.pages.pop_front();
            connection.session.page_sent();
            connection.stall.ends();
            self.0.meters.sent.increment(1);
            state.mark_dirty(key);
        }
    }

    fn closed(&self, state: &mut State, key: u32, code: CloseCode, reason: &str) {
        self.tell_disconnected(state, key, code, reason);
        self.drop_subscriptions(state, key);
        self.displace(state, key);
        let connection = &mut state.connections[key as usize];
        connection.pages.clear();
        if !std::mem::replace(&mut connection.closing, true) {
            self.0.meters.closed(code);
            tracing::debug!(
                session = connection.session.id(),
                code = code.code(),
                reason,
                "closing a connection"
            );
            connection.outlet.close(code, reason);
            state.mark_dirty(key);
        }
    }

    /// Awaits an operation of the broker beside the shard, for as long as requests may take.
    pub(super) fn operate<T: 'static>(
        &self,
        state: &mut State,
        id: ConnId,
        operation: impl Future<Output = Result<T, BrokerError>> + 'static,
        done: impl FnOnce(&Self, Result<T, BrokerError>) + 'static,
    ) {
        self.begin(state, id.key);
        let timeout = self.0.settings.limits.load().request_timeout;
        let shard = self.clone();
        tokio::task::spawn_local(async move {
            let result = within(timeout, operation).await;
            shard.end(id);
            done(&shard, result);
        });
    }
}

/// Waits at most `timeout`; what is late may still be carried out.
async fn within<T>(
    timeout: Duration,
    operation: impl Future<Output = Result<T, BrokerError>>,
) -> Result<T, BrokerError> {
    match tokio::time::timeout(timeout, operation).await {
        Ok(result) => result,
        Err(_) => {
            Err(BrokerError::NotAvailable { reason: format!("no answer within {timeout:?}"), sent: true })
        }
    }
}
