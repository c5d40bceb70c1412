//! What the end-to-end suites share: real servers and what watches them.

pub mod redis_server;
