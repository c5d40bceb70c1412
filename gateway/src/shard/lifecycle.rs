//! Telling others what becomes of sessions and their subscriptions. Costs nothing where nobody wants to know.

use super::{Shard, State, connection::Connection};
use crate::{
    error::CloseCode,
    hooks::{Happening, Who},
    session::Now,
};

impl Shard {
    /// Tells of a session that is open, once.
    pub(super) fn tell_connected(&self, state: &mut State, key: u32, now: Now) {
        let Some(lifecycle) = &self.0.lifecycle else { return };
        let connection = &mut state.connections[key as usize];
        if !std::mem::replace(&mut connection.told, true) {
            lifecycle.tell(who(connection), now.unix_ms, Happening::Connected);
        }
    }

    /// Tells of the end of a session that was told of, once.
    pub(super) fn tell_disconnected(&self, state: &mut State, key: u32, code: CloseCode, reason: &str) {
        let Some(lifecycle) = &self.0.lifecycle else { return };
        let connection = &mut state.connections[key as usize];
        if std::mem::take(&mut connection.told) {
            lifecycle.tell(who(connection), self.now().unix_ms, Happening::Disconnected(code, reason));
        }
    }

    /// Tells of a subscription that the broker has answered. One that takes another's place is known.
    pub(super) fn tell_subscribed(&self, state: &mut State, key: u32) {
        let Some(lifecycle) = &self.0.lifecycle else { return };
        let subscription = &mut state.subscriptions[key as usize];
        if std::mem::replace(&mut subscription.told, true) {
            return;
        }
        let target = subscription.target(&state.index).as_str();
        let connection = &state.connections[subscription.connection as usize];
        lifecycle.tell(who(connection), self.now().unix_ms, Happening::Subscribed(target));
    }

    /// Tells of the end of a subscription that was told of, while its session goes on.
    pub(super) fn tell_unsubscribed(&self, state: &mut State, key: u32) {
        let Some(lifecycle) = &self.0.lifecycle else { return };
        let subscription = &mut state.subscriptions[key as usize];
        if !std::mem::take(&mut subscription.told) {
            return;
        }
        let target = subscription.target(&state.index).as_str();
        let connection = &state.connections[subscription.connection as usize];
        lifecycle.tell(who(connection), self.now().unix_ms, Happening::Unsubscribed(target));
    }
}

fn who(connection: &Connection) -> Who<'_> {
    let session = &connection.session;
    Who {
        session_id: session.id(),
        user_id: session.user_id(),
        client_id: session.client_id(),
        client_type: session.client_type(),
    }
}
