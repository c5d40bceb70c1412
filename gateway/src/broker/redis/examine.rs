//! A look at every master that a configuration leads to, for an operator. No node is registered.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{
    command::{Command, CommandName},
    connection::Connection,
    error::CallError,
    hello::Hello,
    keys::Keys,
    locate::Address,
    options::RedisOptions,
    reply::Reply,
    script::Script,
    topology::Topology,
};

static EXAMINE: Script = Script::new("examine", include_str!("scripts/examine.lua"));

/// Settings that are asked for.
const SETTINGS: [&str; 6] =
    ["maxmemory", "maxmemory-policy", "stream-node-max-bytes", "appendonly", "appendfsync", "save"];

/// What is found at one master.
#[derive(Debug, Clone)]
pub struct Examination {
    /// Where it is.
    pub address: Address,
    /// What it says of itself.
    pub hello: Hello,
    /// `CONFIG GET` of each of maxmemory, maxmemory-policy, stream-node-max-bytes, appendonly, appendfsync and save: nothing
    /// if the server does not have it; why, if it does not tell.
    pub settings: Vec<(&'static str, Result<Option<String>, String>)>,
    /// Bytes in use, if it tells.
    pub used_memory: Option<u64>,
    /// Commands that the user may not run and a node needs, as ACL rules name them; why, if that cannot be found out.
    pub denied: Result<Vec<String>, String>,
    /// Partitions and version of the data that the first node of the deployment recorded; nothing before the first.
    pub recorded: Option<(String, String)>,
}

impl Examination {
    /// The value of one of the settings, if it is known.
    #[must_use]
    pub fn setting(&self, name: &str) -> Option<&str> {
        let (_, value) = self.settings.iter().find(|(known, _)| *known == name)?;
        value.as_ref().ok()?.as_deref()
    }
}

/// Connects to every master, as a node would, and looks. Waits so long for each connection.
///
/// # Errors
/// Some master cannot be reached, or used: why, fit for an operator, without credentials.
pub async fn examine(options: RedisOptions, wait: Duration) -> Result<Vec<Examination>, String> {
    let keys = Keys::new(&options.key_prefix, options.partitions)?;
    let options = Arc::new(options);
    let topology = Topology::start(&options, &keys);
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    for partition in 0..keys.partitions() {
        let link = topology.commands(partition);
        let Ok(Some(connection)) = timeout(wait, link.connected()).await else {
            return Err(topology.absence().unwrap_or_else(|| "no connection in time".to_owned()));
        };
        if seen.insert(connection.address().clone()) {
            let deployment = topology.deployment();
            let record = timeout(wait, deployment.connected()).await.ok().flatten();
            let look = look(&connection, record.as_deref(), &keys, partition, options.command_timeout);
            found.push(look.await.map_err(|error| format!("Redis at {}: {error}", connection.address()))?);
        }
    }
    Ok(found)
}

async fn look(
    connection: &Connection,
    deployment: Option<&Connection>,
    keys: &Keys,
    partition: usize,
    deadline: Duration,
) -> Result<Examination, CallError> {
    let mut settings = Vec::new();
    for name in SETTINGS {
        let get = Command::new(CommandName::Config).arg("GET").arg(name);
        settings.push((name, setting(connection.call(get, deadline).await)?));
    }
    let info = connection.call(Command::new(CommandName::Info).arg("memory"), deadline).await;
    let used_memory = info.ok().and_then(|info| used_memory(info.as_str().ok()?));
    let mut recorded = None;
    if let Some(deployment) = deployment {
        let get = |field: &'static str| {
            deployment
                .call(Command::new(CommandName::HGet).arg(keys.deployment("layout")).arg(field), deadline)
        };
        let text = |reply: Result<Reply, CallError>| Some(reply.ok()?.as_str().ok()?.to_owned());
        recorded = text(get("partitions").await).zip(text(get("data_version").await));
    }
    Ok(Examination {
        address: connection.address().clone(),
        hello: connection.hello().clone(),
        settings,
        used_memory,
        denied: denied(connection, keys, partition, deadline).await?,
        recorded,
    })
}

/// What a node needs and this user may not.
async fn denied(
    connection: &Connection,
    keys: &Keys,
    partition: usize,
    deadline: Duration,
) -> Result<Result<Vec<String>, String>, CallError> {
    // Beside them no node works, so there is no connection without.
    let kill = Command::new(CommandName::Client).arg("KILL").arg("ID").arg("0");
    let mut denied = Vec::new();
    if let Err(CallError::Server(error)) = connection.call(kill, deadline).await
        && error.code == "NOPERM"
    {
        denied.push("client|kill".to_owned());
    }
    let key = keys.key(partition, &format!("doctor:{}", uuid::Uuid::new_v4()));
    let tried = match connection.load_scripts(&[&EXAMINE], deadline).await {
        Ok(()) => connection.call_script(&EXAMINE, vec![key], Vec::new(), deadline).await,
        Err(error) => Err(error),
    };
    match tried {
        Ok(reply) => {
            let names = reply.as_array().unwrap_or_default().iter().skip(1);
            denied.extend(names.filter_map(|name| name.as_str().ok().map(str::to_owned)));
            Ok(Ok(denied))
        }
        Err(CallError::Server(error)) => Ok(Err(error.to_string())),
        Err(error) => Err(error),
    }
}

/// Reads the reply of `CONFIG GET name`: name and value, or an empty array.
fn setting(reply: Result<Reply, CallError>) -> Result<Result<Option<String>, String>, CallError> {
    match reply {
        Ok(reply) => {
            let items = reply.as_array().unwrap_or_default();
            Ok(Ok(items.get(1).and_then(|value| value.as_str().ok()).map(str::to_owned)))
        }
        Err(CallError::Server(error)) => Ok(Err(error.to_string())),
        Err(error) => Err(error),
    }
}

fn used_memory(info: &str) -> Option<u64> {
    info.lines().find_map(|line| line.trim_end().strip_prefix("used_memory:")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_in_use_is_read() {
        assert_eq!(used_memory("# Memory\r\nused_memory:1024\r\nused_memory_rss:2048\r\n"), Some(1024));
        assert_eq!(used_memory(""), None);
    }
}
