//! How these commands reach the server API, and what their failures mean.

use std::{fs, path::PathBuf};

use clap::Args;
use serde_json::{Value, json};
use streamgate_client::{Error, server::ApiClient};

use crate::cli::Failure;

/// Exit code: refused, or not found.
pub(super) const REFUSED: u8 = 1;
/// Exit code: nothing answers there.
const UNREACHABLE: u8 = 3;
/// Exit code: time was up.
pub(super) const LATE: u8 = 4;
/// Exit code: the connection broke; it may have been carried out.
const UNKNOWN: u8 = 5;

/// Where the server API is, and who asks.
#[derive(Debug, Args)]
pub struct ApiArgs {
    /// The gateway's admin listener: http://host:port or https://host:port
    #[arg(long = "api", value_name = "URL", env = "STREAMGATE_API", default_value = "http://127.0.0.1:8080")]
    pub url: String,
    /// Token for the server API (`api.tokens`); in a file it is not seen by others of this machine
    #[arg(long = "api-token", value_name = "TOKEN", env = "STREAMGATE_API_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// The same in a file; white space at its end does not count
    #[arg(
        long = "api-token-file",
        value_name = "FILE",
        env = "STREAMGATE_API_TOKEN_FILE",
        conflicts_with = "token"
    )]
    pub token_file: Option<PathBuf>,
    /// Authorities that may have signed the listener's certificate, PEM [default: those of the system]
    #[arg(long, value_name = "FILE", env = "STREAMGATE_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// Own certificate, PEM, for listeners that ask for one
    #[arg(long, value_name = "FILE", env = "STREAMGATE_CERT_FILE", requires = "key_file")]
    pub cert_file: Option<PathBuf>,
    /// Key of the own certificate, PEM
    #[arg(long, value_name = "FILE", env = "STREAMGATE_KEY_FILE", requires = "cert_file")]
    pub key_file: Option<PathBuf>,
}

impl ApiArgs {
    /// A client; it connects with the first request.
    pub(super) fn client(&self) -> Result<ApiClient, Failure> {
        let mut builder = ApiClient::builder(&self.url);
        if let Some(token) = self.token()? {
            builder = builder.token(token);
        }
        if let Some(file) = &self.ca_file {
            builder = builder.ca_file(file);
        }
        if let (Some(certificate), Some(key)) = (&self.cert_file, &self.key_file) {
            builder = builder.identity(certificate, key);
        }
        Ok(builder.build()?)
    }

    fn token(&self) -> Result<Option<String>, Failure> {
        let Some(file) = &self.token_file else { return Ok(self.token.clone()) };
        match fs::read_to_string(file) {
            Ok(text) => Ok(Some(text.trim_end().to_owned())),
            Err(error) => Err(Failure::Usage(format!("{} cannot be read: {error}", file.display()))),
        }
    }
}

/// What a failed request means for the exit code, and what to do about it where that is clear.
pub(super) fn failure(error: Error) -> Failure {
    let (code, text) = match &error {
        _ if error.is_timeout() => (LATE, error.to_string()),
        Error::Server { code, .. } if code == "AUTH_ERROR" => {
            (REFUSED, format!("{error} (see --api-token-file)"))
        }
        Error::Server { .. } => (REFUSED, error.to_string()),
        Error::OutcomeUnknown { .. } => (UNKNOWN, error.to_string()),
        Error::Unreachable { address, reason } if reason == "connection refused" => {
            (UNREACHABLE, format!("no server API at {address}: is `streamgate serve` running? (see --api)"))
        }
        Error::Invalid(_) | Error::InvalidUrl { .. } => return error.into(),
        _ => (UNREACHABLE, error.to_string()),
    };
    Failure::Coded(code, text)
}

/// An error as JSON, as the API's own has it.
pub(super) fn error_object(error: &Error) -> Value {
    match error {
        Error::Server { code, kind, message } => json!({"code": code, "type": kind, "message": message}),
        other => json!({"message": other.to_string()}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_can_tell_from_the_code_what_happened() {
        let code = |error| match failure(error) {
            Failure::Coded(code, _) => code,
            Failure::Usage(_) => 2,
            other => panic!("{other:?}"),
        };
        let server =
            |code: &str| Error::Server { code: code.into(), kind: String::new(), message: String::new() };
        assert_eq!((code(server("NOT_FOUND")), code(server("ACL_ERROR"))), (1, 1));
        assert_eq!(code(Error::Invalid(String::new())), 2);
        assert_eq!(code(Error::Unreachable { address: "a:1".into(), reason: "no route".into() }), 3);
        assert_eq!(code(Error::ConnectionLost(String::new())), 3);
        assert_eq!((code(server("RPC_TIMEOUT")), code(Error::Timeout { what: "nodes" })), (4, 4));
        let cause = Box::new(Error::ConnectionLost(String::new()));
        assert_eq!(code(Error::OutcomeUnknown { what: "call", cause }), 5);
    }
}
