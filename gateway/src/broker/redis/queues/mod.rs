//! Work queues on Redis: one task for each partition, which takes turns at the queues that have consumers on this node.
//!
//! Owns: the consumers of this node, what they hold and what is to be told of it. Never does: publish jobs (a publish does that,
//! with all else, in `scripts/publish.lua`), or decide what becomes of a job (`scripts/jobs.lua` does).
//!
//! Invariants:
//! - One call of a queue is under way at a time; it carries everything that waits, in the order of the requests.
//! - What a lost answer took is handed out again after its deadline; what was to be settled is answered with the error.

mod admin;
mod desk;
mod local;
mod turn;

pub use admin::{Admin, queues};
pub use desk::{Desk, Environment, Request};
