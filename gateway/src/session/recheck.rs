//! Rights that change while a client is connected: by another token, another table, a token of a subscription that ends, or
//! a backend that changes its mind. Who lost one is closed with 3507: the protocol has no word for the end of one subscription.

use std::collections::HashSet;

use streamgate_proto::v1::{SubRefresh, outbound_message as out};

use super::{
    Effect, Effects, Held, Judging, Now, Question, ReplyTo, Session,
    rights::{Answer, Then},
};
use crate::{
    auth::{Refusal, Stamp},
    channel::Target,
    error::{ClientError, CloseCode, ErrorCode},
    policy::rights::{Action, Verdict},
};

impl Session {
    /// Checks all subscriptions against the rights of now, if that was not done since the table changed.
    pub(super) fn recheck_if_changed(&mut self, now: Now, fx: &mut Effects) {
        if self.rights_seen != self.settings.rights.revision() {
            self.recheck(now, fx);
        }
    }

    /// Checks all subscriptions against the rights of now. What backends have allowed, they have allowed.
    pub(super) fn recheck(&mut self, now: Now, fx: &mut Effects) {
        self.rights_seen = self.settings.rights.revision();
        self.recheck_offers(fx);
        match self.doubts(now, None) {
            Err((action, name)) => self.lost(action, &name, fx),
            Ok(questions) if questions.is_empty() => {}
            Ok(questions) => {
                fx.push(Effect::Judge(Box::new(Judging { questions, then: Then::Stay(None) })));
            }
        }
    }

    /// Takes back what the client offers to answer and may no longer. What backends have allowed, they have allowed.
    fn recheck_offers(&mut self, fx: &mut Effects) {
        let may =
            |method: &String| matches!(self.may(Action::Serve, method), Verdict::Allowed | Verdict::Ask);
        let methods: Vec<_> = self.offered.iter().filter(|method| may(method)).cloned().collect();
        if methods.len() < self.offered.len() {
            self.offered.clone_from(&methods);
            fx.push(Effect::Serve { reply: None, methods });
        }
    }

    /// Checks the named subscriptions, and asks backends anew. Names that are not subscribed are no error.
    pub(super) fn sub_refresh(&mut self, now: Now, reply: ReplyTo, request: &SubRefresh, fx: &mut Effects) {
        let named: Result<HashSet<_>, _> = request.channels.iter().map(|name| Target::parse(name)).collect();
        let named = match named {
            Ok(named) => named,
            Err(error) => return self.fail(now, reply, &error.into(), fx),
        };
        let questions = match self.doubts(now, Some(&named)) {
            Ok(questions) => questions,
            Err((action, name)) => return self.lost(action, &name, fx),
        };
        for _ in &questions {
            if let Err(error) = self.take_call(now) {
                return self.fail(now, reply, &error, fx);
            }
        }
        let then = Then::Stay(Some(reply));
        if questions.is_empty() {
            return self.judged(now, Judging { questions, then }, Vec::new(), fx);
        }
        fx.push(Effect::Judge(Box::new(Judging { questions, then })));
    }

    /// What has to be asked about subscriptions, of all or of those `named`; or the first right that is lost.
    fn doubts(&self, now: Now, named: Option<&HashSet<Target>>) -> Result<Vec<Question>, (Action, String)> {
        let mut questions = Vec::new();
        for (target, held) in &self.subscriptions {
            if named.is_some_and(|named| !named.contains(target)) {
                continue;
            }
            let name = target.as_str();
            let grant = &held.grant;
            let trusted = named.is_none();
            let mut rights = vec![(Action::Subscribe, grant.hook, grant.token_until())];
            if grant.server && self.may(Action::Subscribe, name) != Verdict::Denied {
                rights.clear();
            }
            if held.watch {
                rights.push((Action::Presence, grant.watch_hook, None));
            }
            for (action, hook, until) in rights {
                match self.standing(now, action, name, hook && trusted, until) {
                    Verdict::Allowed => {}
                    Verdict::Denied | Verdict::Unallowed => return Err((action, name.to_owned())),
                    Verdict::Ask => {
                        let asked = self.asked(action, name, "");
                        questions.push(Question { asked, token: None, hook: true, at: 0 });
                    }
                }
            }
        }
        Ok(questions)
    }

    /// Takes the verdicts on subscriptions that are held. No answer is no loss: without a request to tell, it is asked again.
    pub(super) fn stay_judged(
        &mut self,
        now: Now,
        reply: Option<ReplyTo>,
        questions: &[Question],
        answers: Vec<Result<Answer, ClientError>>,
        fx: &mut Effects,
    ) {
        let mut failed = None;
        for (Question { asked, .. }, answer) in questions.iter().zip(answers) {
            let Some((_, held)) =
                self.subscriptions.iter_mut().find(|(target, _)| target.as_str() == asked.channel)
            else {
                continue;
            };
            match answer {
                Ok(_) if asked.action == Action::Presence => held.grant.watch_hook = true,
                Ok(_) => held.grant.hook = true,
                Err(error) if error.code == ErrorCode::AclError => {
                    return self.lost(asked.action, &asked.channel, fx);
                }
                Err(error) => failed = Some(error),
            }
        }
        match (reply, failed) {
            (Some(reply), Some(error)) => self.fail(now, reply, &error, fx),
            (None, Some(_)) => self.rights_seen = 0,
            (Some(reply), None) => {
                self.answer(now, reply, out::Envelope::SubRefreshAck(Default::default()), fx);
            }
            (None, None) => {}
        }
    }

    /// Ends the session if the token of one of its subscriptions has ended; else tells how long, in ms, that is not so.
    pub(super) fn subscription_tokens(&mut self, now: Now, fx: &mut Effects) -> Option<u64> {
        let ends =
            self.subscriptions.iter().filter_map(|(target, held)| Some((held.grant.token_until()?, target)));
        let (until, target) = ends.min_by_key(|(until, _)| *until)?;
        let left = until.saturating_sub(now.unix_ms);
        if left == 0 {
            let reason = format!("the token of the subscription to {target} has expired");
            self.close(CloseCode::PermissionDenied, &reason, fx);
        }
        Some(left)
    }

    /// Closes the session if its token, or that of one of its subscriptions, has been revoked.
    pub fn check_revoked(&mut self, now: Now, fx: &mut Effects) {
        let has = |stamp: &Stamp| self.settings.revoked.has(&self.user_id, stamp, now.unix_ms);
        if self.stamp.as_deref().is_some_and(has) {
            return self.close(CloseCode::InvalidToken, &Refusal::Revoked.to_string(), fx);
        }
        let revoked = |held: &Held| held.grant.token.as_ref().is_some_and(|token| has(&token.stamp));
        if let Some((target, _)) = self.subscriptions.iter().find(|(_, held)| revoked(held)) {
            let reason = format!("the token of the subscription to {target} is revoked");
            self.close(CloseCode::PermissionDenied, &reason, fx);
        }
    }

    fn lost(&mut self, action: Action, name: &str, fx: &mut Effects) {
        let reason = format!("{} is no longer allowed on {name}", action.as_str());
        self.close(CloseCode::PermissionDenied, &reason, fx);
    }
}
