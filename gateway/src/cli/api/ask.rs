//! `streamgate call` and `survey`: asking clients as the server.

use std::io::Write as _;

use clap::Args;
use serde_json::json;
use streamgate_client::{
    SurveyAnswer,
    server::{SurveyResult, Who},
};

use super::{
    ApiArgs,
    connect::{error_object, failure},
};
use crate::cli::{Failure, Format, exit::LATE, output, question::QuestionArgs, table::table};

/// Options of `call`.
#[derive(Debug, Args)]
#[command(
    override_usage = "streamgate call [OPTIONS] SESSION METHOD [DATA]\n       streamgate call [OPTIONS] --user USER METHOD [DATA]",
    after_help = "Prints the data of the reply, on a terminal on one harmless line.

Examples:
  streamgate call 5b0c2f1e-7c39-4a4b-9a43-0e4f6d1c7b11 screen.lock
  streamgate call --user ann order.confirm '{\"order\":17}' --timeout 30s"
)]
pub struct CallArgs {
    /// SESSION and METHOD to call; with --user the METHOD alone; then the DATA to send, `-`: standard input
    #[arg(required = true, num_args = 1..=3, value_name = "SESSION METHOD DATA")]
    pub words: Vec<String>,
    /// Call one of this user's sessions, by chance
    #[arg(long, value_name = "ID")]
    pub user: Option<String>,
    /// What is asked
    #[command(flatten)]
    pub question: QuestionArgs,
    /// Where the server API is
    #[command(flatten)]
    pub api: ApiArgs,
}

/// Options of `survey`.
#[derive(Debug, Args)]
#[command(
    after_help = "Ends when all have answered, or when time is up. The exit code is 4 if nobody has answered by then.

Examples:
  streamgate survey room.blue '{\"version\":\"?\"}'
  streamgate survey room.blue ping --timeout 2s -o json | jq -r .session_id"
)]
pub struct SurveyArgs {
    /// Channel whose subscribers to ask
    pub channel: String,
    /// Data to send, `-`: standard input
    pub data: Option<String>,
    /// What is asked
    #[command(flatten)]
    pub question: QuestionArgs,
    /// Where the server API is
    #[command(flatten)]
    pub api: ApiArgs,
}

pub(super) async fn call(args: CallArgs) -> Result<(), Failure> {
    let (who, method, given) = target(&args)?;
    let event = args.question.event(given).await?;
    let api = args.api.client()?;
    let reply = api.call(who, method, event, Some(args.question.timeout)).await.map_err(failure)?;
    args.question.print(&reply)
}

/// Who is called, by which method, with what.
fn target(args: &CallArgs) -> Result<(Who, &str, Option<&str>), Failure> {
    let words: Vec<_> = args.words.iter().map(String::as_str).collect();
    match (&args.user, words.as_slice()) {
        (None, [session, method, data @ ..]) => Ok((Who::session(*session), method, data.first().copied())),
        (Some(user), [method]) => Ok((Who::user(user), method, None)),
        (Some(user), [method, data]) => Ok((Who::user(user), method, Some(data))),
        (None, _) => Err(Failure::Usage("SESSION and METHOD are needed, or --user ID and METHOD".to_owned())),
        (Some(_), _) => Err(Failure::Usage("with --user there is no SESSION: METHOD [DATA]".to_owned())),
    }
}

pub(super) async fn survey(args: SurveyArgs) -> Result<(), Failure> {
    let event = args.question.event(args.data.as_deref()).await?;
    let api = args.api.client()?;
    let survey = api.survey(&args.channel, event, Some(args.question.timeout)).await.map_err(failure)?;
    let SurveyResult { answers, asked, truncated } = survey;
    let lines = match args.question.output {
        Format::Text => table(["SESSION", "ANSWER"], answers.iter().map(row)),
        Format::Json => answers.iter().map(object).collect(),
    };
    let mut out = std::io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    out.flush()?;
    if answers.is_empty() {
        return Err(Failure::Coded(LATE, format!("none of {asked} has answered in time")));
    }
    if truncated || answers.len() < asked as usize {
        let more = if truncated { ": the gateway passes no more on" } else { " in time" };
        eprintln!("{} of {asked} answered{more}", answers.len());
    }
    Ok(())
}

fn row(answer: &SurveyAnswer) -> [String; 2] {
    let text = match &answer.outcome {
        Ok(event) => output::data(event),
        Err(error) => format!("error: {error}"),
    };
    [answer.session_id.clone(), text]
}

fn object(answer: &SurveyAnswer) -> String {
    let object = json!({"session_id": answer.session_id});
    match &answer.outcome {
        Ok(event) => output::with_member(&object, "event", &output::event(event)),
        Err(error) => output::with_member(&object, "error", &error_object(error).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command, api::ApiCommand};

    fn args(line: &[&str]) -> CallArgs {
        let line = ["streamgate", "call"].iter().chain(line);
        match Cli::try_parse_from(line).unwrap().command {
            Some(Command::Api(ApiCommand::Call(args))) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_user_stands_for_the_session() {
        assert_eq!(target(&args(&["s", "m"])), Ok((Who::session("s"), "m", None)));
        assert_eq!(target(&args(&["s", "m", "-"])), Ok((Who::session("s"), "m", Some("-"))));
        assert_eq!(target(&args(&["--user", "u", "m", "d"])), Ok((Who::user("u"), "m", Some("d"))));
        for wrong in [&["m"][..], &["--user", "u", "s", "m", "d"]] {
            assert!(matches!(target(&args(wrong)), Err(Failure::Usage(_))), "{wrong:?}");
        }
    }
}
