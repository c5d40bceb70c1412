//! `streamgate req`.

use clap::Args;
use streamgate_client::CallOptions;

use super::{ConnectArgs, Failure, question::QuestionArgs};

/// Options of `req`.
#[derive(Debug, Args)]
#[command(
    override_usage = "streamgate req [OPTIONS] CHANNEL METHOD [DATA]\n       streamgate req [OPTIONS] --session ID METHOD [DATA]",
    after_help = "Prints the data of the reply, on a terminal on one harmless line.

Exit codes: 0 answered; 1 an error was answered; 2 the command line makes no sense; 3 no connection: nothing
was called; 4 no answer in time, 5 the connection broke meanwhile: the call may have been carried out.

Examples:
  streamgate req shop.7 text.echo hello
  streamgate req shop.7 math.sum - --timeout 2s <numbers.json
  streamgate req --session 5b0c2f1e-7c39-4a4b-9a43-0e4f6d1c7b11 status"
)]
pub struct ReqArgs {
    /// CHANNEL and METHOD to call; with --session the METHOD alone; then the DATA to send, `-`: standard input
    #[arg(required = true, num_args = 1..=3, value_name = "CHANNEL METHOD DATA")]
    pub words: Vec<String>,
    /// Call this session, and nobody else
    #[arg(long, value_name = "ID")]
    pub session: Option<String>,
    /// What is asked.
    #[command(flatten)]
    pub question: QuestionArgs,
    /// Where the gateway is
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// Who is called with what.
#[derive(Debug, PartialEq, Eq)]
struct Target<'a> {
    /// `None`: the session.
    channel: Option<&'a str>,
    method: &'a str,
    data: Option<&'a str>,
}

pub(super) async fn run(args: ReqArgs) -> Result<(), Failure> {
    let target = target(&args)?;
    let event = args.question.event(target.data).await?;
    let client = args.connect.connect().await?;
    let options = CallOptions { timeout: Some(args.question.timeout) };
    let reply = match (target.channel, &args.session) {
        (None, Some(session)) => client.call_session(session, target.method, event, options).await,
        (channel, _) => client.call(channel.unwrap_or_default(), target.method, event, options).await,
    };
    client.close().await;
    args.question.print(&reply?)
}

fn target(args: &ReqArgs) -> Result<Target<'_>, Failure> {
    let words: Vec<_> = args.words.iter().map(String::as_str).collect();
    match (args.session.is_some(), words.as_slice()) {
        (false, [channel, method, data @ ..]) => {
            Ok(Target { channel: Some(channel), method, data: data.first().copied() })
        }
        (true, [method]) => Ok(Target { channel: None, method, data: None }),
        (true, [method, data]) => Ok(Target { channel: None, method, data: Some(data) }),
        (false, _) => {
            Err(Failure::Usage("CHANNEL and METHOD are needed, or --session ID and METHOD".to_owned()))
        }
        (true, _) => Err(Failure::Usage("with --session there is no CHANNEL: METHOD [DATA]".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn args(line: &[&str]) -> ReqArgs {
        let line = ["streamgate", "req"].iter().chain(line);
        match Cli::try_parse_from(line).unwrap().command {
            Some(Command::Req(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_session_stands_for_the_channel() {
        let expected = Target { channel: Some("a"), method: "m", data: None };
        assert_eq!(target(&args(&["a", "m"])), Ok(expected));
        let expected = Target { channel: Some("a"), method: "m", data: Some("-") };
        assert_eq!(target(&args(&["a", "m", "-"])), Ok(expected));
        let expected = Target { channel: None, method: "m", data: Some("d") };
        assert_eq!(target(&args(&["--session", "s", "m", "d"])), Ok(expected));
        for wrong in [&["m"][..], &["--session", "s", "a", "m", "d"]] {
            assert!(matches!(target(&args(wrong)), Err(Failure::Usage(_))), "{wrong:?}");
        }
    }
}
