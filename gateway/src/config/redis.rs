//! The `broker.redis` section.

use std::{path::PathBuf, time::Duration};

use super::{
    checks::Checks,
    runtime::{Password, RedisConfig},
    schema::{Redis, Tls},
};
use crate::broker::redis::{InvalidAddress, RedisOptions, TlsOptions};

fn key(name: &str) -> String {
    format!("broker.redis.{name}")
}

/// Everything but the keys that are only MessageLoop's.
pub(super) fn redis(checks: &mut Checks, keys: Redis) -> RedisConfig {
    let address = address(checks, &keys);
    let key_prefix = keys.key_prefix.unwrap_or_else(|| "streamgate".to_owned());
    let allowed = |text: &str| !text.contains(['{', '}']) && !text.contains(char::is_whitespace);
    if !allowed(&key_prefix) || key_prefix.is_empty() || key_prefix.len() > 64 {
        // Braces would move the hash tag and with it the keys of a partition into different slots.
        checks.wrong(
            &key("key_prefix"),
            format!("`{key_prefix}` must have 1 to 64 bytes, no braces and no white space"),
        );
    }
    let tls = tls(checks, keys.tls.unwrap_or_default(), address.tls.is_some());
    let in_address = |field: &str| format!("is in `{}` already", key(field));
    if keys.username.is_some() && address.username.is_some() {
        checks.wrong(&key("username"), in_address("addr"));
    }
    if keys.password.is_some() && address.password.is_some() {
        checks.wrong(&key("password"), in_address("addr"));
    }
    let db = checks.number(&key("db"), keys.db, address.db, 0..=255);
    if address.db != 0 && db != address.db {
        checks.wrong(&key("db"), in_address("addr"));
    }
    RedisConfig {
        addr: address.address(),
        username: keys.username.filter(|name| !name.is_empty()).or(address.username),
        password: keys.password.filter(|word| !word.is_empty()).or(address.password).map(Password::new),
        tls,
        db,
        key_prefix,
        partitions: checks.number(&key("partitions"), keys.partitions, 16, 1..=256),
        connect_timeout: checks.span(
            &key("connect_timeout"),
            keys.connect_timeout,
            Duration::from_secs(5),
            10..=60_000,
        ),
        command_timeout: checks.span(
            &key("command_timeout"),
            keys.command_timeout,
            Duration::from_secs(2),
            10..=60_000,
        ),
        inbox_max_length: checks.number(
            &key("inbox_max_length"),
            keys.inbox_max_length,
            20_000,
            1_000..=10_000_000,
        ),
        inbox_ttl: checks.span(
            &key("inbox_ttl"),
            keys.inbox_ttl,
            Duration::from_secs(60),
            60_000..=86_400_000,
        ),
    }
}

/// `host:port`, or a URL. What is wrong is said without repeating a URL: a password may be in it.
fn address(checks: &mut Checks, keys: &Redis) -> RedisOptions {
    let Some(addr) = keys.addr.as_deref() else { return RedisOptions::default() };
    let parsed: Result<RedisOptions, InvalidAddress> = addr.parse();
    let is_url = addr.contains("://");
    let host_and_port = || addr.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    match parsed {
        Ok(options) if is_url || host_and_port() && clean(&options) => options,
        Err(error) if is_url => {
            checks.wrong(&key("addr"), error.to_string());
            RedisOptions::default()
        }
        _ => {
            let shown = if addr.contains('@') { "this".to_owned() } else { format!("`{addr}`") };
            checks.wrong(&key("addr"), format!("{shown} is not host:port or redis[s]://host:port"));
            RedisOptions::default()
        }
    }
}

/// Whether it is a mere `host:port`.
fn clean(options: &RedisOptions) -> bool {
    options.username.is_none()
        && options.password.is_none()
        && options.db == 0
        && !options.host.contains([',', '/', '@'])
        && !options.host.contains(char::is_whitespace)
}

/// TLS is on if the address says so or `enabled` does. What only means something with TLS must not stand without it:
/// that would be plain text where somebody thought of TLS.
fn tls(checks: &mut Checks, keys: Tls, by_address: bool) -> Option<TlsOptions> {
    let enabled = keys.enabled.unwrap_or(by_address);
    if by_address && !enabled {
        checks.wrong(&key("tls.enabled"), "the address says rediss://, which is TLS");
    }
    let text = |value: Option<String>| value.filter(|text| !text.is_empty());
    let (ca, certificate, private) = (text(keys.ca_file), text(keys.cert_file), text(keys.key_file));
    let server_name = text(keys.server_name);
    if !enabled {
        let named = [
            ("ca_file", &ca),
            ("cert_file", &certificate),
            ("key_file", &private),
            ("server_name", &server_name),
        ];
        for (name, _) in named.iter().filter(|(_, value)| value.is_some()) {
            checks.wrong(&key(&format!("tls.{name}")), "TLS is off: write rediss:// or tls.enabled: true");
        }
        return None;
    }
    match (&certificate, &private) {
        (Some(_), None) => checks.wrong(&key("tls.key_file"), "is missing: cert_file needs it"),
        (None, Some(_)) => checks.wrong(&key("tls.cert_file"), "is missing: key_file needs it"),
        _ => {}
    }
    if let Some(name) = server_name.as_deref().filter(|name| !TlsOptions::is_server_name(name)) {
        checks.wrong(&key("tls.server_name"), format!("`{name}` is neither a host name nor an address"));
    }
    Some(TlsOptions {
        ca_file: ca.map(PathBuf::from),
        cert_file: certificate.map(PathBuf::from),
        key_file: private.map(PathBuf::from),
        server_name,
    })
}
