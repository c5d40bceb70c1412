//! The address of a client that came through proxies: `X-Forwarded-For`, or `Forwarded` (RFC 7239).
//!
//! Anybody can write these headers. What counts is what trusted proxies have added, and each adds at the right end: from
//! there, the first address that is no trusted proxy's is the client's, and everything to the left of it is hearsay.

use std::net::IpAddr;

use hyper::header::{HeaderMap, HeaderName};

/// Proxies whose word counts, and where they write it. The default believes nobody.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrustedProxies {
    networks: Vec<Network>,
    header: ForwardedHeader,
}

/// The header that the proxies write. Only one is looked at: they pass on what a client put into the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`: addresses, separated by commas.
    #[default]
    XForwardedFor,
    /// `Forwarded` with `for=` (RFC 7239).
    Forwarded,
}

/// Addresses with a common prefix (RFC 4632 section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// As IPv6, IPv4 mapped (RFC 4291 section 2.5.5.2).
    bits: u128,
    length: u8,
}

impl Network {
    /// Reads `10.0.0.0/8`, `2001:db8::/32` or a single address.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length.parse::<u8>().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let length = length.unwrap_or(whole);
        // An IPv4 prefix is that of the mapped address.
        let length = (length <= whole).then_some(128 - whole + length)?;
        Some(Self { bits: bits(address), length })
    }

    fn contains(self, address: IpAddr) -> bool {
        let differing = self.bits ^ bits(address);
        differing.leading_zeros() >= u32::from(self.length)
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl TrustedProxies {
    /// Proxies in these networks, which write this header.
    #[must_use]
    pub fn new(networks: Vec<Network>, header: ForwardedHeader) -> Self {
        Self { networks, header }
    }

    /// The client's address, given who is at the other end of the connection and what the headers say. Where a proxy
    /// says nothing that can be read, it is the proxy's own. IPv4 is never shown as IPv6.
    #[must_use]
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        if !self.trusts(client) {
            return client;
        }
        let name = match self.header {
            ForwardedHeader::XForwardedFor => HeaderName::from_static("x-forwarded-for"),
            ForwardedHeader::Forwarded => hyper::header::FORWARDED,
        };
        let mut lines: Vec<_> = headers.get_all(name).iter().collect();
        // Several lines are one list (RFC 9110 section 5.3).
        while let Some(line) = lines.pop() {
            let Ok(line) = line.to_str() else { return client };
            for element in from_the_right(line) {
                let address = match self.header {
                    ForwardedHeader::XForwardedFor => address(element),
                    ForwardedHeader::Forwarded => for_parameter(element).and_then(address),
                };
                let Some(address) = address else { return client };
                client = address;
                if !self.trusts(client) {
                    return client;
                }
            }
        }
        client
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(address))
    }
}

/// The elements of a list, the last first. Commas in quotes do not separate. Read from the right, so that a quote that a
/// client left open swallows nothing of what was added behind it.
fn from_the_right(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let text = rest?;
        let mut quoted = false;
        let comma = text.rfind(|c| {
            quoted ^= c == '"';
            c == ',' && !quoted
        });
        let element = match comma {
            Some(at) => {
                rest = Some(&text[..at]);
                &text[at + 1..]
            }
            None => {
                rest = None;
                text
            }
        };
        Some(element.trim())
    })
}

/// The value of `for` in an element of `Forwarded`, without its quotes.
fn for_parameter(element: &str) -> Option<&str> {
    let mut values = element.split(';').filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then_some(value.trim())
    });
    // Twice in one element is not allowed (section 4), so it is not known which of them is right.
    let (value, None) = (values.next()?, values.next()) else { return None };
    match value.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"'),
        None => Some(value),
    }
}

/// An address with or without a port; IPv6 with a port, and in `Forwarded` always, in brackets.
fn address(text: &str) -> Option<IpAddr> {
    let address = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (address, port) = bracketed.split_once(']')?;
            if !port.is_empty() && !is_port(port.strip_prefix(':')?) {
                return None;
            }
            IpAddr::V6(address.parse().ok()?)
        }
        None => match text.parse() {
            Ok(address) => address,
            Err(_) => {
                let (address, port) = text.split_once(':')?;
                IpAddr::V4(is_port(port).then(|| address.parse().ok())??)
            }
        },
    };
    Some(address.to_canonical())
}

/// A number, or a name that hides it (RFC 7239 section 6).
fn is_port(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

#[cfg(test)]
#[path = "client_addr_tests.rs"]
mod tests;
