//! Calls and surveys with the Rust client, over nodes that are killed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use streamgate_client::{
    CallError, CallOptions, Client, CloudEvent, CloudEventBuilder, Error, Serving, Status, SubscribeOptions,
};
use streamgate_e2e::{
    cluster::{self, Cluster},
    events::{text, text_of},
    raw::Via,
    responder::OPEN,
    within,
};
use tokio::sync::{Semaphore, mpsc};

fn patient(seconds: u64) -> CallOptions {
    CallOptions { timeout: Some(Duration::from_secs(seconds)) }
}

fn code(error: &Error) -> &str {
    match error {
        Error::Server { code, .. } => code,
        other => panic!("{other:?} is no error of the server's"),
    }
}

/// Serves `*.echo` with what was sent, `*.who` with `name`, and refuses everything else of `family`.
async fn answering(client: &Client, family: &str, name: &str) -> Serving {
    let name = name.to_owned();
    let handler = move |call: streamgate_client::Call| {
        let name = name.clone();
        async move {
            match call.method.rsplit('.').next() {
                Some("echo") => Ok(call.event),
                Some("who") => Ok(text("who", &name)),
                _ => Err(CallError::new("OUT_OF_TEA", "only coffee").kind("kitchen")),
            }
        }
    };
    client.serve(format!("{family}.*"), handler).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_call_each_other_over_two_nodes_and_every_transport() {
    let cluster = Cluster::start_with(2, OPEN).await;
    for (number, via) in Via::ALL.into_iter().enumerate() {
        let (family, method) = (format!("m{number}"), format!("m{number}.echo"));
        let there = cluster.client(1, via).await;
        let _serving = answering(&there, &family, "there").await;
        for node in [0, 1] {
            let here = cluster.client(node, via).await;
            let event = text("e", "hällo");
            let reply = here.call("shop.7", &method, event.clone(), patient(10)).await;
            assert_eq!(reply, Ok(event.clone()), "{via:?}");
            let session = there.session_id().unwrap();
            assert_eq!(here.call_session(&session, &method, event.clone(), patient(10)).await, Ok(event));
            let refused = here.call("shop.7", format!("{family}.tea"), text("e", ""), patient(10)).await;
            let (code, kind, message) = ("OUT_OF_TEA".into(), "kitchen".into(), "only coffee".into());
            assert_eq!(refused, Err(Error::Server { code, kind, message }));
        }
    }
    let caller = cluster.client(0, Via::WsJson).await;
    let started = Instant::now();
    let nobody = caller.call("shop.7", "m0.echo", text("e", ""), patient(20)).await.unwrap_err();
    assert_eq!(code(&nobody), "NO_PROXY", "its guard was dropped");
    let nobody = caller.call_session("made-up", "m.echo", text("e", ""), patient(20)).await.unwrap_err();
    assert_eq!(code(&nobody), "NOT_FOUND");
    assert!(started.elapsed() < Duration::from_secs(10), "at once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_offered_is_offered_again_when_its_node_is_killed() {
    let redis = cluster::redis();
    let settings = format!("presence: {{lease: 2s}}\n{OPEN}");
    let mut dying = cluster::process(&redis, &settings).await;
    let staying = cluster::process(&redis, &settings).await;
    let responder = cluster::connect(&[dying.addrs(), staying.addrs()], Via::WsJson).await;
    let mut serving = answering(&responder, "m", "moved").await;
    let caller = cluster::connect(&[staying.addrs()], Via::WsProto).await;
    let who = caller.call("a", "m.who", text("e", ""), patient(10)).await.unwrap();
    assert_eq!(text_of(&who), "moved");

    dying.kill9();
    let mut status = responder.status();
    let at = staying.addrs().websocket.to_string();
    let moved = |status: &Status| matches!(status, Status::Connected { address, .. } if *address == at);
    within("the other node", status.wait_for(moved)).await.unwrap();
    // It is said to be connected: so it can be called, by its name for sure.
    let session = responder.session_id().unwrap();
    let who = caller.call_session(&session, "m.who", text("e", ""), patient(10)).await.unwrap();
    assert_eq!(text_of(&who), "moved");
    // Until its lease is over, the dead node may be chosen as well: then that is said.
    let answer = within("an answer", async {
        loop {
            match caller.call("a", "m.who", text("e", ""), patient(10)).await {
                Ok(answer) => return answer,
                Err(error) => assert_eq!(code(&error), "PROXY_ERROR"),
            }
        }
    });
    assert_eq!(text_of(&answer.await), "moved");
    assert!(tokio::time::timeout(Duration::ZERO, serving.ended()).await.is_err(), "it goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_under_way_when_the_callers_node_is_killed_is_not_made_again() {
    let redis = cluster::redis();
    let mut dying = cluster::process(&redis, OPEN).await;
    let staying = cluster::process(&redis, OPEN).await;
    let responder = cluster::connect(&[staying.addrs()], Via::WsJson).await;
    let (seen, mut calls) = mpsc::unbounded_channel();
    let handler = move |call: streamgate_client::Call| {
        let first = call.method == "m.first";
        seen.send(call.method).unwrap();
        async move { if first { std::future::pending().await } else { Ok(call.event) } }
    };
    let _serving = responder.serve("m.*", handler).await.unwrap();
    let caller = cluster::connect(&[dying.addrs(), staying.addrs()], Via::WsJson).await;
    let first = tokio::spawn({
        let caller = caller.clone();
        async move { caller.call("a", "m.first", text("e", ""), patient(30)).await }
    });
    assert_eq!(within("the call", calls.recv()).await.unwrap(), "m.first");
    dying.kill9();
    let lost = within("the end of the call", first).await.unwrap();
    assert!(matches!(lost, Err(Error::OutcomeUnknown { what: "call", .. })), "{lost:?}");
    within("the second call", caller.call("a", "m.second", text("e", ""), patient(30))).await.unwrap();
    assert_eq!(calls.recv().await.unwrap(), "m.second", "and nothing before it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_under_way_when_the_responders_node_drains_is_answered() {
    let redis = cluster::redis();
    let settings = format!("drain: {{duration: 0s}}\n{OPEN}");
    let mut draining = cluster::process(&redis, &settings).await;
    let staying = cluster::process(&redis, &settings).await;
    let responder = cluster::connect(&[draining.addrs(), staying.addrs()], Via::Grpc).await;
    let gate = Arc::new(Semaphore::new(0));
    let (seen, mut calls) = mpsc::unbounded_channel();
    let waiting = gate.clone();
    let handler = move |call: streamgate_client::Call| {
        seen.send(call.method).unwrap();
        let gate = waiting.clone();
        async move {
            gate.acquire().await.unwrap().forget();
            Ok(call.event)
        }
    };
    let _serving = responder.serve("m.*", handler).await.unwrap();
    let caller = cluster::connect(&[staying.addrs()], Via::WsJson).await;
    let call = |method: &'static str| {
        let caller = caller.clone();
        tokio::spawn(async move { caller.call("a", method, text("e", method), patient(30)).await })
    };
    let slow = call("m.slow");
    assert_eq!(within("the call", calls.recv()).await.unwrap(), "m.slow");
    draining.sigterm();
    // Longer than a client that has nothing to answer is given, and shorter than one that has.
    tokio::time::sleep(Duration::from_millis(1_400)).await;
    assert!(!slow.is_finished());
    gate.add_permits(1);
    assert_eq!(within("the answer", slow).await.unwrap(), Ok(text("e", "m.slow")));
    let at = staying.addrs().grpc.to_string();
    let moved = |status: &Status| matches!(status, Status::Connected { address, .. } if *address == at);
    within("the other node", responder.status().wait_for(moved)).await.unwrap();
    gate.add_permits(1);
    assert_eq!(within("the answer", call("m.next")).await.unwrap(), Ok(text("e", "m.next")));
    assert!(within("the end", draining.ended()).await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_calls_another_one_and_passes_its_error_on() {
    let cluster = Cluster::start_with(2, OPEN).await;
    let (front, back) = (cluster.client(0, Via::Grpc).await, cluster.client(1, Via::WsJson).await);
    let _back = answering(&back, "back", "the back").await;
    let inner = front.clone();
    let handler = move |call: streamgate_client::Call| {
        let (client, method) = (inner.clone(), call.method.replace("front", "back"));
        async move { Ok(client.call(call.channel, method, call.event, patient(5)).await?) }
    };
    let _front = front.serve("front.*", handler).await.unwrap();
    // Of itself, too.
    for caller in [&front, &back] {
        let reply = caller.call("a", "front.who", text("e", ""), patient(10)).await.unwrap();
        assert_eq!(text_of(&reply), "the back");
        let refused = caller.call("a", "front.tea", text("e", ""), patient(10)).await.unwrap_err();
        assert_eq!(code(&refused), "OUT_OF_TEA");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stuck_handler_is_a_timeout_and_a_reply_too_large_an_error() {
    let cluster = Cluster::start_with(2, OPEN).await;
    let (caller, responder) = (cluster.client(0, Via::WsJson).await, cluster.client(1, Via::WsJson).await);
    let handler = async |call: streamgate_client::Call| -> Result<CloudEvent, CallError> {
        if call.method == "m.big" {
            return Ok(CloudEventBuilder::new("big").text("x".repeat(70_000)).build());
        }
        std::future::pending().await
    };
    let _serving = responder.serve("m.*", handler).await.unwrap();
    let session = responder.session_id();
    let short = CallOptions { timeout: Some(Duration::from_millis(300)) };
    let late = caller.call("a", "m.stuck", text("e", ""), short).await.unwrap_err();
    assert_eq!((code(&late), late.is_timeout()), ("RPC_TIMEOUT", true));
    let large = caller.call("a", "m.big", text("e", ""), patient(10)).await.unwrap_err();
    assert_eq!(code(&large), "TOO_LARGE");
    assert_eq!(responder.session_id(), session);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survey_is_over_when_all_have_answered_or_said_that_they_do_not() {
    let cluster = Cluster::start_with(2, OPEN).await;
    let mut clients = Vec::new();
    for number in 0..4 {
        let client = cluster.client(number % 2, Via::ALL[number % Via::ALL.len()]).await;
        let target = if number == 3 { "room.*" } else { "room.blue" };
        let subscription = client.subscribe(SubscribeOptions::new(target)).await.unwrap();
        clients.push((client, subscription));
    }
    let handler = |number: usize| {
        move |question: CloudEvent| async move {
            if number == 2 {
                return Err(CallError::new("BUSY", "not now"));
            }
            Ok(text("answer", &format!("{} {number}", text_of(&question))))
        }
    };
    let _answering: Vec<_> =
        (1..4).map(|number| clients[number].0.on_survey(handler(number)).unwrap()).collect();
    let asker = clients[1].0.clone();
    let started = Instant::now();
    let result = asker.survey("room.blue", text("q", "who"), Duration::from_secs(20)).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert!(!result.truncated);
    let mut answers: Vec<_> = result
        .answers
        .iter()
        .map(|answer| {
            let number =
                clients.iter().position(|(client, _)| client.session_id() == Some(answer.session_id.clone()));
            let said = match &answer.outcome {
                Ok(event) => text_of(event),
                Err(error) => code(error),
            };
            (number.unwrap(), said)
        })
        .collect();
    answers.sort_unstable();
    assert_eq!(answers, [(0, "NOT_SUPPORTED"), (1, "who 1"), (2, "BUSY"), (3, "who 3")]);
    let nobody = asker.survey("room.empty.x", text("q", "who"), Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(code(&nobody), "NOT_FOUND");
}
