//! How these commands reach the server API, and what their failures mean.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use streamgate_client::{Error, server::ApiClient};

use crate::cli::{
    Failure,
    context::{self, Context},
    exit::{FAILED, UNREACHABLE},
};

/// Where the server API is if nobody says otherwise.
const URL: &str = "http://127.0.0.1:8080";

/// Where the server API is, and who asks. What is not given comes from the context.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub struct ApiArgs {
    /// The gateway's admin listener: http://host:port or https://host:port [default: http://127.0.0.1:8080]
    #[arg(long = "api", value_name = "URL", env = "STREAMGATE_API")]
    pub url: Option<String>,
    /// Which of the contexts in ~/.config/streamgate/cli.yaml says what is not given here
    #[arg(long, value_name = "NAME", env = context::VARIABLE)]
    pub context: Option<String>,
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
        let context = Context::load(self.context.as_deref())?;
        let mut builder =
            ApiClient::builder(self.url.as_ref().or(context.api.as_ref()).map_or(URL, String::as_str));
        let own = (&self.token, &self.token_file);
        let of_context = (&context.api_token, &context.api_token_file);
        builder = match if matches!(own, (None, None)) { of_context } else { own } {
            (Some(token), _) => builder.token(token),
            (None, Some(file)) => builder.token(context::secret(file)?),
            (None, None) => builder,
        };
        if let Some(file) = self.ca_file.as_ref().or(context.ca_file.as_ref()) {
            builder = builder.ca_file(file);
        }
        let certificate = self.cert_file.as_ref().or(context.cert_file.as_ref());
        if let Some((certificate, key)) =
            certificate.zip(self.key_file.as_ref().or(context.key_file.as_ref()))
        {
            builder = builder.identity(certificate, key);
        }
        Ok(builder.build()?)
    }
}

/// What a failed request means for the exit code, and what to do about it where that is clear.
pub(super) fn failure(error: Error) -> Failure {
    match &error {
        Error::Server { code, .. } if code == "AUTH_ERROR" => {
            Failure::Coded(FAILED, format!("{error} (see --api-token-file)"))
        }
        Error::Unreachable { address, reason } if reason == "connection refused" => Failure::Coded(
            UNREACHABLE,
            format!("no server API at {address}: is `streamgate serve` running? (see --api)"),
        ),
        _ => error.into(),
    }
}

/// An error as JSON, as the API's own has it.
pub(super) fn error_object(error: &Error) -> Value {
    match error {
        Error::Server { code, kind, message } => json!({"code": code, "type": kind, "message": message}),
        other => json!({"message": other.to_string()}),
    }
}
