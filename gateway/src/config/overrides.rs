//! What comes from outside the file: environment variables and flags, each a key path and a text.

use serde_yaml_ng::{Mapping, Value};

use super::{
    error::{ConfigError, Problem},
    schema::Root,
};

/// Every variable that starts so must name a key.
pub const ENV_PREFIX: &str = "STREAMGATE_";

/// Variables with the prefix that are not settings of a node: they belong to the command line.
pub const ENV_RESERVED: [&str; 14] = [
    "STREAMGATE_CONFIG",
    "STREAMGATE_CONFIG_DIR",
    "STREAMGATE_URL",
    "STREAMGATE_TOKEN",
    "STREAMGATE_TOKEN_FILE",
    "STREAMGATE_CONTEXT",
    "STREAMGATE_CLI_CONFIG",
    "STREAMGATE_CLIENT_ID",
    "STREAMGATE_CA_FILE",
    "STREAMGATE_CERT_FILE",
    "STREAMGATE_KEY_FILE",
    "STREAMGATE_API",
    "STREAMGATE_API_TOKEN",
    "STREAMGATE_API_TOKEN_FILE",
];

/// One value from outside the file.
#[derive(Clone, PartialEq, Eq)]
pub struct Override {
    /// What errors call it: `STREAMGATE_SHARDS`, `--redis`.
    pub origin: String,
    /// Path of the key, as in `broker.redis.addr`.
    pub key: String,
    /// The value: taken as it is where a text is expected, else read as YAML.
    pub value: String,
}

impl std::fmt::Debug for Override {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The value may be a password.
        write!(f, "Override({} -> {})", self.origin, self.key)
    }
}

impl Override {
    /// A flag's value for `key`.
    #[must_use]
    pub fn flag(flag: &str, key: &str, value: impl Into<String>) -> Self {
        Self { origin: flag.to_owned(), key: key.to_owned(), value: value.into() }
    }

    /// The layer that holds this one key.
    pub(super) fn layer(&self) -> Result<Root, Problem> {
        let wrong = |message: String| Problem { origin: self.origin.clone(), key: self.key.clone(), message };
        // A text first, so that a password of digits or an address like `[::1]:9080` needs no quotes.
        let first = match nested(&self.key, Value::String(self.value.clone())) {
            Ok(layer) => return Ok(layer),
            Err(error) => error,
        };
        match serde_yaml_ng::from_str::<Value>(&self.value) {
            Ok(Value::Null) => Err(wrong("has no value".to_owned())),
            Ok(value) => nested(&self.key, value).map_err(|error| wrong(error.to_string())),
            Err(_) => Err(wrong(first.to_string())),
        }
    }
}

fn nested(key: &str, value: Value) -> Result<Root, serde_yaml_ng::Error> {
    let tree = key.rsplit('.').fold(value, |below, segment| {
        let mut section = Mapping::new();
        section.insert(Value::String(segment.to_owned()), below);
        Value::Mapping(section)
    });
    serde_yaml_ng::from_value(tree)
}

/// The overrides in `variables`: `STREAMGATE_SERVER__HTTP__ADDR` is `server.http.addr`. Sorted by name, so that
/// the outcome does not depend on the environment's order.
pub fn from_environment(variables: impl IntoIterator<Item = (String, String)>) -> Vec<Override> {
    let mut overrides: Vec<_> = variables
        .into_iter()
        .filter(|(name, value)| {
            name.starts_with(ENV_PREFIX)
                && !ENV_RESERVED.contains(&name.as_str())
                && !is_service_link(name, value)
        })
        .map(|(name, value)| {
            let key = name[ENV_PREFIX.len()..].to_ascii_lowercase().replace("__", ".");
            Override { origin: name, key, value }
        })
        .collect();
    overrides.sort_by(|a, b| a.origin.cmp(&b.origin));
    overrides
}

/// The overrides in the environment of this process.
///
/// # Errors
/// A variable with the prefix whose value is not UTF-8.
pub fn process_environment() -> Result<Vec<Override>, ConfigError> {
    let (mut variables, mut problems) = (Vec::new(), Vec::new());
    for (name, value) in std::env::vars_os() {
        // A name that is not UTF-8 is nobody's: every key is ASCII.
        let Ok(name) = name.into_string() else { continue };
        if !name.starts_with(ENV_PREFIX) {
            continue;
        }
        match value.into_string() {
            Ok(value) => variables.push((name, value)),
            Err(_) => problems.push(Problem::of_source(name, "the value is not UTF-8")),
        }
    }
    if problems.is_empty() { Ok(from_environment(variables)) } else { Err(ConfigError { problems }) }
}

/// Kubernetes tells every pod about every service by such variables; a service named `streamgate` or
/// `streamgate-redis` must not stop the node.
fn is_service_link(name: &str, value: &str) -> bool {
    // What follows `_PORT_` in `STREAMGATE_PORT_9080_TCP_ADDR`.
    let numbered = |text: &str| {
        let protocol = text.trim_start_matches(|c: char| c.is_ascii_digit());
        protocol.len() < text.len() && ["_TCP", "_UDP", "_SCTP"].iter().any(|name| protocol.starts_with(name))
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && value.contains("://"))
        || name.split("_PORT_").skip(1).any(numbered)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str, value: &str) -> Vec<Override> {
        from_environment([(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn names_are_key_paths() {
        let overrides = env("STREAMGATE_TRANSPORT__WEBSOCKET__ADDR", ":1");
        assert_eq!(overrides[0].key, "transport.websocket.addr");
        assert_eq!(env("STREAMGATE_ALLOW_ANONYMOUS", "true")[0].key, "allow_anonymous");
        assert!(env("PATH", "x").is_empty());
    }

    #[test]
    fn service_links_of_kubernetes_are_no_settings() {
        for (name, value) in [
            ("STREAMGATE_SERVICE_HOST", "10.0.0.1"),
            ("STREAMGATE_SERVICE_PORT", "9080"),
            ("STREAMGATE_SERVICE_PORT_WS", "9080"),
            ("STREAMGATE_PORT", "tcp://10.0.0.1:9080"),
            ("STREAMGATE_PORT_9080_TCP", "tcp://10.0.0.1:9080"),
            ("STREAMGATE_PORT_9080_TCP_PROTO", "tcp"),
            ("STREAMGATE_PORT_9080_TCP_PORT", "9080"),
            ("STREAMGATE_PORT_9080_TCP_ADDR", "10.0.0.1"),
            ("STREAMGATE_REDIS_SERVICE_HOST", "10.0.0.1"),
        ] {
            assert!(env(name, value).is_empty(), "{name}");
        }
        assert_eq!(env("STREAMGATE_PORT", "9080").len(), 1);
    }

    #[test]
    fn texts_need_no_quotes_and_numbers_are_numbers() {
        let root = env("STREAMGATE_BROKER__REDIS__PASSWORD", "0123")[0].layer().unwrap();
        let redis = root.broker.unwrap().redis.unwrap();
        assert_eq!(redis.password.as_deref(), Some("0123"));
        let root = env("STREAMGATE_SERVER__HTTP__ADDR", "[::1]:8080")[0].layer().unwrap();
        assert_eq!(root.server.unwrap().http.unwrap().addr.as_deref(), Some("[::1]:8080"));
        assert_eq!(env("STREAMGATE_SHARDS", "3")[0].layer().unwrap().shards, Some(3));
        assert_eq!(
            env("STREAMGATE_CHANNELS", "[{pattern: a, history_size: 5}]")[0]
                .layer()
                .unwrap()
                .channels
                .unwrap()[0]
                .history_size,
            Some(5)
        );
        assert!(env("STREAMGATE_SHARDS", "")[0].layer().is_err());
        assert!(env("STREAMGATE_SHARDS", "many")[0].layer().is_err());
    }
}
