//! What the client may do: the table says it at once, or leaves it to a backend, or the token of a subscription proves it.

use std::sync::LazyLock;

use super::{
    Effect, Effects, Now, ReplyTo, RpcRequest, Session, Survey, connect::Connecting, screen::Wanted,
};
use crate::{
    auth::{Grants, SubscriptionToken, Token},
    broker::HistoryQuery,
    channel::Channel,
    error::{ClientError, ErrorCode},
    policy::rights::{Action, Asked, Subject, Verdict},
};

/// What those have whose token brings nothing.
static NO_GRANTS: LazyLock<Grants> = LazyLock::new(Grants::default);

/// Something that the table alone does not say.
#[derive(Debug)]
pub struct Question {
    /// As a backend is asked, with the token of the subscription.
    pub asked: Asked,
    /// That token, if it may be one that is to be checked here, first.
    pub token: Option<Token>,
    /// Whether a backend is asked, unless the token is good.
    pub hook: bool,
    /// Which of the subscriptions it is about.
    pub(super) at: usize,
}

/// Who said yes to a [`Question`].
#[derive(Debug)]
pub enum Answer {
    /// The token that came with it, if it fits.
    Token(SubscriptionToken),
    /// A backend.
    Hook,
}

/// Questions that a request waits for.
#[derive(Debug)]
pub struct Judging {
    /// Answered together, in this order.
    pub questions: Vec<Question>,
    /// What waits.
    pub(super) then: Then,
}

impl Judging {
    /// Whether a request waits that can be refused without a consequence: no subscription ends over it.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        matches!(
            self.then,
            Then::Presence(..) | Then::History(..) | Then::Rpc(..) | Then::Serve(..) | Then::Survey(_)
        )
    }
}

/// What goes on when the client may do it.
#[derive(Debug)]
pub(super) enum Then {
    /// A batch of subscriptions, of which `number` tells what was withdrawn meanwhile.
    Subscribe { reply: ReplyTo, wanted: Vec<Wanted>, number: u64 },
    /// The subscriptions of a connect.
    Connect(Box<Connecting>),
    /// Subscriptions stay; told to who asked for it.
    Stay(Option<ReplyTo>),
    /// Members are listed.
    Presence(ReplyTo, Channel),
    /// History is read.
    History(ReplyTo, HistoryQuery),
    /// A call is made.
    Rpc(ReplyTo, Box<RpcRequest>),
    /// Calls of these methods are answered.
    Serve(ReplyTo, Vec<String>),
    /// Subscribers are asked.
    Survey(Box<Survey>),
}

impl Session {
    /// Whether the client may do `action` on `name`: a channel, a pattern, or what else the action's rules are about.
    #[must_use]
    pub fn may(&self, action: Action, name: &str) -> Verdict {
        let subject = Subject { user_id: &self.user_id, grants: self.grants() };
        let rights = &self.settings.rights;
        match (rights.verdict(action, name, subject), &self.settings.arbiter) {
            (Verdict::Ask, None) => Verdict::Unallowed,
            // A route of a backend is enough for it to be asked.
            (Verdict::Allowed, Some(arbiter))
                if rights.by_default(action) && arbiter.decides(action, name) =>
            {
                Verdict::Ask
            }
            (verdict, _) => verdict,
        }
    }

    /// Takes one of the calls that the client may make in a second: RPCs, surveys, and questions to a backend.
    ///
    /// # Errors
    /// `RATE_LIMITED` if none is left.
    pub fn take_call(&mut self, now: Now) -> Result<(), ClientError> {
        let limit = self.settings.limits.load().calls_per_second;
        if self.calls.take(now.mono_ms, limit) {
            return Ok(());
        }
        let text = format!("more than {limit} calls, or requests that a backend is asked about, a second");
        Err(ClientError::new(ErrorCode::RateLimited, text))
    }

    /// Goes on with `then` if the client may do `action` on `name`, now or when a backend has said so.
    pub(super) fn permit(&mut self, now: Now, (action, name): (Action, &str), then: Then, fx: &mut Effects) {
        self.permit_all(now, (action, &[name]), then, fx);
    }

    /// The same for several names, all of which it must be.
    pub(super) fn permit_all(
        &mut self,
        now: Now,
        (action, names): (Action, &[&str]),
        then: Then,
        fx: &mut Effects,
    ) {
        let mut questions = Vec::new();
        for name in names {
            let refused = match self.may(action, name) {
                Verdict::Allowed => continue,
                Verdict::Denied | Verdict::Unallowed => not_allowed(action, name),
                Verdict::Ask => match self.take_call(now) {
                    Ok(()) => {
                        let asked = self.asked(action, name, "");
                        questions.push(Question { asked, token: None, hook: true, at: 0 });
                        continue;
                    }
                    Err(error) => error,
                },
            };
            return self.refuse(now, then, &refused, fx);
        }
        if questions.is_empty() {
            self.go_on(now, then, fx);
        } else {
            fx.push(Effect::Judge(Box::new(Judging { questions, then })));
        }
    }

    /// Takes the answers to questions, one each.
    pub fn judged(
        &mut self,
        now: Now,
        judging: Judging,
        answers: Vec<Result<Answer, ClientError>>,
        fx: &mut Effects,
    ) {
        let Judging { questions, then } = judging;
        match then {
            Then::Connect(connecting) => self.connect_judged(now, *connecting, &questions, answers, fx),
            _ if !self.is_open() => {}
            Then::Subscribe { reply, wanted, number } => {
                self.subscribe_judged(now, reply, (wanted, number), &questions, answers, fx);
            }
            Then::Stay(reply) => self.stay_judged(now, reply, &questions, answers, fx),
            then => self.request_judged(now, then, &questions, answers, fx),
        }
    }

    /// Goes on with a request when all its questions are answered.
    fn request_judged(
        &mut self,
        now: Now,
        then: Then,
        questions: &[Question],
        answers: Vec<Result<Answer, ClientError>>,
        fx: &mut Effects,
    ) {
        if let Some(error) = answers.into_iter().find_map(Result::err) {
            return self.refuse(now, then, &error, fx);
        }
        // Rights may have changed meanwhile.
        for Question { asked: Asked { action, channel, .. }, .. } in questions {
            if matches!(self.may(*action, channel), Verdict::Denied | Verdict::Unallowed) {
                return self.refuse(now, then, &not_allowed(*action, channel), fx);
            }
        }
        self.go_on(now, then, fx);
    }

    fn go_on(&mut self, now: Now, then: Then, fx: &mut Effects) {
        match then {
            Then::Presence(reply, channel) => self.presence_allowed(now, reply, channel, fx),
            Then::History(reply, query) => self.history_allowed(now, reply, query, fx),
            Then::Rpc(reply, request) => fx.push(Effect::Rpc { reply, request }),
            Then::Serve(reply, methods) => {
                self.offered.clone_from(&methods);
                fx.push(Effect::Serve { reply: Some(reply), methods });
            }
            Then::Survey(survey) => fx.push(Effect::Survey(survey)),
            // They have ways of their own: what is allowed of them is not one thing.
            Then::Subscribe { .. } | Then::Connect(_) | Then::Stay(_) => {}
        }
    }

    fn refuse(&self, now: Now, then: Then, error: &ClientError, fx: &mut Effects) {
        match then {
            Then::Presence(reply, _)
            | Then::History(reply, _)
            | Then::Rpc(reply, _)
            | Then::Serve(reply, _)
            | Then::Subscribe { reply, .. }
            | Then::Stay(Some(reply)) => self.fail(now, reply, error, fx),
            Then::Connect(connecting) => self.fail(now, connecting.into_reply(), error, fx),
            Then::Survey(survey) => self.fail(now, survey.reply, error, fx),
            Then::Stay(None) => {}
        }
    }

    /// A question of this client for a backend.
    pub(super) fn asked(&self, action: Action, name: &str, token: &str) -> Asked {
        Asked {
            action,
            channel: name.to_owned(),
            token: token.to_owned(),
            session_id: self.id.clone(),
            user_id: self.user_id.clone(),
            client_id: self.client_id.clone(),
            headers: self.headers.clone(),
        }
    }

    fn grants(&self) -> &Grants {
        self.grants.as_deref().unwrap_or(&NO_GRANTS)
    }
}

/// Why a request is refused.
#[must_use]
pub fn not_allowed(action: Action, name: &str) -> ClientError {
    ClientError::new(ErrorCode::AclError, format!("{} is not allowed on {name:?}", action.as_str()))
}
