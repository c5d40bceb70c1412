//! The configuration of the nodes that are started here: the load generator's own, the scenario's, and what
//! the user wants to try.

use std::{fs, net::SocketAddr, path::Path};

use anyhow::{Context as _, bail, ensure};
use serde_yaml_ng::{Mapping, Value};
use streamgate::config::{Override, assemble};

/// Limits of rate and number, which would measure themselves. The queues, the history's memory and the deadlines stay at
/// their defaults: a load that breaks them is a finding.
const LIFTED: &str = "
limits:
  publishes_per_second: 1000000
  new_channels_per_minute: 1000000
  subscriptions_per_client: 1000000
  calls_per_second: 1000000
";

/// What is decided by options of the load generator.
const TAKEN: [&[&str]; 5] = [
    &["broker", "type"],
    &["broker", "redis", "mode"],
    &["broker", "redis", "addr"],
    &["broker", "redis", "addrs"],
    &["broker", "redis", "sentinel"],
];

/// What errors call the scenario's own settings.
const SCENARIO: &str = "the settings of the scenario";

/// A configuration that the gateway accepts.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    document: Value,
    /// Path of the WebSocket upgrade.
    pub path: String,
}

/// Reads the user's file, if any, and puts everything together: see [`merge`].
///
/// # Errors
/// The file cannot be read or decides what an option decides, or the gateway would refuse it.
pub fn read(file: Option<&Path>, scenario: &str, history: Option<u64>) -> anyhow::Result<Settings> {
    let text = match file {
        Some(path) => fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?,
        None => String::new(),
    };
    let name = file.map_or_else(String::new, |path| path.display().to_string());
    merge(&name, &text, scenario, history)
}

/// The lifted limits, then the `scenario`'s own with this `history` if one is given, then the user's `text`, which
/// wins key by key; of `channels` the user's elements come first, as the first that matches wins.
fn merge(name: &str, text: &str, scenario: &str, history: Option<u64>) -> anyhow::Result<Settings> {
    // Alone at first, for the lines that errors name.
    check(name, text)?;
    let mut user = mapping(name, text)?;
    for path in TAKEN {
        ensure!(!has(&user, path), "{name}: {} is decided by --broker, not by the file", path.join("."));
    }
    let mut channels = list(user.remove("channels").unwrap_or_default(), name)?;
    let mut own = mapping(SCENARIO, scenario)?;
    channels.extend(wanted(own.remove("channels").unwrap_or_default(), history)?);
    let mut document = Value::Mapping(mapping("the lifted limits", LIFTED)?);
    overlay(&mut document, Value::Mapping(own));
    overlay(&mut document, Value::Mapping(user));
    overlay(
        &mut document,
        Value::Mapping(Mapping::from_iter([("channels".into(), Value::Sequence(channels))])),
    );
    let path = check("the settings of the nodes", &serde_yaml_ng::to_string(&document)?)?;
    Ok(Settings { document, path })
}

impl Settings {
    /// The text of the configuration file, with this Redis or on the memory broker.
    ///
    /// # Errors
    /// It cannot be written as YAML.
    pub fn yaml(&self, redis: Option<SocketAddr>) -> anyhow::Result<String> {
        let broker = match redis {
            Some(addr) => format!("broker: {{type: redis, redis: {{addr: '{addr}'}}}}"),
            None => "broker: {type: memory}".to_owned(),
        };
        let mut document = self.document.clone();
        overlay(&mut document, serde_yaml_ng::from_str(&broker)?);
        Ok(serde_yaml_ng::to_string(&document)?)
    }
}

/// The scenario's policies, all with this history; it holds for channels that none of them matches, too.
fn wanted(policies: Value, history: Option<u64>) -> anyhow::Result<Vec<Value>> {
    let mut rules = list(policies, SCENARIO)?;
    let Some(size) = history else { return Ok(rules) };
    rules.push(Value::Mapping(Mapping::from_iter([("pattern".into(), "**".into())])));
    for rule in &mut rules {
        let Value::Mapping(keys) = rule else { bail!("{SCENARIO}: an element of channels is no mapping") };
        keys.insert("history_size".into(), size.into());
    }
    Ok(rules)
}

/// Asks the gateway's own checks; answers the path of its WebSocket upgrade.
fn check(name: &str, text: &str) -> anyhow::Result<String> {
    // The addresses that the nodes will be started with.
    let addrs = ["transport.websocket.addr", "transport.grpc.addr", "server.http.addr"];
    let addrs = addrs.map(|key| Override::flag("the load generator", key, "127.0.0.1:0"));
    let (config, _) = assemble(name, text, &addrs)?;
    Ok(config.websocket.path)
}

fn mapping(name: &str, text: &str) -> anyhow::Result<Mapping> {
    match serde_yaml_ng::from_str(text).with_context(|| name.to_owned())? {
        Value::Null => Ok(Mapping::new()),
        Value::Mapping(mapping) => Ok(mapping),
        _ => bail!("{name}: keys and values are expected"),
    }
}

fn list(value: Value, name: &str) -> anyhow::Result<Vec<Value>> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Sequence(elements) => Ok(elements),
        _ => bail!("{name}: channels is a list"),
    }
}

fn has(document: &Mapping, path: &[&str]) -> bool {
    let (Some(first), rest) = (path.first(), path.get(1..).unwrap_or_default()) else { return true };
    match document.get(*first) {
        None => false,
        Some(_) if rest.is_empty() => true,
        Some(below) => below.as_mapping().is_some_and(|below| has(below, rest)),
    }
}

/// Puts `upper` over `lower`, key by key; a list is taken as a whole.
fn overlay(lower: &mut Value, upper: Value) {
    match (lower, upper) {
        (Value::Mapping(lower), Value::Mapping(upper)) => {
            for (key, value) in upper {
                match lower.get_mut(&key) {
                    Some(below) => overlay(below, value),
                    None => drop(lower.insert(key, value)),
                }
            }
        }
        (lower, upper) => *lower = upper,
    }
}

#[cfg(test)]
mod tests {
    use streamgate::config::{BrokerConfig, Config};

    use super::*;

    const LOAD: &str = "channels: [{pattern: 'load.**', history_size: 10, history_ttl: 60s}]";

    fn config(text: &str, scenario: &str, history: Option<u64>) -> Config {
        let settings = merge("try.yaml", text, scenario, history).unwrap();
        assemble("test", &settings.yaml(None).unwrap(), &[]).unwrap().0
    }

    fn error(text: &str, scenario: &str) -> String {
        format!("{:#}", merge("try.yaml", text, scenario, None).unwrap_err())
    }

    /// Patterns and sizes of history.
    fn histories(config: &Config) -> Vec<(&str, u64)> {
        config.policies.rules.iter().map(|rule| (rule.pattern.as_str(), rule.policy.history_size)).collect()
    }

    #[test]
    fn rates_are_lifted_and_queues_are_not() {
        let (ours, default) = (config("", "", None).limits, Config::default().limits);
        assert_eq!(ours.publishes_per_second, 1_000_000);
        assert_eq!(ours.new_channels_per_minute, 1_000_000);
        assert_eq!(ours.subscriptions_per_client, 1_000_000);
        assert_eq!(ours.write_queue_bytes, default.write_queue_bytes);
        assert_eq!(config("", "", None).shards, Config::default().shards);
    }

    #[test]
    fn the_file_wins_key_by_key_and_its_channels_come_first() {
        let text = "limits: {publishes_per_second: 7}\nshards: 3\nchannels: [{pattern: a, history_size: 1}]\n\
                    transport: {websocket: {addr: ':9080', path: /other}}";
        let config = config(&text.replace("addr: ':9080', ", ""), LOAD, None);
        assert_eq!((config.limits.publishes_per_second, config.shards), (7, 3));
        assert_eq!(config.limits.new_channels_per_minute, 1_000_000);
        assert_eq!(histories(&config), [("a", 1), ("load.**", 10)]);
        // Its addresses are not used, so that they cannot be wrong.
        assert_eq!(merge("try.yaml", text, "", None).unwrap().path, "/other");
    }

    #[test]
    fn the_scenarios_settings_go_before_the_lifted_ones_and_the_users_before_them() {
        let scenario = "{limits: {publishes_per_second: 5, calls_per_second: 6}, shards: 2}";
        let config = config("limits: {calls_per_second: 7}", scenario, None);
        assert_eq!((config.limits.publishes_per_second, config.limits.calls_per_second), (5, 7));
        assert_eq!((config.limits.new_channels_per_minute, config.shards), (1_000_000, 2));
    }

    #[test]
    fn a_given_history_replaces_the_scenarios_and_holds_for_the_rest() {
        let text = "channels: [{pattern: a, history_size: 1}]";
        assert_eq!(histories(&config(text, LOAD, Some(0))), [("a", 1), ("load.**", 0), ("**", 0)]);
        assert_eq!(histories(&config("", "", Some(5))), [("**", 5)]);
    }

    #[test]
    fn the_broker_is_the_options() {
        let settings = merge("", "broker: {redis: {partitions: 4}}", "", None).unwrap();
        let yaml = settings.yaml(Some(([127, 0, 0, 1], 7000).into())).unwrap();
        let BrokerConfig::Redis(redis) = assemble("test", &yaml, &[]).unwrap().0.broker else {
            panic!("{yaml}")
        };
        assert_eq!(redis.partitions, 4);
        assert!(yaml.contains("127.0.0.1:7000"), "{yaml}");
        assert!(settings.yaml(None).unwrap().contains("type: memory"));
        let taken = error("broker: {redis: {addr: 'a:1'}}", "");
        assert!(taken.contains("try.yaml: broker.redis.addr is decided by --broker"), "{taken}");
    }

    #[test]
    fn what_the_gateway_would_refuse_is_refused_at_once() {
        let wrong = error("limits: {publishes: 7}", "");
        assert!(wrong.contains("try.yaml") && wrong.contains("publishes"), "{wrong}");
        let wrong = error("", "channels: [{pattern: 'load.**', history_size: many}]");
        assert!(wrong.contains("history_size"), "{wrong}");
        assert!(error("", "channels: {pattern: a}").contains("is a list"));
    }
}
