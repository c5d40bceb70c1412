//! Telemetry: what a node says about itself, in logs and in numbers.
//!
//! Owns: the log's format and level, the table of metrics and the recorder behind `/metrics`. Never does: serve
//! HTTP (that is `api::admin`), or decide what is worth counting.
//!
//! Invariants: no payload, token or secret is logged; no channel, user or session name is a label; every histogram
//! has buckets.

pub mod logging;
pub mod metrics;
