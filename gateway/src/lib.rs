//! Streamgate gateway library.

pub mod transport;
