//! The `streamgate` binary.

use std::process::ExitCode;

/// Measured better than glibc's and mimalloc for many idle connections.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let sources = streamgate::config::Sources {
        environment: streamgate::config::process_environment().unwrap_or_default(),
        ..streamgate::config::Sources::default()
    };
    streamgate::cli::serve::serve(&sources)
}
