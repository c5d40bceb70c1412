//! What a node tells the others, where there are none: letters to itself, its card, and what it revoked.

use bytes::Bytes;

use crate::broker::{Addressee, NodeId, Revocation, Revocations, Revoked, TakeLetter};

/// The one node.
pub(super) const THIS: NodeId = NodeId(1);

#[derive(Default)]
pub(super) struct Peers {
    take: Option<TakeLetter>,
    card: Bytes,
    revoked: Revocations,
}

impl Peers {
    pub(super) fn take_letters(&mut self, take: TakeLetter) {
        self.take = Some(take);
    }

    pub(super) fn post(&self, to: Addressee, letter: Bytes) -> Vec<NodeId> {
        let here = matches!(to, Addressee::Every | Addressee::Node(THIS));
        match &self.take {
            Some(take) if here => {
                take(letter);
                vec![THIS]
            }
            _ => Vec::new(),
        }
    }

    pub(super) fn announce(&mut self, card: Bytes) {
        self.card = card;
    }

    pub(super) fn nodes(&self) -> Vec<(NodeId, Bytes)> {
        vec![(THIS, self.card.clone())]
    }

    pub(super) fn revoke(&mut self, what: Revoked, now_ms: u64, until_ms: u64) {
        self.revoked.version = now_ms.max(self.revoked.version + 1);
        let former = self.revoked.entries.iter().find(|entry| entry.what == what);
        // Never cut short.
        let until_ms = until_ms.max(former.map_or(0, |former| former.until_ms));
        self.revoked.entries.retain(|entry| entry.what != what && entry.until_ms > now_ms);
        self.revoked.entries.push(Revocation { what, at_ms: now_ms, until_ms });
    }

    pub(super) fn revocations(&self, known: u64, now_ms: u64) -> Option<Revocations> {
        if known == self.revoked.version {
            return None;
        }
        let mut revoked = self.revoked.clone();
        revoked.entries.retain(|entry| entry.until_ms > now_ms);
        Some(revoked)
    }
}
