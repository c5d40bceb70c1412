//! The `tls` sections of the listeners.

use std::path::PathBuf;

use super::{checks::Checks, schema::ListenerTls};
use crate::tls::{ClientAuth, TlsFiles};

/// What a listener shows and trusts; none: it speaks plain text. The files are tried, so that a check of the
/// configuration finds what a start would. `key` is that of the section.
pub(super) fn listener_tls(checks: &mut Checks, key: &str, keys: Option<ListenerTls>) -> Option<TlsFiles> {
    let keys = keys?;
    let (certificate, private) = (file(keys.cert_file), file(keys.key_file));
    let client_auth = client_auth(checks, key, file(keys.client_ca_file), keys.client_auth.as_deref());
    let files = match (certificate, private) {
        (Some(cert_file), Some(key_file)) => TlsFiles { cert_file, key_file, client_auth: client_auth? },
        (Some(_), None) => {
            checks.wrong(&format!("{key}.key_file"), "is missing: cert_file needs it");
            return None;
        }
        (None, Some(_)) => {
            checks.wrong(&format!("{key}.cert_file"), "is missing: key_file needs it");
            return None;
        }
        (None, None) => {
            // That would be plain text where somebody thought of TLS.
            if client_auth.is_some_and(|auth| auth != ClientAuth::None) {
                checks.wrong(&format!("{key}.cert_file"), "is missing: client_auth needs TLS");
            }
            return None;
        }
    };
    if let Err(why) = files.check() {
        checks.wrong(key, why);
    }
    Some(files)
}

/// An empty text is none.
fn file(value: Option<String>) -> Option<PathBuf> {
    value.filter(|text| !text.is_empty()).map(PathBuf::from)
}

fn client_auth(
    checks: &mut Checks,
    key: &str,
    authorities: Option<PathBuf>,
    mode: Option<&str>,
) -> Option<ClientAuth> {
    let key = |name: &str| format!("{key}.{name}");
    match (mode.unwrap_or("none"), authorities) {
        ("none", None) => return Some(ClientAuth::None),
        ("request", Some(file)) => return Some(ClientAuth::Request(file)),
        ("require", Some(file)) => return Some(ClientAuth::Require(file)),
        ("none", Some(_)) => {
            checks.wrong(&key("client_auth"), "is none, but there is a client_ca_file: request or require?");
        }
        ("request" | "require", None) => {
            checks.wrong(&key("client_ca_file"), "is missing: who signs the certificates of clients?");
        }
        (other, _) => {
            let message = format!("`{other}` is unknown, allowed is none, request or require");
            checks.wrong(&key("client_auth"), message);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use crate::config::assemble;

    #[test]
    fn half_of_tls_is_an_error_that_names_the_key() {
        for (tls, key, words) in [
            ("cert_file: a.pem", "key_file", "is missing"),
            ("key_file: a.pem", "cert_file", "is missing"),
            ("client_auth: require, client_ca_file: a.pem", "cert_file", "needs TLS"),
            ("client_auth: require", "client_ca_file", "is missing"),
            ("client_ca_file: a.pem", "client_auth", "request or require"),
            ("client_auth: maybe", "client_auth", "allowed is"),
        ] {
            for section in ["transport.websocket", "transport.grpc", "server.http"] {
                let (above, below) = section.split_once('.').unwrap();
                let text = format!("{above}: {{{below}: {{tls: {{{tls}}}}}}}");
                let error = assemble("test", &text, &[]).unwrap_err();
                let found =
                    error.problems.iter().find(|problem| problem.key == format!("{section}.tls.{key}"));
                assert!(found.is_some_and(|problem| problem.message.contains(words)), "{text}: {error}");
            }
        }
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let text = "transport: {grpc: {tls: {cert_file: /no/such.pem, key_file: /no/such.key}}}";
        let error = assemble("test", text, &[]).unwrap_err();
        assert_eq!(error.problems[0].key, "transport.grpc.tls");
        assert!(error.to_string().contains("/no/such.pem cannot be read"), "{error}");
    }
}
