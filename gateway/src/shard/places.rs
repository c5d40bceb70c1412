//! Where others find sessions of the shard, and the one connection that each has.

use std::sync::{Arc, OnceLock};

use super::{ConnId, Errand, Mail, Mailbox, Shard, State, connection::Connection};
use crate::{
    broker::{BrokerError, Kept, NodeId},
    peers::{Opened, Place},
    session::Effects,
};

/// The shards of a node, as they know each other. Cheap to clone.
#[derive(Clone, Default)]
pub struct Neighbours(Arc<OnceLock<Box<[Mailbox]>>>);

impl Neighbours {
    /// Names them all, in the order of their numbers. Only the first time counts.
    pub fn introduce(&self, shards: impl IntoIterator<Item = Mailbox>) {
        if self.0.set(shards.into_iter().collect()).is_err() {
            tracing::error!("the shards know each other already");
        }
    }

    fn get(&self, number: u16) -> Option<&Mailbox> {
        self.0.get()?.get(usize::from(number))
    }
}

impl Shard {
    /// Lets others find an open session. If it has a later connection, this one ends; the one before it does.
    pub(super) fn place(&self, state: &mut State, key: u32) {
        let connection = &mut state.connections[key as usize];
        if connection.placed {
            return;
        }
        let place = Place { shard: self.0.number, conn: ConnId { key, serial: connection.serial } };
        let session = &connection.session;
        match self.0.rpc.places.open(session.id(), session.user_id(), place, session.tenure()) {
            Opened::Alone => connection.placed = true,
            Opened::Took(former) => {
                connection.placed = true;
                if former.shard == self.0.number {
                    self.move_away(state, former.conn);
                } else if let Some(neighbour) = self.0.neighbours.get(former.shard) {
                    // One that is gone has no connections.
                    neighbour.send(Mail::Errand(Box::new(Errand::Yield { conn: former.conn, reply: None })));
                }
            }
            Opened::Late => {
                let mut fx = Effects::new();
                connection.session.moved(&mut fx);
                self.carry_out(state, key, fx);
            }
        }
    }

    /// Closes a connection whose session has a later one; `false` if it is gone.
    pub(super) fn move_away(&self, state: &mut State, conn: ConnId) -> bool {
        let Some(connection) = state.connection(conn).filter(|connection| connection.session.is_open())
        else {
            return false;
        };
        let mut fx = Effects::new();
        connection.session.moved(&mut fx);
        self.carry_out(state, conn.key, fx);
        true
    }

    /// Takes what became of keeping a session's record. The node that had the session before is told also if this
    /// connection has ended by now: whoever took the session over from here finds only this node in storage.
    pub(super) fn session_saved(
        &self,
        id: ConnId,
        session: String,
        tenure: u32,
        outcome: Result<Kept, BrokerError>,
    ) {
        let here = |connection: &mut Connection| !connection.closing && connection.session.is_open();
        let ended = !self.0.state.borrow_mut().connection(id).is_some_and(here);
        match outcome {
            Ok(Kept::Held { former: Some(node) }) if ended => self.have_yielded(node, session, tenure),
            outcome => self.with_session(id, |_, session, now, fx| session.saved(now, outcome, fx)),
        }
    }

    /// Has another node close the connection that a session had there before this one.
    pub(super) fn have_yielded(&self, node: NodeId, session: String, tenure: u32) {
        // What was here before was closed when the session opened.
        if self.0.broker.node() != Some(node) {
            let peers = self.0.rpc.peers.clone();
            tokio::task::spawn_local(async move { peers.have_yielded(node, session, tenure).await });
        }
    }

    /// Keeps the records of all sessions anew, one after the other: storage may have lost them, or somebody else may have
    /// taken them over unheard.
    pub(super) fn keep_all(&self) {
        let now = self.now();
        let state = &mut *self.0.state.borrow_mut();
        let keys: Vec<_> = state.connections.iter().map(|(key, _)| key as u32).collect();
        for (at_ms, key) in (now.mono_ms..).zip(keys) {
            let mut fx = Effects::new();
            state.connections[key as usize].session.save_by(at_ms, &mut fx);
            self.carry_out(state, key, fx);
        }
        self.flush(state);
    }
}
