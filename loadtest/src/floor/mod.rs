//! How fast it could be at best on this machine: what no gateway can do without, and nothing else.
//!
//! [`writer`] is the floor of a fan-out, a process that does one write for each socket and message. [`redis`] are the
//! floors of a publish through Redis: plain commands, and the gateway's own script without a gateway. [`backend`] is that
//! of a call through a hook, where it is asked without a gateway. Floors are run
//! beside what is measured, in the same run and with the same sizes: their figures mean nothing on their own.

pub mod backend;
pub mod redis;
pub mod writer;
