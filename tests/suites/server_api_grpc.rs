//! The server API over gRPC.

use streamgate_e2e::{
    api::{grpc, post, raw},
    events::{extended, live, text},
    gateway::TestNode,
    raw::{RawClient, Via},
};
use streamgate_proto::server::{BroadcastRequest, ChannelsRequest, HistoryRequest};
use tonic::{Code, Request, Status};

fn broadcast(id: &str) -> BroadcastRequest {
    BroadcastRequest {
        channels: vec!["room".into()],
        payload: Some(text(id, id)),
        ..BroadcastRequest::default()
    }
}

fn code_of(status: &Status) -> &str {
    status.metadata().get("streamgate-error-code").map_or("", |code| code.to_str().unwrap())
}

#[tokio::test]
async fn what_a_backend_publishes_over_grpc_reaches_subscribers_and_is_read_back_as_json() {
    let node = TestNode::start("").await;
    let mut subscriber = RawClient::connect_as(node.addrs(), Via::WsJson, extended([live("room")])).await;
    let mut api = grpc(node.addrs().admin).await;
    let results = api.broadcast(broadcast("e1")).await.unwrap().into_inner().results;
    assert_eq!(results[0].position.as_ref().unwrap().offset, 1);
    assert_eq!(subscriber.message().await.payload.unwrap().id, "e1");
    let page = post(node.addrs().admin, "history", &[], r#"{"channel": "room"}"#).await.json();
    assert_eq!(page["messages"][0]["payload"]["id"], "e1");
    let request = HistoryRequest { channel: "room.*".into(), ..HistoryRequest::default() };
    let status = api.history(request).await.unwrap_err();
    assert_eq!((status.code(), code_of(&status)), (Code::InvalidArgument, "BAD_REQUEST"));
}

#[tokio::test]
async fn a_web_page_cannot_send_grpc_without_asking() {
    let node = TestNode::start("").await;
    let path = "/messageloop.server.v1.APIService/Channels";
    // What a browser sends to another site without a preflight: a message of no bytes.
    let frame = "\0\0\0\0\0";
    for (kind, status) in
        [("text/plain", 415), ("application/x-www-form-urlencoded", 415), ("application/grpc", 200)]
    {
        let headers = [("Content-Type", kind), ("Content-Length", "5")];
        assert_eq!(raw(node.addrs().admin, "POST", path, &headers, frame).await.status, status, "{kind}");
    }
}

#[tokio::test]
async fn tokens_and_limits_hold_for_grpc_too() {
    let node = TestNode::start(
        "api: {max_request_bytes: 2KiB, tokens: [{name: w, token: token-of-the-writer, scopes: [publish]}]}",
    )
    .await;
    let mut api = grpc(node.addrs().admin).await;
    let with = |token: &str, request| {
        let mut request = Request::new(request);
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        request
    };
    assert_eq!(api.broadcast(broadcast("e1")).await.unwrap_err().code(), Code::Unauthenticated);
    let bad = api.broadcast(with("token-of-the-reader", broadcast("e1"))).await.unwrap_err();
    assert_eq!(bad.code(), Code::Unauthenticated);
    assert_eq!(
        api.broadcast(with("token-of-the-writer", broadcast("e1"))).await.unwrap().into_inner().results.len(),
        1
    );
    let mut request = Request::new(ChannelsRequest::default());
    request.metadata_mut().insert("authorization", "Bearer token-of-the-writer".parse().unwrap());
    assert_eq!(api.channels(request).await.unwrap_err().code(), Code::PermissionDenied);
    let large = with("token-of-the-writer", broadcast(&"x".repeat(4_000)));
    assert_eq!(api.broadcast(large).await.unwrap_err().code(), Code::OutOfRange);
}

/// Needs Python and its package index: see `tests/api/run`.
#[ignore = "installs Python packages"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_document_describes_every_answer_that_a_tester_can_provoke() {
    let node = TestNode::start("").await;
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("api/run");
    let url = format!("http://{}", node.addrs().admin);
    let run = tokio::task::spawn_blocking(move || std::process::Command::new(script).arg(url).status());
    assert!(run.await.unwrap().unwrap().success());
}
