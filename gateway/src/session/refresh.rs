//! Tokens that end, and those that follow them.

use streamgate_proto::v1::outbound_message as out;

use super::{Asking, Effect, Effects, Now, ReplyTo, Session};
use crate::{
    auth::{Identity, Refusal, Token},
    error::{ClientError, ErrorCode},
};

impl Session {
    /// How long the token is good from `now` on, in ms; `None`: for ever.
    pub(super) fn good_for(&self, now: Now) -> Option<u64> {
        self.expires_unix_ms.map(|at| at.saturating_sub(now.unix_ms))
    }

    /// The identity, unless its token is revoked.
    pub(super) fn unrevoked(&self, now: Now, identity: Identity) -> Result<Identity, Refusal> {
        let revoked = &self.settings.revoked;
        let is_revoked =
            !identity.user_id.is_empty() && revoked.has(&identity.user_id, &identity.stamp, now.unix_ms);
        if is_revoked { Err(Refusal::Revoked) } else { Ok(identity) }
    }

    pub(super) fn refresh(&mut self, now: Now, reply: ReplyTo, token: &str, fx: &mut Effects) {
        if let Err(error) = self.take_call(now) {
            return self.fail(now, reply, &error, fx);
        }
        match Token::new(token) {
            Some(token) => {
                let credential = self.credential(token);
                fx.push(Effect::Authenticate { credential, asking: Asking::Refresh(reply) });
            }
            None => self.refreshed(now, reply, Err(Refusal::Missing), fx),
        }
    }

    /// Takes what became of the token of a refresh. A bad one changes nothing: the one before is good until it ends.
    pub(super) fn refreshed(
        &mut self,
        now: Now,
        reply: ReplyTo,
        outcome: Result<Identity, Refusal>,
        fx: &mut Effects,
    ) {
        if !self.is_open() {
            return;
        }
        let outcome = outcome.and_then(|identity| {
            if identity.user_id == self.user_id { Ok(identity) } else { Err(Refusal::OtherUser) }
        });
        let outcome = outcome.and_then(|identity| self.unrevoked(now, identity));
        match outcome {
            Ok(identity) => {
                self.take_identity(identity);
                self.answer(now, reply, out::Envelope::Ok(Default::default()), fx);
                // The deadline changes, so check it anew.
                fx.push(Effect::Opened);
                self.recheck(now, fx);
            }
            Err(refusal) => {
                let error = ClientError::new(ErrorCode::AuthError, refusal.to_string());
                self.fail(now, reply, &error, fx);
            }
        }
    }
}
