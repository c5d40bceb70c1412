//! `streamgate token`: tokens for development.

use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::Args;
use serde_json::{Value, json};
use streamgate_client::server::{Algorithm, ConnectionToken, SubscriptionToken, TokenMinter};

use super::{Failure, Format, output, question};

/// Options of `token`.
#[derive(Debug, Args)]
#[command(
    after_help = "The token is for connecting, or with --channel for one subscription. It asks no gateway.

Examples:
  streamgate token --secret-file dev.secret --user ann --ttl 8h
  streamgate token --secret-file dev.secret --user ann --subscribe 'room.*' --publish room.in --claim role=admin
  streamgate token --key-file dev.pem --algorithm ES256 --user ann --channel room.blue --ttl 5m"
)]
#[command(group(clap::ArgGroup::new("key").required(true)))]
pub struct TokenArgs {
    /// Secret to sign with; in a file it is not seen by others of this machine
    #[arg(long, value_name = "TEXT", group = "key")]
    pub secret: Option<String>,
    /// The same in a file; white space at its end does not count
    #[arg(long, value_name = "FILE", group = "key")]
    pub secret_file: Option<PathBuf>,
    /// Private key to sign with, PEM
    #[arg(long, value_name = "FILE", group = "key", requires = "algorithm")]
    pub key_file: Option<PathBuf>,
    /// HS256, HS384, HS512 with a secret; RS, PS 256 to 512, ES256, ES384 or EdDSA with a key [default: HS256]
    #[arg(long)]
    pub algorithm: Option<Algorithm>,
    /// User id (`sub`); a subscription token without is for somebody anonymous
    #[arg(long, value_name = "ID", required_unless_present = "channel")]
    pub user: Option<String>,
    /// How long it is good
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = question::timeout)]
    pub ttl: Duration,
    /// For a subscription to this channel or pattern alone
    #[arg(long, conflicts_with_all = ["auto", "subscribe", "publish", "claims", "id"])]
    pub channel: Option<String>,
    /// Channel or pattern that the client is subscribed to at once (`channels`); may be repeated
    #[arg(long, value_name = "CHANNEL")]
    pub auto: Vec<String>,
    /// Channel or pattern that it may subscribe to; may be repeated
    #[arg(long, value_name = "CHANNEL")]
    pub subscribe: Vec<String>,
    /// Channel or pattern that it may publish to; may be repeated
    #[arg(long, value_name = "CHANNEL")]
    pub publish: Vec<String>,
    /// Another claim; a value that is JSON is taken as that; may be repeated
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = claim)]
    pub claims: Vec<(String, Value)>,
    /// Id of the token (`jti`), by which it can be revoked [default: random]
    #[arg(long)]
    pub id: Option<String>,
    /// What the gateway calls the key (`kid`)
    #[arg(long, value_name = "ID")]
    pub key_id: Option<String>,
    /// `iss`, if the gateway wants one
    #[arg(long)]
    pub issuer: Option<String>,
    /// `aud`, if the gateway wants one
    #[arg(long)]
    pub audience: Option<String>,
    /// How to print
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: Format,
}

pub(super) fn run(args: &TokenArgs) -> Result<(), Failure> {
    let minter = minter(args)?;
    let token = match &args.channel {
        Some(channel) => {
            let token = SubscriptionToken::new(channel).expires_in(args.ttl);
            minter.subscription(&token.user(args.user.as_deref().unwrap_or_default()))
        }
        None => minter.connection(&connection(args)),
    }?;
    let line = match args.output {
        Format::Text => token,
        Format::Json => {
            let end =
                SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_add(args.ttl);
            let end = output::time(end.as_secs().saturating_mul(1_000));
            json!({"token": token, "expires_at": end}).to_string()
        }
    };
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

fn minter(args: &TokenArgs) -> Result<TokenMinter, Failure> {
    let read = |file: &PathBuf| {
        fs::read(file).map_err(|error| Failure::Usage(format!("{} cannot be read: {error}", file.display())))
    };
    let algorithm = args.algorithm.unwrap_or(Algorithm::HS256);
    let mut minter = match (&args.secret, &args.secret_file, &args.key_file) {
        (Some(secret), _, _) => TokenMinter::with_secret(algorithm, secret.as_bytes()),
        (None, Some(file), _) => TokenMinter::with_secret(algorithm, read(file)?.trim_ascii_end()),
        (None, None, Some(file)) => TokenMinter::with_private_pem(algorithm, &read(file)?),
        (None, None, None) => return Err(Failure::Usage("a secret or a key is needed".to_owned())),
    }?;
    if let Some(id) = &args.key_id {
        minter = minter.key_id(id);
    }
    if let Some(issuer) = &args.issuer {
        minter = minter.issuer(issuer);
    }
    if let Some(audience) = &args.audience {
        minter = minter.audience(audience);
    }
    Ok(minter)
}

fn connection(args: &TokenArgs) -> ConnectionToken {
    let mut token = ConnectionToken::new(args.user.as_deref().unwrap_or_default()).expires_in(args.ttl);
    if let Some(id) = &args.id {
        token = token.id(id);
    }
    token = args.auto.iter().fold(token, ConnectionToken::channel);
    token = args.subscribe.iter().fold(token, ConnectionToken::subscribe);
    token = args.publish.iter().fold(token, ConnectionToken::publish);
    args.claims.iter().fold(token, |token, (name, value)| token.claim(name, value.clone()))
}

fn claim(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE is expected")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
    Ok((name.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_json_or_a_text() {
        assert_eq!(claim("role=admin"), Ok(("role".into(), json!("admin"))));
        assert_eq!(claim("groups=[\"a=b\",2]"), Ok(("groups".into(), json!(["a=b", 2]))));
        assert!(claim("role").is_err());
    }
}
