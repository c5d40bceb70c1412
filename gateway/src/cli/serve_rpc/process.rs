//! The process that answers one call.

use std::{ffi::OsString, os::unix::process::ExitStatusExt as _, process::Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use streamgate_client::{Call, CallError, proto::cloudevents::Attr};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command},
};

use super::{data, output};

/// How much of the end of standard error is kept for the error of a call.
const TAIL: usize = 4 * 1024;
/// Characters of its last line that the caller gets.
const LAST_LINE: usize = 500;

/// What runs for each call.
#[derive(Debug)]
pub(super) struct Program {
    path: OsString,
    args: Vec<OsString>,
    /// Bytes of standard output that are read at most.
    most: usize,
}

impl Program {
    /// # Errors
    /// There is nothing to run.
    pub(super) fn new(command: &[OsString], most: usize) -> Result<Self, String> {
        match command {
            [path, args @ ..] if !path.is_empty() => {
                Ok(Self { path: path.clone(), args: args.to_vec(), most })
            }
            _ => Err("--command needs a program".to_owned()),
        }
    }

    /// Runs it for `call`; what it wrote to standard output.
    ///
    /// Cancel: it is killed, with everything that it started and that stayed in its process group.
    pub(super) async fn answer(&self, call: &Call) -> Result<Vec<u8>, CallError> {
        let mut running = Running(self.command(call).spawn().map_err(|error| {
            eprintln!("error: {} cannot be started: {error}", self.path.display());
            failed("NOT_STARTED", "the command cannot be started")
        })?);
        let child = &mut running.0;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let write = async {
            if let Some(mut stdin) = stdin {
                // It need not read what it is given.
                let _ = stdin.write_all(data::of(&call.event)).await;
            }
        };
        let io = async {
            let rest = async { Ok(tokio::join!(write, pass_on(stderr))) };
            // Ends at once, and with it the process, if there is too much to read.
            tokio::try_join!(self.read(stdout), rest)
        };
        let (written, ((), last_line)) = io.await?;
        // Only now it may be forgotten by the system: until here its number is nobody else's, and can be killed.
        let status = running.0.wait().await.map_err(|error| {
            eprintln!("error: the end of {} is not known: {error}", self.path.display());
            failed("OUTPUT_FAILED", "the end of the command is not known")
        })?;
        match (status.code(), status.signal()) {
            (Some(0), _) => Ok(written),
            (Some(code), _) => Err(failed(&format!("EXIT_{code}"), &last_line)),
            (None, signal) => Err(failed(&format!("SIGNAL_{}", signal.unwrap_or_default()), &last_line)),
        }
    }

    /// All that it writes.
    async fn read(&self, stdout: Option<impl AsyncRead + Unpin>) -> Result<Vec<u8>, CallError> {
        let mut bytes = Vec::new();
        if let Some(stdout) = stdout {
            stdout.take(self.most as u64 + 1).read_to_end(&mut bytes).await.map_err(|error| {
                eprintln!("error: the output of {} cannot be read: {error}", self.path.display());
                failed("OUTPUT_FAILED", "the output of the command cannot be read")
            })?;
        }
        if bytes.len() > self.most {
            let text = format!("the command wrote more than {} bytes", self.most);
            return Err(CallError::new("TOO_LARGE", text).kind("limit_error"));
        }
        Ok(bytes)
    }

    fn command(&self, call: &Call) -> Command {
        let left = call.deadline.saturating_duration_since(std::time::Instant::now());
        let content_type =
            match call.event.attributes.get("datacontenttype").and_then(|value| value.attr.as_ref()) {
                Some(Attr::CeString(media_type)) => media_type.as_str(),
                _ => "",
            };
        let mut command = Command::new(&self.path);
        command
            .args(&self.args)
            .env("RPC_CHANNEL", &call.channel)
            .env("RPC_METHOD", &call.method)
            .env("RPC_REQUEST_ID", &call.request_id)
            .env("RPC_CONTENT_TYPE", content_type)
            .env("RPC_TIMEOUT_MS", left.as_millis().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Its own group: a key at the terminal is for this process, and it is killed with its children.
            .process_group(0)
            .kill_on_drop(true);
        command
    }
}

fn failed(code: &str, message: &str) -> CallError {
    CallError::new(code, message).kind("command_error")
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
        let program = Program::new(&["x".into()], 4).unwrap();
        assert_eq!(program.read(Some(&b"1234"[..])).await.unwrap(), b"1234");
        assert_eq!(program.read(Some(&b"12345"[..])).await.unwrap_err().code, "TOO_LARGE");
        assert!(Program::new(&[], 4).is_err() && Program::new(&["".into()], 4).is_err());
    }
}
