//! What backends ask of sessions and nodes, wherever they are.

use std::{sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, join_all};
use streamgate_proto::{cloudevents::CloudEvent, v1::SurveyAnswer};
use tokio::runtime::Handle;

use crate::{
    api::control::{
        ByChannel, Control, NodeInfo, Revoke, SessionInfo, SessionPage, SessionQuery, SurveyOutcome, Who,
    },
    broker::{NodeId, Revoked},
    channel::Channel,
    error::{ClientError, CloseCode, ErrorCode},
    peers::{self, Answer, Ask, CallAsk, DisconnectAsk, SendAsk, SessionsAsk, SubscribeAnswer, SubscribeAsk},
    rpc::{self, Router, not_found},
};

/// How long a node may take for what its clients need not answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of answers to a survey, as of a page of history: gRPC clients take 4 MiB at most unless told otherwise.
const SURVEY_BYTES: usize = 2 * 1024 * 1024;

/// The whole deployment's sessions and nodes. Cheap to clone.
#[derive(Clone)]
pub(super) struct Deployment {
    pub router: Router,
    pub runtime: Handle,
}

impl Deployment {
    /// Starts the work now, and whether or not somebody waits.
    fn start<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ClientError>> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, ClientError>> {
        let started = self.runtime.spawn(work);
        Box::pin(async move {
            let ended = ClientError::new(ErrorCode::Internal, "the work ended without an outcome");
            started.await.unwrap_or(Err(ended))
        })
    }

    /// Asks the node of a session, or all nodes for a user, and answers what they say; nothing if nobody is there.
    async fn ask(&self, who: &Who, ask: Ask) -> Result<Vec<Answer>, ClientError> {
        let peers = &self.router.peers;
        match who {
            Who::Session(session) => match self.router.node_of(session).await? {
                None => Ok(Vec::new()),
                Some(node) => match peers.ask(node, ask, PATIENCE).await {
                    Ok(answer) => Ok(vec![answer]),
                    // The node that it was on.
                    Err(error) if is_gone(&error) => Ok(Vec::new()),
                    Err(error) => Err(error),
                },
            },
            Who::User(_) => {
                let mut failed = None;
                let mut answers = Vec::new();
                for (_, answer) in peers.ask_every(ask, PATIENCE).await? {
                    match answer {
                        Ok(answer) => answers.push(answer),
                        Err(error) => failed = Some(error),
                    }
                }
                // A node that does not answer may have had the one who is meant.
                failed.map_or(Ok(answers), Err)
            }
        }
    }

    async fn change(&self, who: Who, channels: Vec<String>, leave: bool) -> Result<ByChannel, ClientError> {
        let subscribe = SubscribeAsk { who: Some(of(&who)), channels: channels.clone() };
        let ask = if leave { Ask::Unsubscribe(subscribe) } else { Ask::Subscribe(subscribe) };
        let answers = self.ask(&who, ask).await?.into_iter().map(|answer| match answer {
            Answer::Subscribed(answer) => Ok(answer),
            _ => Err(strange()),
        });
        let answers: Vec<SubscribeAnswer> = answers.collect::<Result<_, _>>()?;
        if answers.iter().all(|answer| answer.sessions == 0) {
            return Err(nobody(&who));
        }
        let outcome = |at: usize| {
            let errors = answers.iter().filter_map(|answer| answer.errors.get(at));
            let failed = errors.into_iter().find(|error| !error.code.is_empty());
            failed.map_or(Ok(()), |error| Err(ClientError::from_wire(error.clone())))
        };
        Ok(channels.into_iter().enumerate().map(|(at, channel)| (channel, outcome(at))).collect())
    }

    async fn count(&self, who: &Who, ask: Ask) -> Result<u32, ClientError> {
        let counts = self.ask(who, ask).await?.into_iter().map(|answer| match answer {
            Answer::Counted(counted) => Ok(counted.counts.iter().sum::<u32>()),
            _ => Err(strange()),
        });
        counts.sum()
    }

    async fn page(&self, query: SessionQuery) -> Result<SessionPage, ClientError> {
        let (from, mut after) = match query.page_token.as_deref() {
            None => (NodeId(0), String::new()),
            Some(token) => {
                let parsed =
                    token.split_once('-').and_then(|(node, after)| Some((node.parse().ok()?, after)));
                let (node, after) =
                    parsed.ok_or_else(|| ClientError::bad_request(format!("{token:?} is no page token")))?;
                (NodeId(node), after.to_owned())
            }
        };
        let mut page = SessionPage::default();
        let nodes = self.router.cards.nodes(Duration::ZERO).await?;
        for (node, _) in nodes.iter().filter(|(node, _)| *node >= from) {
            if query.node.as_ref().is_some_and(|wanted| *wanted != node.to_string()) {
                continue;
            }
            // Only the node that the page before ended in goes on in its middle.
            let mut inner = if *node == from { std::mem::take(&mut after) } else { String::new() };
            loop {
                let room = query.limit.saturating_sub(page.sessions.len());
                if room == 0 {
                    page.next = Some(format!("{node}-{inner}"));
                    return Ok(page);
                }
                let ask = SessionsAsk {
                    user: query.user_id.clone().unwrap_or_default(),
                    client_type: query.client_type.clone().unwrap_or_default(),
                    after: std::mem::take(&mut inner),
                    limit: u32::try_from(room).unwrap_or(u32::MAX),
                };
                let part = match self.router.peers.ask(*node, Ask::Sessions(ask), PATIENCE).await {
                    Ok(Answer::Sessions(part)) => part,
                    Ok(_) => return Err(strange()),
                    Err(error) if is_gone(&error) => break,
                    Err(error) => return Err(error),
                };
                page.sessions.extend(part.sessions.into_iter().map(|session| shown(session, *node)));
                if part.next.is_empty() {
                    break;
                }
                inner = part.next;
            }
        }
        Ok(page)
    }

    async fn call_one(
        &self,
        who: Who,
        method: String,
        event: CloudEvent,
        timeout: Duration,
    ) -> Result<CloudEvent, ClientError> {
        let call = CallAsk { method, event: Some(event), by_server: true, ..CallAsk::default() };
        match who {
            Who::Session(session) => self.router.call_session(&session, call, timeout).await,
            Who::User(user) => {
                let query =
                    SessionQuery { user_id: Some(user.clone()), limit: 100, ..SessionQuery::default() };
                let sessions = self.page(query).await?.sessions;
                let nth = (rand::random::<u32>() as usize).checked_rem(sessions.len());
                match nth.and_then(|nth| sessions.get(nth)) {
                    Some(one) => self.router.call_session(&one.session_id, call, timeout).await,
                    None => Err(nobody(&Who::User(user))),
                }
            }
        }
    }
}

impl Control for Deployment {
    fn disconnect(
        &self,
        who: Vec<Who>,
        code: u16,
        reason: String,
    ) -> BoxFuture<'static, Vec<Result<u32, ClientError>>> {
        let deployment = Arc::new(self.clone());
        let refused = CloseCode::for_backends(code)
            .is_none()
            .then(|| ClientError::bad_request(format!("{code} is no close code that a backend may use")));
        let each: Vec<_> = who
            .into_iter()
            .map(|who| {
                let (deployment, reason, refused) = (deployment.clone(), reason.clone(), refused.clone());
                self.start(async move {
                    if let Some(refused) = refused {
                        return Err(refused);
                    }
                    let ask = DisconnectAsk { who: vec![of(&who)], code: u32::from(code), reason };
                    deployment.count(&who, Ask::Disconnect(ask)).await
                })
            })
            .collect();
        Box::pin(join_all(each))
    }

    fn subscribe(
        &self,
        who: Who,
        channels: Vec<String>,
    ) -> BoxFuture<'static, Result<ByChannel, ClientError>> {
        let deployment = self.clone();
        self.start(async move { deployment.change(who, channels, false).await })
    }

    fn unsubscribe(
        &self,
        who: Who,
        channels: Vec<String>,
    ) -> BoxFuture<'static, Result<ByChannel, ClientError>> {
        let deployment = self.clone();
        self.start(async move { deployment.change(who, channels, true).await })
    }

    fn send(
        &self,
        who: Who,
        channel: String,
        event: CloudEvent,
    ) -> BoxFuture<'static, Result<u32, ClientError>> {
        let deployment = self.clone();
        self.start(async move {
            let ask = SendAsk { who: Some(of(&who)), channel, event: Some(event) };
            deployment.count(&who, Ask::Send(ask)).await
        })
    }

    fn sessions(&self, query: SessionQuery) -> BoxFuture<'static, Result<SessionPage, ClientError>> {
        let deployment = self.clone();
        self.start(async move { deployment.page(query).await })
    }

    fn call(
        &self,
        who: Who,
        method: String,
        event: CloudEvent,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<CloudEvent, ClientError>> {
        let deployment = self.clone();
        self.start(async move { deployment.call_one(who, method, event, timeout).await })
    }

    fn survey(
        &self,
        channel: Channel,
        event: CloudEvent,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<SurveyOutcome, ClientError>> {
        let peers = self.router.peers.clone();
        self.start(async move {
            let all = rpc::survey(&peers, &channel, event, timeout, SURVEY_BYTES).await?;
            let answers = all.outcomes.into_iter().map(|outcome| SurveyAnswer {
                session_id: outcome.session_id,
                payload: outcome.event,
                error: outcome.error,
            });
            Ok(SurveyOutcome {
                answers: answers.collect(),
                asked: u32::try_from(all.asked).unwrap_or(u32::MAX),
                truncated: all.truncated,
            })
        })
    }

    fn nodes(&self) -> BoxFuture<'static, Result<Vec<NodeInfo>, ClientError>> {
        let deployment = self.clone();
        self.start(async move {
            let here = deployment.router.peers.broker().node();
            let nodes = deployment.router.cards.nodes(Duration::ZERO).await?;
            let shown = nodes.iter().map(|(node, card)| NodeInfo {
                id: node.to_string(),
                name: card.host.clone(),
                version: card.version.clone(),
                started_at: card.started_at,
                connections: card.sessions,
                local: Some(*node) == here,
            });
            Ok(shown.collect())
        })
    }

    fn revoke(&self, what: Revoke, until_unix_ms: u64) -> BoxFuture<'static, Result<(), ClientError>> {
        let what = match what {
            Revoke::User(user) => Revoked::User(user),
            Revoke::Token(id) => Revoked::Token(id),
        };
        let revoked = self.router.peers.broker().revoke(what, until_unix_ms);
        self.start(async move { revoked.await.map_err(|error| (&error).into()) })
    }
}

fn of(who: &Who) -> peers::Who {
    match who {
        Who::Session(session) => peers::Who::session(session.clone()),
        Who::User(user) => peers::Who::user(user.clone()),
    }
}

fn shown(session: peers::SessionInfo, node: NodeId) -> SessionInfo {
    SessionInfo {
        session_id: session.session_id,
        user_id: session.user_id,
        client_id: session.client_id,
        client_type: session.client_type,
        node: node.to_string(),
        connected_at: session.connected_at,
    }
}

/// Of a node that is not there any more: nobody on it either.
fn is_gone(error: &ClientError) -> bool {
    error.code == ErrorCode::NotFound && error.given.is_none()
}

fn nobody(who: &Who) -> ClientError {
    match who {
        Who::Session(session) => not_found(session),
        Who::User(user) => ClientError::new(ErrorCode::NotFound, format!("{user:?} has no session")),
    }
}

fn strange() -> ClientError {
    ClientError::new(ErrorCode::Internal, "a node answered something else than it was asked")
}
