//! The scenarios: one file for each, with its options, its clients and its figures.
//!
//! A scenario makes a topology, runs a script with it ([`crate::load`]) and names what came of it
//! ([`crate::report::result::RunResult`]). Printing, writing and repeating are not its business.

mod delivery;
pub mod fanout;
pub mod history;
pub mod idle;
pub mod pairs;
pub mod patterns;
pub mod presence_storm;
pub mod recover_storm;
pub mod rooms;
pub mod soak;
