//! RPC: who answers, and what a caller gets when nobody does.

use std::{future::pending, time::Duration};

use streamgate::{
    error::{ClientError, ErrorCode},
    rpc::Handler,
    session::RpcRequest,
};
use streamgate_e2e::{
    events::{frame, text},
    gateway::TestNode,
    raw::{RawClient, Via},
};
use streamgate_proto::{
    cloudevents::CloudEvent,
    v1::{InboundMessage, inbound_message::Envelope as In, outbound_message::Envelope as Out},
};

fn call(channel: &str, method: &str, event: CloudEvent) -> InboundMessage {
    InboundMessage { channel: channel.into(), method: method.into(), ..frame(In::RpcRequest(event)) }
}

/// Answers with who asked for what.
fn mirror() -> impl Handler {
    |request: RpcRequest| async move {
        let seen = format!("{} {} {}", request.channel, request.method, request.client_id);
        Ok(CloudEvent { source: request.event.source, ..text(&request.event.id, &seen) })
    }
}

#[tokio::test]
async fn a_call_that_nobody_serves_answers_no_proxy() {
    let node = TestNode::start("").await;
    for via in Via::ALL {
        let mut client = RawClient::connect_v1(node.addrs(), via).await;
        let error = client.refused(call("a", "m", text("1", ""))).await;
        assert_eq!((error.code.as_str(), error.r#type.as_str()), ("NO_PROXY", "proxy_error"), "{via:?}");
        client.quiet().await;
    }
}

#[tokio::test]
async fn the_first_handler_whose_globs_match_answers() {
    let refuse = |_: RpcRequest| async { Err(ClientError::new(ErrorCode::AclError, "not for you")) };
    let node = TestNode::start_with("", |builder| {
        builder.handler("orders.secret", "**", refuse).handler("orders.*", "get", mirror())
    })
    .await;
    for via in Via::ALL {
        let mut client = RawClient::connect_v1(node.addrs(), via).await;
        let answer = client.request(call("orders.7", "get", text("1", ""))).await;
        let Some(Out::RpcReply(reply)) = answer.envelope else { panic!("{answer:?}") };
        assert_eq!(reply, text("1", "orders.7 get raw"), "{via:?}");
        // Channel and method are the event's source and type where the envelope says nothing.
        let event = CloudEvent { source: "orders.8".into(), r#type: "get".into(), ..text("2", "") };
        let answer = client.request(call("", "", event)).await;
        let Some(Out::RpcReply(reply)) = answer.envelope else { panic!("{answer:?}") };
        assert_eq!(streamgate_e2e::events::text_of(&reply), "orders.8 get raw", "{via:?}");
        let error = client.refused(call("orders.secret", "get", text("3", ""))).await;
        assert_eq!((error.code.as_str(), error.message.as_str()), ("ACL_ERROR", "not for you"), "{via:?}");
        assert_eq!(client.refused(call("orders.7", "put", text("4", ""))).await.code, "NO_PROXY", "{via:?}");
    }
}

#[tokio::test]
async fn a_call_times_out_by_the_callers_or_the_servers_limit_whichever_is_smaller() {
    let never = |_: RpcRequest| pending::<Result<CloudEvent, ClientError>>();
    let patient =
        TestNode::start_with("server: {rpc_timeout: 1h}", |builder| builder.handler("**", "**", never)).await;
    let hasty =
        TestNode::start_with("server: {rpc_timeout: 200ms}", |builder| builder.handler("**", "**", never))
            .await;
    for via in Via::ALL {
        for (node, timeout_ms) in [(&patient, 150), (&hasty, 0), (&hasty, 3_600_000)] {
            let mut client = RawClient::connect(node.addrs(), via).await;
            let start = std::time::Instant::now();
            let error = client.refused(InboundMessage { timeout_ms, ..call("a", "m", text("1", "")) }).await;
            assert_eq!((error.code.as_str(), error.r#type.as_str()), ("RPC_TIMEOUT", "timeout"), "{via:?}");
            assert!(start.elapsed() >= Duration::from_millis(140), "{via:?}: after {:?}", start.elapsed());
            client.quiet().await;
        }
    }
}

#[tokio::test]
async fn a_call_under_way_holds_up_nothing_else_of_its_client() {
    let never = |_: RpcRequest| pending::<Result<CloudEvent, ClientError>>();
    let node = TestNode::start_with("", |builder| builder.handler("**", "**", never)).await;
    let mut client = RawClient::connect(node.addrs(), Via::WsProto).await;
    client.send(call("a", "m", text("1", ""))).await;
    client.subscribe_to("b").await;
    client.publish("b", text("2", "on")).await;
    assert_eq!(client.texts(1).await, ["on"]);
    client.close().await;
}

#[tokio::test]
async fn a_handler_that_panics_costs_its_caller_an_error_and_nobody_anything_else() {
    async fn broken(request: RpcRequest) -> Result<CloudEvent, ClientError> {
        assert!(request.method != "break", "this handler is broken");
        Ok(request.event)
    }
    let node = TestNode::start_with("", |builder| builder.handler("**", "**", broken)).await;
    for via in Via::ALL {
        let mut client = RawClient::connect_v1(node.addrs(), via).await;
        let error = client.refused(call("a", "break", text("1", ""))).await;
        assert_eq!(error.code, "INTERNAL", "{via:?}");
        let answer = client.request(call("a", "go-on", text("2", ""))).await;
        assert!(matches!(answer.envelope, Some(Out::RpcReply(_))), "{via:?}");
    }
}
