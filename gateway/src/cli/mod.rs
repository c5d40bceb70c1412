//! The command line: what each subcommand does.
//!
//! Owns: reading arguments, and what people see on a terminal. Never does: anything a library user may need.

pub mod config;
pub mod serve;
