//! `streamgate history`.

use std::io::{BufWriter, Write};

use clap::Args;
use streamgate_client::{Client, HistoryOptions, Position};

use super::{ConnectArgs, Failure, Format, output};

/// Options of `history`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  streamgate history room.blue
  streamgate history room.blue --limit 10 --reverse      the last ten, newest first
  streamgate history room.blue --since 1767225600000:42  what came after")]
pub struct HistoryArgs {
    /// Channel whose history to read
    pub channel: String,
    /// At most so many messages [default: all]
    #[arg(long, value_name = "N")]
    pub limit: Option<u32>,
    /// Newest first
    #[arg(long)]
    pub reverse: bool,
    /// Only what came after this; with --reverse: before
    #[arg(long, value_name = "EPOCH:OFFSET")]
    pub since: Option<Position>,
    /// How to print
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: Format,
    /// Where the gateway is
    #[command(flatten)]
    pub connect: ConnectArgs,
}

pub(super) async fn run(args: HistoryArgs) -> Result<(), Failure> {
    let client = args.connect.connect().await?;
    let outcome = print_all(&client, &args).await;
    client.close().await;
    outcome
}

/// Page after page, until the limit or the end.
async fn print_all(client: &Client, args: &HistoryArgs) -> Result<(), Failure> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let (mut since, mut left) = (args.since.clone(), args.limit);
    while left != Some(0) {
        let options = HistoryOptions { since: since.clone(), limit: left, reverse: args.reverse };
        let page = client.history(&args.channel, options).await?;
        for message in &page.messages {
            writeln!(out, "{}", output::message(args.output, message))?;
        }
        left = left.map(|left| left.saturating_sub(u32::try_from(page.messages.len()).unwrap_or(u32::MAX)));
        let last = page.messages.last().and_then(|message| message.position.clone());
        match last {
            Some(last) if page.truncated => since = Some(last),
            _ => break,
        }
    }
    Ok(out.flush()?)
}
