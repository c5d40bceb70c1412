//! What an operator sees of a node: metrics, health, and that nothing is left behind.

use streamgate::telemetry::metrics::{Kind, METRICS};
use streamgate_e2e::{
    api,
    backend::{HttpBackend, Reply},
    events::{extended, frame, from, live, publish, recover, text, v1},
    gateway::TestNode,
    process::GatewayProcess,
    raw::{RawClient, Via},
    scrape::{self, Scrape, metrics_until},
};
use streamgate_proto::v1::{
    InboundMessage, Position, inbound_message::Envelope as In, outbound_message::Envelope as Out,
    start_from::Point,
};

/// Metrics that only a node on Redis has something to say about.
fn needs_redis(name: &str) -> bool {
    let parts = [
        "redis_",
        "inbox_",
        "publish_batch_",
        "gaps_",
        "backfills_",
        "history_reads_",
        "resyncs_",
        "presence_",
        "leases_",
    ];
    parts.iter().any(|part| name.starts_with(&format!("streamgate_{part}")))
}

/// Metrics that this traffic cannot cause: the slow consumer's suite does, and overload does.
fn needs_overload(name: &str) -> bool {
    name.starts_with("streamgate_slow_consumers_") || name.starts_with("streamgate_shard_dropped_")
}

/// Metrics of what is not configured here: the suites of TLS and of key sets see to them, and the conformance cases to queues.
fn needs_configuration(name: &str) -> bool {
    ["streamgate_tls_", "streamgate_jwks_", "streamgate_queue_"].iter().any(|prefix| name.starts_with(prefix))
}

#[tokio::test]
async fn after_traffic_every_metric_has_a_value_and_none_is_a_summary() {
    let backend = HttpBackend::start(|_| Reply::Json(200, serde_json::json!({"payload": {"id": "1"}}))).await;
    let gateway = GatewayProcess::start(&format!(
        "client_events: {{channel: $events}}\n\
         proxy: [{{name: b, endpoint: '{}', lifecycle: true, routes: [{{channel: calls, method: '*'}}]}}]",
        backend.url()
    ))
    .await;
    let addrs = gateway.addrs();
    for via in Via::ALL {
        let mut client = RawClient::connect(addrs, via).await;
        let call = InboundMessage {
            channel: "calls".into(),
            method: "m".into(),
            ..frame(In::RpcRequest(text("1", "x")))
        };
        assert!(matches!(client.request(call).await.envelope, Some(Out::RpcReply(_))), "{via:?}");
        client.subscribe_to("traffic").await;
        client.publish("traffic", text("1", "x")).await;
        client.message().await;
        client.refused(publish("no*pattern", text("2", "x"))).await;
        client.subscribe([from("traffic", Point::Start(true))]).await;
        let end = client.recovered().await.1.position.expect("a position");
        client.subscribe([recover("traffic", end)]).await;
        assert!(!client.recovered().await.1.gap);
        let cursor = Position { epoch: "1".into(), offset: 7 };
        client.subscribe([recover("traffic", cursor)]).await;
        assert!(client.recovered().await.1.gap);
        client.send(frame(In::Connect(Default::default()))).await;
        assert_eq!(client.close_code().await, 3501);
    }
    assert_eq!(api::post(addrs.admin, "channels", &[], "{}").await.status, 200);
    let scrape = Scrape::of(addrs.admin).await;
    assert!(!scrape.text().contains("quantile="), "{}", scrape.text());
    for metric in METRICS {
        if needs_redis(metric.name) || needs_configuration(metric.name) {
            continue;
        }
        if !needs_overload(metric.name) {
            assert!(scrape.has(metric.name), "{} is missing:\n{}", metric.name, scrape.text());
        }
        if let Kind::Histogram(_) = metric.kind {
            assert!(scrape.text().contains(&format!("{}_bucket{{", metric.name)), "{}", metric.name);
        }
    }
    assert_eq!(scrape.labelled("streamgate_closes_total", "code=\"3501\""), 3.0);
    assert_eq!(scrape.labelled("streamgate_publishes_total", "outcome=\"acked\""), 3.0);
    assert_eq!(scrape.labelled("streamgate_publishes_total", "outcome=\"refused\""), 3.0);
    assert_eq!(scrape.labelled("streamgate_recoveries_total", "outcome=\"whole\""), 6.0);
    assert_eq!(scrape.labelled("streamgate_recoveries_total", "outcome=\"EPOCH_RESET\""), 3.0);
    for transport in ["ws_json", "ws_proto", "grpc"] {
        let label = format!("transport=\"{transport}\"");
        assert_eq!(scrape.labelled("streamgate_messages_in_total", &label), 9.0, "{}", scrape.text());
    }
    for forbidden in ["traffic", "raw", "no*pattern"] {
        assert!(!scrape.text().contains(forbidden), "a name is in the metrics: {forbidden}");
    }
}

#[tokio::test]
async fn two_thousand_connections_that_come_and_go_leave_nothing() {
    let gateway = GatewayProcess::start("").await;
    let addrs = gateway.addrs();
    for round in 0..10 {
        let mut clients = Vec::new();
        for n in 0..200 {
            let subscriptions = [live("shared"), live(&format!("own.{n}")), live("own.*"), live("**")];
            clients.push(match n % 5 {
                // Opened and nothing said.
                0 => RawClient::open(addrs, Via::WsJson).await,
                1 => RawClient::connect_as(addrs, Via::WsJson, v1(subscriptions)).await,
                2 => RawClient::connect_as(addrs, Via::WsProto, extended(subscriptions)).await,
                3 if round % 2 == 0 => RawClient::connect_as(addrs, Via::Grpc, extended(subscriptions)).await,
                _ => RawClient::connect_as(addrs, Via::WsProto, v1(subscriptions)).await,
            });
        }
        if round == 0 {
            metrics_until(addrs.admin, "all connections and subscriptions", |scrape| {
                scrape.value("streamgate_connections") == 200.0
                    && scrape.value("streamgate_subscriptions") == 640.0
            })
            .await;
        }
        // Half of them are dropped with messages on their way, without any goodbye.
        clients[1].publish("shared", text("1", "x")).await;
        for client in clients.drain(..100) {
            client.close().await;
        }
    }
    metrics_until(addrs.admin, "no connections and no subscriptions", |scrape| {
        scrape.value("streamgate_connections") == 0.0 && scrape.value("streamgate_subscriptions") == 0.0
    })
    .await;
}

#[tokio::test]
async fn a_gauge_counts_each_close_once_however_it_comes() {
    let gateway = GatewayProcess::start("limits: {connect_deadline: 100ms, frame_bytes: 4KiB}").await;
    let addrs = gateway.addrs();
    for via in Via::ALL {
        // Closed by the server: deadline, protocol, size; by the client: with a goodbye, and without.
        assert_eq!(RawClient::open(addrs, via).await.close_code().await, 3502);
        let mut client = RawClient::connect_as(addrs, via, v1([live("a")])).await;
        client.send_raw("x".repeat(16 * 1024)).await;
        assert_eq!(client.close_code().await, 1009);
        drop(client);
        RawClient::connect_as(addrs, via, v1([live("a")])).await.close().await;
        drop(RawClient::connect_as(addrs, via, v1([live("a"), live("*")])).await);
        let mut client = RawClient::connect_as(addrs, via, v1([live("a")])).await;
        client.unsubscribe("a").await;
        client.unsubscribe("a").await;
    }
    metrics_until(addrs.admin, "no connections and no subscriptions", |scrape| {
        scrape.value("streamgate_connections") == 0.0 && scrape.value("streamgate_subscriptions") == 0.0
    })
    .await;
}

#[tokio::test]
async fn health_says_live_and_ready() {
    let node = TestNode::start("").await;
    let admin = node.addrs().admin;
    assert_eq!(scrape::get(admin, "/health/live").await.status, 200);
    let ready = scrape::get(admin, "/health/ready?verbose").await;
    assert_eq!(ready.status, 200);
    let detail: serde_json::Value = serde_json::from_str(&ready.body).unwrap();
    assert_eq!(
        (&detail["ready"], &detail["broker"], &detail["draining"]),
        (&true.into(), &"ready".into(), &false.into())
    );
    assert_eq!(scrape::get(admin, "/nothing").await.status, 404);
}
