//! Nodes among each other: letters, cards, and what all of them must refuse.

use std::{fmt, sync::Arc};

use bytes::Bytes;

/// Names a node: its incarnation, which no other start of a node ever has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Takes letters to this node. Must return at once: it is called from the broker's own tasks.
pub type TakeLetter = Arc<dyn Fn(Bytes) + Send + Sync>;

/// Whom a letter is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addressee {
    /// One node, perhaps this one.
    Node(NodeId),
    /// Every node that lives, this one included.
    Every,
}

/// Tokens that are good no longer, whatever they say themselves.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Revoked {
    /// Those of a user that were issued (`iat`) before the revocation.
    User(String),
    /// The one with this id (`jti`).
    Token(String),
}

/// An entry of the list of revocations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// What.
    pub what: Revoked,
    /// Since when, milliseconds since the Unix epoch by the broker's clock.
    pub at_ms: u64,
    /// When it may be forgotten, as all such tokens have expired by then.
    pub until_ms: u64,
}

/// The list of revocations, at one time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Revocations {
    /// Another one at every change; 0: there was none ever.
    pub version: u64,
    /// What is revoked.
    pub entries: Vec<Revocation>,
}
