//! Calls in numbers: who calls much harms nobody else, and who waits for many answers is heard all the same.

use std::time::Duration;

use streamgate_e2e::{
    events::{live, text, text_of},
    gateway::{Addrs, TestNode},
    raw::{RawClient, Via, WsOptions},
    responder::{Responder, call, result, serve},
    within,
};
use streamgate_proto::{
    shared,
    v1::{InboundMessage, OutboundMessage, RpcCall, outbound_message::Envelope as Out, rpc_result::Outcome},
};

/// Calls that one client may wait for.
const MOST_UNDER_WAY: usize = 1_024;

async fn node(more: &str) -> TestNode {
    let open = "permissions: [{channels: ['**'], actions: [serve, survey], who: any}]";
    TestNode::start(&format!("{open}\nlimits: {{calls_per_second: 100000{more}}}\n")).await
}

/// A client that offers `method`, whose socket takes little that it has not read.
async fn small(addrs: Addrs, via: Via, method: &str) -> RawClient {
    let options = match via {
        Via::WsJson => Some(WsOptions::json()),
        Via::WsProto => Some(WsOptions::proto()),
        Via::Grpc => None,
    };
    let mut client = match options {
        None => RawClient::connect(addrs, via).await,
        Some(options) => {
            let mut client = RawClient::open_ws(addrs, options.receive_buffer(4 * 1024)).await;
            client.say_connect(streamgate_e2e::events::extended([live("quiet")])).await;
            client
        }
    };
    let answer = client.request(serve(&[method])).await;
    assert!(matches!(answer.envelope, Some(Out::Ok(_))), "{answer:?}");
    client
}

/// A call of 16 KiB with this number.
fn large(channel: &str, method: &str, number: usize) -> InboundMessage {
    let event = text(&number.to_string(), &"x".repeat(16 * 1024));
    InboundMessage { id: number.to_string(), ..call(channel, method, event) }
}

fn refusal(answer: OutboundMessage) -> Option<shared::Error> {
    match answer.envelope {
        Some(Out::Error(error)) => Some(error),
        Some(Out::RpcReply(_)) => None,
        other => panic!("{other:?} instead of an answer"),
    }
}

/// The next call; what else comes does not matter.
async fn next_call(client: &mut RawClient) -> RpcCall {
    loop {
        if let Some(Out::RpcCall(call)) = client.frame().await.envelope {
            return call;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_responder_that_does_not_read_is_not_cut_off_by_who_calls_it() {
    let node = node(", write_queue_bytes: 256KiB").await;
    let addrs = node.addrs();
    for via in Via::ALL {
        let mut responder = small(addrs, via, "m.x").await;
        let mut caller = RawClient::connect(addrs, Via::WsProto).await;
        let channel = format!("$session.{}", responder.connected.session_id);
        let count = MOST_UNDER_WAY;
        for number in 0..count {
            caller.send(large(&channel, "m.x", number)).await;
        }
        // More than it has room for is refused at once, and only that.
        let error = refusal(caller.frame().await).expect("nobody has answered yet");
        assert_eq!(error.code, "NOT_AVAILABLE", "{via:?}: {}", error.message);
        let answering = tokio::spawn(async move {
            loop {
                let call = next_call(&mut responder).await;
                responder.send(result(&call.request_id, Outcome::Payload(text("done", "")))).await;
            }
        });
        let (mut answered, mut refused) = (0, 1);
        while answered + refused < count {
            match refusal(caller.frame().await) {
                None => answered += 1,
                Some(error) => {
                    assert_eq!(error.code, "NOT_AVAILABLE", "{via:?}: {}", error.message);
                    refused += 1;
                }
            }
        }
        assert!(answered > 0, "{via:?}: it goes on");
        let answer = caller.request(call(&channel, "m.x", text("after", ""))).await;
        assert!(refusal(answer).is_none(), "{via:?}: and is there for the next one");
        answering.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_one_responder_has_no_room_for_go_to_another() {
    let node = node(", write_queue_bytes: 256KiB").await;
    let addrs = node.addrs();
    let _full = small(addrs, Via::WsProto, "m.echo").await;
    let mut caller = RawClient::connect(addrs, Via::WsProto).await;
    let channel = format!("$session.{}", _full.connected.session_id);
    // A call that is refused says that there is no room left.
    for number in 0..MOST_UNDER_WAY {
        caller.send(large(&channel, "m.echo", number)).await;
    }
    assert_eq!(refusal(caller.frame().await).map(|error| error.code).as_deref(), Some("NOT_AVAILABLE"));

    let _other = Responder::start(addrs, Via::WsProto, &["m.echo"]).await;
    let mut second = RawClient::connect(addrs, Via::WsProto).await;
    for number in 0..20 {
        let answer = second.request(large("shop.7", "m.echo", number)).await;
        assert!(refusal(answer).is_none(), "{number}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_as_many_answers_as_it_may_is_still_heard_and_further_calls_are_refused() {
    let node = node("").await;
    for via in Via::ALL {
        let mut worker = RawClient::connect(node.addrs(), via).await;
        worker.request(serve(&["m.x"])).await;
        let channel = format!("$session.{}", worker.connected.session_id);
        let count = MOST_UNDER_WAY + 100;
        let mut calls = Vec::new();
        for number in 0..count {
            let event = text("e", "x");
            worker.send(InboundMessage { id: number.to_string(), ..call(&channel, "m.x", event) }).await;
        }
        // It answers nothing until it has all of them, or they are refused.
        let mut refused = 0;
        while calls.len() + refused < count {
            match worker.frame().await.envelope {
                Some(Out::RpcCall(call)) => calls.push(call),
                Some(Out::Error(error)) => {
                    assert_eq!(error.code, "RATE_LIMITED", "{via:?}: {}", error.message);
                    refused += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((calls.len(), refused), (MOST_UNDER_WAY, 100), "{via:?}");
        for call in calls {
            worker.send(result(&call.request_id, Outcome::Payload(call.payload.unwrap()))).await;
        }
        for _ in 0..MOST_UNDER_WAY {
            match worker.frame().await.envelope {
                Some(Out::RpcReply(event)) => assert_eq!(text_of(&event), "x"),
                other => panic!("{via:?}: {other:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_client_that_waits_for_many_answers_is_noticed() {
    let node = node("").await;
    let addrs = node.addrs();
    let mut silent = RawClient::connect(addrs, Via::WsProto).await;
    silent.request(serve(&["m.x"])).await;
    let mut other = RawClient::connect(addrs, Via::WsProto).await;
    for via in Via::ALL {
        let mut caller = RawClient::connect(addrs, via).await;
        for number in 0..MOST_UNDER_WAY {
            let event = text("e", "x");
            caller.send(InboundMessage { id: number.to_string(), ..call("a", "m.x", event) }).await;
        }
        for _ in 0..MOST_UNDER_WAY {
            next_call(&mut silent).await;
        }
        let channel = format!("$session.{}", caller.connected.session_id);
        drop(caller);
        let gone = async {
            while other.refused(call(&channel, "m.x", text("e", ""))).await.code != "NOT_FOUND" {
                // The end of a connection of somebody else has no event to wait for.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        within("it is gone", gone).await;
    }
}
