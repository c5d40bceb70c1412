//! `streamgate tail`.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::IsTerminal as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::{Args, ValueEnum};
use streamgate_client::{Message, StartAt, proto::cloudevents::Attr};

use super::{
    ConnectArgs, Failure, Format, output,
    point::Point,
    question,
    stream::{self, Lines, Plan},
};

/// Characters of the data that a line shows.
const SHOWN: usize = 100;

/// Colours of channels (ANSI): those that are read well on dark and light.
const COLOURS: [u8; 6] = [31, 32, 33, 34, 35, 36];

/// Options of `tail`.
#[derive(Debug, Args)]
#[command(
    after_help = "A line is the time, the channel, the type of the event and the beginning of its data. The time is that of the
event (attribute `time`), of a new message without one the time at which it came; UTC.

Examples:
  streamgate tail 'room.**'
  streamgate tail orders.eu orders.us --last 0 --full"
)]
pub struct TailArgs {
    /// Channels and patterns
    #[arg(required = true, value_name = "PATTERN")]
    pub patterns: Vec<String>,
    /// Begin with the last N messages of each channel
    #[arg(short = 'n', long, value_name = "N", default_value = "5")]
    pub last: u32,
    /// Show the data whole
    #[arg(long)]
    pub full: bool,
    /// When to use colours
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub color: Color,
    /// End after so many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// End after this time; with --count the exit code is 4 then
    #[arg(long, value_name = "TIME", value_parser = question::timeout)]
    pub timeout: Option<Duration>,
    /// How to print; json is that of `sub`
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: Format,
    /// Where the gateway is
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// `--color`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set
    Auto,
    /// Into files and pipes, too
    Always,
    /// Nowhere
    Never,
}

pub(super) async fn run(args: TailArgs) -> Result<(), Failure> {
    let from = (args.last > 0).then_some(Point::Start(StartAt::Last(args.last)));
    let plan =
        Plan { patterns: args.patterns, from, count: args.count, timeout: args.timeout, signals: None };
    let style = Style { colours: args.color.holds(), most: if args.full { usize::MAX } else { SHOWN } };
    let lines = Lines::new(|message: &Message| match args.output {
        Format::Text => style.line(message, now_ms()),
        Format::Json => output::message(Format::Json, message),
    });
    stream::run(&args.connect, plan, lines).await
}

impl Color {
    fn holds(self) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            // https://no-color.org
            Self::Auto => {
                let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
                std::io::stdout().is_terminal() && !unwanted
            }
        }
    }
}

/// How lines look.
struct Style {
    colours: bool,
    /// Characters of the data.
    most: usize,
}

impl Style {
    fn line(&self, message: &Message, now_ms: u64) -> String {
        let event = &message.event;
        let time = match event.attributes.get("time").and_then(|value| value.attr.as_ref()) {
            Some(Attr::CeTimestamp(time)) => serde_json::to_value(time).unwrap_or_default(),
            Some(Attr::CeString(text)) => text.as_str().into(),
            // When an old message came to the gateway is not known here.
            _ if message.replay => serde_json::Value::Null,
            _ => output::time(now_ms),
        };
        let clock = time.as_str().and_then(clock_of).unwrap_or("--:--:--");
        let data = output::data(event);
        let mut shown: String = data.chars().take(self.most).collect();
        if shown.len() < data.len() {
            shown.push('…');
        }
        let channel = self.painted(colour_of(&message.channel), &output::printable(&message.channel));
        let kind = self.painted(2, &output::printable(&event.r#type));
        format!("{} {channel} {kind} {shown}", self.painted(2, clock))
    }

    fn painted(&self, code: u8, text: &str) -> String {
        if self.colours { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// Always the same for a channel.
fn colour_of(channel: &str) -> u8 {
    let mut hasher = DefaultHasher::new();
    channel.hash(&mut hasher);
    COLOURS[usize::try_from(hasher.finish() % COLOURS.len() as u64).unwrap_or_default()]
}

/// Hours, minutes and seconds of an RFC 3339 time.
fn clock_of(time: &str) -> Option<&str> {
    let clock = time.split_once(['T', 't'])?.1.get(..8)?;
    clock.bytes().all(|byte| byte.is_ascii_digit() || byte == b':').then_some(clock)
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use streamgate_client::CloudEventBuilder;

    use super::*;

    fn message(event: CloudEventBuilder, replay: bool) -> Message {
        Message {
            id: "m".into(),
            channel: "a.b".into(),
            position: None,
            offset: 0,
            replay,
            publisher: None,
            delivery: None,
            event: event.build(),
        }
    }

    #[test]
    fn a_line_is_short_and_harmless() {
        let style = Style { colours: false, most: 5 };
        let plain = || CloudEventBuilder::new("t").text("one\ntwo");
        assert_eq!(style.line(&message(plain(), false), 1_767_225_600_500), "00:00:00 a.b t one\\n…");
        assert_eq!(style.line(&message(plain(), true), 1), "--:--:-- a.b t one\\n…");
        let timed = plain().attribute("time", "2026-01-01T07:08:09.5Z").text("short");
        assert_eq!(style.line(&message(timed, true), 1), "07:08:09 a.b t short");
        let odd = plain().attribute("time", "2026-01-01T\u{1b}[2J12345").text("");
        assert_eq!(style.line(&message(odd, true), 1), "--:--:-- a.b t ");
    }

    #[test]
    fn colours_belong_to_channels() {
        let style = Style { colours: true, most: 5 };
        let line = style.line(&message(CloudEventBuilder::new("t"), true), 1);
        assert!(line.contains(&format!("\u{1b}[{}ma.b\u{1b}[0m", colour_of("a.b"))), "{line}");
        assert_eq!(colour_of("a.b"), colour_of("a.b"));
    }
}
