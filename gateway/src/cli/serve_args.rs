//! Options of `serve`: the common few settings as flags, everything else in the file and the environment.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, ValueEnum};

use super::serve;
use crate::config::{ConfigError, Override, Sources, process_environment};

/// Options of `serve`. A flag goes before the environment, which goes before the file.
#[derive(Debug, Default, Args)]
pub struct ServeArgs {
    /// Configuration file (see `streamgate config default`)
    #[arg(long, value_name = "FILE", env = "STREAMGATE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Directory to look for a configuration file in
    #[arg(long, value_name = "DIR", env = "STREAMGATE_CONFIG_DIR")]
    pub config_dir: Option<PathBuf>,
    /// WebSocket and client HTTP listener [default: 127.0.0.1:9080]
    #[arg(long, value_name = "ADDR")]
    pub ws_addr: Option<String>,
    /// gRPC listener [default: 127.0.0.1:9090]
    #[arg(long, value_name = "ADDR")]
    pub grpc_addr: Option<String>,
    /// Admin listener: metrics and health [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub admin_addr: Option<String>,
    /// Where order and history live [default: memory, or redis with --redis-addr]
    #[arg(long)]
    pub broker: Option<Broker>,
    /// Address of Redis or Valkey
    #[arg(long, value_name = "ADDR")]
    pub redis_addr: Option<String>,
    /// Serve clients without authentication on any address, not only on loopback
    #[arg(long)]
    pub allow_anonymous: bool,
    /// What to log [default: info]
    #[arg(long)]
    pub log_level: Option<LogLevel>,
    /// How to log [default: text]
    #[arg(long)]
    pub log_format: Option<LogFormat>,
}

/// `--broker`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Broker {
    /// One node, nothing kept across a restart
    Memory,
    /// Redis or Valkey
    Redis,
}

/// `--log-level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the names say it, and help shows them as they are")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// An object a line
    Json,
}

impl ServeArgs {
    pub(super) fn run(self) -> ExitCode {
        match self.sources() {
            Ok(sources) => serve::serve(&sources),
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::from(2)
            }
        }
    }

    /// Where the configuration comes from: these flags, the environment of this process, the file.
    ///
    /// # Errors
    /// The environment cannot be read.
    pub(super) fn sources(self) -> Result<Sources, ConfigError> {
        let (environment, flags) = (process_environment()?, self.flags());
        Ok(Sources { file: self.config, dir: self.config_dir, environment, flags })
    }

    /// The flags as settings.
    #[must_use]
    pub fn flags(&self) -> Vec<Override> {
        // An address makes no sense with another broker.
        let broker = self.broker.or_else(|| self.redis_addr.as_ref().map(|_| Broker::Redis));
        let values = [
            ("--ws-addr", "transport.websocket.addr", self.ws_addr.clone()),
            ("--grpc-addr", "transport.grpc.addr", self.grpc_addr.clone()),
            ("--admin-addr", "server.http.addr", self.admin_addr.clone()),
            ("--broker", "broker.type", broker.as_ref().map(name)),
            ("--redis-addr", "broker.redis.addr", self.redis_addr.clone()),
            ("--allow-anonymous", "allow_anonymous", self.allow_anonymous.then(|| "true".to_owned())),
            ("--log-level", "log.level", self.log_level.as_ref().map(name)),
            ("--log-format", "log.format", self.log_format.as_ref().map(name)),
        ];
        values
            .into_iter()
            .filter_map(|(flag, key, value)| value.map(|value| Override::flag(flag, key, value)))
            .collect()
    }
}

/// The value as it is written.
fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BrokerConfig, load};

    #[test]
    fn every_flag_is_a_setting_that_exists() {
        let args = ServeArgs {
            ws_addr: Some("127.0.0.1:1".into()),
            grpc_addr: Some("127.0.0.1:2".into()),
            admin_addr: Some("127.0.0.1:3".into()),
            redis_addr: Some("127.0.0.1:4".into()),
            allow_anonymous: true,
            log_level: Some(LogLevel::Debug),
            log_format: Some(LogFormat::Json),
            ..ServeArgs::default()
        };
        let flags = args.flags();
        assert_eq!(flags.len(), 8);
        let loaded = load(&Sources { flags, ..Sources::default() }).unwrap();
        assert!(matches!(loaded.config.broker, BrokerConfig::Redis(_)), "an address of Redis implies it");
        assert!(ServeArgs::default().flags().is_empty());
    }
}
