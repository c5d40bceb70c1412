//! `streamgate disconnect`.

use std::io::Write as _;

use clap::Args;
use serde_json::json;
use streamgate_client::server::{Close, DisconnectResult, Who};

use super::{
    ApiArgs,
    connect::{error_object, failure},
};
use crate::cli::{Failure, Format, exit::FAILED, table::table};

/// Options of `disconnect`.
#[derive(Debug, Args)]
#[command(
    after_help = "Without a code, clients are told not to come back (3503). The exit code is 1 if somebody was not found.

Examples:
  streamgate disconnect --session 5b0c2f1e-7c39-4a4b-9a43-0e4f6d1c7b11
  streamgate disconnect --user ann --code 4001 --reason 'your subscription ended'"
)]
pub struct DisconnectArgs {
    /// A session; may be repeated
    #[arg(long = "session", value_name = "ID", num_args = 1.., required_unless_present = "users")]
    pub sessions: Vec<String>,
    /// Every session of this user; may be repeated
    #[arg(long = "user", value_name = "ID", num_args = 1..)]
    pub users: Vec<String>,
    /// Close code, 3000 to 4999 [default: 3503]
    #[arg(long, value_parser = clap::value_parser!(u16).range(3000..=4999))]
    pub code: Option<u16>,
    /// What clients are told, up to 123 bytes
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub reason: String,
    /// How to print
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: Format,
    /// Where the server API is
    #[command(flatten)]
    pub api: ApiArgs,
}

pub(super) async fn run(args: DisconnectArgs) -> Result<(), Failure> {
    let who = args.sessions.iter().map(Who::session).chain(args.users.iter().map(Who::user));
    let close = Close { code: args.code.unwrap_or_default(), reason: args.reason.clone() };
    let results = args.api.client()?.disconnect(who, close).await.map_err(failure)?;
    let failed = results.iter().filter(|result| result.outcome.is_err()).count();
    let lines = match args.output {
        Format::Text => table(["KIND", "ID", "CLOSED"], results.iter().map(row)),
        Format::Json => results.iter().map(object).collect(),
    };
    let mut out = std::io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    out.flush()?;
    if failed > 0 {
        return Err(Failure::Coded(FAILED, format!("{failed} of {} could not be closed", results.len())));
    }
    Ok(())
}

fn row(result: &DisconnectResult) -> [String; 3] {
    let (kind, id) = match &result.who {
        Who::Session(id) => ("session", id),
        Who::User(id) => ("user", id),
    };
    let outcome = match &result.outcome {
        Ok(closed) => closed.to_string(),
        Err(error) => error.to_string(),
    };
    [kind.to_owned(), id.clone(), outcome]
}

fn object(result: &DisconnectResult) -> String {
    let mut object = match &result.who {
        Who::Session(id) => json!({"session_id": id}),
        Who::User(id) => json!({"user_id": id}),
    };
    match &result.outcome {
        Ok(closed) => object["closed"] = json!(closed),
        Err(error) => object["error"] = error_object(error),
    }
    object.to_string()
}
