//! What a run costs and how long things take: CPU time and memory of processes, of Redis, times as histograms.
//!
//! Only reads: nothing here changes what it measures, apart from [`limits::raise_open_files`] for this process.

pub mod histogram;
pub mod limits;
pub mod machine;
pub mod process;
pub mod redis;
pub mod resp;
pub mod sampler;
pub mod vigil;
