//! Asking beside the shard whether a client may: tokens of subscriptions, and backends.

use std::{future::Future, panic::AssertUnwindSafe};

use futures_util::{FutureExt as _, StreamExt as _, stream};
use streamgate_proto::cloudevents::CloudEvent;
use tokio::time::{Instant, timeout_at};

use super::{ConnId, Shard, State};
use crate::{
    auth::{Authenticator, Refusal},
    error::{ClientError, ErrorCode},
    policy::rights::Asked,
    session::{Answer, Judging, Question, bad_token, not_allowed},
};

/// Questions of one request that are asked at the same time.
const AT_A_TIME: usize = 16;

impl Shard {
    /// Asks what the table leaves open; the session goes on meanwhile.
    pub(super) fn judge(&self, state: &mut State, id: ConnId, judging: Judging) {
        let plain = judging.is_plain();
        if !plain {
            self.begin(state, id.key);
        } else if let Err(error) = self.begin_asking(state, id.key) {
            let answers = judging.questions.iter().map(|_| Err(error.clone())).collect();
            return self
                .let_session(state, id.key, |session, now, fx| session.judged(now, judging, answers, fx));
        }
        let shard = self.clone();
        let authenticator = self.0.settings.authenticator.load_full();
        tokio::task::spawn_local(async move {
            let deadline = Instant::now() + shard.0.rpc_timeout;
            let questions =
                judging.questions.iter().map(|question| shard.ask(&authenticator, question, deadline));
            let answers: Vec<_> = stream::iter(questions).buffered(AT_A_TIME).collect().await;
            if plain {
                shard.end_asking(id);
            } else {
                shard.end(id);
            }
            shard.with_session(id, |_, session, now, fx| session.judged(now, judging, answers, fx));
        });
    }

    /// Asks a backend about a publish.
    pub(super) fn ask_publish(
        &self,
        state: &mut State,
        id: ConnId,
        number: u64,
        asked: Asked,
        event: CloudEvent,
    ) {
        self.begin(state, id.key);
        let shard = self.clone();
        tokio::task::spawn_local(async move {
            let verdict = match shard.0.settings.arbiter.clone() {
                Some(arbiter) => {
                    let deadline = Instant::now() + shard.0.rpc_timeout;
                    decided(deadline, async move { arbiter.publish(asked, event).await }).await
                }
                None => Err(not_allowed(asked.action, &asked.channel)),
            };
            shard.end(id);
            shard.with_session(id, |_, session, now, fx| session.publish_judged(now, number, verdict, fx));
        });
    }

    /// First the token, then the backend: a token that is none of ours may be the backend's.
    async fn ask(
        &self,
        authenticator: &Authenticator,
        question: &Question,
        deadline: Instant,
    ) -> Result<Answer, ClientError> {
        let asked = question.asked.clone();
        if let Some(token) = question.token.clone() {
            match authenticator.subscription(token).await {
                Ok(token) => return Ok(Answer::Token(token)),
                Err(Refusal::Malformed) if question.hook => {}
                Err(refusal) => return Err(bad_token(&asked.channel, &refusal)),
            }
        }
        match self.0.settings.arbiter.clone() {
            Some(arbiter) => {
                let verdict = decided(deadline, async move { arbiter.subscribe(asked).await }).await;
                verdict.map(|()| Answer::Hook)
            }
            None => Err(not_allowed(asked.action, &asked.channel)),
        }
    }
}

/// Waits for a backend until `deadline`; its panic must not end the shard, nor leave the client waiting.
async fn decided<T>(
    deadline: Instant,
    verdict: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    match timeout_at(deadline, AssertUnwindSafe(verdict).catch_unwind()).await {
        Ok(Ok(verdict)) => verdict,
        Ok(Err(_)) => Err(ClientError::new(ErrorCode::Internal, "whoever decides failed")),
        Err(_) => Err(ClientError::new(ErrorCode::RpcTimeout, "no verdict in time")),
    }
}
