//! `streamgate sub`.

use std::{
    ffi::OsString,
    io::{self, BufWriter, IsTerminal as _, Stdout, Write},
    time::Duration,
};

use clap::Args;
use streamgate_client::Message;

use super::{
    ConnectArgs, Failure, Format, data,
    exit::FAILED,
    field::Field,
    output,
    point::{self, Point},
    program::{Program, content_type},
    question,
    signals::Signals,
    stream::{self, Lines, Plan, Taker},
};

/// Options of `sub`.
#[derive(Debug, Args)]
#[command(after_help = "`*` stands for one segment of a channel, a last `**` for any number of them. What is
missed while the connection is away is fetched from history; reconnects and gaps are told on standard error.

With --command a process runs for each message, one after the other: the data is its standard input, no shell is involved.
It finds in its environment MESSAGE_CHANNEL, MESSAGE_POSITION, MESSAGE_ID, MESSAGE_TYPE, MESSAGE_SOURCE and
MESSAGE_CONTENT_TYPE, which come from the publisher. One that fails is told, and the exit code is 1 in the end. SIGINT or
SIGTERM waits for the one that runs; a second one does not.

Examples:
  streamgate sub room.blue
  streamgate sub 'room.**' --from start
  streamgate sub room.blue --from 10m --count 5     five messages of the last ten minutes
  streamgate sub room.blue --from 1767225600000:42  go on after this message
  streamgate sub 'orders.*' --field data.user.id
  streamgate sub jobs.done --count 1 --timeout 30s  exit code 4 if none comes
  streamgate sub 'orders.*' --command ./book --verbose")]
#[command(group(clap::ArgGroup::new("what")))]
pub struct SubscribeArgs {
    /// Channels and patterns
    #[arg(required = true, value_name = "PATTERN")]
    pub patterns: Vec<String>,
    /// Where to begin: `start` of history, the last N messages, after a position EPOCH:OFFSET, at a time
    /// (2026-01-31T12:00:00Z) or so long ago (90s, 10m, 2h) [default: now]
    #[arg(long, value_name = "POINT", value_parser = point::from)]
    pub from: Option<Point>,
    /// End after so many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// End after this time; with --count the exit code is 4 then
    #[arg(long, value_name = "TIME", value_parser = question::timeout)]
    pub timeout: Option<Duration>,
    /// Print only this: a path as data.user.id, data.items.0, type, channel, position
    #[arg(long, value_name = "PATH", value_parser = Field::parse, group = "what")]
    pub field: Option<Field>,
    /// Print the data alone, byte by byte, each with a line end
    #[arg(long, group = "what", conflicts_with = "output")]
    pub raw: bool,
    /// How to print
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: Format,
    /// Where the gateway is
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// Run a program for each message; takes the rest of the line
    #[arg(
        long, group = "what", num_args = 1.., allow_hyphen_values = true, value_names = ["PROGRAM", "ARGS"],
        conflicts_with = "output"
    )]
    pub command: Vec<OsString>,
}

pub(super) async fn run(args: SubscribeArgs) -> Result<(), Failure> {
    let SubscribeArgs { patterns, from, count, timeout, field, raw, output: format, connect, command } = args;
    let plan = Plan { patterns, from, count, timeout, signals: None };
    if !command.is_empty() {
        let runs = Runs { program: Program::passed_on(&command).map_err(Failure::Usage)?, all: 0, failed: 0 };
        // From the start: a signal must not end this process without its child.
        let plan = Plan { signals: Some(Signals::listen()?), ..plan };
        return stream::run(&connect, plan, runs).await;
    }
    match field {
        _ if raw => stream::run(&connect, plan, Raw::new()).await,
        Some(field) => {
            stream::run(&connect, plan, Lines::new(|message: &Message| field.line(format, message))).await
        }
        None => {
            stream::run(&connect, plan, Lines::new(|message: &Message| output::message(format, message)))
                .await
        }
    }
}

/// The data alone: on a terminal on one harmless line, else byte by byte.
struct Raw {
    out: BufWriter<Stdout>,
    terminal: bool,
}

impl Raw {
    fn new() -> Self {
        let out = io::stdout();
        Self { terminal: out.is_terminal(), out: BufWriter::new(out) }
    }
}

impl Taker for Raw {
    async fn take(&mut self, message: &Message) -> Result<(), Failure> {
        if self.terminal {
            return Ok(writeln!(self.out, "{}", output::data(&message.event))?);
        }
        self.out.write_all(data::of(&message.event))?;
        Ok(self.out.write_all(b"\n")?)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn end(mut self) -> Result<(), Failure> {
        Ok(self.out.flush()?)
    }
}

/// A process for each message.
struct Runs {
    program: Program,
    all: u64,
    failed: u64,
}

impl Taker for Runs {
    async fn take(&mut self, message: &Message) -> Result<(), Failure> {
        let (event, position) = (&message.event, output::place(message.position.as_ref()));
        let variables = [
            ("MESSAGE_CHANNEL", message.channel.as_str()),
            ("MESSAGE_POSITION", &position),
            ("MESSAGE_ID", &event.id),
            ("MESSAGE_TYPE", &event.r#type),
            ("MESSAGE_SOURCE", &event.source),
            ("MESSAGE_CONTENT_TYPE", content_type(event)),
        ];
        self.all += 1;
        if let Err(trouble) = self.program.run(data::of(event), &variables).await {
            self.failed += 1;
            eprintln!("error: {} {position}: {trouble}", message.channel);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn end(self) -> Result<(), Failure> {
        if self.failed > 0 {
            return Err(Failure::Coded(FAILED, format!("{} of {} commands failed", self.failed, self.all)));
        }
        Ok(())
    }
}
