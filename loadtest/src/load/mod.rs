//! What the clients of a scenario send and check, whatever the scenario.
//!
//! Owns when a publication is due ([`pace`]), how it is known again ([`stamp`]), what came of it ([`ledger`], [`tally`]), and
//! the run of a whole topology ([`topology`], [`traffic`], [`run`]).
//!
//! Invariants:
//! - a publication is due at a time that does not depend on what the server does (open loop), and its latency counts from
//!   then: a stall is not hidden. Saturating runs are the exception, and say so;
//! - every delivery is checked against what was accepted, in every run.

pub mod clock;
pub mod ledger;
pub mod options;
pub mod pace;
pub mod probe;
mod publishing;
mod reach;
pub mod run;
pub mod stamp;
pub mod subject;
pub mod tally;
pub mod topology;
pub mod traffic;
pub mod worker;
