//! Backends that are down, slow or talk nonsense cost their callers an error in time, and nobody else anything.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::json;
use streamgate_e2e::{
    backend::{GrpcBackend, HttpBackend, Question, Reply},
    certificates::Authority,
    events::{frame, text},
    gateway::TestNode,
    process::GatewayProcess,
    raw::{RawClient, Via},
    redis_server::{RedisServer, RedisServerOptions},
    scrape::Scrape,
    within,
};
use streamgate_proto::{
    shared,
    v1::{InboundMessage, inbound_message::Envelope as In, outbound_message::Envelope as Out},
};

fn call(channel: &str) -> InboundMessage {
    InboundMessage { channel: channel.into(), method: "m".into(), ..frame(In::RpcRequest(text("1", ""))) }
}

fn ok(question: &Question) -> Reply {
    Reply::Json(200, json!({"payload": question.body["payload"]}))
}

/// An address that nobody listens at.
async fn nobody() -> SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

async fn works(client: &mut RawClient) -> bool {
    matches!(client.request(call("rpc")).await.envelope, Some(Out::RpcReply(_)))
}

#[tokio::test]
async fn whatever_a_backend_does_the_caller_gets_an_error_in_time_and_others_notice_nothing() {
    let backend = HttpBackend::start(ok).await;
    let node = TestNode::start(&format!(
        "proxy: [{{endpoint: '{}', timeout: 500ms, breaker: {{minimum_calls: 1000}}, http: {{max_response_bytes: 100KiB}}, routes: [{{channel: rpc, method: m}}]}}]",
        backend.url()
    ))
    .await;
    let mut client = RawClient::connect_v1(node.addrs(), Via::WsJson).await;
    let mut other = RawClient::connect_v1(node.addrs(), Via::WsProto).await;
    other.subscribe_to("room").await;
    for (reply, code, said) in [
        (Reply::Stall, "RPC_TIMEOUT", "no answer within"),
        (Reply::Garbage, "PROXY_ERROR", "the answer is broken"),
        (Reply::NoMessage, "PROXY_ERROR", "cannot be read"),
        (Reply::Redirect, "PROXY_ERROR", "redirect (302)"),
        (Reply::Endless, "PROXY_ERROR", "larger than 102400 bytes"),
        (Reply::Close, "PROXY_ERROR", "the answer is broken"),
        (Reply::Json(500, json!({})), "PROXY_ERROR", "HTTP status 500"),
        (Reply::Json(200, json!({})), "PROXY_ERROR", "neither a payload nor an error"),
    ] {
        let answer = reply.clone();
        backend.notes.answer(move |_| answer.clone());
        let before = backend.notes.asked().len();
        let begun = Instant::now();
        client.send(InboundMessage { id: "c1".into(), ..call("rpc") }).await;
        // While the call waits.
        other.publish("room", text("1", "hello")).await;
        other.message().await;
        let Some(Out::Error(error)) = client.answer_to("c1").await.envelope else { panic!("{reply:?}") };
        assert_eq!(error.code, code, "{reply:?}: {}", error.message);
        assert!(error.message.contains(said), "{reply:?}: {}", error.message);
        assert!(!error.message.contains(&backend.addr().port().to_string()), "{}", error.message);
        assert!(begun.elapsed() < Duration::from_secs(5), "{reply:?}: {:?}", begun.elapsed());
        assert_eq!(backend.notes.asked().len(), before + 1, "a call is never repeated: {reply:?}");
    }
    backend.notes.answer(ok);
    assert!(works(&mut client).await);
}

#[tokio::test]
async fn grpc_backends_that_are_unwell_cost_no_more() {
    let backend = GrpcBackend::start(ok).await;
    let node = TestNode::start(&format!(
        "proxy:
  - {{endpoint: '{}', timeout: 500ms, routes: [{{channel: rpc, method: m}}]}}
  - {{endpoint: '{}', timeout: 5s, routes: [{{channel: down, method: m}}]}}
",
        backend.endpoint(),
        nobody().await
    ))
    .await;
    let mut client = RawClient::connect_v1(node.addrs(), Via::Grpc).await;
    assert!(works(&mut client).await);
    for (reply, code, said) in [
        (Reply::Stall, "RPC_TIMEOUT", "no answer within"),
        (Reply::Garbage, "PROXY_ERROR", "gRPC status UNAVAILABLE"),
        (Reply::Json(404, json!({})), "PROXY_ERROR", "gRPC status UNIMPLEMENTED"),
    ] {
        backend.notes.answer(move |_| reply.clone());
        let error = client.refused(call("rpc")).await;
        assert_eq!(error.code, code, "{}", error.message);
        assert!(error.message.contains(said), "{}", error.message);
    }
    let error = client.refused(call("down")).await;
    assert_eq!(error.code, "PROXY_ERROR");
    assert!(error.message.contains("cannot connect"), "{}", error.message);
    backend.notes.answer(ok);
    assert!(works(&mut client).await);
}

/// Redis stands for a server that speaks TLS, and then neither HTTP nor gRPC.
#[tokio::test]
async fn only_a_trusted_server_is_told_anything() {
    let (trusted, other) = (Authority::new(), Authority::new());
    let identity = trusted.issue("server", &["127.0.0.1"]);
    let redis = RedisServer::start(RedisServerOptions::default().tls(&trusted, &identity, false));
    let at = redis.tls_addr();
    let (ca, wrong_ca) = (trusted.ca_file(), other.ca_file());
    let node = TestNode::start(&format!(
        "proxy:
  - {{name: a, endpoint: 'https://{at}', timeout: 5s, http: {{ca_file: '{}'}}, routes: [{{channel: http, method: m}}]}}
  - {{name: b, endpoint: 'https://{at}', timeout: 5s, http: {{ca_file: '{}'}}, routes: [{{channel: wrong.http, method: m}}]}}
  - {{name: c, endpoint: 'grpcs://{at}', timeout: 5s, grpc: {{ca_file: '{}'}}, routes: [{{channel: wrong.grpc, method: m}}]}}
",
        ca.display(),
        wrong_ca.display(),
        wrong_ca.display()
    ))
    .await;
    let mut client = RawClient::connect_v1(node.addrs(), Via::WsJson).await;
    for (channel, said) in [
        ("http", "the answer is broken"),
        ("wrong.http", "invalid peer certificate"),
        ("wrong.grpc", "invalid peer certificate"),
    ] {
        let error = client.refused(call(channel)).await;
        assert_eq!(error.code, "PROXY_ERROR", "{channel}");
        assert!(error.message.contains(said), "{channel}: {}", error.message);
    }
}

#[tokio::test]
async fn a_backend_that_comes_back_is_asked_again() {
    let addr = nobody().await;
    let node = TestNode::start(&format!(
        "proxy: [{{endpoint: 'http://{addr}', timeout: 2s, routes: [{{channel: rpc, method: m}}]}}]"
    ))
    .await;
    let mut client = RawClient::connect_v1(node.addrs(), Via::WsJson).await;
    let error = client.refused(call("rpc")).await;
    assert!(error.code == "PROXY_ERROR" && error.message.contains("cannot connect"), "{error:?}");
    let _backend = HttpBackend::start_on(addr, ok).await;
    assert!(works(&mut client).await);
}

#[tokio::test]
async fn the_breaker_opens_and_closes_and_its_metrics_tell() {
    let backend = HttpBackend::start(|_| Reply::Json(503, json!({}))).await;
    let gateway = GatewayProcess::start(&format!(
        "proxy: [{{name: shop, endpoint: '{}', breaker: {{minimum_calls: 4, open_for: 1s, trial_calls: 2}}, routes: [{{channel: rpc, method: m}}]}}]",
        backend.url()
    ))
    .await;
    let admin = gateway.addrs().admin;
    let breaker = async || Scrape::of(admin).await.labelled("streamgate_hook_breaker", "backend=\"shop\"");
    let mut client = RawClient::connect_v1(gateway.addrs(), Via::WsJson).await;
    for _ in 0..4 {
        let error = client.refused(call("rpc")).await;
        assert!(error.message.contains("HTTP status 503"), "{}", error.message);
    }
    assert!((breaker().await - 1.0).abs() < f64::EPSILON);
    backend.notes.answer(ok);
    let refused = |error: shared::Error| {
        assert_eq!(error.code, "PROXY_ERROR");
        assert!(error.message.contains("left alone"), "{}", error.message);
    };
    refused(client.refused(call("rpc")).await);
    assert_eq!(backend.notes.asked().len(), 4, "it is left alone");
    gateway.logged("the opening", |line| line.contains("shop") && line.contains("fails too often")).await;
    let trials = async {
        while !works(&mut client).await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within("the first trial", trials).await;
    assert!(works(&mut client).await && works(&mut client).await);
    assert!(breaker().await.abs() < f64::EPSILON);
    let scrape = Scrape::of(admin).await;
    let calls = |outcome| {
        scrape.labelled("streamgate_hook_calls_total", &format!("hook=\"RPC\",outcome=\"{outcome}\""))
    };
    assert!((calls("failed") - 4.0).abs() < f64::EPSILON && calls("ok") >= 3.0 && calls("breaker") >= 1.0);
}

#[tokio::test]
async fn callers_in_a_hurry_do_not_open_the_breaker() {
    let backend = HttpBackend::start(|_| Reply::Stall).await;
    let node = TestNode::start(&format!(
        "proxy: [{{endpoint: '{}', timeout: 20s, breaker: {{minimum_calls: 2}}, routes: [{{channel: rpc, method: m}}]}}]",
        backend.url()
    ))
    .await;
    let mut client = RawClient::connect(node.addrs(), Via::WsJson).await;
    for _ in 0..5 {
        let error = client.refused(InboundMessage { timeout_ms: 30, ..call("rpc") }).await;
        assert_eq!(error.code, "RPC_TIMEOUT", "{}", error.message);
    }
    backend.notes.answer(ok);
    assert!(works(&mut client).await);
}

#[tokio::test]
async fn more_calls_than_allowed_fail_at_once() {
    let backend = HttpBackend::start(|_| Reply::Stall).await;
    let node = TestNode::start(&format!(
        "proxy: [{{endpoint: '{}', timeout: 15s, max_concurrent: 2, routes: [{{channel: rpc, method: m}}]}}]",
        backend.url()
    ))
    .await;
    let mut waiting = RawClient::connect_v1(node.addrs(), Via::WsJson).await;
    for id in ["1", "2"] {
        waiting.send(InboundMessage { id: id.into(), ..call("rpc") }).await;
    }
    backend.notes.until("RPC", 2).await;
    let mut client = RawClient::connect_v1(node.addrs(), Via::WsJson).await;
    let begun = Instant::now();
    let error = client.refused(call("rpc")).await;
    assert!(error.code == "PROXY_ERROR" && error.message.contains("2 calls under way"), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}
