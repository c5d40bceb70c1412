//! Keeping what brings a session back, and noticing that it has gone on elsewhere.
//!
//! A session has one connection at a time. Who resumes it gets a later tenure, and has the connection before closed:
//! by a word to its node, or at the latest when that one next keeps its record, as storage keeps only that of the latest
//! tenure (decision 0030).

use super::{Effect, Effects, Held, Now, Phase, Session, millis};
use crate::{
    broker::{BrokerError, Kept, SessionRecord},
    error::CloseCode,
};

/// Tenure of a session's first connection.
pub(super) const FIRST_TENURE: u32 = 1;

/// How often a session's record is written because its subscriptions change; the burst is as many.
const SAVES_PER_SECOND: u32 = 10;
/// When what changed more often than that is kept.
const SAVE_LATER_MS: u64 = 1_000;
/// When what could not be kept is kept again.
const SAVE_AGAIN_MS: u64 = 2_000;
/// Close reason of the connection that a session had before.
const MOVED: &str = "the session goes on over another connection";

impl Session {
    /// Which of the session's connections this is.
    #[must_use]
    pub fn tenure(&self) -> u32 {
        self.tenure
    }

    /// Keeps what brings the session back, if the client can use it.
    pub(super) fn save(&mut self, now: Now, fx: &mut Effects) {
        if self.resume.is_some() {
            self.keep(now, fx);
        }
    }

    /// Keeps where the session is, and what brings it back.
    pub(super) fn keep(&mut self, now: Now, fx: &mut Effects) {
        if !matches!(self.phase, Phase::Open) || !self.is_public() {
            return;
        }
        // Each change is a write, of all names: a client that changes its mind all the time is kept up with later.
        if !self.saves.take(now.mono_ms, SAVES_PER_SECOND) {
            return self.save_by(now.mono_ms.saturating_add(SAVE_LATER_MS), fx);
        }
        let record = match &self.resume {
            // No secret has an empty hash: nobody comes back by this.
            None => SessionRecord::default(),
            Some(token) => SessionRecord {
                secret_hash: token.secret_hash(),
                user_id: self.user_id.clone(),
                subscriptions: self.names(|_| true),
                ephemeral: self.names(|held| held.ephemeral),
                watching: self.names(|held| held.watch),
            },
        };
        // Refreshed after half a window, and kept for half a window longer: whenever the connection breaks, the token
        // is good for the whole window.
        let window = millis(self.settings.limits.load().resume_window);
        self.save_ms = now.mono_ms.saturating_add(window / 2);
        let ttl_ms = window.saturating_add(window / 2);
        fx.push(Effect::SaveSession { session: self.id.clone(), tenure: self.tenure, record, ttl_ms });
    }

    /// Keeps it at `at_ms` (of the clock that never goes back) at the latest.
    pub fn save_by(&mut self, at_ms: u64, fx: &mut Effects) {
        if matches!(self.phase, Phase::Open) && at_ms < self.save_ms {
            self.save_ms = at_ms;
            fx.push(Effect::Deadlines);
        }
    }

    /// Takes what became of keeping it. While that fails, the session cannot be resumed as it is now.
    pub fn saved(&mut self, now: Now, outcome: Result<Kept, BrokerError>, fx: &mut Effects) {
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        match outcome {
            Ok(Kept::Held { former }) => {
                let settled = std::mem::replace(&mut self.settled, true);
                if let Some(node) = former.filter(|_| !settled) {
                    fx.push(Effect::Yield { node, session: self.id.clone(), tenure: self.tenure });
                }
            }
            Ok(Kept::Lost) => self.moved(fx),
            Err(error) => {
                tracing::debug!(session = self.id, %error, "a session could not be saved, trying again");
                self.save_by(now.mono_ms.saturating_add(SAVE_AGAIN_MS), fx);
            }
        }
    }

    /// Closes this connection, as the session has a later one.
    pub fn moved(&mut self, fx: &mut Effects) {
        fx.push(Effect::GoesOn);
        self.close(CloseCode::ForceDisconnect, MOVED, fx);
    }

    /// Names of the subscriptions that are `wanted`.
    fn names(&self, wanted: impl Fn(&Held) -> bool) -> Vec<String> {
        let wanted = self.subscriptions.iter().filter(|(_, held)| wanted(held));
        let mut names: Vec<_> = wanted.map(|(target, _)| target.as_str().to_owned()).collect();
        names.sort_unstable();
        names
    }
}
