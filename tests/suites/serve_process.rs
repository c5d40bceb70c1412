//! The real process: signals, logs, refusals, and the rest of its command line.

use std::time::{Duration, Instant};

use streamgate_e2e::{
    events::{extended, frame, live, publish, text},
    gateway::{TestNode, on_redis},
    process::{GatewayProcess, run},
    raw::{RawClient, Via},
    redis_server::RedisServer,
    scrape,
};
use streamgate_proto::v1::{Subscribe, inbound_message::Envelope as In, outbound_message::Envelope as Out};

#[tokio::test]
async fn sighup_takes_over_policies_limits_and_the_log_level() {
    let gateway = GatewayProcess::start("log: {level: info}").await;
    let mut client = RawClient::connect(gateway.addrs(), Via::WsJson).await;
    client.subscribe([live("a"), live("b")]).await;
    let large = text("1", &"x".repeat(2_000));
    client.publish("small.a", large.clone()).await;
    gateway.rewrite_config(
        "{log: {level: debug}, limits: {subscriptions_per_client: 2}, channels: [{pattern: 'small.*', max_message_size: 1KiB}]}",
    );
    gateway.sighup();
    gateway.logged("the reload", |line| line.contains("configuration reloaded")).await;
    assert_eq!(client.refused(publish("small.a", large)).await.code, "TOO_LARGE");
    client.send(frame(In::Subscribe(Subscribe { subscriptions: vec![live("c")] }))).await;
    assert_eq!(client.close_code().await, 3505);
    gateway.logged("a line of level debug", |line| line.contains("DEBUG")).await;
}

#[tokio::test]
async fn sighup_with_a_broken_file_changes_nothing_and_says_why() {
    let gateway = GatewayProcess::start("limits: {subscriptions_per_client: 3}").await;
    gateway.rewrite_config("limits: {subscriptions_per_klient: 1}");
    gateway.sighup();
    let line = gateway.logged("the refusal", |line| line.contains("not reloaded")).await;
    assert!(line.contains("subscriptions_per_klient"), "{line}");
    let mut client = RawClient::connect(gateway.addrs(), Via::WsJson).await;
    client.subscribe([live("a"), live("b"), live("c")]).await;
    client.quiet().await;
}

#[tokio::test]
async fn sighup_says_what_needs_a_restart() {
    let gateway = GatewayProcess::start("").await;
    gateway.rewrite_config("transport: {websocket: {path: /other}}");
    gateway.sighup();
    let line = gateway.logged("the reload", |line| line.contains("configuration reloaded")).await;
    assert!(line.contains("needs_restart=[\"transport.websocket\"]"), "{line}");
}

#[tokio::test]
async fn sigterm_sends_clients_away_and_ends_with_zero_within_the_drain() {
    let mut gateway = GatewayProcess::start("drain: {duration: 2s}").await;
    let addrs = gateway.addrs();
    let mut clients = Vec::new();
    for via in Via::ALL {
        clients.push((RawClient::connect_as(addrs, via, extended([live("a")])).await, true));
        clients.push((RawClient::connect_v1(addrs, via).await, false));
    }
    let start = Instant::now();
    gateway.sigterm();
    for (mut client, is_extended) in clients {
        if is_extended {
            let last = client.frame().await;
            assert!(matches!(last.envelope, Some(Out::Reconnect(_))), "{:?} {last:?}", client.via());
        }
        assert_eq!(client.close_code().await, 1012, "{:?}", client.via());
        client.close().await;
    }
    let status = gateway.ended().await;
    assert_eq!(status.code(), Some(0), "{}", gateway.log_text());
    assert!(start.elapsed() < Duration::from_secs(5), "it did not wait for nobody: {:?}", start.elapsed());
}

#[tokio::test]
async fn sigterm_does_not_wait_longer_than_the_drain_for_clients_that_stay() {
    let mut gateway = GatewayProcess::start("drain: {duration: 1s}").await;
    let mut stays = Vec::new();
    for via in Via::ALL {
        stays.push(RawClient::connect(gateway.addrs(), via).await);
    }
    let start = Instant::now();
    gateway.sigterm();
    let status = gateway.ended().await;
    assert_eq!(status.code(), Some(0), "{}", gateway.log_text());
    let took = start.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_secs(10)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn a_draining_node_is_not_ready_but_live_and_takes_no_new_clients() {
    let mut gateway = GatewayProcess::start("drain: {duration: 3s}").await;
    let addrs = gateway.addrs();
    // Does not read, so it keeps the drain waiting.
    let _stays = RawClient::connect(addrs, Via::WsJson).await;
    gateway.sigterm();
    gateway.logged("the begin of the drain", |line| line.contains("stopping")).await;
    let ready = async {
        while scrape::get(addrs.admin, "/health/ready").await.status != 503 {
            tokio::task::yield_now().await;
        }
    };
    streamgate_e2e::within("not ready", ready).await;
    assert_eq!(scrape::get(addrs.admin, "/health/live").await.status, 200);
    let refused = async {
        while tokio::net::TcpStream::connect(addrs.websocket).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    streamgate_e2e::within("no listener", refused).await;
    assert!(tokio::net::TcpStream::connect(addrs.grpc).await.is_err(), "the gRPC listener is closed, too");
    assert_eq!(gateway.ended().await.code(), Some(0));
}

#[tokio::test]
async fn kill_9_is_seen_by_its_clients_and_a_new_process_serves() {
    let mut gateway = GatewayProcess::start("").await;
    let mut client = RawClient::connect(gateway.addrs(), Via::WsJson).await;
    gateway.kill9();
    assert_eq!(client.close_code().await, 1006);
    let gateway = GatewayProcess::start("").await;
    RawClient::connect(gateway.addrs(), Via::WsJson).await.publish("a", text("1", "")).await;
}

#[test]
fn an_address_that_is_not_loopback_is_refused_without_allow_anonymous() {
    for flag in ["--ws-addr", "--grpc-addr"] {
        let output = run(&["serve", flag, "0.0.0.0:0"]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains("allow_anonymous"), "{flag}: {error}");
        assert!(output.stdout.is_empty());
    }
}

#[tokio::test]
async fn an_address_that_is_not_loopback_is_served_with_allow_anonymous() {
    let yaml = "{allow_anonymous: true, transport: {websocket: {addr: '0.0.0.0:0'}}}";
    // The harness's flags win over the file, so this one says it by flag.
    let gateway = GatewayProcess::start_with(yaml, &["--allow-anonymous"]).await;
    RawClient::connect(gateway.addrs(), Via::WsJson).await.close().await;
}

#[tokio::test]
async fn an_address_in_use_is_an_error_that_names_it() {
    let gateway = GatewayProcess::start("").await;
    let taken = gateway.addrs().websocket.to_string();
    let output =
        run(&["serve", "--ws-addr", &taken, "--grpc-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains(&taken), "{error}");
}

#[tokio::test]
async fn json_logs_are_an_object_a_line_without_payloads() {
    let gateway = GatewayProcess::start("log: {level: debug, format: json}").await;
    let mut client = RawClient::connect(gateway.addrs(), Via::WsJson).await;
    client.publish("logs", text("1", "the-payload")).await;
    client.send(frame(In::Connect(Default::default()))).await;
    client.close_code().await;
    gateway.logged("the close", |line| line.contains("3501")).await;
    let log = gateway.log();
    assert!(!log.is_empty());
    for line in log {
        let object: serde_json::Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(object["level"].is_string() && object["timestamp"].is_string(), "{line}");
        assert!(!line.contains("the-payload") && !line.contains(&client.connected.resume_token), "{line}");
    }
}

#[test]
fn config_default_passes_config_check_and_a_wrong_key_does_not() {
    let default = run(&["config", "default"]);
    assert!(default.status.success());
    let dir = std::env::temp_dir().join(format!("streamgate-config-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir_all(&dir).unwrap();
    let check = |name: &str, text: &[u8]| {
        let file = dir.join(name);
        std::fs::write(&file, text).unwrap();
        run(&["config", "check", file.to_str().unwrap()])
    };
    let good = check("default.yaml", &default.stdout);
    let wrong = check("wrong.yaml", b"limits:\n  frame_bites: 1\n");
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    let error = String::from_utf8_lossy(&wrong.stderr);
    assert!(!wrong.status.success() && error.contains("frame_bites") && error.contains("line 2"), "{error}");
}

#[tokio::test]
async fn a_node_waits_for_redis_says_why_and_is_ready_once_it_is_there() {
    let mut redis = RedisServer::start_default();
    redis.kill9();
    let yaml = on_redis(&redis, "log: {level: info}");
    let gateway = GatewayProcess::start(&yaml).await;
    gateway.logged("why it waits", |line| line.contains("waiting for the broker")).await;
    assert_eq!(scrape::get(gateway.addrs().admin, "/health/ready").await.status, 503);
    assert_eq!(scrape::get(gateway.addrs().admin, "/health/live").await.status, 200);
    redis.restart();
    gateway.addrs().ready().await;

    let node = TestNode::start(&yaml).await;
    node.addrs().ready().await;
    let mut reader = RawClient::connect(gateway.addrs(), Via::Grpc).await;
    reader.subscribe_to("two.nodes").await;
    let ack =
        RawClient::connect(node.addrs(), Via::WsJson).await.publish("two.nodes", text("1", "across")).await;
    let message = reader.message().await;
    assert_eq!((message.offset, message.position), (ack.offset, ack.position));
}
