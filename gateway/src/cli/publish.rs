//! `streamgate pub`.

use std::{
    collections::VecDeque,
    future::Future,
    io::{IsTerminal as _, Write},
    pin::Pin,
};

use clap::Args;
use serde_json::json;
use streamgate_client::{Client, CloudEvent, CloudEventBuilder, Error, Position, PublishAck, PublishOptions};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::{ConnectArgs, Failure, Format, data, output};

/// Publishes that may wait for their acks while standard input is read on.
const IN_FLIGHT: usize = 256;

/// Options of `pub`.
#[derive(Debug, Args)]
#[command(after_help = "Prints where each event is stored: `channel epoch:offset` (`-` without history).

Examples:
  streamgate pub room.blue '{\"hello\":\"world\"}'
  streamgate pub room.blue hello --type note.added --attr subject=greeting
  tail -F app.log | streamgate pub logs.app")]
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
    #[arg(long = "attr", value_name = "NAME=VALUE", value_parser = attribute)]
    pub attributes: Vec<(String, String)>,
    /// Idempotency key: a second publish with it is not delivered and prints the first one's position
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Only for who listens now: no history
    #[arg(long)]
    pub transient: bool,
    /// How to print
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: Format,
    /// Where the gateway is
    #[command(flatten)]
    pub connect: ConnectArgs,
}

type Pending = Pin<Box<dyn Future<Output = Result<PublishAck, Error>> + Send>>;

pub(super) async fn run(args: PublishArgs) -> Result<(), Failure> {
    let data = args.data.as_deref().filter(|data| *data != "-");
    if data.is_none() {
        if args.data.is_none() && std::io::stdin().is_terminal() {
            return Err(Failure::Usage(
                "nothing to publish: give DATA, or lines on standard input".to_owned(),
            ));
        }
        if args.id.is_some() || args.key.is_some() {
            let text =
                "--id and --key name one event, but standard input may hold many: give DATA".to_owned();
            return Err(Failure::Usage(text));
        }
    }
    // What is wrong with the event is wrong without a gateway, too.
    event(&args, data.unwrap_or_default().as_bytes())?;
    let client = args.connect.connect().await?;
    let outcome = match data {
        Some(data) => {
            publish(&client, &args, data.as_bytes())?.await.map_err(Failure::from).and_then(|ack| {
                print(&args, &ack)?;
                Ok(())
            })
        }
        None => publish_lines(&client, &args).await,
    };
    client.close().await;
    outcome
}

/// An event for every line of standard input, in their order.
async fn publish_lines(client: &Client, args: &PublishArgs) -> Result<(), Failure> {
    let mut lines = BufReader::new(tokio::io::stdin()).split(b'\n');
    let mut pending: VecDeque<Pending> = VecDeque::new();
    let mut more = true;
    while more || !pending.is_empty() {
        tokio::select! {
            // Both are safe to cancel: a segment is kept until it is whole, a publish until it is answered.
            line = lines.next_segment(), if more && pending.len() < IN_FLIGHT => match line? {
                Some(line) => {
                    let line = line.strip_suffix(b"\r").unwrap_or(&line);
                    pending.push_back(publish(client, args, line)?);
                }
                None => more = false,
            },
            ack = front(&mut pending), if !pending.is_empty() => {
                pending.pop_front();
                print(args, &ack?)?;
            }
        }
    }
    Ok(())
}

async fn front(pending: &mut VecDeque<Pending>) -> Result<PublishAck, Error> {
    match pending.front_mut() {
        Some(publish) => publish.await,
        None => std::future::pending().await,
    }
}

fn publish(client: &Client, args: &PublishArgs, data: &[u8]) -> Result<Pending, Failure> {
    let options = PublishOptions {
        idempotency_key: args.key.clone(),
        transient: args.transient,
        ..PublishOptions::default()
    };
    Ok(Box::pin(client.publish(&args.channel, event(args, data)?, options)))
}

fn event(args: &PublishArgs, data: &[u8]) -> Result<CloudEvent, Failure> {
    let mut builder = CloudEventBuilder::new(&args.kind).source(&args.source);
    if let Some(id) = &args.id {
        builder = builder.id(id);
    }
    builder = data::with(builder, data, args.content_type.as_deref());
    for (name, value) in &args.attributes {
        builder = builder.attribute(name, value);
    }
    Ok(builder.checked()?)
}

fn print(args: &PublishArgs, ack: &PublishAck) -> std::io::Result<()> {
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
        let line = ["x", "--type", "t", "--source", "/s", "--id", "i", "--attr", "subject=a=b"];
        let event = event(&args(&line), b"x").unwrap();
        assert_eq!((event.r#type.as_str(), event.source.as_str(), event.id.as_str()), ("t", "/s", "i"));
        assert_eq!(event.attributes["subject"].attr, Some(Attr::CeString("a=b".into())));
        assert_eq!(event.data, Some(Data::TextData("x".into())));
    }

    #[test]
    fn an_attribute_that_no_event_may_have_is_a_usage_error() {
        let outcome = event(&args(&["--attr", "Not-Allowed=1"]), b"");
        assert!(matches!(outcome, Err(Failure::Usage(text)) if text.contains("Not-Allowed")));
    }
}
