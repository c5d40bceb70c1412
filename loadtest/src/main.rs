//! Load generator and benchmarks of Streamgate: what one uses to size a deployment, and to see that it stays fast.
//!
//! A scenario is one file in [`scenario`]. Every run checks what arrives against what was accepted, and fails if something was
//! lost, repeated or out of order. `docs/performance.md` says which figures to look at.

mod clients;
mod floor;
mod load;
mod measure;
mod report;
mod scenario;
mod servers;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use report::{compare, html, progress, repeat, table};
use scenario::{
    Scenario, connect, fanout, history, idle, pairs, patterns, presence_storm, recover_storm, rooms, rpc,
    soak,
};

/// Load generator and benchmarks of Streamgate
///
/// Starts nodes (and Redis) of its own unless --url names running ones. Figures of one run compare with each other; those of
/// different runs only on a machine that does nothing else.
#[derive(Debug, Parser)]
#[command(name = "loadtest", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// N idle connections with one subscription each: memory and CPU time of each
    Idle(idle::Args),
    /// Clients that come with a token and go again, as often as goes; beside clients without one
    Connect(connect::Args),
    /// One publisher, N subscribers; beside the bare writer
    Fanout(fanout::Args),
    /// N publishers, each with a channel and a subscriber of its own; with Redis beside the bare script
    Pairs(pairs::Args),
    /// M rooms of K members, who all publish
    Rooms(rooms::Args),
    /// Subscribers of patterns
    Patterns(patterns::Args),
    /// Pages of history, asked for at a rate
    History(history::Args),
    /// N clients lose their connections, miss messages and come back, each with a cursor
    RecoverStorm(recover_storm::Args),
    /// N members come and leave, watched by others
    PresenceStorm(presence_storm::Args),
    /// Calls, answered by clients or by a backend through a hook; with a hook beside the same backend asked directly
    Rpc(rpc::Args),
    /// Rooms for a long time, while members go and come back
    Soak(soak::Args),
    /// Floor of fanout: one write for each socket and message, and nothing else
    FloorWrite(fanout::FloorArgs),
    /// Floor: CPU time of Redis for plain XADD and XREAD of the same payloads
    FloorRedis(floor::redis::Load),
    /// Floor: CPU time of Redis for the publish script, called without a gateway
    FloorScript(floor::redis::Args),
    /// CPU time of Redis for each publish, in all ways, beside plain XADD and PUBLISH
    RedisPublish(floor::redis::Args),
    /// Two results beside each other, with ratios
    Compare(compare::Args),
    /// The table of a result, and its report with plots
    Report(html::Args),
    /// The server side of floor-write
    #[command(hide = true)]
    FloorWriter(floor::writer::Args),
    /// A backend that answers calls with what it was sent
    #[command(hide = true)]
    FloorBackend(floor::backend::Args),
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Idle(args) => repeated(&args).await,
        Command::Connect(args) => repeated(&args).await,
        Command::Fanout(args) => repeated(&args).await,
        Command::Pairs(args) => repeated(&args).await,
        Command::Rooms(args) => repeated(&args).await,
        Command::Patterns(args) => repeated(&args).await,
        Command::History(args) => repeated(&args).await,
        Command::RecoverStorm(args) => repeated(&args).await,
        Command::PresenceStorm(args) => repeated(&args).await,
        Command::Rpc(args) => repeated(&args).await,
        Command::Soak(args) => repeated(&args).await,
        Command::FloorWrite(args) => repeated(&fanout::Floor::from(args)).await,
        Command::FloorRedis(load) => floor::redis::plain(load).await.map(done),
        Command::FloorScript(args) => floor::redis::script(args).await.map(done),
        Command::RedisPublish(args) => floor::redis::publish(args).await.map(done),
        Command::Compare(args) => compare::run(&args).map(done),
        Command::Report(args) => html::run(&args).map(done),
        Command::FloorWriter(args) => floor::writer::run(args).await.map(done),
        Command::FloorBackend(args) => floor::backend::run(args).await.map(done),
    }
}

fn done((): ()) -> ExitCode {
    ExitCode::SUCCESS
}

/// Runs a scenario as often as asked for, shows and writes what came of it; a failure if something arrived wrongly.
async fn repeated(scenario: &impl Scenario) -> anyhow::Result<ExitCode> {
    scenario.options().check()?;
    scenario.check()?;
    let output = &scenario.options().output;
    if output.quiet {
        progress::be_quiet();
    }
    let (mut runs, mut failure) = (Vec::new(), None);
    while runs.len() < output.repeat && failure.is_none() {
        match scenario::run(scenario, runs.len()).await {
            Ok(result) => runs.push(result),
            Err(error) => failure = Some(error),
        }
    }
    let done = runs.len();
    let failure = match failure {
        Some(error) if output.repeat > 1 => {
            Some(error.context(format!("run {} of {} failed", done + 1, output.repeat)))
        }
        failure => failure,
    };
    let Some(mut result) = repeat::together(runs) else {
        return failure.map_or(Ok(ExitCode::FAILURE), Err);
    };
    if let Some(error) = &failure {
        result.notes.push(format!("{error:#}; this is of the {done} before it"));
    }
    print!("{}", table::render(&result));
    let json = output.json.as_ref().map_or(Ok(()), |path| report::write(path, &result));
    let html = output.html.as_ref().map_or(Ok(()), |path| html::write(path, &result));
    json.and(html)?;
    if let Some(error) = failure {
        return Err(error);
    }
    let fault = result.correctness.fault() || result.beside.iter().any(|other| other.correctness.fault());
    Ok(if fault { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_options_of_all_scenarios_fit_together() {
        super::Cli::command().debug_assert();
    }
}
