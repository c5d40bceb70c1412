//! The `auth.jwt.jwks` section.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use hyper::Uri;

use super::{checks::Checks, schema::JwksKeys};
use crate::auth::{Algorithm, Jwks, JwksConfig};

const ALGORITHMS: &str = "RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA";

fn key(name: &str) -> String {
    format!("auth.jwt.jwks.{name}")
}

/// The set that keys are fetched from; none: there is none, or something is wrong with it.
pub(super) fn jwks(checks: &mut Checks, keys: JwksKeys) -> Option<Jwks> {
    const HOUR: u64 = 3_600_000;
    let span = |ms| Duration::from_millis(ms);
    let (refresh, refetch) = (span(HOUR / 4), span(30_000));
    let config = JwksConfig {
        algorithms: algorithms(checks, keys.algorithms.unwrap_or_default()),
        ca_file: keys.ca_file.filter(|file| !file.is_empty()).map(PathBuf::from),
        refresh: checks.span(&key("refresh"), keys.refresh, refresh, 1_000..=24 * HOUR),
        refetch_after: checks.span(&key("refetch_after"), keys.refetch_after, refetch, 1_000..=HOUR),
        timeout: checks.span(&key("timeout"), keys.timeout, span(5_000), 100..=60_000),
        max_age: checks.span(&key("max_age"), keys.max_age, span(24 * HOUR), 1_000..=365 * 24 * HOUR),
        url: keys.url.unwrap_or_default(),
    };
    if config.url.is_empty() {
        if config.ca_file.is_some() || !config.algorithms.is_empty() {
            checks.wrong(&key("url"), "is missing: where is the key set?");
        }
        return None;
    }
    check_url(checks, &config.url)?;
    if config.max_age < config.refresh {
        let message = format!("{:?} is shorter than refresh: keys would be lost in between", config.max_age);
        checks.wrong(&key("max_age"), message);
    }
    Jwks::new(config).map_err(|why| checks.wrong(&key("ca_file"), why)).ok()
}

/// The URL may hold a secret, so no message repeats it.
fn check_url(checks: &mut Checks, url: &str) -> Option<()> {
    let parsed = url.parse::<Uri>().ok().filter(|uri| uri.authority().is_some());
    let scheme = parsed.as_ref().and_then(Uri::scheme_str);
    let (Some(uri), Some("http" | "https")) = (&parsed, scheme) else {
        checks.wrong(&key("url"), "is not a URL: write https://host/path");
        return None;
    };
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        checks.wrong(&key("url"), "has a user in it, which is not sent");
        return None;
    }
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if scheme == Some("http") && !local {
        checks.warn(&key("url"), "is not https: whoever is on the way can let in whom they like");
    }
    Some(())
}

fn algorithms(checks: &mut Checks, names: Vec<String>) -> Vec<Algorithm> {
    let mut algorithms = Vec::new();
    for (at, name) in names.iter().enumerate() {
        match name.parse::<Algorithm>() {
            // A symmetric key would be a secret that everybody can fetch.
            Ok(algorithm) if !name.starts_with("HS") => algorithms.push(algorithm),
            _ => checks.wrong(
                &format!("auth.jwt.jwks.algorithms[{at}]"),
                format!("`{name}` is not for key sets, allowed is {ALGORITHMS}"),
            ),
        }
    }
    algorithms
}

#[cfg(test)]
mod tests {
    use crate::config::assemble;

    fn problems(jwks: &str) -> Vec<(String, String)> {
        match assemble("test", &format!("auth: {{jwt: {{jwks: {{{jwks}}}}}}}"), &[]) {
            Ok((config, warnings)) => {
                assert!(config.jwt.is_some(), "{jwks}");
                warnings.into_iter().map(|problem| (problem.key, problem.message)).collect()
            }
            Err(error) => error.problems.into_iter().map(|problem| (problem.key, problem.message)).collect(),
        }
    }

    #[test]
    fn a_set_by_url_is_enough_and_what_is_wrong_with_it_is_named_without_the_url() {
        assert_eq!(problems("url: 'https://login.example/keys'"), []);
        assert_eq!(problems("url: 'http://127.0.0.1:1/keys', refresh: 1m, algorithms: [RS256, EdDSA]"), []);
        for (jwks, key, words) in [
            ("url: 'http://login.example/s3cret'", "url", "not https"),
            ("url: 'ftp://login.example/s3cret'", "url", "not a URL"),
            ("url: 's3cret'", "url", "not a URL"),
            ("url: 'https://u:s3cret@login.example/'", "url", "user"),
            ("algorithms: [RS256]", "url", "missing"),
            ("url: 'https://a.example/', algorithms: [HS256]", "algorithms[0]", "HS256"),
            ("url: 'https://a.example/', refresh: 1h, max_age: 10m", "max_age", "shorter"),
            ("url: 'https://a.example/', ca_file: /no/such.pem", "ca_file", "/no/such.pem cannot be read"),
        ] {
            let found = problems(jwks);
            let (_, message) = found
                .iter()
                .find(|(at, _)| *at == format!("auth.jwt.jwks.{key}"))
                .unwrap_or_else(|| panic!("{jwks}: {found:?}"));
            assert!(message.contains(words) && !message.contains("s3cret"), "{jwks}: {message}");
        }
    }
}
