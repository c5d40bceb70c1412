//! HTTP doors for operators (and, later, for backends).
//!
//! Owns: the admin listener. Never does: carry client traffic, or block on a broker.
//!
//! Invariant: what the admin listener serves needs no token and shows no channel, user or session.

pub mod admin;
