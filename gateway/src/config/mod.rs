//! Configuration: YAML, environment and flags become one checked [`Config`], once, at boot.
//!
//! Owns: what may stand in the file, its units and ranges, the precedence (flags, then `STREAMGATE_` environment
//! variables, then the file, then the defaults) and what a reload may change. Never does: open sockets, read the
//! environment behind the caller's back, or log a secret.
//!
//! Invariants:
//! - An unknown key or `STREAMGATE_` variable is an error that names it (a key's with its line); a known key
//!   without meaning here is a warning.
//! - A [`Config`] that exists has passed every check: nothing downstream checks again.
//! - The reference file ([`REFERENCE`]) says exactly the defaults.

mod api;
mod auth;
mod backends;
mod broker;
mod checks;
mod error;
mod jwks;
mod layer;
mod listen;
mod overrides;
mod permissions;
mod policies;
mod redis;
mod reload;
mod runtime;
mod schema;
mod tls;
mod trusted_proxies;
mod units;
mod validate;

use std::{
    fs,
    path::{Path, PathBuf},
};

pub use error::{ConfigError, Problem};
pub use listen::ListenAddr;
pub use overrides::{ENV_PREFIX, ENV_RESERVED, Override, from_environment, process_environment};
pub use reload::Reload;
pub use runtime::{
    ApiConfig, BrokerConfig, Config, CorsConfig, DrainConfig, LogConfig, LogFormat, MemoryConfig, Password,
    PolicyTable, RedisConfig, RedisMode, SentinelConfig, WebSocketConfig,
};

use layer::Layer as _;
use schema::Root;

/// Reads a duration as the file has it: `300s`, `5m`, `250ms`.
///
/// # Errors
/// It is none; fit for people.
pub fn duration(text: &str) -> Result<std::time::Duration, String> {
    units::Span::parse(text).map(|span| span.0)
}

/// The commented reference file: every key with its default.
pub const REFERENCE: &str = include_str!("../../config/streamgate.yaml");

/// What is looked for in a `--config-dir`, in this order; the last four are MessageLoop's.
pub const FILE_NAMES: [&str; 6] =
    ["streamgate.yaml", "streamgate.yml", "config.yaml", "config.yml", "messageloop.yaml", "messageloop.yml"];

/// Where a configuration comes from. The default is nothing: the defaults hold.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// `--config FILE`; goes before `dir`.
    pub file: Option<PathBuf>,
    /// `--config-dir DIR`: the first of [`FILE_NAMES`] there.
    pub dir: Option<PathBuf>,
    /// From [`process_environment`].
    pub environment: Vec<Override>,
    /// From the command line.
    pub flags: Vec<Override>,
}

/// A checked configuration and what was odd about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What to run with.
    pub config: Config,
    /// Known keys without meaning here, and the like.
    pub warnings: Vec<Problem>,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
}

/// Reads, merges and checks everything. Blocking: reads a file and resolves the host names of listeners.
///
/// # Errors
/// Every problem that was found; an unreadable or undecodable source ends the search at once.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    let file = locate(sources)?;
    let (name, text) = match &file {
        Some(path) => (path.display().to_string(), read(path)?),
        None => (String::new(), String::new()),
    };
    let (config, warnings) =
        assemble(&name, &text, &[&sources.environment[..], &sources.flags[..]].concat())?;
    Ok(Loaded { config, warnings, file })
}

/// Checks the text of a file, which errors call `name`. Later `overrides` win over earlier ones and the text.
///
/// # Errors
/// As [`load`].
pub fn assemble(
    name: &str,
    text: &str,
    overrides: &[Override],
) -> Result<(Config, Vec<Problem>), ConfigError> {
    // An empty document, or one of comments only, is null.
    let mut root = serde_yaml_ng::from_str::<Option<Root>>(text)
        .map_err(|error| Problem::of_source(name, error.to_string()))?
        .unwrap_or_default();
    let mut problems = Vec::new();
    for value in overrides {
        match value.layer() {
            Ok(upper) => root.overlay(upper),
            Err(problem) => problems.push(problem),
        }
    }
    if !problems.is_empty() {
        return Err(ConfigError { problems });
    }
    let origin = |problem: Problem| {
        let over = overrides.iter().rev().find(|over| over.key == problem.key);
        Problem { origin: over.map_or(name, |over| &over.origin).to_owned(), ..problem }
    };
    match validate::validate(root) {
        Ok((config, warnings)) => Ok((config, warnings.into_iter().map(origin).collect())),
        Err(error) => Err(ConfigError { problems: error.problems.into_iter().map(origin).collect() }),
    }
}

/// The path of every key, as in `transport.websocket.addr`; elements of a list are `channels[].pattern`.
#[must_use]
pub fn keys() -> Vec<String> {
    let mut out = Vec::new();
    Root::keys("", &mut out);
    out
}

impl Default for Config {
    #[expect(clippy::expect_used, reason = "the defaults are constants; a test shows that they pass")]
    fn default() -> Self {
        validate::validate(Root::default()).expect("the defaults pass their own checks").0
    }
}

fn locate(sources: &Sources) -> Result<Option<PathBuf>, ConfigError> {
    if sources.file.is_some() {
        return Ok(sources.file.clone());
    }
    let Some(dir) = &sources.dir else { return Ok(None) };
    let found = FILE_NAMES.iter().map(|name| dir.join(name)).find(|path| path.is_file());
    found.map(Some).ok_or_else(|| {
        let message = format!("has none of {}", FILE_NAMES.join(", "));
        Problem::of_source(dir.display().to_string(), message).into()
    })
}

fn read(path: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(path)
        .map_err(|error| Problem::of_source(path.display().to_string(), error.to_string()).into())
}
