//! The `proxy` section: backends that hooks and RPCs go to.

use std::{collections::BTreeMap, path::PathBuf};

use hyper::{
    Uri,
    header::{HeaderName, HeaderValue},
};

use super::{
    checks::Checks,
    schema::{Breaker, Proxy, ProxyGrpc, ProxyHttp, Route},
};
use crate::{
    channel::Target,
    client_headers::forwardable,
    hooks::{
        AUTHENTICATE, BackendOptions, BackendRoute, BreakerOptions, Endpoint, GrpcOptions, HOOK_IN_URL,
        HttpOptions,
    },
    http_client::Trust,
};

/// Bytes of an answer, unless said otherwise: the greatest event of the default policy, as base64, and more.
const ANSWER_BYTES: usize = 1024 * 1024;

/// Headers of clients that one backend may want.
const MOST_FORWARDED: usize = 32;

/// Whether one of them tells who clients are.
pub(super) fn authenticates(backends: &[BackendOptions]) -> bool {
    let mut routes = backends.iter().flat_map(|backend| &backend.routes);
    routes.any(|route| route.channel.is_empty() && route.method == AUTHENTICATE)
}

/// Checks every backend.
pub(super) fn backends(checks: &mut Checks, list: Vec<Proxy>) -> Vec<BackendOptions> {
    let mut out: Vec<BackendOptions> = Vec::new();
    for (at, keys) in list.into_iter().enumerate() {
        let path = format!("proxy[{at}]");
        let Some(backend) = backend(checks, &path, keys) else { continue };
        if out.iter().any(|other| other.name == backend.name) {
            checks.wrong(&format!("{path}.name"), format!("`{}` is there already", backend.name));
        }
        out.push(backend);
    }
    out
}

fn backend(checks: &mut Checks, path: &str, keys: Proxy) -> Option<BackendOptions> {
    let name = keys.name.filter(|name| !name.is_empty()).unwrap_or_else(|| path.to_owned());
    let timeout =
        keys.timeout.map(|span| checks.span(&format!("{path}.timeout"), Some(span), span.0, 1..=3_600_000));
    let max_concurrent =
        checks.number(&format!("{path}.max_concurrent"), keys.max_concurrent, 256, 1..=1_000_000);
    let breaker = breaker(checks, &format!("{path}.breaker"), keys.breaker.unwrap_or_default());
    let routes = routes(checks, path, keys.routes.unwrap_or_default());
    let endpoint = endpoint(checks, path, keys.endpoint.unwrap_or_default(), keys.http, keys.grpc)?;
    let (lifecycle, occupancy) = (keys.lifecycle.unwrap_or(false), keys.occupancy.unwrap_or(false));
    if occupancy && !lifecycle {
        checks.wrong(&format!("{path}.occupancy"), "is for backends with `lifecycle: true`");
    }
    let key = format!("{path}.forward_headers");
    let forward_headers = forward_headers(checks, &key, &keys.forward_headers.unwrap_or_default());
    Some(BackendOptions {
        name,
        endpoint,
        timeout,
        max_concurrent,
        breaker,
        lifecycle,
        occupancy,
        forward_headers,
        routes,
    })
}

fn forward_headers(checks: &mut Checks, key: &str, names: &[String]) -> Vec<HeaderName> {
    if names.len() > MOST_FORWARDED {
        checks.wrong(key, format!("has {} names, allowed are {MOST_FORWARDED}", names.len()));
    }
    let mut out: Vec<HeaderName> = Vec::new();
    for name in names {
        match forwardable(name) {
            Ok(header) if out.contains(&header) => checks.wrong(key, format!("`{name}` is there already")),
            Ok(header) => out.push(header),
            Err(reason) => checks.wrong(key, reason),
        }
    }
    out
}

fn breaker(checks: &mut Checks, path: &str, keys: Breaker) -> BreakerOptions {
    let usual = BreakerOptions::default();
    let failure_ratio = keys.failure_ratio.unwrap_or(usual.failure_ratio);
    if !(0.01..=1.0).contains(&failure_ratio) {
        let text = format!("{failure_ratio} is out of range, allowed is 0.01 to 1");
        checks.wrong(&format!("{path}.failure_ratio"), text);
    }
    let number = |checks: &mut Checks, key, value, default: u32| {
        checks.number(&format!("{path}.{key}"), value, default, 1..=1_000_000)
    };
    BreakerOptions {
        failure_ratio,
        minimum_calls: number(checks, "minimum_calls", keys.minimum_calls, usual.minimum_calls),
        window: checks.span(&format!("{path}.window"), keys.window, usual.window, 100..=3_600_000),
        open_for: checks.span(&format!("{path}.open_for"), keys.open_for, usual.open_for, 1..=3_600_000),
        trial_calls: number(checks, "trial_calls", keys.trial_calls, usual.trial_calls),
    }
}

fn routes(checks: &mut Checks, path: &str, list: Vec<Route>) -> Vec<BackendRoute> {
    let route = |(at, keys): (usize, Route)| {
        let (channel, method) = (keys.channel.unwrap_or_default(), keys.method.unwrap_or_default());
        let key = format!("{path}.routes[{at}]");
        if method.is_empty() {
            checks.wrong(&format!("{key}.method"), "is missing");
        } else if method.starts_with('$') && method != AUTHENTICATE {
            checks.wrong(
                &format!("{key}.method"),
                format!("`{method}` is unknown: only {AUTHENTICATE} starts with $"),
            );
        } else if (method == AUTHENTICATE) != channel.is_empty() {
            let text = format!("is empty for the method {AUTHENTICATE} and for no other");
            checks.wrong(&format!("{key}.channel"), text);
        }
        // What cannot match would leave open what a backend is to decide.
        for (name, pattern) in [("channel", &channel), ("method", &method)] {
            if !pattern.is_empty()
                && !pattern.starts_with('$')
                && let Err(error) = Target::parse(pattern)
            {
                checks.wrong(&format!("{key}.{name}"), format!("`{pattern}` matches nothing: {error}"));
            }
        }
        BackendRoute { channel, method }
    };
    list.into_iter().enumerate().map(route).collect()
}

/// HTTP by a URL `http://` or `https://`, gRPC by `grpc://`, `grpcs://` or `host:port`; a section `http` or `grpc` says so,
/// too.
fn endpoint(
    checks: &mut Checks,
    path: &str,
    text: String,
    http: Option<ProxyHttp>,
    grpc: Option<ProxyGrpc>,
) -> Option<Endpoint> {
    let key = format!("{path}.endpoint");
    let (scheme, rest) = text.split_once("://").unwrap_or(("", &text));
    let is_http = match (scheme, &http, &grpc) {
        _ if rest.is_empty() => return wrong(checks, &key, "is missing"),
        (_, Some(_), Some(_)) => {
            return wrong(checks, path, "has `http` and `grpc`: a backend speaks one of them");
        }
        ("http" | "https", _, grpc) => grpc.is_none(),
        ("" | "grpc" | "grpcs", Some(_), _) => {
            return wrong(checks, &key, "must be a URL with http:// or https://");
        }
        ("" | "grpc" | "grpcs", None, _) => false,
        _ => return wrong(checks, &key, "must be http://, https://, grpc://, grpcs:// or host:port"),
    };
    let secure = match (scheme, grpc.as_ref().and_then(|grpc| grpc.insecure)) {
        ("https" | "grpcs", Some(true)) | ("http" | "grpc", Some(false)) => {
            return wrong(checks, &format!("{path}.grpc.insecure"), "contradicts the endpoint");
        }
        ("https" | "grpcs", _) => true,
        ("", Some(insecure)) => !insecure,
        _ => false,
    };
    let url = format!("{}://{rest}", if secure { "https" } else { "http" });
    // What stands for the hook's name is no part of any URL.
    match url.replace(HOOK_IN_URL, "hook").parse::<Uri>() {
        Ok(uri) if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) => {
            return wrong(checks, &key, "must have no user or password: use headers or metadata, from files");
        }
        Ok(uri) if is_http || matches!(uri.path(), "" | "/") => {}
        _ => return wrong(checks, &key, "is not an address"),
    }
    if is_http {
        self::http(checks, &format!("{path}.http"), url, http.unwrap_or_default())
    } else {
        self::grpc(checks, &format!("{path}.grpc"), url, grpc.unwrap_or_default())
    }
}

fn http(checks: &mut Checks, path: &str, url: String, keys: ProxyHttp) -> Option<Endpoint> {
    let headers = headers(checks, path, ("headers", keys.headers), ("header_files", keys.header_files));
    let max_response_bytes = checks.size(
        &format!("{path}.max_response_bytes"),
        keys.max_response_bytes,
        ANSWER_BYTES,
        1..=64 * 1024 * 1024,
    );
    let trust = trust(keys.ca_file);
    Some(Endpoint::Http(HttpOptions { url, headers: headers?, trust, max_response_bytes }))
}

fn grpc(checks: &mut Checks, path: &str, url: String, keys: ProxyGrpc) -> Option<Endpoint> {
    let metadata =
        headers(checks, path, ("metadata", keys.metadata), ("metadata_files", keys.metadata_files));
    let max_message_bytes = checks.size(
        &format!("{path}.max_message_bytes"),
        keys.max_message_bytes,
        ANSWER_BYTES,
        1..=64 * 1024 * 1024,
    );
    let trust = trust(keys.ca_file);
    Some(Endpoint::Grpc(GrpcOptions { url, metadata: metadata?, trust, max_message_bytes }))
}

fn trust(ca_file: Option<String>) -> Trust {
    match ca_file.filter(|file| !file.is_empty()) {
        Some(file) => Trust::File(PathBuf::from(file)),
        None => Trust::System,
    }
}

type Named = (&'static str, Option<BTreeMap<String, String>>);

/// Headers or metadata: as they stand in the configuration, and what is in the files that are named.
fn headers(
    checks: &mut Checks,
    path: &str,
    (key, values): Named,
    (files_key, files): Named,
) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let mut out = Vec::new();
    let mut sound = true;
    for (name, value) in values.unwrap_or_default() {
        sound &= push(checks, &format!("{path}.{key}"), &name, &value, &mut out);
    }
    for (name, file) in files.unwrap_or_default() {
        let key = format!("{path}.{files_key}");
        match std::fs::read_to_string(&file) {
            // A line that an editor has ended is meant without its end.
            Ok(value) => sound &= push(checks, &key, &name, value.trim_end(), &mut out),
            Err(error) => {
                checks.wrong(&key, format!("`{file}` cannot be read: {error}"));
                sound = false;
            }
        }
    }
    sound.then_some(out)
}

fn push(
    checks: &mut Checks,
    key: &str,
    name: &str,
    value: &str,
    out: &mut Vec<(HeaderName, HeaderValue)>,
) -> bool {
    match (name.to_ascii_lowercase().parse::<HeaderName>(), HeaderValue::from_str(value)) {
        (Ok(name), Ok(mut value)) => {
            // Whatever it is for, it may be a secret: it is never shown.
            value.set_sensitive(true);
            out.push((name, value));
            true
        }
        (Err(_), _) => {
            checks.wrong(key, format!("`{name}` is not the name of a header"));
            false
        }
        (_, Err(_)) => {
            checks.wrong(key, format!("the value of `{name}` cannot be that of a header"));
            false
        }
    }
}

fn wrong<T>(checks: &mut Checks, key: &str, message: &str) -> Option<T> {
    checks.wrong(key, message);
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::assemble;

    fn loaded(proxy: &str) -> Result<Vec<BackendOptions>, String> {
        let text = format!("proxy:\n  - {proxy}\n");
        assemble("test", &text, &[]).map(|(config, _)| config.backends).map_err(|error| error.to_string())
    }

    fn url(proxy: &str) -> (bool, String) {
        match loaded(proxy).unwrap().remove(0).endpoint {
            Endpoint::Http(http) => (true, http.url),
            Endpoint::Grpc(grpc) => (false, grpc.url),
        }
    }

    #[test]
    fn the_endpoint_says_how_a_backend_is_spoken_to() {
        for (proxy, is_http, expected) in [
            ("{endpoint: 'http://a:1/{hook}'}", true, "http://a:1/{hook}"),
            ("{endpoint: 'https://a/x', http: {}}", true, "https://a/x"),
            ("{endpoint: 'a:1'}", false, "http://a:1"),
            ("{endpoint: 'a:1', grpc: {insecure: true}}", false, "http://a:1"),
            ("{endpoint: 'a:1', grpc: {insecure: false}}", false, "https://a:1"),
            ("{endpoint: 'grpcs://a:1'}", false, "https://a:1"),
            ("{endpoint: 'http://a:1', grpc: {}}", false, "http://a:1"),
        ] {
            assert_eq!(url(proxy), (is_http, expected.to_owned()), "{proxy}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_key() {
        for (proxy, said) in [
            ("{name: x}", "proxy[0].endpoint: is missing"),
            ("{endpoint: 'http://u:s3cret@a'}", "must have no user"),
            ("{endpoint: 'ftp://a'}", "proxy[0].endpoint: must be http://"),
            ("{endpoint: 'a:1/path'}", "is not an address"),
            ("{endpoint: 'http://a', http: {}, grpc: {}}", "speaks one of them"),
            ("{endpoint: 'http://a', http: {headers: {'a b': x}}}", "`a b` is not the name"),
            ("{endpoint: 'http://a', http: {header_files: {a: /none}}}", "`/none` cannot be read"),
            ("{endpoint: 'http://a', http: {retries: 1}}", "`retries`"),
            ("{endpoint: 'http://a', forward_headers: [Host]}", "proxy[0].forward_headers: `Host` cannot"),
            ("{endpoint: 'a:1', forward_headers: [grpc-timeout]}", "`grpc-timeout` cannot be forwarded"),
            ("{endpoint: 'a:1', forward_headers: ['a b']}", "`a b` is not the name of a header"),
            ("{endpoint: 'a:1', forward_headers: [Cookie, cookie]}", "`cookie` is there already"),
            ("{endpoint: 'http://a', breaker: {failure_ratio: 0}}", "proxy[0].breaker.failure_ratio"),
            ("{endpoint: 'http://a', timeout: 0s}", "proxy[0].timeout"),
            ("{endpoint: 'http://a', occupancy: true}", "proxy[0].occupancy: is for backends with"),
            ("{endpoint: 'http://a', routes: [{channel: a}]}", "proxy[0].routes[0].method: is missing"),
            ("{endpoint: 'http://a', routes: [{channel: a, method: $authenticate}]}", "routes[0].channel"),
            ("{endpoint: 'http://a', routes: [{channel: a, method: $other}]}", "routes[0].method"),
            ("{endpoint: 'http://a', name: x}\n  - {endpoint: 'http://b', name: x}", "proxy[1].name"),
        ] {
            let text = loaded(proxy).unwrap_err();
            assert!(text.contains(said) && !text.contains("s3cret"), "{proxy}: {text}");
        }
    }

    #[test]
    fn headers_come_from_the_file_of_settings_or_files_of_their_own_and_are_never_shown() {
        let file = std::env::temp_dir().join(format!("streamgate-header-{}", uuid::Uuid::new_v4()));
        std::fs::write(&file, "s3cret\n").unwrap();
        let proxy = format!(
            "{{endpoint: 'http://a', http: {{headers: {{X-Key: s3cret}}, header_files: {{X-File: {}}}}}}}",
            file.display()
        );
        let backends = loaded(&proxy);
        std::fs::remove_file(&file).unwrap();
        let backends = backends.unwrap();
        assert!(!format!("{backends:?}").contains("s3cret"), "{backends:?}");
        let Endpoint::Http(http) = &backends[0].endpoint else { panic!("{backends:?}") };
        let headers: Vec<_> =
            http.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(headers, [("x-key", "s3cret"), ("x-file", "s3cret")]);
    }
}
