//! Carrying out what a node is asked: finds the sessions, and sends their shards on errands.

use std::{sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, FutureExt as _, join_all};
use streamgate_proto::shared;
use tokio::sync::oneshot;

use crate::{
    channel::Channel,
    error::{ClientError, CloseCode, ErrorCode},
    peers::{
        Answer, Ask, CallAsk, CallTarget, Counts, DisconnectAsk, Place, Places, Respond, SendAsk,
        SessionsAnswer, SessionsAsk, SubscribeAnswer, SubscribeAsk, SurveyAnswers, SurveyAsk, Who, YieldAsk,
        who,
    },
    rpc::{MOST_ANSWERS, Responders, no_room, not_found},
    shard::{CallOutcome, Errand, Mail, Mailbox, SurveyBudget},
};

/// Sessions of one page at most.
const PAGE: u32 = 1_000;
/// Bytes of answers to a survey that a node tells at most: they go in one letter, between publishes.
const SURVEY_BYTES: usize = 4 * 1024 * 1024;
/// Clients that are offered a call, one after the other, if they are gone before they get it or have no room for it.
const TRIES: u32 = 8;

/// This node's answers. Cheap to clone.
#[derive(Clone)]
pub(super) struct Respondent {
    pub shards: Arc<[Mailbox]>,
    pub places: Arc<Places>,
    pub responders: Arc<Responders>,
}

impl Respond for Respondent {
    fn respond(&self, ask: Ask, timeout: Duration) -> BoxFuture<'static, Result<Answer, ClientError>> {
        let respondent = self.clone();
        async move {
            match ask {
                Ask::Call(call) => respondent.call(call, timeout).await,
                Ask::Survey(survey) => respondent.survey(survey).await,
                Ask::Disconnect(disconnect) => respondent.disconnect(disconnect).await,
                Ask::Subscribe(subscribe) => respondent.subscribe(subscribe, false).await,
                Ask::Unsubscribe(subscribe) => respondent.subscribe(subscribe, true).await,
                Ask::Send(send) => respondent.send(send).await,
                Ask::Sessions(sessions) => respondent.sessions(sessions).await,
                Ask::Yield(ask) => respondent.give_up(ask).await,
            }
        }
        .boxed()
    }
}

impl Respondent {
    /// The sessions that are meant, as far as they are here.
    fn find(&self, who: Option<&Who>) -> Vec<Place> {
        match who.and_then(|who| who.of.as_ref()) {
            Some(who::Of::Session(session)) => self.places.session(session).into_iter().collect(),
            Some(who::Of::User(user)) => self.places.user(user),
            None => Vec::new(),
        }
    }

    /// Sends the shard of `place` on an errand; `None` if the session is gone before it was done.
    async fn errand<T>(&self, shard: u16, make: impl FnOnce(oneshot::Sender<T>) -> Errand) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.shards.get(usize::from(shard))?.send(Mail::Errand(Box::new(make(reply))));
        answer.await.ok()
    }

    async fn call(&self, call: CallAsk, timeout: Duration) -> Result<Answer, ClientError> {
        match &call.target {
            Some(CallTarget::Responder(_)) => {
                let mut busy = false;
                for _ in 0..TRIES {
                    let Some(place) = self.responders.pick(&call.method) else { break };
                    match self.give(place, call.clone(), timeout).await {
                        Some(CallOutcome::Ended(outcome)) => return outcome.map(Answer::Called),
                        Some(CallOutcome::NoRoom) => busy = true,
                        None => {}
                    }
                }
                Ok(if busy { Answer::Busy(true) } else { Answer::Nobody(true) })
            }
            Some(CallTarget::Who(who)) => {
                let (place, name) = match &who.of {
                    Some(who::Of::Session(session)) => (self.places.session(session), session),
                    Some(who::Of::User(user)) => {
                        let places = self.places.user(user);
                        let nth = rand::random::<u32>() as usize;
                        (nth.checked_rem(places.len()).and_then(|nth| places.get(nth).copied()), user)
                    }
                    None => return Err(ClientError::bad_request("the call names nobody")),
                };
                let place = place.ok_or_else(|| not_found(name))?;
                if !call.by_server && !self.responders.answers(place, &call.method) {
                    let text = format!("the session does not answer {:?}", call.method);
                    return Err(ClientError::new(ErrorCode::NoProxy, text));
                }
                match self.give(place, call.clone(), timeout).await {
                    Some(CallOutcome::Ended(outcome)) => outcome.map(Answer::Called),
                    Some(CallOutcome::NoRoom) => Err(no_room()),
                    None => Err(not_found(name)),
                }
            }
            None => Err(ClientError::bad_request("the call is for nobody")),
        }
    }

    async fn give(&self, place: Place, call: CallAsk, timeout: Duration) -> Option<CallOutcome> {
        let (conn, call) = (place.conn, Box::new(call));
        self.errand(place.shard, |reply| Errand::Call { conn, call, timeout, reply }).await
    }

    async fn survey(&self, ask: SurveyAsk) -> Result<Answer, ClientError> {
        let channel = Channel::parse(&ask.channel)?;
        let (event, timeout) =
            (Arc::new(ask.event.unwrap_or_default()), Duration::from_millis(ask.timeout_ms));
        let most = usize::try_from(ask.most).unwrap_or(usize::MAX).min(MOST_ANSWERS);
        let wanted = usize::try_from(ask.bytes).ok().filter(|bytes| *bytes > 0);
        let budget =
            Arc::new(SurveyBudget::new(most, wanted.map_or(SURVEY_BYTES, |bytes| bytes.min(SURVEY_BYTES))));
        let parts = (0u16..).take(self.shards.len()).map(|shard| {
            let (channel, event, budget) = (channel.clone(), event.clone(), budget.clone());
            self.errand(shard, move |reply| Errand::Survey { channel, event, timeout, budget, reply })
        });
        let mut all = SurveyAnswers::default();
        for part in join_all(parts).await.into_iter().flatten() {
            all.asked += part.asked;
            all.truncated |= part.truncated;
            all.outcomes.extend(part.outcomes);
        }
        Ok(Answer::Surveyed(all))
    }

    async fn disconnect(&self, ask: DisconnectAsk) -> Result<Answer, ClientError> {
        let code = u16::try_from(ask.code).ok().and_then(CloseCode::for_backends).ok_or_else(|| {
            ClientError::bad_request(format!("{} is no close code that a backend may use", ask.code))
        })?;
        let mut counts = Vec::with_capacity(ask.who.len());
        for who in &ask.who {
            let closing = self.find(Some(who)).into_iter().map(|place| {
                let (conn, reason) = (place.conn, ask.reason.clone());
                self.errand(place.shard, move |reply| Errand::Disconnect { conn, code, reason, reply })
            });
            counts.push(join_all(closing).await.into_iter().flatten().count() as u32);
        }
        Ok(Answer::Counted(Counts { counts }))
    }

    async fn subscribe(&self, ask: SubscribeAsk, leave: bool) -> Result<Answer, ClientError> {
        let asked = self.find(ask.who.as_ref()).into_iter().map(|place| {
            let (conn, channels) = (place.conn, ask.channels.clone());
            self.errand(place.shard, move |reply| Errand::Subscribe { conn, channels, leave, reply })
        });
        let answers: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
        let errors = (0..ask.channels.len()).map(|at| {
            let failed = answers.iter().find_map(|outcomes| outcomes.get(at)?.as_ref().err());
            failed.map_or_else(shared::Error::default, ClientError::to_wire)
        });
        let (sessions, errors) = (answers.len() as u32, errors.collect());
        Ok(Answer::Subscribed(SubscribeAnswer { sessions, errors }))
    }

    async fn send(&self, ask: SendAsk) -> Result<Answer, ClientError> {
        let event = Arc::new(ask.event.unwrap_or_default());
        let sent = self.find(ask.who.as_ref()).into_iter().map(|place| {
            let (conn, channel, event) = (place.conn, ask.channel.clone(), event.clone());
            self.errand(place.shard, move |reply| Errand::Send { conn, channel, event, reply })
        });
        let outcomes: Vec<_> = join_all(sent).await.into_iter().flatten().collect();
        let reached = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        match outcomes.into_iter().find_map(Result::err) {
            Some(error) if reached == 0 => Err(error),
            _ => Ok(Answer::Counted(Counts { counts: vec![reached as u32] })),
        }
    }

    async fn give_up(&self, ask: YieldAsk) -> Result<Answer, ClientError> {
        let closed = match self.places.before(&ask.session, ask.tenure) {
            None => None,
            Some(Place { shard, conn }) => {
                self.errand(shard, |reply| Errand::Yield { conn, reply: Some(reply) }).await
            }
        };
        Ok(Answer::Counted(Counts { counts: vec![u32::from(closed.is_some())] }))
    }

    async fn sessions(&self, ask: SessionsAsk) -> Result<Answer, ClientError> {
        let (mut shard, mut from) = if ask.after.is_empty() { (0, 0) } else { page_token(&ask.after)? };
        let limit = ask.limit.clamp(1, PAGE) as usize;
        let mut answer = SessionsAnswer::default();
        while usize::from(shard) < self.shards.len() {
            let (user, client_type, room) =
                (ask.user.clone(), ask.client_type.clone(), limit - answer.sessions.len());
            let page = self.errand(shard, move |reply| Errand::Sessions {
                user,
                client_type,
                from,
                limit: room,
                reply,
            });
            let (sessions, next) = page.await.unwrap_or_default();
            answer.sessions.extend(sessions);
            (shard, from) = next.map_or((shard + 1, 0), |next| (shard, next));
            if answer.sessions.len() >= limit && usize::from(shard) < self.shards.len() {
                answer.next = format!("{shard}.{from}");
                break;
            }
        }
        Ok(Answer::Sessions(answer))
    }
}

fn page_token(text: &str) -> Result<(u16, u32), ClientError> {
    let parsed = text.split_once('.').and_then(|(shard, key)| Some((shard.parse().ok()?, key.parse().ok()?)));
    parsed.ok_or_else(|| ClientError::bad_request(format!("{text:?} is no page token")))
}
