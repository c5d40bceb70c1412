//! Transports: bytes on one side, frames on the other, nothing else.
//!
//! Owns how a client is spoken to on the wire. Must never know what a frame's payload means: that is the
//! session's business, and every transport drives the same session.

mod accepted;
mod client_addr;
mod cloudevents;
mod cursor;
pub mod grpc;
pub mod http;
mod outlet;
mod sse;
pub mod ws;

pub use accepted::Accepted;
pub use client_addr::{ForwardedHeader, Network, TrustedProxies};
pub use outlet::{Outlet, Overflow, Wire};
