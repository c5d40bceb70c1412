//! Which subscriptions of a batch the client may have, and by what: asked before anything of the batch is done.

use std::{collections::HashSet, fmt, sync::Arc};

use streamgate_proto::v1::Subscription;

use super::{
    Effect, Effects, Judging, Now, Question, ReplyTo, Session,
    rights::{Answer, Then, not_allowed},
};
use crate::{
    auth::{Stamp, Token},
    channel::Target,
    error::{ClientError, CloseCode, ErrorCode},
    policy::rights::{Action, Verdict},
};

/// A subscription that is asked for, and what is known of the right to it. `Debug` does not show its token.
pub(super) struct Wanted {
    pub subscription: Subscription,
    /// The client did not ask for it by this request: it is left out where it is not allowed.
    pub lenient: bool,
    pub grant: Grant,
}

/// By what a subscription is allowed, where the table and the client's token do not allow it by themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Grant {
    /// A backend allowed to subscribe.
    pub hook: bool,
    /// The server itself subscribed the session: it stays until a rule denies it.
    pub server: bool,
    /// A backend allowed to watch presence.
    pub watch_hook: bool,
    /// A token allowed to subscribe. It ends with that, even if it would be allowed without.
    pub token: Option<Arc<ByToken>>,
    /// What was published before may not be read.
    pub past_refused: bool,
}

/// What is kept of the token of a subscription; the user is the session's.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ByToken {
    /// When it ends, in milliseconds since the Unix epoch; the greatest number: never.
    pub until_unix_ms: u64,
    /// By what it can be revoked.
    pub stamp: Stamp,
}

impl Grant {
    /// When the token ends that allowed it, if one did.
    pub fn token_until(&self) -> Option<u64> {
        self.token.as_ref().map(|token| token.until_unix_ms)
    }
}

/// A batch that waits for a verdict.
#[derive(Debug)]
pub(super) struct Pending {
    number: u64,
    /// What of it was not withdrawn by `unsubscribe` meanwhile.
    names: HashSet<String>,
}

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wanted")
            .field("name", &self.name())
            .field("lenient", &self.lenient)
            .field("grant", &self.grant)
            .finish_non_exhaustive()
    }
}

impl Wanted {
    /// Asked for by the client.
    pub fn asked(subscription: Subscription) -> Self {
        Self { subscription, lenient: false, grant: Grant::default() }
    }

    /// Brought back, or by the client's token.
    pub fn brought(subscription: Subscription) -> Self {
        Self { lenient: true, ..Self::asked(subscription) }
    }

    fn name(&self) -> &str {
        &self.subscription.channel
    }
}

impl Session {
    pub(super) fn subscribe(
        &mut self,
        now: Now,
        reply: ReplyTo,
        wanted: Vec<Subscription>,
        fx: &mut Effects,
    ) {
        match self.screen(now, wanted.into_iter().map(Wanted::asked).collect(), true) {
            Ok((wanted, questions)) if questions.is_empty() => {
                self.subscribe_allowed(now, reply, wanted, Vec::new(), fx);
            }
            Ok((wanted, questions)) => {
                self.next_batch += 1;
                let number = self.next_batch;
                let names = wanted.iter().map(|one| one.name().to_owned()).collect();
                self.pending.push(Pending { number, names });
                let then = Then::Subscribe { reply, wanted, number };
                fx.push(Effect::Judge(Box::new(Judging { questions, then })));
            }
            Err(error) => self.subscribe_refused(now, reply, &error, fx),
        }
    }

    /// Takes the verdicts on a batch.
    pub(super) fn subscribe_judged(
        &mut self,
        now: Now,
        reply: ReplyTo,
        (mut wanted, number): (Vec<Wanted>, u64),
        questions: &[Question],
        answers: Vec<Result<Answer, ClientError>>,
        fx: &mut Effects,
    ) {
        let Some(at) = self.pending.iter().position(|pending| pending.number == number) else { return };
        let Pending { names, .. } = self.pending.swap_remove(at);
        if let Err(error) = self.settle(now, &mut wanted, questions, answers) {
            return self.subscribe_refused(now, reply, &error, fx);
        }
        // As if it had been subscribed and then unsubscribed.
        let (wanted, withdrawn): (Vec<_>, Vec<_>) =
            wanted.into_iter().partition(|one| names.contains(one.name()));
        let withdrawn = withdrawn.iter().filter_map(|one| Target::parse(one.name()).ok()).collect();
        self.subscribe_allowed(now, reply, wanted, withdrawn, fx);
    }

    /// Takes note that the client no longer wants what it may still be waiting for.
    pub(super) fn withdraw(&mut self, target: &Target) {
        for pending in &mut self.pending {
            pending.names.remove(target.as_str());
        }
    }

    /// A client of v1 expects to be closed.
    pub(super) fn subscribe_refused(
        &mut self,
        now: Now,
        reply: ReplyTo,
        error: &ClientError,
        fx: &mut Effects,
    ) {
        self.fail(now, reply, error, fx);
        self.close_refused_v1(error, fx);
    }

    pub(super) fn close_refused_v1(&mut self, error: &ClientError, fx: &mut Effects) {
        if error.code == ErrorCode::AclError && !self.extended {
            self.close(CloseCode::InvalidToken, &error.message, fx);
        }
    }

    /// Asks the table about a batch. What is left, each name once, and what the table does not say.
    pub(super) fn screen(
        &mut self,
        now: Now,
        wanted: Vec<Wanted>,
        charged: bool,
    ) -> Result<(Vec<Wanted>, Vec<Question>), ClientError> {
        let mut kept = Vec::with_capacity(wanted.len());
        let mut questions = Vec::new();
        let mut seen = HashSet::new();
        for mut one in wanted {
            let target = Target::parse(one.name())?;
            if !seen.insert(target.clone()) {
                continue;
            }
            match self.screen_one(now, &target, &mut one, kept.len(), &mut questions) {
                Ok(()) => kept.push(one),
                Err(error) if one.lenient => {
                    tracing::debug!(session = self.id, %error, "a subscription is left out");
                }
                Err(error) => return Err(error),
            }
        }
        if charged {
            for _ in &questions {
                self.take_call(now)?;
            }
        }
        Ok((kept, questions))
    }

    fn screen_one(
        &self,
        now: Now,
        target: &Target,
        one: &mut Wanted,
        at: usize,
        questions: &mut Vec<Question>,
    ) -> Result<(), ClientError> {
        let name = target.as_str();
        let held = self.subscriptions.get(target).and_then(|held| held.grant.token.clone());
        let until = held.as_ref().map(|token| token.until_unix_ms);
        let token =
            Token::new(&one.subscription.token).filter(|_| self.settings.authenticator.load().has_keys());
        let mut asked = Vec::new();
        let mut ask = |action: Action, token: Option<Token>, hook: bool| {
            let shown = if action == Action::Subscribe { one.subscription.token.as_str() } else { "" };
            asked.push(Question { asked: self.asked(action, name, shown), token, hook, at });
        };
        match (self.standing(now, Action::Subscribe, name, false, until), token) {
            (Verdict::Denied, _) => return Err(not_allowed(Action::Subscribe, name)),
            (verdict, Some(token)) => ask(Action::Subscribe, Some(token), verdict == Verdict::Ask),
            (Verdict::Allowed, None) => one.grant.token = held,
            (Verdict::Ask, None) => ask(Action::Subscribe, None, true),
            (Verdict::Unallowed, None) => return Err(not_allowed(Action::Subscribe, name)),
        }
        if self.extended && one.subscription.presence {
            match self.may(Action::Presence, name) {
                Verdict::Allowed => {}
                Verdict::Ask => ask(Action::Presence, None, true),
                _ if one.lenient => one.subscription.presence = false,
                _ => return Err(not_allowed(Action::Presence, name)),
            }
        }
        if self.extended && (one.subscription.recover || one.subscription.from.is_some()) {
            match self.may(Action::History, name) {
                Verdict::Allowed => {}
                Verdict::Ask => ask(Action::History, None, true),
                _ => one.grant.past_refused = true,
            }
        }
        questions.append(&mut asked);
        Ok(())
    }

    /// Notes the answers about a batch; what is not allowed is left out, or the error of all.
    pub(super) fn settle(
        &self,
        now: Now,
        wanted: &mut Vec<Wanted>,
        questions: &[Question],
        answers: Vec<Result<Answer, ClientError>>,
    ) -> Result<(), ClientError> {
        let mut left_out = HashSet::new();
        for (question, answer) in questions.iter().zip(answers) {
            let Some(one) = wanted.get_mut(question.at) else { continue };
            let answer = answer.and_then(|answer| self.fitting(now, &question.asked.channel, answer));
            match (question.asked.action, answer) {
                (Action::Presence, Ok(_)) => one.grant.watch_hook = true,
                (Action::History, Ok(_)) => {}
                (_, Ok(None)) => one.grant.hook = true,
                (_, Ok(token)) => one.grant.token = token,
                (Action::History, Err(error)) if error.code == ErrorCode::AclError => {
                    one.grant.past_refused = true;
                }
                (Action::Presence, Err(error)) if error.code == ErrorCode::AclError && one.lenient => {
                    one.subscription.presence = false;
                }
                (_, Err(error)) if error.code == ErrorCode::AclError && one.lenient => {
                    tracing::debug!(session = self.id, %error, "a subscription is left out");
                    left_out.insert(question.at);
                }
                (_, Err(error)) => return Err(error),
            }
        }
        let mut at = 0..;
        wanted.retain(|_| !at.next().is_some_and(|at| left_out.contains(&at)));
        self.check_again(now, wanted)
    }

    /// Rights may have changed while others were asked.
    fn check_again(&self, now: Now, wanted: &mut Vec<Wanted>) -> Result<(), ClientError> {
        let mut refused = None;
        wanted.retain(|one| {
            let Grant { hook, watch_hook, .. } = one.grant;
            let until = one.grant.token_until();
            let subscribe = self.standing(now, Action::Subscribe, one.name(), hook, until);
            let watch = one.subscription.presence && self.extended;
            let presence = match watch {
                true => self.standing(now, Action::Presence, one.name(), watch_hook, None),
                false => Verdict::Allowed,
            };
            let lost = match (subscribe, presence) {
                (Verdict::Allowed, Verdict::Allowed) => return true,
                (Verdict::Allowed, _) => Action::Presence,
                _ => Action::Subscribe,
            };
            if !one.lenient {
                refused.get_or_insert(not_allowed(lost, one.name()));
            }
            false
        });
        refused.map_or(Ok(()), Err)
    }

    /// The token that allows it; `None` if it is not by a token.
    fn fitting(&self, now: Now, name: &str, answer: Answer) -> Result<Option<Arc<ByToken>>, ClientError> {
        let Answer::Token(token) = answer else { return Ok(None) };
        token.is_for(&self.user_id, name).map_err(|refusal| bad_token(name, &refusal))?;
        if self.settings.revoked.has(&token.user_id, &token.stamp, now.unix_ms) {
            return Err(bad_token(name, &crate::auth::Refusal::Revoked));
        }
        let until_unix_ms = token.expires_unix_ms.unwrap_or(u64::MAX);
        if now.unix_ms >= until_unix_ms {
            return Err(bad_token(name, &crate::auth::Refusal::Expired));
        }
        Ok(Some(Arc::new(ByToken { until_unix_ms, stamp: token.stamp })))
    }

    /// Whether what was allowed by `hook` or a token still is.
    pub(super) fn standing(
        &self,
        now: Now,
        action: Action,
        name: &str,
        hook: bool,
        token_until: Option<u64>,
    ) -> Verdict {
        let by_token = token_until.is_some_and(|until| now.unix_ms < until);
        match self.may(action, name) {
            Verdict::Unallowed if by_token => Verdict::Allowed,
            Verdict::Ask if by_token || hook => Verdict::Allowed,
            verdict => verdict,
        }
    }
}

/// Why a subscription with a token is refused; says nothing of the token itself.
#[must_use]
pub fn bad_token(name: &str, refusal: &crate::auth::Refusal) -> ClientError {
    ClientError::new(ErrorCode::AclError, format!("subscribe is not allowed on {name:?}: {refusal}"))
}
