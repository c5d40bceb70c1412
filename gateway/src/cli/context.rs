//! The file of contexts: where gateways are, and who asks, under names.
//!
//! `STREAMGATE_CLI_CONFIG`, or `streamgate/cli.yaml` in `XDG_CONFIG_HOME` or `~/.config`. Flags and environment variables go
//! before it. No file is no context; a context that is named must be there.

use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::Failure;

/// Names the context.
pub(super) const VARIABLE: &str = "STREAMGATE_CONTEXT";
/// Names the file.
const FILE_VARIABLE: &str = "STREAMGATE_CLI_CONFIG";

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contexts {
    /// Which one holds if none is named.
    context: Option<String>,
    #[serde(default)]
    contexts: BTreeMap<String, Context>,
}

/// One context. What it does not say has its default.
#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Context {
    /// `--server`.
    pub server: Servers,
    /// `--token`.
    pub token: Option<String>,
    /// `--token-file`.
    pub token_file: Option<PathBuf>,
    /// `--client-id`.
    pub client_id: Option<String>,
    /// `--ca-file`.
    pub ca_file: Option<PathBuf>,
    /// `--cert-file`.
    pub cert_file: Option<PathBuf>,
    /// `--key-file`.
    pub key_file: Option<PathBuf>,
    /// `--api`.
    pub api: Option<String>,
    /// `--api-token`.
    pub api_token: Option<String>,
    /// `--api-token-file`.
    pub api_token_file: Option<PathBuf>,
}

/// One gateway, or several nodes of one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(super) enum Servers {
    One(String),
    Several(Vec<String>),
}

impl Default for Servers {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl Servers {
    pub(super) fn list(&self) -> Vec<String> {
        match self {
            Self::One(url) => vec![url.clone()],
            Self::Several(urls) => urls.clone(),
        }
    }
}

impl Context {
    /// The context of this name, or that of the file.
    ///
    /// # Errors
    /// The file cannot be read, or has no such context.
    pub(super) fn load(name: Option<&str>) -> Result<Self, Failure> {
        let given = env::var_os(FILE_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
        let named = given.is_some();
        let Some(path) = given.or_else(usual_path) else { return chosen(Contexts::default(), name, "") };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !named => String::new(),
            Err(error) => return Err(Failure::Usage(format!("{} cannot be read: {error}", path.display()))),
        };
        let context = read(&text, name, &path.display().to_string())?;
        if (context.token.is_some() || context.api_token.is_some()) && is_open(&path) {
            eprintln!("warning: {} holds a token and others of this machine can read it", path.display());
        }
        Ok(context)
    }
}

fn read(text: &str, name: Option<&str>, path: &str) -> Result<Context, Failure> {
    // The error shows no value: a token may be one.
    let contexts = serde_yaml_ng::from_str::<Option<Contexts>>(text).map_err(|error| {
        let place = error.location().map_or_else(String::new, |at| format!(" at line {}", at.line()));
        let known = "context, contexts; in a context server, token, token_file, client_id, ca_file, cert_file, key_file, api, \
                     api_token, api_token_file";
        Failure::Usage(format!("{path} is not a file of contexts{place} (its keys: {known})"))
    })?;
    chosen(contexts.unwrap_or_default(), name, path)
}

fn chosen(mut contexts: Contexts, name: Option<&str>, path: &str) -> Result<Context, Failure> {
    let Some(name) = name.map(str::to_owned).or(contexts.context.take()) else {
        return Ok(Context::default());
    };
    contexts.contexts.remove(&name).ok_or_else(|| {
        let known: Vec<_> = contexts.contexts.keys().map(String::as_str).collect();
        let known = if known.is_empty() { "there is none".to_owned() } else { known.join(", ") };
        let file = if path.is_empty() { "no file of contexts" } else { path };
        Failure::Usage(format!("{file} has no context {name:?}: {known}"))
    })
}

fn usual_path() -> Option<PathBuf> {
    let dir = |name: &str| env::var_os(name).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let config = dir("XDG_CONFIG_HOME").or_else(|| Some(dir("HOME")?.join(".config")))?;
    Some(config.join("streamgate").join("cli.yaml"))
}

/// Whether others than its owner can read it.
fn is_open(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o077 != 0)
}

/// What is in a file, without white space at its end.
///
/// # Errors
/// It cannot be read.
pub(super) fn secret(file: &Path) -> Result<String, Failure> {
    let text = fs::read_to_string(file)
        .map_err(|error| Failure::Usage(format!("{} cannot be read: {error}", file.display())))?;
    Ok(text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
context: local
contexts:
  local: {server: '127.0.0.1:1', token: t}
  prod:
    server: [wss://a/ws, wss://b/ws]
    api_token_file: /run/token
";

    #[test]
    fn the_named_context_goes_before_that_of_the_file() {
        let local = read(FILE, None, "f").unwrap();
        assert_eq!(
            (local.server.list(), local.token.as_deref()),
            (vec!["127.0.0.1:1".to_owned()], Some("t"))
        );
        let prod = read(FILE, Some("prod"), "f").unwrap();
        assert_eq!((prod.server.list().len(), prod.api_token_file), (2, Some("/run/token".into())));
        assert_eq!(read("", None, "f"), Ok(Context::default()));
    }

    #[test]
    fn what_is_wrong_is_told_without_a_secret() {
        let said = |text, name| match read(text, name, "f.yaml") {
            Err(Failure::Usage(said)) => said,
            other => panic!("{other:?}"),
        };
        assert_eq!(said(FILE, Some("other")), "f.yaml has no context \"other\": local, prod");
        assert_eq!(said("", Some("other")), "f.yaml has no context \"other\": there is none");
        let wrong = said("contexts:\n  a:\n    token: [secret-1]\n", None);
        assert!(
            wrong.starts_with("f.yaml is not a file of contexts") && !wrong.contains("secret-1"),
            "{wrong}"
        );
        assert!(said("contexts: {a: {tokn: secret-2}}", None).contains("token_file"));
    }
}
