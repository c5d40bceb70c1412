//! Where a client is, as a node sees it: by its connection, or by the word of proxies that are trusted.

use std::time::Duration;

use streamgate_e2e::{
    events::{extended, frame},
    process::GatewayProcess,
    raw::{RawClient, Via},
    scrape, within,
};
use streamgate_proto::v1::inbound_message::Envelope as In;

/// A gateway that logs where clients are that it does not let in.
async fn gateway(transport: &str) -> GatewayProcess {
    let yaml = format!(
        "{{log: {{level: debug}}, transport: {{{transport}}}, auth: {{jwt: {{keys: \
         [{{algorithm: HS256, secret: a secret of at least thirty-two bytes}}]}}}}}}"
    );
    GatewayProcess::start(&yaml).await
}

/// Where the gateway saw a request with these headers come from.
async fn seen(gateway: &GatewayProcess, headers: &str) -> String {
    let before = gateway.log().len();
    let addr = gateway.addrs().websocket;
    // No WebSocket handshake: refused, and logged with the address.
    let head = format!("GET /ws HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n{headers}\r\n");
    assert_eq!(scrape::request(addr, &head).await.status, 426);
    let line = within("the refusal is logged", async {
        loop {
            let log = gateway.log();
            match log[before..].iter().find(|line| line.contains("handshake is refused")) {
                Some(line) => return line.clone(),
                // `logged` would find those of former requests.
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    })
    .await;
    line.split_once("address=").expect("an address").1.split(' ').next().unwrap().to_owned()
}

#[tokio::test]
async fn without_trusted_proxies_the_connection_tells() {
    let gateway = gateway("").await;
    assert_eq!(
        seen(&gateway, "X-Forwarded-For: 203.0.113.9\r\nForwarded: for=203.0.113.9\r\n").await,
        "127.0.0.1"
    );
    for via in Via::ALL {
        let mut client = RawClient::open(gateway.addrs(), via).await;
        client.refused(frame(In::Connect(extended([])))).await;
    }
    let refused =
        |line: &&String| line.contains("a client is not let in") && line.contains("Some(127.0.0.1)");
    assert_eq!(gateway.log().iter().filter(refused).count(), 3, "{}", gateway.log_text());
}

#[tokio::test]
async fn a_trusted_proxy_tells_and_what_a_client_wrote_before_it_does_not_count() {
    let gateway = gateway("trusted_proxies: [127.0.0.0/8, '::1']").await;
    for (headers, expected) in [
        ("", "127.0.0.1"),
        ("X-Forwarded-For: 203.0.113.9\r\n", "203.0.113.9"),
        ("X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: 203.0.113.9, 127.0.0.3\r\n", "203.0.113.9"),
        ("X-Forwarded-For: [2001:db8::9]:4711\r\n", "2001:db8::9"),
        ("X-Forwarded-For: garbage\r\n", "127.0.0.1"),
        ("Forwarded: for=203.0.113.9\r\n", "127.0.0.1"),
    ] {
        assert_eq!(seen(&gateway, headers).await, expected, "{headers}");
    }
}
