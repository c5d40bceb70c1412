//! What queues promise, case by case.
//!
//! Owns: the cases of [`Queues`](crate::broker::queue::Queues), and the [`Worker`] that they watch. Invariants: times are only
//! bounded from below, as storage may be slow; what must not come is waited for a moment only.

pub(super) mod dead;
pub(super) mod groups;
pub(super) mod keys;
pub(super) mod limits;
pub(super) mod listing;
pub(super) mod policies;
pub(super) mod settling;
pub(super) mod sharing;
pub(super) mod times;
mod worker;

use worker::{QUIET, Worker, job};
