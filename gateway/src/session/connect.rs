//! Connect: who the client is, what it brings back, what it subscribes to.

use std::collections::VecDeque;

use streamgate_proto::v1::{Connect, Connected, Subscription, outbound_message as out};

use super::{
    Asking, EXTENDED, Effect, Effects, FIRST_TENURE, Judging, Manner, Now, Phase, Question, ReplyTo,
    ResumeToken, Session, SubscribeBatch, millis,
    rights::{Answer, Then},
    screen::Wanted,
    subscribe::Plan,
};
use crate::{
    auth::{Grants, Identity, Refusal, Token},
    broker::{BrokerError, LoadedSession},
    channel::Target,
    error::{ClientError, CloseCode, ErrorCode},
    hooks::Credential,
};

/// A connect that is being carried out.
#[derive(Debug)]
pub struct Connecting {
    reply: ReplyTo,
    subscriptions: Vec<Wanted>,
    token: Option<ResumeToken>,
    resumed: bool,
}

impl Connecting {
    /// Adds what the client did not list itself.
    fn bring(&mut self, subscription: Subscription) {
        if !self.subscriptions.iter().any(|given| given.subscription.channel == subscription.channel) {
            self.subscriptions.push(Wanted::brought(subscription));
        }
    }

    pub(super) fn into_reply(self) -> ReplyTo {
        self.reply
    }
}

impl Session {
    pub(super) fn connect(&mut self, now: Now, reply: ReplyTo, connect: Connect, fx: &mut Effects) {
        self.connects = self.connects.saturating_add(1);
        // A connect that failed may have brought a session back: this is another, or none that was before. Not earlier:
        // what it had subscribed by then is given up under the former name.
        if self.resume.take().is_some() {
            self.id = uuid::Uuid::new_v4().to_string();
            self.tenure = FIRST_TENURE;
        }
        self.extended = connect.caps.iter().any(|cap| cap == EXTENDED);
        self.client_id = connect.client_id;
        self.client_type = connect.client_type;
        self.connected_unix_ms = now.unix_ms;
        let token = if self.extended { ResumeToken::parse(&connect.resume_token) } else { None };
        let subscriptions = connect.subscriptions.into_iter().map(Wanted::asked).collect();
        let connecting = Connecting { reply, subscriptions, token, resumed: false };
        self.phase = Phase::Connecting(VecDeque::new());
        let shown = Token::new(&connect.token).or_else(|| self.presented.clone());
        let authenticator = self.settings.authenticator.load();
        match (authenticator.unasked(shown.as_ref()), shown) {
            (Some(known), _) => self.identified(now, connecting, known, fx),
            (None, Some(token)) => {
                let credential = self.credential(token);
                fx.push(Effect::Authenticate { credential, asking: Asking::Connect(Box::new(connecting)) });
            }
            (None, None) => self.identified(now, connecting, Err(Refusal::Missing), fx),
        }
    }

    /// A token, with what the client says of itself.
    pub(super) fn credential(&self, token: Token) -> Box<Credential> {
        let (client_id, session_id) = (self.client_id.clone(), self.id.clone());
        let client_type = self.client_type.clone();
        let headers = self.headers.clone();
        Box::new(Credential { token, client_id, client_type, session_id, headers })
    }

    /// Takes what became of a token.
    pub fn authenticated(
        &mut self,
        now: Now,
        asking: Asking,
        outcome: Result<Identity, Refusal>,
        fx: &mut Effects,
    ) {
        match asking {
            Asking::Connect(connecting) => self.identified(now, *connecting, outcome, fx),
            Asking::Refresh(reply) => self.refreshed(now, reply, outcome, fx),
        }
    }

    /// Goes on with a connect whose client is known; a bad token ends the session.
    fn identified(
        &mut self,
        now: Now,
        mut connecting: Connecting,
        outcome: Result<Identity, Refusal>,
        fx: &mut Effects,
    ) {
        if !matches!(self.phase, Phase::Connecting(_)) {
            return;
        }
        if outcome.as_ref().is_ok_and(|identity| !identity.user_id.is_empty())
            && !self.settings.revoked.is_known()
        {
            let text = "the node does not know yet which tokens are revoked";
            let error = ClientError::new(ErrorCode::NotAvailable, text);
            return self.connect_failed(now, connecting.reply, &error, fx);
        }
        let identity = match outcome.and_then(|identity| self.unrevoked(now, identity)) {
            Ok(identity) => identity,
            Err(refusal) => {
                tracing::debug!(session = self.id, client = self.client_id, address = ?self.address, %refusal, "a client is not let in");
                let error = ClientError::new(ErrorCode::AuthError, refusal.to_string());
                self.fail(now, connecting.reply, &error, fx);
                return self.close(CloseCode::InvalidToken, &refusal.to_string(), fx);
            }
        };
        self.user_id.clone_from(&identity.user_id);
        for channel in &identity.channels {
            connecting.bring(Subscription { channel: channel.clone(), ..Subscription::default() });
        }
        self.take_identity(identity);
        if let Err(reason) = self.enter() {
            return self.close(CloseCode::ConnectionLimit, &reason, fx);
        }
        match &connecting.token {
            Some(token) => {
                fx.push(Effect::LoadSession {
                    session: token.session.clone(),
                    connecting: Box::new(connecting),
                });
            }
            None => self.connect_subscriptions(now, connecting, fx),
        }
    }

    /// Takes what a token says besides the user: until when, and which rights.
    pub(super) fn take_identity(&mut self, identity: Identity) {
        let Identity { user_id, expires_unix_ms, channels, mut grants, stamp } = identity;
        self.expires_unix_ms = expires_unix_ms;
        self.stamp = (!user_id.is_empty()).then(|| Box::new(stamp));
        // Who is subscribed without asking may be.
        grants.subscribe.extend(channels.into_iter().filter(|channel| Target::parse(channel).is_ok()));
        self.grants = (grants != Grants::default()).then(|| Box::new(grants));
    }

    /// Counts this connection for its user; tells why not, if the user has too many.
    fn enter(&mut self) -> Result<(), String> {
        self.stay = None;
        if self.user_id.is_empty() {
            return Ok(());
        }
        let limit = self.settings.limits.load().connections_per_user;
        if self.manner == Manner::Requests {
            self.stay = self.settings.users.visit(&self.user_id);
            return Ok(());
        }
        self.stay = self.settings.users.enter(&self.user_id, limit);
        match (&self.stay, limit) {
            (None, Some(limit)) => Err(format!("more than {limit} connections of this user")),
            _ => Ok(()),
        }
    }

    /// Takes the session of a resume token. A token that is forgotten, or bound to another user, brings nothing back
    /// and is no error: the client gets a new session.
    pub fn session_loaded(
        &mut self,
        now: Now,
        mut connecting: Connecting,
        loaded: Result<Option<LoadedSession>, BrokerError>,
        fx: &mut Effects,
    ) {
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(error) => return self.connect_failed(now, connecting.reply, &(&error).into(), fx),
        };
        let token = connecting.token.take();
        if let (Some(LoadedSession { record, tenure }), Some(token)) = (loaded, token)
            && record.secret_hash == token.secret_hash()
            && record.user_id == self.user_id
        {
            for channel in record.subscriptions {
                let ephemeral = record.ephemeral.contains(&channel);
                // One that may be watched no longer must not make the whole connect fail.
                let presence = record.watching.contains(&channel)
                    && Target::parse(&channel).is_ok_and(|target| self.unwatchable(&target).is_none());
                connecting.bring(Subscription { channel, ephemeral, presence, ..Subscription::default() });
            }
            connecting.resumed = true;
            self.id.clone_from(&token.session);
            self.resume = Some(token);
            self.tenure = tenure;
        }
        self.connect_subscriptions(now, connecting, fx);
    }

    fn connect_subscriptions(&mut self, now: Now, mut connecting: Connecting, fx: &mut Effects) {
        let wanted = std::mem::take(&mut connecting.subscriptions);
        match self.screen(now, wanted, self.connects > 1) {
            Ok((wanted, questions)) if questions.is_empty() => {
                self.connect_allowed(now, connecting, wanted, fx);
            }
            Ok((wanted, questions)) => {
                connecting.subscriptions = wanted;
                let then = Then::Connect(Box::new(connecting));
                fx.push(Effect::Judge(Box::new(Judging { questions, then })));
            }
            Err(error) => self.connect_refused(now, connecting.reply, &error, fx),
        }
    }

    /// Takes the verdicts on the subscriptions of a connect.
    pub(super) fn connect_judged(
        &mut self,
        now: Now,
        mut connecting: Connecting,
        questions: &[Question],
        answers: Vec<Result<Answer, ClientError>>,
        fx: &mut Effects,
    ) {
        if !matches!(self.phase, Phase::Connecting(_)) {
            return;
        }
        let mut wanted = std::mem::take(&mut connecting.subscriptions);
        match self.settle(now, &mut wanted, questions, answers) {
            Ok(()) => self.connect_allowed(now, connecting, wanted, fx),
            Err(error) => self.connect_refused(now, connecting.reply, &error, fx),
        }
    }

    fn connect_refused(&mut self, now: Now, reply: ReplyTo, error: &ClientError, fx: &mut Effects) {
        self.connect_failed(now, reply, error, fx);
        self.close_refused_v1(error, fx);
    }

    fn connect_allowed(&mut self, now: Now, connecting: Connecting, wanted: Vec<Wanted>, fx: &mut Effects) {
        let Plan { items, changes, known, .. } = match self.plan(now, wanted, fx) {
            Some(Ok(plan)) => plan,
            Some(Err(error)) => return self.connect_failed(now, connecting.reply, &error, fx),
            None => return,
        };
        let batch = SubscribeBatch {
            reply: ReplyTo::default(),
            connecting: Some(Box::new(connecting)),
            ticket: None,
            items,
            changes,
            known,
        };
        if batch.items.is_empty() {
            self.subscribe_done(now, batch, &[], fx);
        } else {
            fx.push(Effect::Subscribe(Box::new(batch)));
        }
    }

    /// The client may try again: its connection is as before the connect.
    pub(super) fn connect_failed(&mut self, now: Now, reply: ReplyTo, error: &ClientError, fx: &mut Effects) {
        let Phase::Connecting(deferred) = &mut self.phase else { return };
        let deferred = std::mem::take(deferred);
        self.fail(now, reply, error, fx);
        for frame in deferred {
            self.fail(now, ReplyTo { id: frame.id, metadata: frame.metadata }, error, fx);
        }
        self.phase = Phase::New;
        // Whoever speaks no envelopes cannot ask again.
        if self.manner != Manner::Envelopes {
            let code = match error.code {
                ErrorCode::BadRequest | ErrorCode::NotSupported => CloseCode::BadRequest,
                ErrorCode::AclError => CloseCode::PermissionDenied,
                code => code.close_code().unwrap_or(CloseCode::NotAvailable),
            };
            self.close(code, &error.message, fx);
        }
    }

    /// Answers the connect, then takes the frames that the client sent meanwhile.
    pub(super) fn connected(
        &mut self,
        now: Now,
        connecting: Connecting,
        subscriptions: Vec<Subscription>,
        fx: &mut Effects,
    ) {
        let mut connected = Connected { session_id: self.id.clone(), subscriptions, ..Connected::default() };
        if self.extended {
            let limits = self.settings.limits.load();
            connected.caps = vec![EXTENDED.to_owned()];
            connected.resumed = connecting.resumed;
            if self.manner == Manner::Envelopes {
                connected.resume_token =
                    self.resume.get_or_insert_with(|| ResumeToken::fresh(&self.id)).wire();
            }
            connected.user_id.clone_from(&self.user_id);
            connected.expires_at = self.expires_unix_ms.unwrap_or(0);
            connected.ping_interval_ms = u32::try_from(millis(limits.ping_interval)).unwrap_or(u32::MAX);
        }
        // It has served its purpose.
        self.presented = None;
        let former = std::mem::replace(&mut self.phase, Phase::Open);
        self.answer(now, connecting.reply, out::Envelope::Connected(connected), fx);
        // What comes and goes with each request is nobody's business, and nothing is kept of it.
        if self.is_public() {
            fx.push(Effect::Opened);
            self.keep(now, fx);
        } else {
            fx.push(Effect::Deadlines);
        }
        if let Phase::Connecting(deferred) = former {
            for frame in deferred {
                self.receive(now, frame, fx);
            }
        }
    }
}
