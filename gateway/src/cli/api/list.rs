//! `streamgate channels`, `sessions` and `nodes`.

use std::{
    io::{BufWriter, Write as _},
    pin::pin,
};

use clap::Args;
use futures_util::TryStreamExt as _;
use serde_json::{Value, json};
use streamgate_client::server::{ChannelsQuery, NodeInfo, SessionInfo, SessionsQuery};

use super::{ApiArgs, connect::failure};
use crate::cli::{Failure, Format, output, table::table};

/// Options of `channels`.
#[derive(Debug, Args)]
#[command(after_help = "Prints a name a line, in their order.

Examples:
  streamgate channels
  streamgate channels 'room.*' -o json | jq -r .channel")]
pub struct ChannelsArgs {
    /// Only those that this channel or pattern matches
    #[arg(default_value = "", hide_default_value = true)]
    pub pattern: String,
    /// How to print
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: Format,
    /// Where the server API is
    #[command(flatten)]
    pub api: ApiArgs,
}

/// Options of `sessions`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  streamgate sessions --user ann
  streamgate sessions --type web -o json | jq -r .session_id")]
pub struct SessionsArgs {
    /// Only those of this user
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    pub user: String,
    /// Only clients of this kind
    #[arg(long = "type", value_name = "TYPE", default_value = "", hide_default_value = true)]
    pub kind: String,
    /// Only those of this node, by its id (see `nodes`)
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    pub node: String,
    /// How to print
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: Format,
    /// Where the server API is
    #[command(flatten)]
    pub api: ApiArgs,
}

/// Options of `nodes`.
#[derive(Debug, Args)]
#[command(after_help = "The node that answers is marked with a star.")]
pub struct NodesArgs {
    /// How to print
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: Format,
    /// Where the server API is
    #[command(flatten)]
    pub api: ApiArgs,
}

pub(super) async fn channels(args: ChannelsArgs) -> Result<(), Failure> {
    let query = ChannelsQuery { pattern: args.pattern, ..ChannelsQuery::default() };
    let mut channels = pin!(args.api.client()?.all_channels(query));
    let mut out = BufWriter::new(std::io::stdout());
    while let Some(channel) = channels.try_next().await.map_err(failure)? {
        match args.output {
            Format::Text => writeln!(out, "{}", output::printable(&channel))?,
            Format::Json => writeln!(out, "{}", json!({"channel": channel}))?,
        }
    }
    Ok(out.flush()?)
}

pub(super) async fn sessions(args: SessionsArgs) -> Result<(), Failure> {
    let query = SessionsQuery {
        user_id: args.user,
        client_type: args.kind,
        node: args.node,
        ..SessionsQuery::default()
    };
    let mut sessions = pin!(args.api.client()?.all_sessions(query));
    let mut out = BufWriter::new(std::io::stdout());
    let mut rows = Vec::new();
    while let Some(session) = sessions.try_next().await.map_err(failure)? {
        match args.output {
            Format::Text => rows.push(session_row(session)),
            Format::Json => writeln!(out, "{}", session_object(&session))?,
        }
    }
    for line in table(["SESSION", "USER", "CLIENT", "TYPE", "NODE", "CONNECTED"], rows) {
        writeln!(out, "{line}")?;
    }
    Ok(out.flush()?)
}

pub(super) async fn nodes(args: NodesArgs) -> Result<(), Failure> {
    let mut nodes = args.api.client()?.nodes().await.map_err(failure)?;
    nodes.sort_by(|one, other| (&one.name, &one.id).cmp(&(&other.name, &other.id)));
    let lines = match args.output {
        Format::Text => {
            table(["NODE", "NAME", "VERSION", "STARTED", "CONNECTIONS"], nodes.into_iter().map(node_row))
        }
        Format::Json => nodes.iter().map(|node| node_object(node).to_string()).collect(),
    };
    let mut out = std::io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    Ok(out.flush()?)
}

fn session_row(session: SessionInfo) -> [String; 6] {
    let connected = time_text(session.connected_at);
    [session.session_id, session.user_id, session.client_id, session.client_type, session.node, connected]
}

fn session_object(session: &SessionInfo) -> Value {
    json!({
        "session_id": session.session_id,
        "user_id": session.user_id,
        "client_id": session.client_id,
        "client_type": session.client_type,
        "node": session.node,
        "connected_at": output::time(session.connected_at),
    })
}

fn node_row(node: NodeInfo) -> [String; 5] {
    let id = if node.local { format!("{} *", node.id) } else { node.id };
    [id, node.name, node.version, time_text(node.started_at), node.connections.to_string()]
}

fn node_object(node: &NodeInfo) -> Value {
    json!({
        "id": node.id,
        "name": node.name,
        "version": node.version,
        "started_at": output::time(node.started_at),
        "connections": node.connections,
        "local": node.local,
    })
}

fn time_text(unix_ms: u64) -> String {
    output::time(unix_ms).as_str().unwrap_or_default().to_owned()
}
