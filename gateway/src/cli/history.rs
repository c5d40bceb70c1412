//! `streamgate history`.

use std::io::{BufWriter, StdoutLock, Write};

use clap::Args;
use streamgate_client::{Client, Event, HistoryOptions, Message, Position, StartAt, SubscribeOptions};

use super::{
    ConnectArgs, Failure, Format,
    exit::FAILED,
    output,
    point::{self, Point},
    stream::note,
};

/// Options of `history`.
#[derive(Debug, Args)]
#[command(
    after_help = "--since with a time replays the channel, which takes the right to subscribe and a channel that recovers; all else
takes the right to read history.

Examples:
  streamgate history room.blue
  streamgate history room.blue --limit 10 --reverse      the last ten, newest first
  streamgate history room.blue --since 5m                what was published in the last five minutes
  streamgate history room.blue --since 2026-01-31T12:00:00Z
  streamgate history room.blue --since 1767225600000:42  what came after"
)]
pub struct HistoryArgs {
    /// Channel whose history to read
    pub channel: String,
    /// At most so many messages [default: all]
    #[arg(long, value_name = "N")]
    pub limit: Option<u32>,
    /// Newest first
    #[arg(long)]
    pub reverse: bool,
    /// Only what came after a position EPOCH:OFFSET (with --reverse: before), since a time (2026-01-31T12:00:00Z), or so long
    /// ago (90s, 10m, 2h, 3d)
    #[arg(long, value_name = "POINT", value_parser = point::since)]
    pub since: Option<Point>,
    /// How to print
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: Format,
    /// Where the gateway is
    #[command(flatten)]
    pub connect: ConnectArgs,
}

pub(super) async fn run(args: HistoryArgs) -> Result<(), Failure> {
    if args.reverse && matches!(args.since, Some(Point::Start(_))) {
        let text = "--since with a time reads forwards: --reverse needs a position, or none";
        return Err(Failure::Usage(text.to_owned()));
    }
    let client = args.connect.connect().await?;
    let outcome = match &args.since {
        Some(Point::Start(start)) => print_from(&client, &args, *start).await,
        Some(Point::After(since)) => print_all(&client, &args, Some(since.clone())).await,
        None => print_all(&client, &args, None).await,
    };
    client.close().await;
    outcome
}

/// Prints up to a limit.
struct Printer {
    out: BufWriter<StdoutLock<'static>>,
    format: Format,
    left: Option<u32>,
}

impl Printer {
    fn new(args: &HistoryArgs) -> Self {
        Self { out: BufWriter::new(std::io::stdout().lock()), format: args.output, left: args.limit }
    }

    fn is_done(&self) -> bool {
        self.left == Some(0)
    }

    fn print(&mut self, message: &Message) -> std::io::Result<()> {
        if self.is_done() {
            return Ok(());
        }
        self.left = self.left.map(|left| left - 1);
        writeln!(self.out, "{}", output::message(self.format, message))
    }
}

async fn print_all(client: &Client, args: &HistoryArgs, since: Option<Position>) -> Result<(), Failure> {
    let mut printer = Printer::new(args);
    print_pages(client, args, since, &mut printer).await?;
    Ok(printer.out.flush()?)
}

/// Page after page, until the limit or the end.
async fn print_pages(
    client: &Client,
    args: &HistoryArgs,
    mut since: Option<Position>,
    printer: &mut Printer,
) -> Result<(), Failure> {
    while !printer.is_done() {
        let options = HistoryOptions { since: since.clone(), limit: printer.left, reverse: args.reverse };
        let page = client.history(&args.channel, options).await?;
        for message in &page.messages {
            printer.print(message)?;
        }
        let last = page.messages.last().and_then(|message| message.position.clone());
        match last {
            Some(last) if page.truncated => since = Some(last),
            _ => break,
        }
    }
    Ok(())
}

/// The replay from a time on; what it is too short for comes from pages.
async fn print_from(client: &Client, args: &HistoryArgs, start: StartAt) -> Result<(), Failure> {
    let mut printer = Printer::new(args);
    let options = SubscribeOptions::new(&args.channel).ephemeral().start_at(start);
    let mut events = client.subscribe(options).await?;
    let mut last = None;
    while !printer.is_done() {
        match events.next().await {
            // The same position may be replayed once more after a reconnect; the library drops it.
            Some(Event::Message(message)) if message.replay => {
                printer.print(&message)?;
                last = message.position;
            }
            // Published meanwhile.
            Some(Event::Message(_)) => {}
            Some(Event::Recovered(recovered)) => {
                if let Some(error) = recovered.error {
                    let text = format!("{} has no replay: {error}", args.channel);
                    return Err(Failure::Coded(FAILED, text));
                }
                // Without a place to go on from, a page would begin before the time.
                if let Some(last) = last.filter(|_| recovered.truncated) {
                    print_pages(client, args, Some(last), &mut printer).await?;
                }
                break;
            }
            Some(Event::Closed(error)) => return Err(error.into()),
            Some(other) => note(&other),
            None => break,
        }
    }
    Ok(printer.out.flush()?)
}
