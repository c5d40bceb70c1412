//! What holds for every session of a node.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::{
    auth::{Authenticator, RevokedTokens},
    policy::{
        Limits, Policies, Users,
        rights::{Arbiter, Rights},
    },
};

/// What all sessions of a node share; reloadable.
#[derive(Debug, Clone)]
pub struct Settings {
    /// By channel pattern.
    pub policies: Policies,
    /// For every client.
    pub limits: Arc<ArcSwap<Limits>>,
    /// Who clients are.
    pub authenticator: Arc<ArcSwap<Authenticator>>,
    /// What they may do.
    pub rights: Rights,
    /// Decides what rules leave to a backend; none: that is denied.
    pub arbiter: Option<Arc<dyn Arbiter>>,
    /// What users use of the node.
    pub users: Users,
    /// Tokens that are good no longer.
    pub revoked: RevokedTokens,
}

impl Settings {
    /// Settings with these values.
    #[must_use]
    pub fn new(policies: Policies, limits: Limits) -> Self {
        Self {
            policies,
            limits: Arc::new(ArcSwap::from_pointee(limits)),
            authenticator: Arc::default(),
            rights: Rights::default(),
            arbiter: None,
            users: Users::default(),
            revoked: RevokedTokens::default(),
        }
    }

    /// The same with these rights, and a backend for what they leave to one.
    #[must_use]
    pub fn rights(self, rights: Rights, arbiter: Option<Arc<dyn Arbiter>>) -> Self {
        Self { rights, arbiter, ..self }
    }

    /// The same with this list of revocations.
    #[must_use]
    pub fn revoked(self, revoked: RevokedTokens) -> Self {
        Self { revoked, ..self }
    }

    /// The same with clients that must be known.
    #[must_use]
    pub fn authenticator(self, authenticator: Authenticator) -> Self {
        Self { authenticator: Arc::new(ArcSwap::from_pointee(authenticator)), ..self }
    }
}
