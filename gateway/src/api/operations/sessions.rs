//! What is done to sessions: `sessions`, `subscribe`, `unsubscribe`, `disconnect`; and `nodes`.

use std::collections::BTreeMap;

use streamgate_proto::server::{
    ChannelResult, DisconnectRequest, DisconnectResponse, DisconnectResult, NodeInfo, NodesRequest,
    NodesResponse, SessionInfo, SessionsRequest, SessionsResponse, SubscribeRequest, SubscribeResponse,
    UnsubscribeRequest, UnsubscribeResponse,
};

use super::{Operations, Who, check_items, page_size, who, wire_outcome};
use crate::{
    api::control::{ByChannel, SessionQuery},
    error::{ClientError, CloseCode, ErrorCode},
};

/// Longest close reason, in bytes (RFC 6455 section 5.5: a control frame has 125, the code takes two).
const REASON_BYTES: usize = 123;

impl Operations {
    /// Lists sessions.
    ///
    /// # Errors
    /// [`ErrorCode::BadRequest`], or what the nodes say.
    pub async fn sessions(&self, request: SessionsRequest) -> Result<SessionsResponse, ClientError> {
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        let query = SessionQuery {
            user_id: given(request.user_id),
            client_type: given(request.client_type),
            node: given(request.node),
            limit: page_size(request.limit, 1_000, 5_000)?,
            page_token: given(request.page_token),
        };
        let page = self.within(self.control()?.sessions(query)).await?;
        let sessions = page.sessions.into_iter().map(|session| SessionInfo {
            session_id: session.session_id,
            user_id: session.user_id,
            client_id: session.client_id,
            client_type: session.client_type,
            node: session.node,
            connected_at: session.connected_at,
        });
        Ok(SessionsResponse { sessions: sessions.collect(), next_page_token: page.next.unwrap_or_default() })
    }

    /// Subscribes a session, or all of a user, to channels.
    ///
    /// # Errors
    /// As [`Self::sessions`].
    pub async fn subscribe(&self, request: SubscribeRequest) -> Result<SubscribeResponse, ClientError> {
        check_items("channels", request.channels.len())?;
        let who = who(request.session_id, request.user_id)?;
        let work = self.control()?.subscribe(who, request.channels.clone());
        let (results, items) = by_channel(request.channels, self.within(work).await)?;
        Ok(SubscribeResponse { results, items })
    }

    /// Ends subscriptions of a session, or of all of a user.
    ///
    /// # Errors
    /// As [`Self::sessions`].
    pub async fn unsubscribe(&self, request: UnsubscribeRequest) -> Result<UnsubscribeResponse, ClientError> {
        check_items("channels", request.channels.len())?;
        let who = who(request.session_id, request.user_id)?;
        let work = self.control()?.unsubscribe(who, request.channels.clone());
        let (results, items) = by_channel(request.channels, self.within(work).await)?;
        Ok(UnsubscribeResponse { results, items })
    }

    /// Ends connections.
    ///
    /// # Errors
    /// [`ErrorCode::BadRequest`] for a code or reason that cannot be sent, or without anybody to disconnect.
    pub async fn disconnect(&self, request: DisconnectRequest) -> Result<DisconnectResponse, ClientError> {
        let DisconnectRequest { sessions, users, code, reason } = request;
        check_items("sessions and users", sessions.len() + users.len())?;
        if sessions.iter().chain(&users).any(String::is_empty) {
            return Err(ClientError::bad_request("an id in sessions or users is empty"));
        }
        let (code, reason) = close_with(code, reason)?;
        let everybody =
            sessions.iter().cloned().map(Who::Session).chain(users.iter().cloned().map(Who::User));
        let work = self.control()?.disconnect(everybody.collect(), code, reason);
        let outcomes = self.within(async move { Ok::<_, ClientError>(work.await) }).await?;
        if outcomes.len() != sessions.len() + users.len() {
            return Err(ClientError::new(ErrorCode::Internal, "not everybody was answered for"));
        }
        let mut outcomes = outcomes.into_iter().map(found);
        let mut response = DisconnectResponse::default();
        for (session_id, outcome) in sessions.into_iter().zip(outcomes.by_ref()) {
            response.results.insert(session_id.clone(), outcome.is_ok());
            response.items.push(DisconnectResult { session_id, ..disconnected(&outcome) });
        }
        for (user_id, outcome) in users.into_iter().zip(outcomes) {
            response.items.push(DisconnectResult { user_id, ..disconnected(&outcome) });
        }
        Ok(response)
    }

    /// Lists the nodes.
    ///
    /// # Errors
    /// What the nodes say.
    pub async fn nodes(&self, _: NodesRequest) -> Result<NodesResponse, ClientError> {
        let nodes = self.within(self.control()?.nodes()).await?;
        let nodes = nodes.into_iter().map(|node| NodeInfo {
            id: node.id,
            name: node.name,
            version: node.version,
            started_at: node.started_at,
            connections: node.connections,
            local: node.local,
        });
        Ok(NodesResponse { nodes: nodes.collect() })
    }
}

/// Nobody there is an error of the item.
pub(super) fn found(outcome: Result<u32, ClientError>) -> Result<u32, ClientError> {
    match outcome {
        Ok(0) => Err(ClientError::new(ErrorCode::NotFound, "nobody of this name is connected")),
        outcome => outcome,
    }
}

fn disconnected(outcome: &Result<u32, ClientError>) -> DisconnectResult {
    let closed = outcome.as_ref().copied().unwrap_or_default();
    DisconnectResult { closed, error: wire_outcome(outcome), ..DisconnectResult::default() }
}

/// What MessageLoop clients look at, and the same with reasons. Who is not there is told for each channel.
fn by_channel(
    channels: Vec<String>,
    outcome: Result<ByChannel, ClientError>,
) -> Result<(BTreeMap<String, bool>, Vec<ChannelResult>), ClientError> {
    let outcomes = match outcome {
        Ok(outcomes) => outcomes,
        Err(error) if error.code == ErrorCode::NotFound => {
            channels.into_iter().map(|channel| (channel, Err(error.clone()))).collect()
        }
        Err(error) => return Err(error),
    };
    let results = outcomes.iter().map(|(channel, outcome)| (channel.clone(), outcome.is_ok())).collect();
    let item = |(channel, outcome)| ChannelResult { channel, error: wire_outcome(&outcome) };
    Ok((results, outcomes.into_iter().map(item).collect()))
}

/// Code and reason of a close frame.
fn close_with(code: u32, reason: String) -> Result<(u16, String), ClientError> {
    if reason.len() > REASON_BYTES {
        let text = format!("reason has {} bytes, at most {REASON_BYTES} are allowed", reason.len());
        return Err(ClientError::bad_request(text));
    }
    let usual = CloseCode::ForceDisconnect;
    match u16::try_from(code) {
        Ok(0) if reason.is_empty() => Ok((usual.code(), usual.reason().to_owned())),
        Ok(0) => Ok((usual.code(), reason)),
        // RFC 6455 section 7.4.2: what applications may use.
        Ok(code @ 3_000..=4_999) => Ok((code, reason)),
        _ => Err(ClientError::bad_request(format!("code is {code}, 3000 to 4999 are allowed"))),
    }
}
