//! Tokens that are good no longer, as this node knows them.
//!
//! The list is the broker's. Each node asks for what is new twice a second: so it holds everywhere within a second while
//! the broker answers, and at once when it answers again. Nothing is lost by a node that was away.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, BrokerError, Revocations, Revoked};

/// How often the list is asked for.
const LOOK: Duration = Duration::from_millis(400);

/// No list has it: whoever says to know this one gets the whole list.
pub const NO_VERSION: u64 = u64::MAX;

/// What a token says of itself, for revocations. The default is that of a client without a token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Its name (`jti`).
    pub token_id: Option<Box<str>>,
    /// When it was issued (`iat`), or a backend last accepted it; milliseconds since the Unix epoch.
    pub issued_unix_ms: Option<u64>,
}

/// The list. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct RevokedTokens(Arc<ArcSwap<Table>>);

#[derive(Debug, Default)]
struct Table {
    /// It was not read yet.
    unread: bool,
    /// Since when, and until when, in milliseconds since the Unix epoch.
    users: HashMap<String, (u64, u64)>,
    /// Until when.
    tokens: HashMap<String, u64>,
}

impl RevokedTokens {
    /// A list that is to be read first. The default one is empty.
    #[must_use]
    pub fn unread() -> Self {
        Self(Arc::new(ArcSwap::from_pointee(Table { unread: true, ..Table::default() })))
    }

    /// Whether a token is on the list. Of a user only those that were issued since are not; who does not say when was not.
    #[must_use]
    pub fn has(&self, user_id: &str, stamp: &Stamp, now_unix_ms: u64) -> bool {
        let table = self.0.load();
        let by_user = table.users.get(user_id).is_some_and(|(since, until)| {
            *until > now_unix_ms && stamp.issued_unix_ms.is_none_or(|issued| issued <= *since)
        });
        let by_id = stamp.token_id.as_deref().and_then(|id| table.tokens.get(id));
        by_user || by_id.is_some_and(|until| *until > now_unix_ms)
    }

    /// Whether the broker's list was read at all: until then nobody knows whose tokens are good.
    #[must_use]
    pub fn is_known(&self) -> bool {
        !self.0.load().unread
    }

    /// Takes over the broker's list. Nothing is ever taken off it before its time: what storage has lost, this node keeps.
    pub fn take_over(&self, revocations: Revocations, now_unix_ms: u64) {
        let former = self.0.load();
        let mut table = Table::default();
        let kept = former.users.iter().filter(|(_, (_, until))| *until > now_unix_ms);
        table.users.extend(kept.map(|(user, times)| (user.clone(), *times)));
        let kept = former.tokens.iter().filter(|(_, until)| **until > now_unix_ms);
        table.tokens.extend(kept.map(|(id, until)| (id.clone(), *until)));
        for entry in revocations.entries {
            match entry.what {
                Revoked::User(user) => {
                    table.users.insert(user, (entry.at_ms, entry.until_ms));
                }
                Revoked::Token(id) => {
                    table.tokens.insert(id, entry.until_ms);
                }
            }
        }
        self.0.store(Arc::new(table));
    }

    /// Reads the broker's list, unless its version is still `known`; answers its version.
    ///
    /// # Errors
    /// The broker cannot be reached.
    pub async fn read(&self, broker: &dyn Broker, known: u64) -> Result<Option<u64>, BrokerError> {
        let Some(revocations) = broker.revocations(known).await? else { return Ok(None) };
        let (version, now) = (revocations.version, SystemTime::now().duration_since(UNIX_EPOCH));
        let now_ms = now.unwrap_or_default().as_millis();
        self.take_over(revocations, u64::try_from(now_ms).unwrap_or(u64::MAX));
        Ok(Some(version))
    }

    /// Follows the broker's list until stopped, and calls `changed` after each change.
    pub async fn follow(self, broker: Weak<dyn Broker>, changed: impl Fn() + Send, stop: CancellationToken) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut known = NO_VERSION;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = looks.tick() => {}
            }
            let Some(broker) = broker.upgrade() else { return };
            match self.read(&*broker, known).await {
                Ok(None) => {}
                Ok(Some(version)) => {
                    known = version;
                    changed();
                }
                // What is known holds on; it is asked for again in a moment.
                Err(error) => tracing::debug!(%error, "the list of revocations cannot be read"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Revocation;

    #[test]
    fn a_user_is_refused_with_tokens_of_before_and_a_token_by_its_id() {
        let list = RevokedTokens::unread();
        let entry = |what| Revocation { what, at_ms: 1_000, until_ms: 9_000 };
        assert!(!list.is_known());
        let entries = vec![entry(Revoked::User("ann".into())), entry(Revoked::Token("7".into()))];
        list.take_over(Revocations { version: 1, entries }, 1_000);
        // Storage has lost it all: what is known holds on.
        list.take_over(Revocations::default(), 2_000);
        assert!(list.is_known());
        let stamp = |id: &str, issued| Stamp {
            token_id: Some(id.into()).filter(|_| !id.is_empty()),
            issued_unix_ms: issued,
        };
        for (user, stamp, now, refused) in [
            ("ann", stamp("", Some(1_000)), 2_000, true),
            ("ann", stamp("", None), 2_000, true),
            ("ann", stamp("1", Some(1_001)), 2_000, false),
            ("ann", stamp("", None), 9_000, false),
            ("bob", stamp("", None), 2_000, false),
            ("bob", stamp("7", Some(5_000)), 2_000, true),
            ("bob", stamp("7", Some(5_000)), 9_000, false),
            ("", Stamp::default(), 2_000, false),
        ] {
            assert_eq!(list.has(user, &stamp, now), refused, "{user} {stamp:?} {now}");
        }
    }
}
