//! The end-to-end suites, one module for each promise or part.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "in a test the panic is the report")]

mod redis_conformance;
mod redis_link;
