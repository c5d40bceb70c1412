//! The history checker: what was published and acknowledged against what every subscriber saw (DESIGN section 1).
//!
//! Owns: the [`History`] of one run, which tests write down as it happens, and [`History::check`], which says what is wrong
//! with it. [`Recorder`] writes down what the client library hands out. Must never do I/O, wait or read a clock: times
//! come in with the events.
//!
//! What is checked, by rule: see [`Rule`]. "The same order for all" follows from the others: everybody sees rising
//! positions, and no position has two publications.
//!
//! What excuses a loss:
//! - A gap that this subscriber was told of covers what lies between its last publication and the gap's position. Replays
//!   may come before the gap is told: then the end of the same recovery must tell it. An `EPOCH_RESET` covers only what was
//!   really lost: what stands in the new history is owed, and who had lost nothing is told nothing.
//! - A *lossy restart* that the run declares ([`History::lossy_restart`], [`History::lossy_failover`]): positions whose offsets a newer epoch gave out
//!   again were lost. Who had not seen them notices nothing; who had must be told.

mod canon;
mod log;
pub mod presence;
mod publishing;
mod recorder;
mod subscriber;
mod violation;

pub use log::{Ack, History, Place, Publish, Seen};
pub use recorder::{Recorder, payload_of};
pub use violation::{Report, Rule, Violation};
