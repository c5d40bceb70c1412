//! TLS on the listeners: who gets in, what is agreed on, and files that change while clients are connected.

use std::{net::SocketAddr, process::Command, time::Duration};

use rustls::{
    ProtocolVersion,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use streamgate_client::{Builder, Client, Encoding, Error, PublishOptions};
use streamgate_e2e::{
    certificates::{Authority, Identity},
    events,
    gateway::{Addrs, TestNode},
    listening::messages,
    process::{GatewayProcess, run},
    scrape,
    tls_client::TlsClient,
    within,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// `tls` of a listener, with these further keys.
fn section(identity: &Identity, more: &str) -> String {
    let (cert, key) = (identity.cert_file.display(), identity.key_file.display());
    format!("tls: {{cert_file: '{cert}', key_file: '{key}'{more}}}")
}

/// A configuration with TLS on every listener.
fn everywhere(identity: &Identity, more: &str) -> String {
    let tls = section(identity, more);
    format!("transport: {{websocket: {{{tls}}}, grpc: {{{tls}}}}}\nserver: {{http: {{{tls}}}}}\n")
}

fn wants(authority: &Authority, mode: &str) -> String {
    format!(", client_ca_file: '{}', client_auth: {mode}", authority.ca_file().display())
}

fn server(authority: &Authority) -> Identity {
    authority.issue("server", &["127.0.0.1"])
}

fn listeners(addrs: Addrs) -> [(SocketAddr, &'static str); 3] {
    [(addrs.websocket, "http/1.1"), (addrs.grpc, "h2"), (addrs.admin, "http/1.1")]
}

/// The three ways of the client library.
fn clients(addrs: Addrs, authority: &Authority) -> [Builder; 3] {
    let of = |url: String| Client::builder(url).ca_file(authority.ca_file());
    let (websocket, grpc) = (format!("wss://{}", addrs.websocket), format!("grpcs://{}", addrs.grpc));
    [of(websocket.clone()), of(websocket).encoding(Encoding::Protobuf), of(grpc)]
}

/// Publishes and takes what is far more than one record of TLS, and than a socket takes at once.
async fn talk(publisher: Builder, subscriber: Builder) {
    let (publisher, subscriber) = (publisher.connect().await.unwrap(), subscriber.connect().await.unwrap());
    let channel = format!("room.{}", uuid::Uuid::new_v4());
    let mut subscription = subscriber.subscribe(channel.as_str()).await.unwrap();
    let sent: Vec<_> = (0..100).map(|at| format!("{at} {}", "x".repeat(at * 300))).collect();
    let publish = |text: &String| {
        publisher.publish(channel.as_str(), events::text("e", text), PublishOptions::default())
    };
    for ack in sent.iter().map(publish).collect::<Vec<_>>() {
        ack.await.unwrap();
    }
    let got = messages(&mut subscription, sent.len()).await;
    for (got, sent) in got.iter().zip(&sent) {
        assert_eq!(events::text_of(&got.event), sent);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_every_transport_talk_over_tls() {
    let authority = Authority::new();
    let node = TestNode::start(&everywhere(&server(&authority), "")).await;
    let [json, proto, grpc] = clients(node.addrs(), &authority);
    talk(json.clone(), proto.clone()).await;
    talk(proto, grpc.clone()).await;
    talk(grpc, json).await;
    let answer = TlsClient::new(&authority).get(node.addrs().admin, "/health/ready").await.unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, "ready\n"));
}

#[tokio::test]
async fn both_versions_are_spoken_and_each_listener_agrees_to_its_protocol_only() {
    let authority = Authority::new();
    let node = TestNode::start(&everywhere(&server(&authority), "")).await;
    for (addr, protocol) in listeners(node.addrs()) {
        let client = TlsClient::new(&authority);
        let versions = [
            (client.clone().tls12(), ProtocolVersion::TLSv1_2),
            (client.clone().tls13(), ProtocolVersion::TLSv1_3),
        ];
        for (client, version) in versions {
            let stream = client.alpn("spdy/1").alpn(protocol).connect(addr).await.unwrap();
            let session = stream.get_ref().1;
            assert_eq!(session.protocol_version(), Some(version));
            assert_eq!(session.alpn_protocol(), Some(protocol.as_bytes()));
        }
        let other = match protocol {
            "h2" => "http/1.1",
            // Its server API speaks both.
            _ if addr == node.addrs().admin => "spdy/1",
            _ => "h2",
        };
        let refused = client.clone().alpn(other).connect(addr).await.unwrap_err().to_string();
        assert!(refused.contains("NoApplicationProtocol"), "{refused}");
        // Whoever does not speak of protocols is let in.
        client.connect(addr).await.unwrap();
        // The listener's certificate is of an authority that this one does not know.
        let refused = TlsClient::new(&Authority::new()).connect(addr).await.unwrap_err().to_string();
        assert!(refused.contains("UnknownIssuer"), "{refused}");
    }
}

/// What becomes of each way in with this identity.
async fn ways_in(
    addrs: Addrs,
    authority: &Authority,
    identity: Option<&Identity>,
) -> [Result<(), String>; 4] {
    let mut ways = Vec::new();
    for client in clients(addrs, authority) {
        let client = match identity {
            None => client,
            Some(identity) => client.identity(&identity.cert_file, &identity.key_file),
        };
        ways.push(client.connect().await.map(drop).map_err(|error| error.to_string()));
    }
    let admin = TlsClient::new(authority);
    let admin = identity.map_or(admin.clone(), |identity| admin.identity(identity));
    let answer = admin.get(addrs.admin, "/health/live").await;
    ways.push(answer.map(drop).map_err(|error| error.to_string()));
    ways.try_into().unwrap()
}

#[tokio::test]
async fn a_listener_that_requires_certificates_lets_nobody_in_without_a_good_one() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let node = TestNode::start(&everywhere(&server(&authority), &wants(&authority, "require"))).await;
    let good = authority.issue("ann", &["ann.example"]);
    for way in ways_in(node.addrs(), &authority, Some(&good)).await {
        way.unwrap();
    }
    for (identity, alert) in
        [(None, "CertificateRequired"), (Some(stranger.issue("ann", &["ann.example"])), "UnknownCA")]
    {
        let ways = ways_in(node.addrs(), &authority, identity.as_ref()).await;
        for (way, name) in ways.into_iter().zip(["json", "proto", "grpc", "admin"]) {
            let error = way.unwrap_err();
            // What tonic tells of the end of a connection has no room for the alert.
            assert!(name == "grpc" || error.contains(alert), "{name}: {error}");
        }
        let mut old = TlsClient::new(&authority).tls12();
        if let Some(identity) = &identity {
            old = old.identity(identity);
        }
        assert!(old.connect(node.addrs().websocket).await.is_err(), "TLS 1.2 says so in the handshake");
    }
}

#[tokio::test]
async fn a_listener_that_requests_certificates_refuses_only_bad_ones() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let node = TestNode::start(&everywhere(&server(&authority), &wants(&authority, "request"))).await;
    let good = authority.issue("ann", &["ann.example"]);
    for identity in [None, Some(&good)] {
        for way in ways_in(node.addrs(), &authority, identity).await {
            way.unwrap();
        }
    }
    for way in ways_in(node.addrs(), &authority, Some(&stranger.issue("ann", &["ann.example"]))).await {
        way.unwrap_err();
    }
}

fn shown(identity: &Identity) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(&identity.cert_file).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn renewed_files_are_used_without_a_restart_and_broken_ones_never() {
    let authority = Authority::new();
    let identity = server(&authority);
    let yaml = everywhere(&identity, "");
    let gateway = GatewayProcess::start(&yaml).await;
    let client = TlsClient::new(&authority);
    let first = shown(&identity);
    let [json, ..] = clients(gateway.addrs(), &authority);
    let connected = json.connect().await.unwrap();
    for (addr, _) in listeners(gateway.addrs()) {
        assert_eq!(client.certificate(addr).await, first);
    }
    // Renewed as certificate managers do it: nobody tells the node.
    let _ = server(&authority);
    let second = shown(&identity);
    assert_ne!(first, second);
    for (addr, _) in listeners(gateway.addrs()) {
        within("the new certificate", async {
            while client.certificate(addr).await != second {
                // A change of files has no event to wait for.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
        .await;
    }
    connected.ping().await.expect("open connections stay");
    // A key that is not the certificate's, then what is no certificate at all.
    let other = authority.issue("other", &["127.0.0.1"]);
    std::fs::copy(&other.key_file, &identity.key_file).unwrap();
    gateway.logged("the mismatch", |line| line.contains("ERROR") && line.contains("KeyMismatch")).await;
    std::fs::write(&identity.cert_file, "s3cret, no certificate").unwrap();
    let refused = |line: &str| line.contains("ERROR") && line.contains("no usable certificate in it");
    let line = gateway.logged("the refusal", refused).await;
    assert!(line.contains("server.cert.pem") && !gateway.log_text().contains("s3cret"), "{line}");
    for (addr, _) in listeners(gateway.addrs()) {
        assert_eq!(client.certificate(addr).await, second);
    }
    // Told by a signal it looks at once.
    let _ = server(&authority);
    gateway.sighup();
    gateway.logged("the reload", |line| line.contains("configuration reloaded")).await;
    for (addr, _) in listeners(gateway.addrs()) {
        assert_eq!(client.certificate(addr).await, shown(&identity));
    }
}

#[tokio::test]
async fn the_metrics_tell_how_long_certificates_last_and_what_became_of_handshakes() {
    let authority = Authority::new();
    let identity = server(&authority);
    let tls = section(&identity, "");
    let gateway =
        GatewayProcess::start(&format!("transport: {{websocket: {{{tls}}}, grpc: {{{tls}}}}}")).await;
    let client = TlsClient::new(&authority);
    client.connect(gateway.addrs().websocket).await.unwrap();
    let _ = TlsClient::new(&Authority::new()).connect(gateway.addrs().grpc).await;
    let counted = |outcome: &'static str, listener: &'static str| {
        move |scrape: &scrape::Scrape| {
            let labels = format!("listener=\"{listener}\",outcome=\"{outcome}\"");
            scrape.labelled("streamgate_tls_handshakes_total", &labels) > 0.0
        }
    };
    let admin = gateway.addrs().admin;
    scrape::metrics_until(admin, "a good handshake", counted("ok", "websocket")).await;
    let scrape = scrape::metrics_until(admin, "a failed handshake", counted("failed", "grpc")).await;
    for listener in ["websocket", "grpc"] {
        let labels = format!("listener=\"{listener}\"");
        let left = scrape.labelled("streamgate_tls_certificate_expires_seconds", &labels);
        // The test authority's certificates are good until the year 4096.
        assert!(left > 365.0 * 86_400.0, "{left}");
    }
}

#[tokio::test]
async fn plain_text_gets_a_clean_end_and_harms_nobody() {
    let authority = Authority::new();
    let node = TestNode::start(&everywhere(&server(&authority), "")).await;
    for (addr, _) in listeners(node.addrs()) {
        let answer = scrape::get(addr, "/health/live").await;
        assert_eq!(answer.status, 400);
        assert!(answer.body.contains("speaks TLS"), "{}", answer.body);
        // Neither HTTP nor TLS.
        for garbage in [&b"\x16\x03\x01\xff\xff garbage of no length"[..], b"\0\0\0", b"xyz\r\n\r\n", b""] {
            let mut socket = TcpStream::connect(addr).await.unwrap();
            socket.write_all(garbage).await.unwrap();
            socket.shutdown().await.unwrap();
            let mut rest = Vec::new();
            within("the end", socket.read_to_end(&mut rest)).await.unwrap();
            assert!(rest.is_empty() || rest[0] == 21, "an alert at most: {rest:?}");
        }
    }
    for way in ways_in(node.addrs(), &authority, None).await {
        way.unwrap();
    }
}

#[tokio::test]
async fn slow_handshakes_end_in_time_and_hold_up_nobody() {
    let authority = Authority::new();
    let identity = server(&authority);
    let tls = section(&identity, "");
    let gateway =
        GatewayProcess::start(&format!("transport: {{websocket: {{{tls}}}, grpc: {{{tls}}}}}")).await;
    let mut slow = Vec::new();
    for addr in [gateway.addrs().websocket, gateway.addrs().grpc] {
        for at in 0..100 {
            let mut socket = TcpStream::connect(addr).await.unwrap();
            // Silent ones, and some that have begun.
            if at % 2 == 0 {
                socket.write_all(b"\x16\x03\x01\x02\x00\x01").await.unwrap();
            }
            slow.push(socket);
        }
    }
    let [json, proto, grpc] = clients(gateway.addrs(), &authority);
    talk(json, grpc.clone()).await;
    talk(grpc, proto).await;
    for mut socket in slow {
        within("the end", socket.read_to_end(&mut Vec::new())).await.unwrap();
    }
    scrape::metrics_until(gateway.addrs().admin, "all are counted", |scrape| {
        scrape.labelled("streamgate_tls_handshakes_total", "outcome=\"timeout\"") == 200.0
    })
    .await;
}

#[tokio::test]
async fn an_end_of_the_session_reaches_the_client_through_tls() {
    let authority = Authority::new();
    let yaml = format!("{}limits: {{subscriptions_per_client: 2}}\n", everywhere(&server(&authority), ""));
    let node = TestNode::start(&yaml).await;
    let [json, proto, grpc] = clients(node.addrs(), &authority);
    for client in [json, proto, grpc] {
        let client = client.connect().await.unwrap();
        // One more than there may be: closed with 3505, which is final.
        let mut status = client.status();
        let wanted = (0..3).map(|at| client.subscribe(format!("room.{at}")));
        let _ = futures_util::future::join_all(wanted).await;
        let closed =
            |status: &streamgate_client::Status| matches!(status, streamgate_client::Status::Closed { .. });
        let status = within("the end", status.wait_for(closed)).await.unwrap().clone();
        let streamgate_client::Status::Closed { error: Error::Closed { code, .. } } = status else {
            panic!("{status:?}");
        };
        assert_eq!(code, 3505);
    }
}

#[tokio::test]
async fn the_command_line_speaks_tls() {
    let authority = Authority::new();
    let identity = server(&authority);
    let gateway = GatewayProcess::start(&everywhere(&identity, &wants(&authority, "require"))).await;
    let ann = authority.issue("ann", &["ann.example"]);
    let file = |file: &std::path::Path| file.display().to_string();
    let (ca, cert, key) = (file(&authority.ca_file()), file(&ann.cert_file), file(&ann.key_file));
    for url in
        [format!("wss://{}/ws", gateway.addrs().websocket), format!("grpcs://{}", gateway.addrs().grpc)]
    {
        let publish = |more: &[&str]| {
            let out = run(&[&["pub", "room", "hello", "--server", &url][..], more].concat());
            (out.status.success(), String::from_utf8_lossy(&out.stderr).into_owned())
        };
        let (ok, said) = publish(&["--ca-file", &ca, "--cert-file", &cert, "--key-file", &key]);
        assert!(ok, "{said}");
        let (ok, said) = publish(&[]);
        assert!(
            !ok && (said.contains("UnknownIssuer") || said.contains("no certificates of authorities")),
            "{said}"
        );
        let (ok, said) = publish(&["--ca-file", &ca]);
        assert!(!ok, "{said}");
        let (ok, said) = publish(&["--ca-file", "/no/such.pem"]);
        assert!(!ok && said.contains("/no/such.pem cannot be read"), "{said}");
    }
}

/// What is not of this workspace agrees: curl and openssl, where they are installed.
#[tokio::test(flavor = "multi_thread")]
async fn programs_of_others_are_understood() {
    let authority = Authority::new();
    let node = TestNode::start(&everywhere(&server(&authority), "")).await;
    let ca = authority.ca_file();
    let url = format!("https://{}/health/live", node.addrs().admin);
    match Command::new("curl").args(["-sS", "--max-time", "10", "--cacert"]).arg(&ca).arg(&url).output() {
        Ok(out) => assert_eq!(String::from_utf8_lossy(&out.stdout), "live\n", "{out:?}"),
        Err(error) => eprintln!("not tried: curl: {error}"),
    }
    for (addr, protocol) in listeners(node.addrs()) {
        for version in ["-tls1_2", "-tls1_3"] {
            let mut openssl = Command::new("openssl");
            openssl
                .args(["s_client", "-verify_return_error", version, "-alpn", protocol, "-CAfile"])
                .arg(&ca);
            openssl.args(["-connect", &addr.to_string()]).stdin(std::process::Stdio::null());
            match openssl.output() {
                Ok(out) => {
                    let said = String::from_utf8_lossy(&out.stdout);
                    assert!(said.contains("Verify return code: 0 (ok)"), "{out:?}");
                    assert!(said.contains(&format!("ALPN protocol: {protocol}")), "{said}");
                }
                Err(error) => eprintln!("not tried: openssl: {error}"),
            }
        }
    }
}
