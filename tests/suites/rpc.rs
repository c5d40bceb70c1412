//! Calls from client to client: who gets them, and what a caller gets whatever happens to who answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use streamgate_e2e::{
    cluster::{self, Cluster},
    events::{text, text_of},
    gateway::TestNode,
    raw::{RawClient, Via},
    responder::{OPEN, Responder, call, result, serve},
    rights::{self, permissions, signed},
    within,
};
use streamgate_proto::{
    cloudevents::CloudEvent,
    shared,
    v1::{
        InboundMessage, OutboundMessage, Refresh, inbound_message::Envelope as In,
        outbound_message::Envelope as Out, rpc_result::Outcome,
    },
};

fn replied(answer: OutboundMessage) -> CloudEvent {
    match answer.envelope {
        Some(Out::RpcReply(event)) => event,
        other => panic!("{other:?} instead of a reply"),
    }
}

fn patient(frame: InboundMessage, timeout_ms: u32) -> InboundMessage {
    InboundMessage { timeout_ms, ..frame }
}

fn to(session: &str) -> String {
    format!("$session.{session}")
}

fn code(error: &shared::Error) -> (&str, &str) {
    (&error.code, &error.r#type)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_either_node_answers_a_client_of_the_other_over_every_transport() {
    let cluster = Cluster::start_with(2, OPEN).await;
    for (number, via) in Via::ALL.into_iter().enumerate() {
        let method = format!("m{number}.echo");
        let mut responder = Responder::start(cluster.addrs(1), via, &[&method]).await;
        for node in [0, 1] {
            for caller in [Via::WsJson, Via::Grpc] {
                let mut caller = RawClient::connect(cluster.addrs(node), caller).await;
                let event = text("e", "hällo");
                assert_eq!(replied(caller.request(call("shop.7", &method, event.clone())).await), event);
                let got = responder.calls.recv().await.unwrap();
                assert_eq!((got.channel.as_str(), &got.method), ("shop.7", &method));
                assert!(got.deadline > 0 && !got.request_id.is_empty());
                // Of the payload everything may be missing.
                assert_eq!(replied(caller.request(call("shop.7", &method, empty())).await), empty());
                responder.calls.recv().await.unwrap();
                // By its id, which others can be told.
                let channel = to(&responder.session_id);
                assert_eq!(replied(caller.request(call(&channel, &method, event.clone())).await), event);
                responder.calls.recv().await.unwrap();
            }
        }
    }
    // A v1 client may call, too.
    let _responder = Responder::start(cluster.addrs(1), Via::WsJson, &["old.*"]).await;
    let mut caller = RawClient::connect_v1(cluster.addrs(0), Via::WsProto).await;
    assert_eq!(text_of(&replied(caller.request(call("a", "old.echo", text("1", "x"))).await)), "x");
}

/// An event that says nothing but what it must.
fn empty() -> CloudEvent {
    CloudEvent { data: None, ..text("empty", "") }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_nobody_answers_say_why_at_once() {
    let cluster = Cluster::start_with(2, OPEN).await;
    let mut caller = RawClient::connect(cluster.addrs(0), Via::WsJson).await;
    let started = Instant::now();
    let error = caller.refused(call("a", "nothing.echo", empty())).await;
    assert_eq!(code(&error), ("NO_PROXY", "proxy_error"));
    let nobody = to("2b1bb2c8-9f7e-4f0d-8f4f-2b4b8f2f1a11");
    let error = caller.refused(call(&nobody, "m.echo", empty())).await;
    assert_eq!(code(&error), ("NOT_FOUND", "request_error"));
    let error = caller.refused(call("$session.ann", "m.echo", empty())).await;
    assert_eq!(code(&error), ("NOT_FOUND", "request_error"));

    let responder = Responder::start(cluster.addrs(1), Via::WsJson, &["m.*"]).await;
    let error = caller.refused(call(&to(&responder.session_id), "n.echo", empty())).await;
    assert_eq!(code(&error), ("NO_PROXY", "proxy_error"), "a session answers what it offers");
    let error = caller.refused(call("a", "m.fail", empty())).await;
    assert_eq!((code(&error), error.message.as_str()), (("OUT_OF_TEA", "kitchen"), "only coffee"));
    assert!(started.elapsed() < Duration::from_secs(10), "all at once, not at a timeout");

    let old = RawClient::connect_v1(cluster.addrs(1), Via::WsJson).await;
    // Where a session is, is kept after it is connected: another node may not know of it yet.
    let known = async {
        loop {
            let error = caller.refused(call(&to(&old.connected.session_id), "m.echo", empty())).await;
            if error.code != "NOT_FOUND" {
                return error;
            }
        }
    };
    let error = within("the session is known", known).await;
    assert_eq!(error.code, "NO_PROXY", "a v1 client offers nothing");
    drop(responder);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_responder_is_a_timeout_and_what_it_says_later_is_dropped() {
    let cluster = Cluster::start_with(2, OPEN).await;
    let mut slow = RawClient::connect(cluster.addrs(1), Via::WsJson).await;
    slow.request(serve(&["m.silent"])).await;
    let mut caller = RawClient::connect(cluster.addrs(0), Via::WsProto).await;
    let error = caller.refused(patient(call("a", "m.silent", empty()), 300)).await;
    assert_eq!(code(&error), ("RPC_TIMEOUT", "timeout"));
    let Some(Out::RpcCall(late)) = slow.frame().await.envelope else { panic!("no call") };
    slow.send(result(&late.request_id, Outcome::Payload(empty()))).await;
    // Nor does an answer that nobody ever asked for reach anybody.
    slow.send(result("made up", Outcome::Payload(empty()))).await;
    slow.quiet().await;
    caller.quiet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_first_answer_counts_and_only_of_who_was_called() {
    let cluster = Cluster::start_with(2, OPEN).await;
    let mut responder = RawClient::connect(cluster.addrs(1), Via::WsJson).await;
    responder.request(serve(&["m.*"])).await;
    let mut other = RawClient::connect(cluster.addrs(1), Via::WsJson).await;
    let mut caller = RawClient::connect(cluster.addrs(0), Via::WsJson).await;
    caller.send(InboundMessage { id: "c".into(), ..call("a", "m.x", empty()) }).await;
    let Some(Out::RpcCall(asked)) = responder.frame().await.envelope else { panic!("no call") };
    other.send(result(&asked.request_id, Outcome::Payload(text("forged", "forged")))).await;
    other.quiet().await;
    for word in ["first", "second"] {
        responder.send(result(&asked.request_id, Outcome::Payload(text(word, word)))).await;
    }
    assert_eq!(text_of(&replied(caller.answer_to("c").await)), "first");
    responder.quiet().await;
    caller.quiet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_responder_that_vanishes_ends_the_call_at_once() {
    let cluster = Cluster::start_with(2, OPEN).await;
    let mut caller = RawClient::connect(cluster.addrs(0), Via::WsJson).await;
    for via in Via::ALL {
        let mut responder = RawClient::connect(cluster.addrs(1), via).await;
        responder.request(serve(&["m.x"])).await;
        caller.send(InboundMessage { id: "c".into(), ..call("a", "m.x", empty()) }).await;
        responder.frame().await;
        let started = Instant::now();
        drop(responder);
        let answer = caller.answer_to("c").await;
        let Some(Out::Error(error)) = answer.envelope else { panic!("{answer:?}") };
        assert_eq!(code(&error), ("PROXY_ERROR", "proxy_error"), "{via:?}");
        assert!(started.elapsed() < Duration::from_secs(5), "long before the timeout");
        // The next call finds it gone.
        let error = caller.refused(call("a", "m.x", empty())).await;
        assert_eq!(error.code, "NO_PROXY", "{via:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_spread_over_the_responders_of_all_nodes_and_each_goes_to_one() {
    let cluster = Cluster::start_with(2, OPEN).await;
    let mut responders = Vec::new();
    for node in [0, 0, 1, 1] {
        responders.push(Responder::start(cluster.addrs(node), Via::WsProto, &["m.*", "m.who"]).await);
    }
    let mut caller = RawClient::connect(cluster.addrs(0), Via::WsProto).await;
    let mut answered = BTreeMap::new();
    // The other node's offer is seen within a second.
    let seen = async {
        while answered.len() < 4 {
            let who = text_of(&replied(caller.request(call("a", "m.who", empty())).await)).to_owned();
            *answered.entry(who).or_insert(0usize) += 1;
        }
    };
    within("all have answered", seen).await;
    let known: BTreeSet<_> = responders.iter().map(|responder| responder.session_id.clone()).collect();
    assert_eq!(answered.keys().cloned().collect::<BTreeSet<_>>(), known);
    let mut got = 0;
    for responder in &mut responders {
        while responder.calls.try_recv().is_ok() {
            got += 1;
        }
    }
    assert_eq!(got, answered.values().sum::<usize>(), "each call reached one of them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_calls_at_a_time_are_each_answered_with_their_own_answer() {
    let cluster = Cluster::start_with(2, OPEN).await;
    let _near = Responder::start(cluster.addrs(0), Via::WsProto, &["near.echo"]).await;
    let _far = Responder::start(cluster.addrs(1), Via::WsJson, &["far.echo"]).await;
    let mut caller = RawClient::connect(cluster.addrs(0), Via::WsProto).await;
    let methods = ["near.echo", "far.echo"];
    for number in 0..1_000 {
        let event = text(&number.to_string(), "x");
        let frame = call("a", methods[number % 2], event);
        caller.send(InboundMessage { id: format!("c{number}"), ..frame }).await;
    }
    let mut answered = BTreeSet::new();
    for _ in 0..1_000 {
        let answer = caller.frame().await;
        let id = answer.id.clone();
        assert_eq!(format!("c{}", replied(answer).id), id);
        assert!(answered.insert(id));
    }
    caller.quiet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_may_call_itself_and_a_call_may_cause_another() {
    let cluster = Cluster::start_with(2, OPEN).await;
    let mut first = RawClient::connect(cluster.addrs(0), Via::WsJson).await;
    first.request(serve(&["chain.first"])).await;
    first.send(InboundMessage { id: "self".into(), ..call("a", "chain.first", empty()) }).await;
    let Some(Out::RpcCall(asked)) = first.frame().await.envelope else { panic!("no call") };
    first.send(result(&asked.request_id, Outcome::Payload(text("me", "myself")))).await;
    assert_eq!(text_of(&replied(first.answer_to("self").await)), "myself");

    // caller -> first (node 0) -> second (node 1) -> third (node 0), and back.
    let mut second = RawClient::connect(cluster.addrs(1), Via::Grpc).await;
    second.request(serve(&["chain.second"])).await;
    let _third = Responder::start(cluster.addrs(0), Via::WsProto, &["chain.echo"]).await;
    let mut caller = RawClient::connect(cluster.addrs(1), Via::WsJson).await;
    caller.send(InboundMessage { id: "c".into(), ..call("a", "chain.first", text("e", "deep")) }).await;
    let Some(Out::RpcCall(at_first)) = first.frame().await.envelope else { panic!("no call") };
    let asked = at_first.payload.unwrap();
    first.send(InboundMessage { id: "f".into(), ..call("a", "chain.second", asked) }).await;
    let Some(Out::RpcCall(at_second)) = second.frame().await.envelope else { panic!("no call") };
    let deep = replied(second.request(call("a", "chain.echo", at_second.payload.unwrap())).await);
    second.send(result(&at_second.request_id, Outcome::Payload(deep))).await;
    let back = replied(first.answer_to("f").await);
    first.send(result(&at_first.request_id, Outcome::Payload(back))).await;
    assert_eq!(text_of(&replied(caller.answer_to("c").await)), "deep");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_goes_is_no_longer_worked_for() {
    let cluster = Cluster::start_with(2, OPEN).await;
    let mut responder = RawClient::connect(cluster.addrs(1), Via::WsJson).await;
    responder.request(serve(&["m.x"])).await;
    let mut caller = RawClient::connect(cluster.addrs(0), Via::WsJson).await;
    caller.send(call("a", "m.x", empty())).await;
    let Some(Out::RpcCall(asked)) = responder.frame().await.envelope else { panic!("no call") };
    caller.close().await;
    // Its answer is nobody's, and harms nothing.
    responder.send(result(&asked.request_id, Outcome::Payload(empty()))).await;
    responder.quiet().await;
    let mut other = RawClient::connect(cluster.addrs(0), Via::WsJson).await;
    other.send(InboundMessage { id: "o".into(), ..call("a", "m.x", empty()) }).await;
    let Some(Out::RpcCall(asked)) = responder.frame().await.envelope else { panic!("no call") };
    responder.send(result(&asked.request_id, Outcome::Payload(text("o", "for the other")))).await;
    assert_eq!(text_of(&replied(other.answer_to("o").await)), "for the other");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_ends_its_calls_two_seconds_after_its_lease_at_most() {
    let redis = cluster::redis();
    let settings = format!("presence: {{lease: 3s}}\n{OPEN}");
    let near = TestNode::start(&streamgate_e2e::gateway::on_redis(&redis, &settings)).await;
    near.addrs().ready().await;
    let mut far = cluster::process(&redis, &settings).await;
    let mut responder = RawClient::connect(far.addrs(), Via::WsJson).await;
    responder.request(serve(&["m.x"])).await;
    let mut caller = RawClient::connect(near.addrs(), Via::WsJson).await;
    caller.send(InboundMessage { id: "c".into(), ..patient(call("a", "m.x", empty()), 30_000) }).await;
    responder.frame().await;
    far.kill9();
    let started = Instant::now();
    let answer = caller.answer_to("c").await;
    let Some(Out::Error(error)) = answer.envelope else { panic!("{answer:?}") };
    assert_eq!(code(&error), ("PROXY_ERROR", "proxy_error"));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test]
async fn an_answer_that_does_not_fit_the_caller_is_a_clear_error() {
    let limits = format!("limits: {{write_queue_bytes: 65536, frame_bytes: 65536}}\n{OPEN}");
    let node = TestNode::start(&limits).await;
    let _responder = Responder::start(node.addrs(), Via::WsProto, &["m.echo"]).await;
    let mut caller = RawClient::connect(node.addrs(), Via::WsProto).await;
    let error = caller.refused(call("a", "m.echo", text("big", &"x".repeat(30_000)))).await;
    assert_eq!(code(&error), ("TOO_LARGE", "limit_error"));
    assert!(error.message.contains("at most 16384"), "{}", error.message);
    assert_eq!(replied(caller.request(call("a", "m.echo", empty())).await), empty());
}

#[tokio::test]
async fn offers_are_checked_and_replaced() {
    let node = TestNode::start(OPEN).await;
    let mut client = RawClient::connect(node.addrs(), Via::WsJson).await;
    for wrong in ["", "a..b", "a.**.b", "a b"] {
        assert_eq!(client.refused(serve(&[wrong])).await.code, "BAD_REQUEST", "{wrong:?}");
    }
    let many: Vec<String> = (0..101).map(|n| format!("m{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(client.refused(serve(&many)).await.code, "BAD_REQUEST");
    let mut old = RawClient::connect_v1(node.addrs(), Via::WsJson).await;
    assert_eq!(old.refused(serve(&["a"])).await.code, "NOT_SUPPORTED");

    client.request(serve(&["a", "b"])).await;
    client.request(serve(&["b"])).await;
    assert_eq!(client.refused(call("x", "a", empty())).await.code, "NO_PROXY");
    client.request(serve(&[])).await;
    assert_eq!(client.refused(call("x", "b", empty())).await.code, "NO_PROXY");
}

#[tokio::test]
async fn who_loses_the_right_to_serve_gets_no_more_calls() {
    let rule = "{channels: ['m.**'], actions: [serve], who: {claims: {role: worker}}}";
    let node = TestNode::start(&permissions(rule)).await;
    let worker = signed(&serde_json::json!({"sub": "ann", "role": "worker"}));
    let mut client = rights::client(&node, Via::WsJson, &worker).await;
    client.request(serve(&["m.x"])).await;
    let mut caller = RawClient::connect(node.addrs(), Via::WsJson).await;
    assert_eq!(caller.refused(serve(&["m.x"])).await.code, "ACL_ERROR", "denied unless allowed");
    caller.send(InboundMessage { id: "c".into(), ..call("a", "m.x", empty()) }).await;
    let Some(Out::RpcCall(asked)) = client.frame().await.envelope else { panic!("no call") };
    client.send(result(&asked.request_id, Outcome::Payload(empty()))).await;
    replied(caller.answer_to("c").await);
    let lesser = Refresh { token: rights::token("ann") };
    client.request(streamgate_e2e::events::frame(In::Refresh(lesser))).await;
    assert_eq!(caller.refused(call("a", "m.x", empty())).await.code, "NO_PROXY");
    client.quiet().await;
}
