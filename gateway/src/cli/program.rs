//! A program that is run for one call or message: its data is standard input, never a part of a command line. No shell is
//! involved.

use std::{ffi::OsString, fmt, os::unix::process::ExitStatusExt as _, process::Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use streamgate_client::{CloudEvent, proto::cloudevents::Attr};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command},
};

use super::output;

/// How much of the end of standard error is kept.
const TAIL: usize = 4 * 1024;
/// Characters of its last line that are told.
const LAST_LINE: usize = 500;

/// What runs.
#[derive(Debug)]
pub(super) struct Program {
    path: OsString,
    args: Vec<OsString>,
    /// Bytes of standard output that are read at most; none: it is that of this process.
    most: Option<usize>,
}

/// Why it did not go well.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It cannot be started.
    NotStarted,
    /// Its output cannot be read, or its end is not known.
    Lost(&'static str),
    /// It wrote more than so many bytes.
    TooMuch(usize),
    /// It ended with this code, and this was the last line of its standard error.
    Exit(i32, String),
    /// A signal ended it; the same.
    Signal(i32, String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted => f.write_str("the command cannot be started"),
            Self::Lost(what) => f.write_str(what),
            Self::TooMuch(most) => write!(f, "the command wrote more than {most} bytes"),
            Self::Exit(code, line) => write!(f, "exit code {code}: {line}"),
            Self::Signal(signal, line) => write!(f, "signal {signal}: {line}"),
        }
    }
}

impl Program {
    /// A program whose output is read, up to so many bytes.
    ///
    /// # Errors
    /// There is nothing to run.
    pub(super) fn read(command: &[OsString], most: usize) -> Result<Self, String> {
        Self::new(command, Some(most))
    }

    /// A program that writes to the standard output of this process.
    ///
    /// # Errors
    /// There is nothing to run.
    pub(super) fn passed_on(command: &[OsString]) -> Result<Self, String> {
        Self::new(command, None)
    }

    fn new(command: &[OsString], most: Option<usize>) -> Result<Self, String> {
        match command {
            [path, args @ ..] if !path.is_empty() => {
                Ok(Self { path: path.clone(), args: args.to_vec(), most })
            }
            _ => Err("--command needs a program".to_owned()),
        }
    }

    /// Runs it with `input` as standard input and more variables in its environment; what was read of its output.
    ///
    /// Cancel: it is killed, with everything that it started and that stayed in its process group.
    pub(super) async fn run(&self, input: &[u8], variables: &[(&str, &str)]) -> Result<Vec<u8>, Trouble> {
        let mut running = Running(self.command(variables).spawn().map_err(|error| {
            eprintln!("error: {} cannot be started: {error}", self.path.display());
            Trouble::NotStarted
        })?);
        let child = &mut running.0;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let write = async {
            if let Some(mut stdin) = stdin {
                // It need not read what it is given.
                let _ = stdin.write_all(input).await;
            }
        };
        let io = async {
            let rest = async { Ok(tokio::join!(write, pass_on(stderr))) };
            // Ends at once, and with it the process, if there is too much to read.
            tokio::try_join!(self.output(stdout), rest)
        };
        let (written, ((), last_line)) = io.await?;
        // Only now it may be forgotten by the system: until here its number is nobody else's, and can be killed.
        let status = running.0.wait().await.map_err(|error| {
            eprintln!("error: the end of {} is not known: {error}", self.path.display());
            Trouble::Lost("the end of the command is not known")
        })?;
        match (status.code(), status.signal()) {
            (Some(0), _) => Ok(written),
            (Some(code), _) => Err(Trouble::Exit(code, last_line)),
            (None, signal) => Err(Trouble::Signal(signal.unwrap_or_default(), last_line)),
        }
    }

    /// All that it writes.
    async fn output(&self, stdout: Option<impl AsyncRead + Unpin>) -> Result<Vec<u8>, Trouble> {
        let mut bytes = Vec::new();
        let (Some(stdout), Some(most)) = (stdout, self.most) else { return Ok(bytes) };
        stdout.take(most as u64 + 1).read_to_end(&mut bytes).await.map_err(|error| {
            eprintln!("error: the output of {} cannot be read: {error}", self.path.display());
            Trouble::Lost("the output of the command cannot be read")
        })?;
        if bytes.len() > most { Err(Trouble::TooMuch(most)) } else { Ok(bytes) }
    }

    fn command(&self, variables: &[(&str, &str)]) -> Command {
        let mut command = Command::new(&self.path);
        command
            .args(&self.args)
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(if self.most.is_some() { Stdio::piped() } else { Stdio::inherit() })
            .stderr(Stdio::piped())
            // Its own group: a key at the terminal is for this process, and it is killed with its children.
            .process_group(0)
            .kill_on_drop(true);
        command
    }
}

/// The media type of an event's data; empty if it has none.
pub(super) fn content_type(event: &CloudEvent) -> &str {
    match event.attributes.get("datacontenttype").and_then(|value| value.attr.as_ref()) {
        Some(Attr::CeString(media_type)) => media_type,
        _ => "",
    }
}

/// Kills its group when it is dropped before it was waited for.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // None once it was waited for: the number may be another one's then.
        let pid = self.0.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        if let Some(pid) = pid {
            // An error means that all of them have ended.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

/// Writes standard error on to that of this process; its last line, harmless for a terminal.
async fn pass_on(pipe: Option<impl AsyncRead + Unpin>) -> String {
    let (mut tail, mut buffer) = (Vec::new(), [0; TAIL]);
    if let Some(mut pipe) = pipe {
        while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
            let bytes = &buffer[..read];
            // It is only for people: if nobody reads it, the call is answered all the same.
            let _ = std::io::Write::write_all(&mut std::io::stderr(), bytes);
            tail.extend_from_slice(bytes);
            tail.drain(..tail.len().saturating_sub(TAIL));
        }
    }
    last_line(&tail)
}

fn last_line(tail: &[u8]) -> String {
    let text = String::from_utf8_lossy(tail);
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("the command failed");
    output::printable(line).chars().take(LAST_LINE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_that_says_something_is_the_message() {
        assert_eq!(last_line(b"one\ntwo\n\n  \n"), "two");
        assert_eq!(last_line(b"\xff\x1b[2J"), "\u{fffd}\\u{1b}[2J");
        assert_eq!(last_line(b""), "the command failed");
        assert_eq!(last_line("ä".repeat(2_000).as_bytes()).chars().count(), LAST_LINE);
    }

    #[tokio::test]
    async fn output_is_read_whole_or_not_at_all() {
        let program = Program::read(&["x".into()], 4).unwrap();
        assert_eq!(program.output(Some(&b"1234"[..])).await.unwrap(), b"1234");
        assert_eq!(program.output(Some(&b"12345"[..])).await, Err(Trouble::TooMuch(4)));
        assert!(Program::read(&[], 4).is_err() && Program::passed_on(&["".into()]).is_err());
    }

    #[tokio::test]
    async fn how_it_ended_is_told() {
        let run = async |script: &str| {
            let command = ["sh", "-c", script].map(OsString::from);
            Program::read(&command, 64).unwrap().run(b"in", &[("NAME", "value; $(x)")]).await
        };
        assert_eq!(run("cat; printf ' %s' \"$NAME\"").await, Ok(b"in value; $(x)".to_vec()));
        assert_eq!(run("echo why >&2; exit 3").await, Err(Trouble::Exit(3, "why".to_owned())));
        assert_eq!(run("kill -9 $$").await, Err(Trouble::Signal(9, "the command failed".to_owned())));
        let missing = Program::read(&["/nowhere/program".into()], 64).unwrap();
        assert_eq!(missing.run(b"", &[]).await, Err(Trouble::NotStarted));
    }
}
