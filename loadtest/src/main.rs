//! Load generator and benchmarks of Streamgate: one scenario a file, each prints a table and asserts nothing.
//!
//! Figures are comparable within one run only; `docs/performance.md` says which to look at.

mod idle;
mod redis_publish;
mod resp;

use clap::{Parser, Subcommand};

/// Load generator and benchmarks of Streamgate
#[derive(Debug, Parser)]
#[command(name = "loadtest", version)]
struct Cli {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// Memory of a node for each idle WebSocket connection with one subscription
    Idle(idle::Args),
    /// CPU time of Redis for each publish, beside plain XADD and PUBLISH
    RedisPublish(redis_publish::Args),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().scenario {
        Scenario::Idle(args) => idle::run(args).await,
        Scenario::RedisPublish(args) => redis_publish::run(args).await,
    }
}
