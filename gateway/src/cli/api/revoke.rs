//! `streamgate revoke`.

use std::{
    io::Write as _,
    time::{Duration, UNIX_EPOCH},
};

use clap::Args;
use serde_json::json;
use streamgate_client::server::Revocation;

use super::{ApiArgs, connect::failure};
use crate::cli::{Failure, Format, output, question};

/// Options of `revoke`.
#[derive(Debug, Args)]
#[command(
    after_help = "Sessions with such tokens are closed, on every node. Tokens that are issued afterwards are good.

Examples:
  streamgate revoke --user ann
  streamgate revoke --token-id 5b0c2f1e --for 1h"
)]
#[command(group(clap::ArgGroup::new("what").required(true)))]
pub struct RevokeArgs {
    /// All tokens of this user that were issued until now
    #[arg(long, value_name = "ID", group = "what")]
    pub user: Option<String>,
    /// The token with this id (`jti`)
    #[arg(long, value_name = "ID", group = "what")]
    pub token_id: Option<String>,
    /// For how long: until the last of them has expired by itself; up to 366 days
    #[arg(long = "for", value_name = "TIME", default_value = "24h", value_parser = question::timeout)]
    pub time: Duration,
    /// How to print
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: Format,
    /// Where the server API is
    #[command(flatten)]
    pub api: ApiArgs,
}

pub(super) async fn run(args: RevokeArgs) -> Result<(), Failure> {
    let what = match (&args.user, &args.token_id) {
        (Some(user), _) => Revocation::User(user.clone()),
        (None, Some(id)) => Revocation::Token(id.clone()),
        (None, None) => return Err(Failure::Usage("--user or --token-id is needed".to_owned())),
    };
    let until = args.api.client()?.revoke(what, args.time).await.map_err(failure)?;
    let until = until.duration_since(UNIX_EPOCH).unwrap_or_default();
    let until = output::time(u64::try_from(until.as_millis()).unwrap_or(u64::MAX));
    let line = match args.output {
        Format::Text => format!("refused until {}", until.as_str().unwrap_or_default()),
        Format::Json => json!({"user_id": args.user, "token_id": args.token_id, "until": until}).to_string(),
    };
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
