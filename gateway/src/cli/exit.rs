//! How a command ends: one table of exit codes for all of them (docs/cli.md).
//!
//! | code | meaning |
//! |---|---|
//! | 0 | all went well; also if nobody reads standard output any more |
//! | 1 | the gateway, or who answered, refused; somebody was not found; or something failed here |
//! | 2 | the command line, or the file of contexts, makes no sense: nothing was done |
//! | 3 | nothing answers there |
//! | 4 | time was up; what was asked for may have been done |
//! | 5 | the connection broke under what must not be sent twice: it may have been done |

use std::process::ExitCode;

use streamgate_client::Error;

/// Exit code: refused, not found, or failed here.
pub(super) const FAILED: u8 = 1;
/// Exit code: the command line makes no sense.
pub(super) const USAGE: u8 = 2;
/// Exit code: nothing answers there.
pub(super) const UNREACHABLE: u8 = 3;
/// Exit code: time was up.
pub(super) const LATE: u8 = 4;
/// Exit code: the connection broke; it may have been done.
pub(super) const UNKNOWN: u8 = 5;

/// Why a command ends early.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The command line makes no sense.
    Usage(String),
    /// Something failed here.
    Failed(String),
    /// Something failed, and the exit code says what.
    Coded(u8, String),
    /// As [`Failure::Coded`], and everything is said already.
    Silent(u8),
    /// Nobody reads standard output any more, as after `| head`.
    OutputClosed,
}

impl Failure {
    /// Tells people, and answers the exit code.
    pub(super) fn report(self) -> ExitCode {
        let (code, text) = match self {
            Self::OutputClosed => return ExitCode::SUCCESS,
            Self::Silent(code) => return ExitCode::from(code),
            Self::Usage(text) => (USAGE, text),
            Self::Failed(text) => (FAILED, text),
            Self::Coded(code, text) => (code, text),
        };
        eprintln!("error: {text}");
        ExitCode::from(code)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match &error {
            _ if error.is_timeout() => LATE,
            Error::Server { .. } => FAILED,
            // Told not to come back.
            Error::Closed { .. } if !error.is_retryable() => FAILED,
            Error::OutcomeUnknown { .. } => UNKNOWN,
            Error::Invalid(_) | Error::InvalidUrl { .. } | Error::AlreadySubscribed(_) => {
                return Self::Usage(error.to_string());
            }
            _ => UNREACHABLE,
        };
        Self::Coded(code, error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Failed(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_can_tell_from_the_code_what_happened() {
        let code = |error: Error| match Failure::from(error) {
            Failure::Coded(code, _) => code,
            Failure::Usage(_) => USAGE,
            other => panic!("{other:?}"),
        };
        let server =
            |code: &str| Error::Server { code: code.into(), kind: String::new(), message: String::new() };
        assert_eq!((code(server("NO_PROXY")), code(server("RPC_TIMEOUT"))), (1, 4));
        assert_eq!(code(Error::Invalid(String::new())), 2);
        assert_eq!(code(Error::Unreachable { address: "a:1".into(), reason: "no route".into() }), 3);
        assert_eq!((code(Error::ConnectionLost(String::new())), code(Error::ClientClosed)), (3, 3));
        assert_eq!(code(Error::Timeout { what: "call" }), 4);
        let closed = |code| Error::Closed { code, reason: String::new() };
        assert_eq!((code(closed(3507)), code(closed(3512))), (1, 3));
        let cause = Box::new(Error::ConnectionLost(String::new()));
        assert_eq!(code(Error::OutcomeUnknown { what: "call", cause }), 5);
    }

    #[test]
    fn a_closed_output_is_no_failure() {
        let error = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert_eq!(Failure::from(error), Failure::OutputClosed);
    }
}
