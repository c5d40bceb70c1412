//! What must be said about a Redis server when a node starts.

use std::time::Duration;

use super::{
    command::{Command, CommandName},
    connection::Connection,
    error::CallError,
    hello::Hello,
    reply::Reply,
};

/// The default of `stream-node-max-bytes`, with which a stream of one small entry takes 4.3 KB.
const DEFAULT_NODE_BYTES: u64 = 4096;

/// Findings about a server, for whoever starts the node to log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BootReport {
    /// The server cannot be used, and why.
    pub fatal: Option<String>,
    /// Works, but an operator should act.
    pub warnings: Vec<String>,
}

/// A setting of the server as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Setting {
    Value(String),
    /// The server does not have it.
    Absent,
    /// The server does not tell (managed service, ACL).
    Refused(String),
}

impl BootReport {
    /// Asks the server.
    ///
    /// # Errors
    /// Only if the connection fails; a refusal to show the configuration becomes a warning.
    pub async fn of(connection: &Connection, deadline: Duration) -> Result<Self, CallError> {
        let get = |name: &'static str| {
            connection.call(Command::new(CommandName::Config).arg("GET").arg(name), deadline)
        };
        let (policy, node_bytes) = (get("maxmemory-policy"), get("stream-node-max-bytes"));
        Ok(Self::judge(connection.hello(), &setting(policy.await)?, &setting(node_bytes.await)?))
    }

    fn judge(hello: &Hello, policy: &Setting, node_bytes: &Setting) -> Self {
        let mut report = Self::default();
        match hello.version {
            Some(version) => report.fatal = version.refusal(),
            None => report.warnings.push(
                "the server does not tell its version: Redis 7.0 or Valkey 7.2 (or later) is needed"
                    .to_owned(),
            ),
        }
        match policy {
            Setting::Value(value) if value != "noeviction" => report.warnings.push(format!(
                "maxmemory-policy is {value}: under memory pressure Redis will silently delete history, interest and \
                 idempotency records, and messages will be lost. Set maxmemory-policy noeviction"
            )),
            Setting::Refused(reason) => report.warnings.push(format!(
                "cannot check maxmemory-policy ({reason}): make sure that it is noeviction"
            )),
            Setting::Value(_) | Setting::Absent => {}
        }
        match node_bytes {
            Setting::Value(value) if is_default_or_more(value) => report.warnings.push(format!(
                "stream-node-max-bytes is {value}: each channel's history takes at least 4.3 KB. Set \
                 stream-node-max-bytes 512 (772 B for a stream of one small entry)"
            )),
            Setting::Refused(reason) => report.warnings.push(format!(
                "cannot check stream-node-max-bytes ({reason}): 512 is advised, the default 4096 takes 4.3 KB for \
                 each channel"
            )),
            Setting::Value(_) | Setting::Absent => {}
        }
        report
    }
}

/// 0 means no limit in Redis.
fn is_default_or_more(value: &str) -> bool {
    value.parse::<u64>().is_ok_and(|bytes| bytes == 0 || bytes >= DEFAULT_NODE_BYTES)
}

/// Reads the reply of `CONFIG GET name`: name and value, or an empty array.
fn setting(reply: Result<Reply, CallError>) -> Result<Setting, CallError> {
    match reply {
        Ok(Reply::Array(items)) => Ok(items
            .get(1)
            .and_then(|value| value.as_str().ok())
            .map_or(Setting::Absent, |value| Setting::Value(value.to_owned()))),
        Ok(_) => Ok(Setting::Absent),
        Err(CallError::Server(error)) => Ok(Setting::Refused(error.to_string())),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::redis::{RedisError, ServerVersion};

    fn hello(info: &str) -> Hello {
        Hello {
            replid: "r".into(),
            role: "master".into(),
            version: ServerVersion::from_info(info),
            run_id: String::new(),
            clustered: false,
            standalone: false,
            client_id: 0,
            clock_ahead_ms: 0,
        }
    }

    fn value(text: &str) -> Setting {
        Setting::Value(text.to_owned())
    }

    #[test]
    fn a_well_configured_server_gives_nothing_to_say() {
        let report = BootReport::judge(&hello("redis_version:7.0.15"), &value("noeviction"), &value("512"));
        assert_eq!(report, BootReport::default());
    }

    #[test]
    fn an_old_server_is_fatal() {
        let report = BootReport::judge(&hello("redis_version:6.2.0"), &value("noeviction"), &value("512"));
        assert!(report.fatal.unwrap().contains("Redis 6.2.0 is too old"));
    }

    #[test]
    fn eviction_and_default_node_size_are_warned_of() {
        let report = BootReport::judge(&hello("redis_version:7.2.0"), &value("allkeys-lru"), &value("4096"));
        assert_eq!(report.fatal, None);
        assert!(report.warnings[0].contains("maxmemory-policy noeviction"));
        assert!(report.warnings[1].contains("stream-node-max-bytes 512"));
    }

    #[test]
    fn a_refusal_to_tell_is_said_and_not_fatal() {
        let refused = setting(Err(CallError::Server(RedisError::parse("NOPERM no permissions")))).unwrap();
        let report = BootReport::judge(&hello(""), &refused, &refused);
        assert_eq!(report.fatal, None);
        assert_eq!(report.warnings.len(), 3);
        assert!(report.warnings[1].contains("NOPERM"));
    }
}
