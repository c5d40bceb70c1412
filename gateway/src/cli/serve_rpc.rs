//! `streamgate serve-rpc`.

use std::{ffi::OsString, io::Write as _, sync::Arc, time::Instant};

use clap::Args;
use serde_json::json;
use streamgate_client::{Call, Client, CloudEvent, CloudEventBuilder, ServeOptions, Serving};
use tokio::sync::mpsc;

use super::{
    ConnectArgs, Failure, Format, data, output, program::Program, signals::Signals, stream::tell_connection,
};

mod process;

/// Options of `serve-rpc`.
#[derive(Debug, Args)]
#[command(
    after_help = "A process runs for each call: the data of the call is its standard input, what it writes to standard output is
the data of the reply. No shell is involved. It finds in its environment RPC_CHANNEL, RPC_METHOD,
RPC_REQUEST_ID, RPC_CONTENT_TYPE and RPC_TIMEOUT_MS; all of them come from the caller.

If it ends with another code than 0, the caller gets the error EXIT_<code> (SIGNAL_<number> if a signal ended it) with
the last line of its standard error. When nobody waits any more, it is killed with everything that it started. SIGINT or
SIGTERM takes the offer back and waits for the calls under way; a second one does not wait.

A line is printed for each call: channel, method, request id, `ok` or the code of the error, milliseconds.

Examples:
  streamgate serve-rpc text.upper --command tr a-z A-Z
  streamgate serve-rpc 'jobs.*' --concurrency 2 --command ./job --verbose"
)]
pub struct ServeRpcArgs {
    /// Methods to answer: a name, or a pattern with `*` and a last `**`
    pub method: String,
    /// Calls at a time; others wait their turn
    #[arg(long, value_name = "N", default_value = "8", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: u16,
    /// Largest reply, as a frame: the gateway's `limits.frame_bytes`
    #[arg(long, value_name = "BYTES", default_value = "65536", value_parser = clap::value_parser!(u32).range(1024..))]
    pub max_reply: u32,
    /// Media type of the replies [default: application/json if it is JSON, else text/plain]
    #[arg(long, value_name = "MEDIA_TYPE")]
    pub content_type: Option<String>,
    /// How to print
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: Format,
    /// Where the gateway is
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// Program and its arguments; takes the rest of the line
    #[arg(long, required = true, num_args = 1.., allow_hyphen_values = true, value_names = ["PROGRAM", "ARGS"])]
    pub command: Vec<OsString>,
}

pub(super) async fn run(args: ServeRpcArgs) -> Result<(), Failure> {
    // From the start: a signal must not end this process without its calls.
    let mut stop = Signals::listen()?;
    let most = args.max_reply as usize;
    let client = args.connect.connect_to_answer(most).await?;
    let notes = tokio::spawn(tell_connection(client.status()));
    let (told, lines) = mpsc::unbounded_channel();
    let mut serving = offer(&client, &args, told).await?;
    let session = client.session_id().unwrap_or_default();
    eprintln!("serving {} as session {session}", args.method);
    let mut printing = tokio::spawn(print_all(lines));
    let outcome = tokio::select! {
        error = serving.ended() => Err(error.into()),
        () = output::closed() => Err(Failure::OutputClosed),
        () = stop.received() => tokio::select! {
            () = serving.stop() => {
                // It ends with the handler. Its panic would have been seen.
                let _ = (&mut printing).await;
                Ok(())
            }
            () = stop.received() => Ok(()),
        },
    };
    notes.abort();
    client.close().await;
    outcome
}

async fn offer(
    client: &Client,
    args: &ServeRpcArgs,
    told: mpsc::UnboundedSender<String>,
) -> Result<Serving, Failure> {
    let most = args.max_reply as usize;
    let program = Arc::new(Program::read(&args.command, most).map_err(Failure::Usage)?);
    let (format, content_type) = (args.output, args.content_type.clone());
    let options = ServeOptions::new(&args.method).concurrency(args.concurrency.into());
    let handler = move |call: Call| {
        let (program, told, content_type) = (program.clone(), told.clone(), content_type.clone());
        async move {
            // A call that is given up is told as well.
            let mut report = Report::new(format, &call, told);
            let outcome =
                process::answer(&program, &call).await.map(|data| reply(&data, content_type.as_deref()));
            report.outcome =
                outcome.as_ref().err().map_or_else(|| "ok".to_owned(), |error| error.code.clone());
            outcome
        }
    };
    Ok(client.serve(options, handler).await?)
}

fn reply(data: &[u8], content_type: Option<&str>) -> CloudEvent {
    let builder = CloudEventBuilder::new("streamgate.reply").source("/streamgate-cli");
    data::with(builder, data, content_type).build()
}

/// Tells of one call when it is over.
struct Report {
    format: Format,
    call: [String; 3],
    outcome: String,
    started: Instant,
    told: mpsc::UnboundedSender<String>,
}

impl Report {
    fn new(format: Format, call: &Call, told: mpsc::UnboundedSender<String>) -> Self {
        let call = [call.channel.clone(), call.method.clone(), call.request_id.clone()];
        Self { format, call, outcome: "GIVEN_UP".to_owned(), started: Instant::now(), told }
    }

    fn line(&self) -> String {
        let ([channel, method, request_id], ms) = (&self.call, self.started.elapsed().as_millis());
        match self.format {
            Format::Text => {
                output::printable(&format!("{channel} {method} {request_id} {} {ms} ms", self.outcome))
            }
            Format::Json => json!({
                "channel": channel,
                "method": method,
                "request_id": request_id,
                "outcome": self.outcome,
                "ms": u64::try_from(ms).unwrap_or(u64::MAX),
            })
            .to_string(),
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        // An error means that nobody prints any more.
        let _ = self.told.send(self.line());
    }
}

async fn print_all(mut lines: mpsc::UnboundedReceiver<String>) {
    while let Some(line) = lines.recv().await {
        let mut out = std::io::stdout().lock();
        if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
            // That is noticed elsewhere, and ends the command.
            return;
        }
    }
}
