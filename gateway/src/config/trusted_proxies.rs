//! `transport.trusted_proxies` and `transport.forwarded_header`.

use super::checks::Checks;
use crate::transport::{ForwardedHeader, Network, TrustedProxies};

/// Who is believed about the address of a client.
pub(super) fn trusted_proxies(
    checks: &mut Checks,
    proxies: Option<Vec<String>>,
    header: Option<String>,
) -> TrustedProxies {
    let header = match header.as_deref().map(str::to_ascii_lowercase).as_deref() {
        None | Some("x-forwarded-for") => ForwardedHeader::XForwardedFor,
        Some("forwarded") => ForwardedHeader::Forwarded,
        Some(other) => {
            let message = format!("`{other}` is unknown, allowed is x-forwarded-for or forwarded");
            checks.wrong("transport.forwarded_header", message);
            ForwardedHeader::default()
        }
    };
    let mut networks = Vec::new();
    for (at, text) in proxies.unwrap_or_default().iter().enumerate() {
        match Network::parse(text) {
            Some(network) => networks.push(network),
            None => checks.wrong(
                &format!("transport.trusted_proxies[{at}]"),
                format!("`{text}` is no address and no network: write 10.0.0.7, 10.0.0.0/8 or fd00::/8"),
            ),
        }
    }
    TrustedProxies::new(networks, header)
}
