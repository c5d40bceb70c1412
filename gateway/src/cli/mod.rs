//! The command line: what each subcommand does.
//!
//! Owns: reading arguments, and what people see on a terminal. Never does: anything a library user may need.
//!
//! Invariants: data goes to standard output, everything else to standard error; the exit codes are those of `exit`; standard
//! output closed by its reader is no failure.

mod api;
mod completions;
pub mod config;
mod connect;
mod context;
mod data;
mod doctor;
mod exit;
mod field;
mod history;
mod output;
mod point;
mod presence;
mod program;
mod progress;
mod publish;
mod question;
mod req;
mod rtt;
pub mod serve;
mod serve_args;
mod serve_rpc;
mod signals;
mod stream;
mod subscribe;
mod table;
mod tail;
mod template;
mod token;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use exit::Failure;

pub use api::ApiCommand;
pub use completions::CompletionsArgs;
pub use connect::ConnectArgs;
pub use doctor::DoctorArgs;
pub use history::HistoryArgs;
pub use output::Format;
pub use presence::PresenceArgs;
pub use publish::PublishArgs;
pub use req::ReqArgs;
pub use rtt::RttArgs;
pub use serve_args::{Broker, LogFormat, LogLevel, ServeArgs};
pub use serve_rpc::ServeRpcArgs;
pub use subscribe::SubscribeArgs;
pub use tail::TailArgs;
pub use token::TokenArgs;

/// The command line of `streamgate`.
#[derive(Debug, Parser)]
#[command(
    name = "streamgate",
    version,
    about = "A realtime messaging gateway: every message a CloudEvent, history and order in Redis Streams",
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  streamgate                                  a node on the memory broker
  streamgate serve --redis-addr 127.0.0.1:6379
  streamgate sub 'room.**'                    print what is published
  streamgate pub room.blue '{\"hello\":\"world\"}'
  streamgate tail 'room.**'                   the same in short lines, from the last few on
  streamgate history room.blue --since 10m
  streamgate presence room.blue --watch       who is there, who comes and goes
  streamgate serve-rpc 'text.*' --command cat  answer calls with what a program prints
  streamgate req shop.7 text.echo hello       call whoever answers
  streamgate sessions --user ann              who is connected
  streamgate token --secret-file dev.secret --user ann

Exit codes: 0 all went well; 1 refused, not found, or failed; 2 the command line makes no sense; 3 nothing answers there; 4 time
was up; 5 the connection broke, it may have been done."
)]
pub struct Cli {
    /// What to do; nothing means `serve`.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of `serve`, for a call without a subcommand.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a node (what happens without a subcommand, too)
    Serve(ServeArgs),
    /// Publish events to a channel
    Pub(PublishArgs),
    /// Print what is published to channels and patterns
    Sub(SubscribeArgs),
    /// Show what is published to channels and patterns, in short lines, from the last few on
    Tail(TailArgs),
    /// Print the history of a channel
    History(HistoryArgs),
    /// Print who is on a channel
    Presence(PresenceArgs),
    /// Call a method and print the reply
    Req(ReqArgs),
    /// Answer calls with a program: a process for each
    ServeRpc(ServeRpcArgs),
    /// What is done to a running gateway by its server API
    #[command(flatten)]
    Api(ApiCommand),
    /// Measure how long a question and its answer take
    Rtt(RttArgs),
    /// Look at what a node would meet here, and say what to change
    Doctor(DoctorArgs),
    /// Mint a token for development
    Token(TokenArgs),
    /// Check a configuration file, or print the default one
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a script that completes the command line in a shell
    Completions(CompletionsArgs),
}

/// Subcommands of `config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check a file as `serve` would run with it
    Check {
        /// The file
        file: PathBuf,
        /// How to print
        #[arg(short, long, value_name = "FORMAT", default_value = "text")]
        output: Format,
    },
    /// Print the commented reference file, which says exactly the defaults
    Default,
}

/// Carries out a command line.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    let outcome = match cli.command {
        None => return cli.serve.run(),
        Some(Command::Serve(args)) => return args.run(),
        Some(Command::Config(ConfigCommand::Check { file, output })) => return config::check(&file, output),
        Some(Command::Config(ConfigCommand::Default)) => return config::default(),
        Some(Command::Pub(args)) => block_on(publish::run(args)),
        Some(Command::Sub(args)) => block_on(subscribe::run(args)),
        Some(Command::Tail(args)) => block_on(tail::run(args)),
        Some(Command::Doctor(args)) => block_on(doctor::run(args)),
        Some(Command::Rtt(args)) => block_on(rtt::run(args)),
        Some(Command::Presence(args)) => block_on(presence::run(args)),
        Some(Command::History(args)) => block_on(history::run(args)),
        Some(Command::Req(args)) => block_on(req::run(args)),
        Some(Command::ServeRpc(args)) => block_on(serve_rpc::run(args)),
        Some(Command::Api(command)) => block_on(api::run(command)),
        Some(Command::Token(args)) => token::run(&args),
        Some(Command::Completions(args)) => completions::run(&args),
    };
    outcome.map_or_else(Failure::report, |()| ExitCode::SUCCESS)
}

fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("cannot start: {error}")))?;
    let outcome = runtime.block_on(command);
    // A read of standard input may still block a thread: do not wait for it.
    runtime.shutdown_background();
    outcome
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_is_in_the_documentation() {
        let docs = include_str!("../../../docs/cli.md");
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            assert!(docs.contains(&format!("`{name}`")) || docs.contains(&format!("`{name} ")), "{name}");
        }
    }

    #[test]
    fn without_a_subcommand_it_serves_with_the_options_of_serve() {
        let bare = Cli::try_parse_from(["streamgate", "--ws-addr", "127.0.0.1:0"]).unwrap();
        assert!(bare.command.is_none());
        let named = Cli::try_parse_from(["streamgate", "serve", "--ws-addr", "127.0.0.1:0"]).unwrap();
        let Some(Command::Serve(args)) = named.command else { panic!("serve expected") };
        assert_eq!(bare.serve.flags(), args.flags());
    }
}
