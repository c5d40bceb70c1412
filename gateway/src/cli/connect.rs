//! How the client commands reach a gateway.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use streamgate_client::{Builder, Client, Encoding, Error};

use super::Failure;

/// Where the gateway is, and who asks.
#[derive(Debug, Args)]
pub struct ConnectArgs {
    /// Gateway: ws://host:port/ws, grpc://host:port (with TLS wss, grpcs) or host:port; several nodes may be given
    #[arg(
        long = "server",
        value_name = "URL",
        env = "STREAMGATE_URL",
        value_delimiter = ',',
        default_value = "127.0.0.1:9080"
    )]
    pub servers: Vec<String>,
    /// Encoding of the frames; gRPC always uses proto
    #[arg(long, default_value = "json")]
    pub encoding: WireEncoding,
    /// Credential for the gateway's authentication
    #[arg(long, env = "STREAMGATE_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
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
        let connected = self.builder()?.connect().await;
        connected.map_err(|error| explain(error, self.servers.len()))
    }

    /// A client that answers with frames of so many bytes at most, connected.
    pub(super) async fn connect_to_answer(&self, bytes: usize) -> Result<Client, Failure> {
        let connected = self.builder()?.answer_bytes(bytes).connect().await;
        connected.map_err(|error| explain(error, self.servers.len()))
    }

    fn builder(&self) -> Result<Builder, Failure> {
        let mut servers = self.servers.iter();
        let first = servers.next().ok_or_else(|| Failure::Usage("--server needs a URL".to_owned()))?;
        let mut builder = servers.fold(Client::builder(first), |builder, url| builder.node(url));
        builder = builder.encoding(match self.encoding {
            WireEncoding::Json => Encoding::Json,
            WireEncoding::Proto => Encoding::Protobuf,
        });
        builder = builder.client_id(self.client_id.as_deref().unwrap_or("streamgate-cli"));
        if let Some(token) = &self.token {
            builder = builder.token(token);
        }
        if let Some(file) = &self.ca_file {
            builder = builder.ca_file(file);
        }
        if let (Some(certificate), Some(key)) = (&self.cert_file, &self.key_file) {
            builder = builder.identity(certificate, key);
        }
        Ok(builder)
    }
}

/// What to do about it, where that is clear.
fn explain(error: Error, servers: usize) -> Failure {
    match error {
        Error::Unreachable { address, reason } if reason == "connection refused" => {
            let others =
                if servers > 1 { format!(" nor at the {} others", servers - 1) } else { String::new() };
            Failure::Failed(format!("no gateway at {address}{others}: is `streamgate serve` running?"))
        }
        Error::Server { code, message, .. } if code == "AUTH_ERROR" => {
            Failure::Failed(format!("the gateway refuses the token: {message} (see --token)"))
        }
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
        assert_eq!(explain(refused(), 1), Failure::Failed(text.into()));
        let text = "no gateway at a:1 nor at the 2 others: is `streamgate serve` running?";
        assert_eq!(explain(refused(), 3), Failure::Failed(text.into()));
    }
}
