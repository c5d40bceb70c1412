//! What the commands that ask somebody have in common: the event that they send, and the answer that they print.

use std::{
    io::{IsTerminal as _, Write as _},
    time::Duration,
};

use clap::Args;
use streamgate_client::{CloudEvent, CloudEventBuilder};
use tokio::io::AsyncReadExt as _;

use super::{Failure, Format, data, output};
use crate::config;

/// Most of standard input that is read: gateways take less in a frame.
const MOST_INPUT: u64 = 16 * 1024 * 1024;

/// What is asked, and how the answer is printed.
#[derive(Debug, Args)]
pub struct QuestionArgs {
    /// How long to wait for an answer: 500ms, 10s, 2m; the gateway's `server.rpc_timeout` ends it, too
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = timeout)]
    pub timeout: Duration,
    /// Type of the event that is sent
    #[arg(long = "type", value_name = "TYPE", default_value = "streamgate.request")]
    pub kind: String,
    /// Source of the event, a URI reference
    #[arg(long, default_value = "/streamgate-cli")]
    pub source: String,
    /// Media type of the data [default: application/json if it is JSON, else text/plain]
    #[arg(long, value_name = "MEDIA_TYPE")]
    pub content_type: Option<String>,
    /// How to print: the data, or the whole event
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: Format,
}

impl QuestionArgs {
    /// The event to ask with; `-` as data is standard input.
    pub(super) async fn event(&self, given: Option<&str>) -> Result<CloudEvent, Failure> {
        let mut builder = CloudEventBuilder::new(&self.kind).source(&self.source);
        if let Some(given) = given {
            let bytes = if given == "-" { read_input().await? } else { given.as_bytes().to_vec() };
            builder = data::with(builder, &bytes, self.content_type.as_deref());
        }
        Ok(builder.checked()?)
    }

    /// Prints the answer.
    pub(super) fn print(&self, reply: &CloudEvent) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        match self.output {
            Format::Json => writeln!(out, "{}", output::event(reply))?,
            Format::Text if out.is_terminal() => writeln!(out, "{}", output::data(reply))?,
            // For a program or a file: nothing is changed, only a last line ended.
            Format::Text => {
                let bytes = data::of(reply);
                out.write_all(bytes)?;
                if std::str::from_utf8(bytes).is_ok() && !bytes.ends_with(b"\n") {
                    writeln!(out)?;
                }
            }
        }
        Ok(out.flush()?)
    }
}

async fn read_input() -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = tokio::io::stdin().take(MOST_INPUT + 1).read_to_end(&mut bytes).await?;
    if read as u64 > MOST_INPUT {
        return Err(Failure::Usage(format!("standard input has more than {MOST_INPUT} bytes")));
    }
    Ok(bytes)
}

pub(super) fn timeout(text: &str) -> Result<Duration, String> {
    let timeout = config::duration(text)?;
    if timeout.is_zero() { Err("it must not be 0".to_owned()) } else { Ok(timeout) }
}
