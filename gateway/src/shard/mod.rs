//! s
pub mod flow;
pub mod wheel;
