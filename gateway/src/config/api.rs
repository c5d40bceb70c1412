//! The `api` section.

use super::{
    checks::Checks,
    runtime::ApiConfig,
    schema::{Api, ApiTokenEntry},
};
use crate::api::{ApiToken, Scope};

/// Shortest token, in bytes: one that is chosen at random has 16 at least.
const SHORTEST: usize = 16;
const DEFAULT_REQUEST: usize = 4 * 1024 * 1024;

/// Who may call the API, and how much at once.
pub(super) fn api(checks: &mut Checks, keys: Api) -> ApiConfig {
    let entries = keys.tokens.unwrap_or_default();
    let tokens: Vec<ApiToken> =
        entries.into_iter().enumerate().filter_map(|(at, entry)| token(checks, at, entry)).collect();
    for (at, token) in tokens.iter().enumerate() {
        if tokens.iter().take(at).any(|other| other.name() == token.name()) {
            checks.wrong(&format!("api.tokens[{at}].name"), format!("`{}` is there twice", token.name()));
        }
    }
    let range = 1024..=64 * 1024 * 1024;
    let max_request_bytes =
        checks.size("api.max_request_bytes", keys.max_request_bytes, DEFAULT_REQUEST, range);
    ApiConfig { tokens, max_request_bytes }
}

/// A token, if all that it needs is there.
fn token(checks: &mut Checks, at: usize, entry: ApiTokenEntry) -> Option<ApiToken> {
    let path = format!("api.tokens[{at}]");
    let given = |value: Option<String>| value.filter(|text| !text.is_empty());
    let Some(name) = given(entry.name) else {
        checks.wrong(&format!("{path}.name"), "is missing: logs and errors name the token by it");
        return None;
    };
    let (key, secret) = match (given(entry.token), given(entry.token_file)) {
        (Some(secret), None) => ("token", secret),
        (None, Some(file)) => match std::fs::read_to_string(&file) {
            // A line that an editor has ended is meant without its end.
            Ok(content) => ("token_file", content.trim_ascii_end().to_owned()),
            Err(error) => {
                checks.wrong(&format!("{path}.token_file"), format!("`{file}` cannot be read: {error}"));
                return None;
            }
        },
        _ => {
            checks.wrong(&path, "needs one of token and token_file");
            return None;
        }
    };
    // RFC 6750 section 2.1; anything else could not be sent in a header.
    if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        checks
            .wrong(&format!("{path}.{key}"), "has characters that a header cannot carry: use visible ASCII");
        return None;
    }
    if secret.len() < SHORTEST {
        let text = format!("has {} bytes, at least {SHORTEST} are needed", secret.len());
        checks.wrong(&format!("{path}.{key}"), text);
        return None;
    }
    let scopes = scopes(checks, &format!("{path}.scopes"), entry.scopes.unwrap_or_default())?;
    Some(ApiToken::new(name, &secret, scopes))
}

fn scopes(checks: &mut Checks, key: &str, names: Vec<String>) -> Option<Vec<Scope>> {
    let known = Scope::ALL.map(Scope::as_str).join(", ");
    if names.is_empty() {
        checks.wrong(key, format!("is empty: the token would be good for nothing; name some of {known}"));
        return None;
    }
    let scope = |name: &String| Scope::ALL.into_iter().find(|scope| scope.as_str() == name);
    if let Some(unknown) = names.iter().find(|name| scope(name).is_none()) {
        checks.wrong(key, format!("`{unknown}` is unknown, allowed is {known}"));
        return None;
    }
    Some(names.iter().filter_map(scope).collect())
}
