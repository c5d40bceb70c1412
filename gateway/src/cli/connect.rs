//! How the client commands reach a gateway.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use streamgate_client::{Builder, Client, Encoding, Error};

use super::{
    Failure,
    context::{self, Context},
    exit::{FAILED, UNREACHABLE},
};

/// Where a gateway is if nobody says otherwise.
const SERVER: &str = "127.0.0.1:9080";

/// Where the gateway is, and who asks. What is not given comes from the context.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub struct ConnectArgs {
    /// Gateway: ws://host:port/ws, grpc://host:port (with TLS wss, grpcs) or host:port; several nodes may be given
    /// [default: 127.0.0.1:9080]
    #[arg(long = "server", value_name = "URL", env = "STREAMGATE_URL", value_delimiter = ',')]
    pub servers: Vec<String>,
    /// Which of the contexts in ~/.config/streamgate/cli.yaml says what is not given here
    #[arg(long, value_name = "NAME", env = context::VARIABLE)]
    pub context: Option<String>,
    /// Encoding of the frames; gRPC always uses proto
    #[arg(long, default_value = "json")]
    pub encoding: WireEncoding,
    /// Credential for the gateway's authentication; in a file it is not seen by others of this machine
    #[arg(long, env = "STREAMGATE_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// The same in a file; white space at its end does not count
    #[arg(long, value_name = "FILE", env = "STREAMGATE_TOKEN_FILE", conflicts_with = "token")]
    pub token_file: Option<PathBuf>,
    /// Authorities that may have signed the gateway's certificate, PEM [default: those of the system]
    #[arg(long, value_name = "FILE", env = "STREAMGATE_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// Own certificate, PEM, for gateways that ask for one
    #[arg(long, value_name = "FILE", env = "STREAMGATE_CERT_FILE", requires = "key_file")]
    pub cert_file: Option<PathBuf>,
    /// Key of the own certificate, PEM
    #[arg(long, value_name = "FILE", env = "STREAMGATE_KEY_FILE", requires = "cert_file")]
    pub key_file: Option<PathBuf>,
    /// What to call itself [default: streamgate-cli]
    #[arg(long, value_name = "ID", env = "STREAMGATE_CLIENT_ID")]
    pub client_id: Option<String>,
}

/// `--encoding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WireEncoding {
    /// Proto3 JSON in text frames
    Json,
    /// Protobuf in binary frames
    Proto,
}

impl ConnectArgs {
    /// A connected client.
    pub(super) async fn connect(&self) -> Result<Client, Failure> {
        let settings = self.settings()?;
        let connected = settings.builder(&settings.servers)?.connect().await;
        connected.map_err(|error| explain(error, settings.servers.len()))
    }

    /// A client that answers with frames of so many bytes at most, connected.
    pub(super) async fn connect_to_answer(&self, bytes: usize) -> Result<Client, Failure> {
        let settings = self.settings()?;
        let connected = settings.builder(&settings.servers)?.answer_bytes(bytes).connect().await;
        connected.map_err(|error| explain(error, settings.servers.len()))
    }

    /// What holds, the context taken in.
    pub(super) fn settings(&self) -> Result<Settings, Failure> {
        let context = Context::load(self.context.as_deref())?;
        let servers = if self.servers.is_empty() { context.server.list() } else { self.servers.clone() };
        let own = (&self.token, &self.token_file);
        let (token, file) =
            if matches!(own, (None, None)) { (&context.token, &context.token_file) } else { own };
        let token = match (token, file) {
            (Some(token), _) => Some(token.clone()),
            (None, Some(file)) => Some(context::secret(file)?),
            (None, None) => None,
        };
        Ok(Settings {
            servers: if servers.is_empty() { vec![SERVER.to_owned()] } else { servers },
            encoding: match self.encoding {
                WireEncoding::Json => Encoding::Json,
                WireEncoding::Proto => Encoding::Protobuf,
            },
            token,
            ca_file: self.ca_file.clone().or(context.ca_file),
            identity: self
                .cert_file
                .clone()
                .or(context.cert_file)
                .zip(self.key_file.clone().or(context.key_file)),
            client_id: self.client_id.clone().or(context.client_id),
        })
    }
}

/// How to connect.
pub(super) struct Settings {
    /// Never empty.
    pub servers: Vec<String>,
    encoding: Encoding,
    token: Option<String>,
    ca_file: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
    client_id: Option<String>,
}

impl Settings {
    /// For a client of these nodes.
    pub(super) fn builder(&self, servers: &[String]) -> Result<Builder, Failure> {
        let (first, others) =
            servers.split_first().ok_or_else(|| Failure::Usage("--server needs a URL".to_owned()))?;
        let mut builder = others.iter().fold(Client::builder(first), |builder, url| builder.node(url));
        builder = builder.encoding(self.encoding);
        builder = builder.client_id(self.client_id.as_deref().unwrap_or("streamgate-cli"));
        if let Some(token) = &self.token {
            builder = builder.token(token);
        }
        if let Some(file) = &self.ca_file {
            builder = builder.ca_file(file);
        }
        if let Some((certificate, key)) = &self.identity {
            builder = builder.identity(certificate, key);
        }
        Ok(builder)
    }
}

/// What to do about it, where that is clear.
pub(super) fn explain(error: Error, servers: usize) -> Failure {
    match error {
        Error::Unreachable { address, reason } if reason == "connection refused" => {
            let others =
                if servers > 1 { format!(" nor at the {} others", servers - 1) } else { String::new() };
            Failure::Coded(
                UNREACHABLE,
                format!("no gateway at {address}{others}: is `streamgate serve` running?"),
            )
        }
        Error::Server { code, message, .. } if code == "AUTH_ERROR" => {
            Failure::Coded(FAILED, format!("the gateway refuses the token: {message} (see --token)"))
        }
        // Nothing was asked yet.
        late if late.is_timeout() => Failure::Coded(UNREACHABLE, late.to_string()),
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_gateway_is_explained() {
        let refused = || Error::Unreachable { address: "a:1".into(), reason: "connection refused".into() };
        let text = "no gateway at a:1: is `streamgate serve` running?";
        assert_eq!(explain(refused(), 1), Failure::Coded(UNREACHABLE, text.into()));
        let text = "no gateway at a:1 nor at the 2 others: is `streamgate serve` running?";
        assert_eq!(explain(refused(), 3), Failure::Coded(UNREACHABLE, text.into()));
    }
}
