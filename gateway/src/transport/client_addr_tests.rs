//! Whose word counts, and what is made of garbage.

use hyper::header::{FORWARDED, HeaderValue};
use proptest::prelude::*;

use super::*;

fn proxies(networks: &[&str], header: ForwardedHeader) -> TrustedProxies {
    TrustedProxies::new(networks.iter().map(|text| Network::parse(text).unwrap()).collect(), header)
}

fn headers(name: &'static str, lines: &[&str]) -> HeaderMap {
    let name = HeaderName::from_static(name);
    lines.iter().map(|line| (name.clone(), HeaderValue::from_str(line).unwrap())).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// With `X-Forwarded-For` and 10.0.0.0/8 and fd00::/8 trusted.
fn x_forwarded_for(peer: &str, lines: &[&str]) -> String {
    let proxies = proxies(&["10.0.0.0/8", "fd00::/8"], ForwardedHeader::XForwardedFor);
    proxies.client(ip(peer), &headers("x-forwarded-for", lines)).to_string()
}

/// The same with `Forwarded`.
fn forwarded(peer: &str, lines: &[&str]) -> String {
    let proxies = proxies(&["10.0.0.0/8", "fd00::/8"], ForwardedHeader::Forwarded);
    proxies.client(ip(peer), &headers("forwarded", lines)).to_string()
}

#[test]
fn nobody_is_believed_who_is_not_named() {
    let nobody = TrustedProxies::default();
    let claimed = headers("x-forwarded-for", &["1.2.3.4"]);
    assert_eq!(nobody.client(ip("10.0.0.1"), &claimed), ip("10.0.0.1"));
    assert_eq!(x_forwarded_for("203.0.113.9", &["1.2.3.4"]), "203.0.113.9");
    assert_eq!(x_forwarded_for("11.0.0.1", &["1.2.3.4"]), "11.0.0.1");
    assert_eq!(forwarded("203.0.113.9", &["for=1.2.3.4"]), "203.0.113.9");
}

#[test]
fn what_a_client_wrote_stays_to_the_left_of_what_counts() {
    assert_eq!(x_forwarded_for("10.0.0.1", &["203.0.113.9"]), "203.0.113.9");
    assert_eq!(x_forwarded_for("10.0.0.1", &["1.2.3.4, 203.0.113.9"]), "203.0.113.9");
    assert_eq!(x_forwarded_for("10.0.0.1", &["10.9.9.9, 203.0.113.9"]), "203.0.113.9");
    assert_eq!(x_forwarded_for("10.0.0.1", &["1.2.3.4", "203.0.113.9"]), "203.0.113.9", "two lines");
    let lines = ["for=1.2.3.4, for=10.9.9.9", "for=203.0.113.9;proto=https"];
    assert_eq!(forwarded("10.0.0.1", &lines), "203.0.113.9");
    // An open quote does not swallow what the proxy has added, nor does one that the proxy's quotes would close.
    assert_eq!(forwarded("10.0.0.1", &["for=\"1.2.3.4, for=203.0.113.9"]), "203.0.113.9");
    assert_eq!(forwarded("10.0.0.1", &["for=\"x, for=\"[2001:db8::9]:47\""]), "2001:db8::9");
}

#[test]
fn the_header_that_the_proxies_do_not_write_is_not_looked_at() {
    let mut both = headers("x-forwarded-for", &["203.0.113.9"]);
    both.insert(FORWARDED, HeaderValue::from_static("for=1.2.3.4"));
    let of = |header| proxies(&["10.0.0.0/8"], header).client(ip("10.0.0.1"), &both);
    assert_eq!(of(ForwardedHeader::XForwardedFor), ip("203.0.113.9"));
    assert_eq!(of(ForwardedHeader::Forwarded), ip("1.2.3.4"));
}

#[test]
fn several_proxies_are_passed_on_the_way() {
    assert_eq!(x_forwarded_for("10.0.0.1", &["203.0.113.9, 10.0.0.3,10.0.0.2"]), "203.0.113.9");
    assert_eq!(x_forwarded_for("10.0.0.1", &["1.2.3.4, 203.0.113.9, 10.0.0.2"]), "203.0.113.9");
    // Somebody inside: the leftmost is who asked.
    assert_eq!(x_forwarded_for("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
    assert_eq!(forwarded("fd00::1", &["for=203.0.113.9, for=\"[fd00::2]\";by=x"]), "203.0.113.9");
}

#[test]
fn addresses_are_read_in_every_form_and_shown_in_one() {
    for (text, expected) in [
        ("203.0.113.9", "203.0.113.9"),
        ("203.0.113.9:4711", "203.0.113.9"),
        ("2001:db8::9", "2001:db8::9"),
        ("[2001:DB8::9]", "2001:db8::9"),
        ("[2001:db8::9]:4711", "2001:db8::9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("[::ffff:203.0.113.9]:1", "203.0.113.9"),
    ] {
        assert_eq!(x_forwarded_for("10.0.0.1", &[text]), expected, "{text}");
        assert_eq!(forwarded("10.0.0.1", &[&format!("proto=http; For=\"{text}\"")]), expected, "{text}");
    }
    assert_eq!(forwarded("10.0.0.1", &["for=203.0.113.9:_hidden"]), "203.0.113.9");
    // A socket of both families shows an IPv4 peer as IPv6.
    assert_eq!(x_forwarded_for("::ffff:10.0.0.1", &["203.0.113.9"]), "203.0.113.9");
    assert_eq!(x_forwarded_for("::ffff:203.0.113.9", &[]), "203.0.113.9");
}

#[test]
fn behind_garbage_nothing_is_believed() {
    for garbage in
        ["", "unknown", "_hidden", "localhost", "1.2.3", "1.2.3.4:", "1.2.3.4 5.6.7.8", "[::1", "[::1]x"]
    {
        assert_eq!(x_forwarded_for("10.0.0.1", &[garbage]), "10.0.0.1", "{garbage}");
        let line = format!("1.2.3.4, {garbage}, 10.0.0.2");
        assert_eq!(x_forwarded_for("10.0.0.1", &[&line]), "10.0.0.2", "{line}");
    }
    for garbage in ["for", "for=", "for=unknown", "for=\"1.2.3.4", "by=1.2.3.4", "for=1.2.3.4;for=5.6.7.8"] {
        assert_eq!(forwarded("10.0.0.1", &[garbage]), "10.0.0.1", "{garbage}");
    }
    let mut headers = HeaderMap::new();
    headers.insert("x-forwarded-for", HeaderValue::from_bytes(b"1.2.3.4, \xff").unwrap());
    let proxies = proxies(&["10.0.0.0/8"], ForwardedHeader::XForwardedFor);
    assert_eq!(proxies.client(ip("10.0.0.1"), &headers), ip("10.0.0.1"));
}

#[test]
fn networks_are_read_and_compared_by_their_prefix() {
    for (network, inside, outside) in [
        ("192.168.4.7", "192.168.4.7", "192.168.4.8"),
        ("192.168.0.0/16", "192.168.255.255", "192.169.0.0"),
        ("192.168.9.9/16", "192.168.0.1", "192.167.0.1"),
        ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::1"),
        ("::1", "::1", "::2"),
        ("0.0.0.0/0", "203.0.113.9", "2001:db8::1"),
    ] {
        let parsed = Network::parse(network).unwrap();
        assert!(parsed.contains(ip(inside)) && !parsed.contains(ip(outside)), "{network}");
    }
    assert!(Network::parse("::/0").unwrap().contains(ip("203.0.113.9")));
    for wrong in
        ["", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1", "10.0.0/8", "a.example", "10.0.0.1:80"]
    {
        assert_eq!(Network::parse(wrong), None, "{wrong}");
    }
}

proptest! {
    /// Whatever a client sends before it, what a trusted proxy adds decides.
    #[test]
    fn nothing_that_a_client_sends_changes_its_address(line in "[ -~]{0,80}") {
        prop_assert_eq!(x_forwarded_for("10.0.0.1", &[&format!("{line}, 203.0.113.9")]), "203.0.113.9");
        prop_assert_eq!(x_forwarded_for("10.0.0.1", &[&line, "203.0.113.9"]), "203.0.113.9");
        prop_assert_eq!(forwarded("10.0.0.1", &[&format!("{line}, for=203.0.113.9")]), "203.0.113.9");
        prop_assert_eq!(forwarded("10.0.0.1", &[&format!("{line}, for=\"[2001:db8::9]:1\"")]), "2001:db8::9");
    }
}
