//! Streamgate gateway library.
