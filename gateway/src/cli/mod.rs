//! The command line: what each subcommand does.
//!
//! Owns: reading arguments, and what people see on a terminal. Never does: anything a library user may need.
//!
//! Invariants: data goes to standard output, everything else to standard error; the exit code is 0 if all went well,
//! 1 if something failed, 2 if the command line makes no sense; standard output closed by its reader is no failure. `req` and the
//! commands of `api` have more codes, for scripts.

mod api;
pub mod config;
mod connect;
mod data;
mod history;
mod output;
mod presence;
mod publish;
mod question;
mod req;
pub mod serve;
mod serve_args;
mod serve_rpc;
mod subscribe;
mod table;
mod token;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

pub use api::ApiCommand;
pub use connect::ConnectArgs;
pub use history::HistoryArgs;
pub use output::Format;
pub use presence::PresenceArgs;
pub use publish::PublishArgs;
pub use req::ReqArgs;
pub use serve_args::{Broker, LogFormat, LogLevel, ServeArgs};
pub use serve_rpc::ServeRpcArgs;
pub use subscribe::SubscribeArgs;
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
  streamgate history room.blue --limit 10
  streamgate presence room.blue --watch       who is there, who comes and goes
  streamgate serve-rpc 'text.*' --command cat  answer calls with what a program prints
  streamgate req shop.7 text.echo hello       call whoever answers
  streamgate sessions --user ann              who is connected
  streamgate token --secret-file dev.secret --user ann"
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
    /// Mint a token for development
    Token(TokenArgs),
    /// Check a configuration file, or print the default one
    #[command(subcommand)]
    Config(ConfigCommand),
}

/// Subcommands of `config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check a file as `serve` would run with it
    Check {
        /// The file
        file: PathBuf,
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
        Some(Command::Config(ConfigCommand::Check { file })) => return config::check(&file),
        Some(Command::Config(ConfigCommand::Default)) => return config::default(),
        Some(Command::Pub(args)) => block_on(publish::run(args)),
        Some(Command::Sub(args)) => block_on(subscribe::run(args)),
        Some(Command::Presence(args)) => block_on(presence::run(args)),
        Some(Command::History(args)) => block_on(history::run(args)),
        Some(Command::Req(args)) => block_on(req::run(args)),
        Some(Command::ServeRpc(args)) => block_on(serve_rpc::run(args)),
        Some(Command::Api(command)) => block_on(api::run(command)),
        Some(Command::Token(args)) => token::run(&args),
    };
    match outcome {
        Ok(()) | Err(Failure::OutputClosed) => ExitCode::SUCCESS,
        Err(Failure::Usage(text)) => {
            eprintln!("error: {text}");
            ExitCode::from(2)
        }
        Err(Failure::Failed(text)) => {
            eprintln!("error: {text}");
            ExitCode::FAILURE
        }
        Err(Failure::Coded(code, text)) => {
            eprintln!("error: {text}");
            ExitCode::from(code)
        }
    }
}

/// Why a client command ends early.
#[derive(Debug, PartialEq, Eq)]
enum Failure {
    /// The command line makes no sense.
    Usage(String),
    /// Something failed.
    Failed(String),
    /// Something failed, and the exit code says what.
    Coded(u8, String),
    /// Nobody reads standard output any more, as after `| head`.
    OutputClosed,
}

impl From<streamgate_client::Error> for Failure {
    fn from(error: streamgate_client::Error) -> Self {
        use streamgate_client::Error;
        match error {
            Error::Invalid(_) | Error::InvalidUrl { .. } => Self::Usage(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Failed(error.to_string()),
        }
    }
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
    fn without_a_subcommand_it_serves_with_the_options_of_serve() {
        let bare = Cli::try_parse_from(["streamgate", "--ws-addr", "127.0.0.1:0"]).unwrap();
        assert!(bare.command.is_none());
        let named = Cli::try_parse_from(["streamgate", "serve", "--ws-addr", "127.0.0.1:0"]).unwrap();
        let Some(Command::Serve(args)) = named.command else { panic!("serve expected") };
        assert_eq!(bare.serve.flags(), args.flags());
    }
}
