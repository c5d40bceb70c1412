//! Commands about a running gateway, by its server API.
//!
//! Owns: what they read, print and exit with. Never does: what is not in [`streamgate_client::server`].
//!
//! Invariants: no token is printed.

mod ask;
mod connect;
mod disconnect;
mod list;
mod revoke;

use clap::Subcommand;

use super::Failure;

pub use ask::{CallArgs, SurveyArgs};
pub use connect::ApiArgs;
pub use disconnect::DisconnectArgs;
pub use list::{ChannelsArgs, NodesArgs, SessionsArgs};
pub use revoke::RevokeArgs;

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum ApiCommand {
    /// List the channels that have a history
    Channels(ChannelsArgs),
    /// List who is connected
    Sessions(SessionsArgs),
    /// List the nodes that are alive
    Nodes(NodesArgs),
    /// Close connections
    Disconnect(DisconnectArgs),
    /// Call a method of a client, as the server, and print the reply
    Call(CallArgs),
    /// Ask every subscriber of a channel, and print the answers
    Survey(SurveyArgs),
    /// Have tokens refused from now on
    Revoke(RevokeArgs),
}

pub(super) async fn run(command: ApiCommand) -> Result<(), Failure> {
    match command {
        ApiCommand::Channels(args) => list::channels(args).await,
        ApiCommand::Sessions(args) => list::sessions(args).await,
        ApiCommand::Nodes(args) => list::nodes(args).await,
        ApiCommand::Disconnect(args) => disconnect::run(args).await,
        ApiCommand::Call(args) => ask::call(args).await,
        ApiCommand::Survey(args) => ask::survey(args).await,
        ApiCommand::Revoke(args) => revoke::run(args).await,
    }
}
