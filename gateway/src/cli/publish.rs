//! `streamgate pub`.

mod source;

use std::{
    collections::VecDeque,
    future::Future,
    io::{IsTerminal as _, Write},
    pin::Pin,
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::json;
use source::{Source, Supply};
use streamgate_client::{Client, CloudEvent, CloudEventBuilder, Error, Position, PublishAck, PublishOptions};

use super::{ConnectArgs, Failure, Format, data, output, progress::Progress, question, template::Template};

/// Publishes that may wait for their acks while the next ones go.
const IN_FLIGHT: usize = 256;

/// Options of `pub`.
#[derive(Debug, Args)]
#[command(
    after_help = "Prints where each event is stored: `channel epoch:offset` (`-` without history). It ends at the first
event that is refused.

With --count or --template, {{count}} (from 1), {{time}} and {{uuid}} are filled in: in DATA or each line, --id, --key and the
values of -H.

Examples:
  streamgate pub room.blue '{\"hello\":\"world\"}'
  streamgate pub room.blue hello --type note.added -H subject=greeting
  streamgate pub room.blue 'typing' --ttl 5s
  streamgate pub load.test '{\"n\":{{count}},\"at\":\"{{time}}\"}' --count 10000 --rate 500 --quiet
  tail -F app.log | streamgate pub logs.app"
)]
pub struct PublishArgs {
    /// Channel to publish to
    pub channel: String,
    /// Data of the event; `-`, or nothing with standard input from a pipe: one event per line of standard input
    pub data: Option<String>,
    /// Type of the event
    #[arg(long = "type", value_name = "TYPE", default_value = "streamgate.message")]
    pub kind: String,
    /// Source of the event, a URI reference
    #[arg(long, default_value = "/streamgate-cli")]
    pub source: String,
    /// Id of the event [default: random]
    #[arg(long)]
    pub id: Option<String>,
    /// Media type of the data [default: application/json if it is JSON, else text/plain]
    #[arg(long, value_name = "MEDIA_TYPE")]
    pub content_type: Option<String>,
    /// Another attribute of the event; may be repeated
    #[arg(
        short = 'H', long = "attr", visible_alias = "header", value_name = "NAME=VALUE", value_parser = attribute
    )]
    pub attributes: Vec<(String, String)>,
    /// Idempotency key: a second publish with it is not delivered and prints the first one's position
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Only for who listens now: no history
    #[arg(long)]
    pub transient: bool,
    /// Worthless after this time: neither delivered nor shown any more
    #[arg(long, value_name = "TIME", value_parser = question::timeout)]
    pub ttl: Option<Duration>,
    /// Publish DATA so many times
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// No more than so many a second
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    pub rate: Option<f64>,
    /// Fill in {{count}}, {{time}} and {{uuid}}; --count does so, too
    #[arg(long)]
    pub template: bool,
    /// Do not print where events are stored
    #[arg(short, long)]
    pub quiet: bool,
    /// How to print
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: Format,
    /// Where the gateway is
    #[command(flatten)]
    pub connect: ConnectArgs,
}

type Pending = Pin<Box<dyn Future<Output = Result<PublishAck, Error>> + Send>>;

pub(super) async fn run(args: PublishArgs) -> Result<(), Failure> {
    let plan = Plan::new(&args)?;
    let source = plan.source(&args)?;
    // What is wrong with the event is wrong without a gateway, too.
    if let Source::Repeated(data, _) = &source {
        plan.event(&args, 1, data.fill(1).as_bytes())?;
    } else {
        plan.event(&args, 1, b"")?;
    }
    let client = args.connect.connect().await?;
    let outcome = publish_all(&client, &args, &plan, Supply::new(source, args.rate)).await;
    client.close().await;
    outcome
}

/// What is the same for all events, checked.
struct Plan {
    id: Option<Template>,
    key: Option<Template>,
    attributes: Vec<(String, Template)>,
    templates: bool,
}

impl Plan {
    fn new(args: &PublishArgs) -> Result<Self, Failure> {
        let templates = args.template || args.count.is_some();
        let template = |text: &String| {
            if templates { Template::parse(text).map_err(Failure::Usage) } else { Ok(Template::plain(text)) }
        };
        let attributes = args.attributes.iter().map(|(name, value)| Ok((name.clone(), template(value)?)));
        Ok(Self {
            id: args.id.as_ref().map(template).transpose()?,
            key: args.key.as_ref().map(template).transpose()?,
            attributes: attributes.collect::<Result<_, Failure>>()?,
            templates,
        })
    }

    fn source(&self, args: &PublishArgs) -> Result<Source, Failure> {
        let usage = |text: &str| Err(Failure::Usage(text.to_owned()));
        let data = args.data.as_deref().filter(|data| *data != "-");
        let many = data.is_none() || args.count.is_some_and(|count| count > 1);
        if many && [&self.id, &self.key].into_iter().flatten().any(|template| !template.varies()) {
            return usage(
                "--id and --key name one event, and there may be many: put {{count}} or {{uuid}} in, with --template",
            );
        }
        match data {
            Some(data) if self.templates => {
                let data = Template::parse(data).map_err(Failure::Usage)?;
                Ok(Source::Repeated(data, args.count.unwrap_or(1)))
            }
            Some(data) => Ok(Source::Repeated(Template::plain(data), 1)),
            None if args.count.is_some() => usage("--count repeats DATA, and there is none"),
            None if args.data.is_none() && std::io::stdin().is_terminal() => {
                usage("nothing to publish: give DATA, or lines on standard input")
            }
            None => Ok(Supply::lines(self.templates)),
        }
    }

    /// The event of this number.
    fn event(&self, args: &PublishArgs, number: u64, data: &[u8]) -> Result<CloudEvent, Failure> {
        let mut builder = CloudEventBuilder::new(&args.kind).source(&args.source);
        if let Some(id) = &self.id {
            builder = builder.id(id.fill(number));
        }
        builder = data::with(builder, data, args.content_type.as_deref());
        for (name, value) in &self.attributes {
            builder = builder.attribute(name, value.fill(number));
        }
        Ok(builder.checked()?)
    }

    fn publish(
        &self,
        client: &Client,
        args: &PublishArgs,
        number: u64,
        data: &[u8],
    ) -> Result<Pending, Failure> {
        let options = PublishOptions {
            idempotency_key: self.key.as_ref().map(|key| key.fill(number)),
            transient: args.transient,
            ttl: args.ttl,
            ..PublishOptions::default()
        };
        Ok(Box::pin(client.publish(&args.channel, self.event(args, number, data)?, options)))
    }
}

/// One event after the other, in their order; so many wait for their acks at the same time.
async fn publish_all(
    client: &Client,
    args: &PublishArgs,
    plan: &Plan,
    mut supply: Supply,
) -> Result<(), Failure> {
    let (start, total) = (Instant::now(), supply.total());
    // Lines in between would tear it apart.
    let silent = args.quiet || !std::io::stdout().is_terminal();
    let progress = Progress::new(total.filter(|total| *total > 1 && silent));
    let mut pending: VecDeque<Pending> = VecDeque::new();
    let (mut more, mut stored) = (true, 0u64);
    while more || !pending.is_empty() {
        tokio::select! {
            // Both are safe to cancel.
            next = supply.next(), if more && pending.len() < IN_FLIGHT => match next? {
                Some((number, data)) => pending.push_back(plan.publish(client, args, number, &data)?),
                None => more = false,
            },
            ack = front(&mut pending), if !pending.is_empty() => {
                pending.pop_front();
                print(args, &ack?)?;
                stored += 1;
                progress.advance();
            }
        }
    }
    progress.finish();
    if total.is_some_and(|total| total > 1) {
        let (seconds, rate) = (start.elapsed().as_secs_f64(), stored as f64 / start.elapsed().as_secs_f64());
        eprintln!("{stored} published in {seconds:.2} s, {rate:.0} a second");
    }
    Ok(())
}

async fn front(pending: &mut VecDeque<Pending>) -> Result<PublishAck, Error> {
    match pending.front_mut() {
        Some(publish) => publish.await,
        None => std::future::pending().await,
    }
}

fn print(args: &PublishArgs, ack: &PublishAck) -> std::io::Result<()> {
    if args.quiet {
        return Ok(());
    }
    let line = match args.output {
        Format::Text => format!("{} {}", args.channel, output::place(ack.position.as_ref())),
        Format::Json => {
            let position = ack.position.as_ref().map(Position::to_string);
            json!({"channel": args.channel, "position": position, "duplicate": ack.duplicate}).to_string()
        }
    };
    writeln!(std::io::stdout(), "{line}")
}

fn attribute(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE is expected")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Between one in a day and a million a second.
fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok().filter(|rate| (1.0 / 86_400.0..=1e6).contains(rate));
    rate.ok_or_else(|| "a number of events a second is expected, as in 100 or 0.5".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use streamgate_client::proto::cloudevents::{Attr, Data};

    use super::*;
    use crate::cli::{Cli, Command};

    fn args(line: &[&str]) -> PublishArgs {
        let line = ["streamgate", "pub", "a"].iter().chain(line);
        match Cli::try_parse_from(line).unwrap().command {
            Some(Command::Pub(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    fn event(args: &PublishArgs, data: &[u8]) -> Result<CloudEvent, Failure> {
        Plan::new(args)?.event(args, 7, data)
    }

    fn content_type(event: &CloudEvent) -> &str {
        match &event.attributes["datacontenttype"].attr {
            Some(Attr::CeString(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_media_type_is_what_the_data_looks_like_unless_it_is_given() {
        let plain = args(&[]);
        for (data, expected) in [
            (&b"{\"n\":1}"[..], "application/json"),
            (b"17", "application/json"),
            (b"hello", "text/plain"),
            (b"", "text/plain"),
            (b"\xff", "application/octet-stream"),
        ] {
            assert_eq!(content_type(&event(&plain, data).unwrap()), expected, "{data:?}");
        }
        assert_eq!(content_type(&event(&args(&["--content-type", "text/csv"]), b"1").unwrap()), "text/csv");
    }

    #[test]
    fn the_event_is_what_the_options_say() {
        let line = [
            "x",
            "--type",
            "t",
            "--source",
            "/s",
            "--id",
            "i{{count}}",
            "--attr",
            "subject=a=b",
            "-H",
            "n={{count}}",
        ];
        let plain = event(&args(&line), b"x").unwrap();
        assert_eq!(
            (plain.r#type.as_str(), plain.source.as_str(), plain.id.as_str()),
            ("t", "/s", "i{{count}}")
        );
        assert_eq!(plain.attributes["subject"].attr, Some(Attr::CeString("a=b".into())));
        assert_eq!(plain.data, Some(Data::TextData("x".into())));
        let filled = event(&args(&[&line[..], &["--template"]].concat()), b"x").unwrap();
        assert_eq!(
            (filled.id.as_str(), &filled.attributes["n"].attr),
            ("i7", &Some(Attr::CeString("7".into())))
        );
    }

    #[test]
    fn what_cannot_be_meant_is_a_usage_error() {
        let outcome = event(&args(&["--attr", "Not-Allowed=1"]), b"");
        assert!(matches!(outcome, Err(Failure::Usage(text)) if text.contains("Not-Allowed")));
        let refused = |line: &[&str]| {
            let args = args(line);
            let source = Plan::new(&args).and_then(|plan| plan.source(&args).map(|_| ()));
            matches!(source, Err(Failure::Usage(_)))
        };
        for line in [
            &["-", "--id", "x"][..],
            &["-", "--key", "x{{count}}"],
            &["-", "--count", "2"],
            &["x", "--count", "2", "--id", "same"],
            &["{{number}}", "--count", "2"],
            &["x", "--count", "2", "--key", "{{time}}"],
        ] {
            assert!(refused(line), "{line:?}");
        }
        for line in [&["x", "--id", "i"][..], &["{{number}}"], &["x", "--count", "2", "--key", "{{uuid}}"]] {
            assert!(!refused(line), "{line:?}");
        }
        let parses =
            |rate: &str| Cli::try_parse_from(["streamgate", "pub", "a", "x", "--rate", rate]).is_ok();
        assert!(
            parses("0.5")
                && parses("1000")
                && !parses("0")
                && !parses("-1")
                && !parses("NaN")
                && !parses("inf")
        );
    }
}
