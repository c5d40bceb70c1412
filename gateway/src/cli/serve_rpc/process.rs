//! The process that answers one call.

use streamgate_client::{Call, CallError};

use crate::cli::{
    data,
    program::{Program, Trouble, content_type},
};

/// Runs `program` for `call`; what it wrote to standard output.
///
/// Cancel: as [`Program::run`].
pub(super) async fn answer(program: &Program, call: &Call) -> Result<Vec<u8>, CallError> {
    let left = call.deadline.saturating_duration_since(std::time::Instant::now()).as_millis().to_string();
    let variables = [
        ("RPC_CHANNEL", call.channel.as_str()),
        ("RPC_METHOD", &call.method),
        ("RPC_REQUEST_ID", &call.request_id),
        ("RPC_CONTENT_TYPE", content_type(&call.event)),
        ("RPC_TIMEOUT_MS", &left),
    ];
    program.run(data::of(&call.event), &variables).await.map_err(error)
}

/// What the caller is told.
fn error(trouble: Trouble) -> CallError {
    let text = trouble.to_string();
    match trouble {
        Trouble::NotStarted => failed("NOT_STARTED", &text),
        Trouble::Lost(_) => failed("OUTPUT_FAILED", &text),
        Trouble::TooMuch(_) => CallError::new("TOO_LARGE", text).kind("limit_error"),
        Trouble::Exit(code, last_line) => failed(&format!("EXIT_{code}"), &last_line),
        Trouble::Signal(signal, last_line) => failed(&format!("SIGNAL_{signal}"), &last_line),
    }
}

fn failed(code: &str, message: &str) -> CallError {
    CallError::new(code, message).kind("command_error")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_get_a_code_and_the_last_line() {
        let told = |trouble| {
            let error = error(trouble);
            (error.code, error.message)
        };
        assert_eq!(told(Trouble::Exit(3, "why".into())), ("EXIT_3".into(), "why".into()));
        assert_eq!(told(Trouble::Signal(9, "x".into())), ("SIGNAL_9".into(), "x".into()));
        assert_eq!(
            told(Trouble::TooMuch(4)),
            ("TOO_LARGE".into(), "the command wrote more than 4 bytes".into())
        );
        assert_eq!(told(Trouble::NotStarted).0, "NOT_STARTED");
    }
}
