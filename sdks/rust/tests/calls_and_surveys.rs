//! Calls are made once, and answered once; what is offered is offered again before anybody is told of the connection.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should panic")]

mod fake;

use std::{sync::Arc, time::Duration};

use fake::{Peer, Server, extended};
use streamgate_client::{
    CallError, CallOptions, Client, CloudEvent, CloudEventBuilder, Error, ServeOptions, Serving, Status,
    proto::{
        cloudevents::Data,
        shared,
        v1::{
            Connected, Ok as Done, OutboundMessage, Ping, Reconnect, RpcCall, RpcResult, SurveyAnswer,
            SurveyRequest, SurveyResponse, SurveyResult, inbound_message::Envelope as In,
            outbound_message::Envelope as Out, rpc_result::Outcome,
        },
    },
};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(10);

fn event(text: &str) -> CloudEvent {
    CloudEventBuilder::new("test").id("1").text(text).build()
}

fn text(event: Option<CloudEvent>) -> String {
    match event.unwrap().data {
        Some(Data::TextData(text)) => text,
        other => panic!("{other:?} is no text"),
    }
}

fn echo(client: &Client, method: &str) -> impl Future<Output = Result<Serving, Error>> {
    let (client, method) = (client.clone(), method.to_owned());
    async move { client.serve(method, async |call| Ok(call.event)).await }
}

/// What the next offer names; it is accepted.
async fn accept_offer(peer: &mut Peer) -> Vec<String> {
    let (id, methods) = offer(peer).await;
    peer.answer(&id, Out::Ok(Done {})).await;
    methods
}

async fn offer(peer: &mut Peer) -> (String, Vec<String>) {
    let frame = peer.frame().await;
    match frame.envelope {
        Some(In::RpcServe(serve)) => (frame.id, serve.methods),
        other => panic!("an offer is expected, not {other:?}"),
    }
}

async fn call(peer: &mut Peer, id: &str, method: &str, left_ms: u64) {
    let call = RpcCall {
        request_id: id.into(),
        channel: "shop.7".into(),
        method: method.into(),
        payload: Some(event(method)),
        // By a clock that is far behind this one.
        deadline: 1_000 + left_ms,
    };
    let envelope = Some(Out::RpcCall(call));
    peer.send(OutboundMessage { id: "c".into(), time: 1_000, envelope, ..Default::default() }).await;
}

async fn result(peer: &mut Peer) -> (String, Result<String, shared::Error>) {
    match peer.frame().await.envelope {
        Some(In::RpcResult(RpcResult { request_id, outcome })) => {
            let outcome = match outcome.unwrap() {
                Outcome::Payload(event) => Ok(text(Some(event))),
                Outcome::Error(error) => Err(error),
            };
            (request_id, outcome)
        }
        other => panic!("a result is expected, not {other:?}"),
    }
}

async fn refusal(peer: &mut Peer) -> (String, String) {
    let (id, outcome) = result(peer).await;
    (id, outcome.unwrap_err().code)
}

/// Nothing that was sent before is still to be read.
async fn quiet(peer: &mut Peer) {
    peer.answer("p", Out::Ping(Ping {})).await;
    let frame = peer.frame().await;
    assert!(matches!(frame.envelope, Some(In::Pong(_))), "{frame:?}");
}

#[tokio::test]
async fn a_call_gets_the_answer_or_the_error_as_it_is() {
    let server = Server::start().await;
    let client = server.client();
    let (mut peer, _) = server.welcome().await;
    client.connected().await.unwrap();
    assert_eq!(client.session_id().as_deref(), Some("session"));
    let options = CallOptions { timeout: Some(Duration::from_millis(1_500)) };
    let (answer, ()) = tokio::join!(client.call("shop.7", "m.x", event("1"), options.clone()), async {
        let frame = peer.frame().await;
        assert_eq!((frame.channel.as_str(), frame.method.as_str()), ("shop.7", "m.x"));
        assert_eq!(frame.timeout_ms, 1_500);
        let Some(In::RpcRequest(asked)) = frame.envelope else { panic!("no call") };
        peer.answer(&frame.id, Out::RpcReply(asked)).await;
    });
    assert_eq!(text(answer.ok()), "1");
    let (answer, ()) = tokio::join!(client.call_session("5b0c", "m.x", event("2"), options), async {
        let frame = peer.frame().await;
        assert_eq!(frame.channel, "$session.5b0c");
        // What means "later" to others is final here: a call is made once.
        peer.refuse(&frame.id, "NOT_AVAILABLE").await;
    });
    let expected = Error::Server { code: "NOT_AVAILABLE".into(), kind: "test".into(), message: "no".into() };
    assert_eq!(answer, Err(expected));
    quiet(&mut peer).await;
}

#[tokio::test]
async fn a_call_on_a_connection_that_breaks_has_an_unknown_outcome_and_is_not_made_again() {
    let server = Server::start().await;
    let client = server.client();
    let (mut peer, _) = server.welcome().await;
    let calling = tokio::spawn({
        let client = client.clone();
        async move { client.call("a", "m", event("x"), CallOptions::default()).await }
    });
    assert!(matches!(peer.frame().await.envelope, Some(In::RpcRequest(_))));
    drop(peer);
    let error = calling.await.unwrap().unwrap_err();
    let Error::OutcomeUnknown { what: "call", cause } = &error else { panic!("{error:?}") };
    assert!(matches!(**cause, Error::ConnectionLost(_)), "{cause:?}");
    assert!(error.to_string().starts_with("the outcome of call is unknown"), "{error}");
    assert!(!error.is_retryable());
    let (mut peer, _) = server.welcome().await;
    quiet(&mut peer).await;
    // One that was not sent yet has not happened.
    drop(peer);
    let mut status = client.status();
    let away = status.wait_for(|status| !matches!(status, Status::Connected { .. }));
    timeout(PATIENCE, away).await.unwrap().unwrap();
    let waiting =
        tokio::spawn(async move { client.call("a", "m", event("y"), CallOptions::default()).await });
    let (mut peer, _) = server.welcome().await;
    let frame = peer.frame().await;
    peer.answer(&frame.id, Out::RpcReply(event("late"))).await;
    assert_eq!(text(waiting.await.unwrap().ok()), "late");
}

#[tokio::test]
async fn the_first_handler_that_matches_answers_and_without_one_this_client_does() {
    let server = Server::start().await;
    let client = server.client();
    let (mut peer, _) = server.welcome().await;
    let (one, offered) = tokio::join!(echo(&client, "m.*"), accept_offer(&mut peer));
    assert_eq!(offered, ["m.*"]);
    let other = client.serve("m.fail", async |call: streamgate_client::Call| {
        if call.channel == "shop.7" {
            return Err(CallError::new("OUT_OF_TEA", "only coffee").kind("kitchen"));
        }
        panic!("not for {}", call.channel)
    });
    let (other, offered) = tokio::join!(other, accept_offer(&mut peer));
    assert_eq!(offered, ["m.*", "m.fail"]);
    let (one, _other) = (one.unwrap(), other.unwrap());
    call(&mut peer, "1", "m.fail", 5_000).await;
    assert_eq!(result(&mut peer).await, ("1".into(), Ok("m.fail".into())));
    call(&mut peer, "2", "n", 5_000).await;
    assert_eq!(refusal(&mut peer).await, ("2".into(), "NO_PROXY".into()));

    drop(one);
    let (id, offered) = offer(&mut peer).await;
    assert_eq!(offered, ["m.fail"]);
    // Until the server knows, it may still give calls to the one that leaves.
    call(&mut peer, "3", "m.fail", 5_000).await;
    assert_eq!(result(&mut peer).await, ("3".into(), Ok("m.fail".into())));
    peer.answer(&id, Out::Ok(Done {})).await;
    call(&mut peer, "4", "m.fail", 5_000).await;
    let (id, error) = result(&mut peer).await;
    let expected = shared::Error {
        code: "OUT_OF_TEA".into(),
        r#type: "kitchen".into(),
        message: "only coffee".into(),
        metadata: None,
    };
    assert_eq!((id.as_str(), error), ("4", Err(expected)));
}

#[tokio::test]
async fn a_handler_that_panics_answers_an_error_and_goes_on() {
    let server = Server::start().await;
    let client = server.client();
    let (mut peer, _) = server.welcome().await;
    let serving = client.serve("m.*", |call| {
        assert!(call.method != "m.sync", "a secret");
        async move { if call.method == "m.async" { panic!("a secret") } else { Ok(call.event) } }
    });
    let (serving, _) = tokio::join!(serving, accept_offer(&mut peer));
    for (id, method) in [("1", "m.sync"), ("2", "m.async")] {
        call(&mut peer, id, method, 5_000).await;
        let (answered, outcome) = result(&mut peer).await;
        let error = outcome.unwrap_err();
        assert_eq!(
            (answered.as_str(), error.code.as_str(), error.r#type.as_str()),
            (id, "PROXY_ERROR", "proxy_error")
        );
        assert!(!error.message.contains("secret"), "{}", error.message);
    }
    call(&mut peer, "3", "m.fine", 5_000).await;
    assert_eq!(result(&mut peer).await, ("3".into(), Ok("m.fine".into())));
    let stopping = tokio::spawn(serving.unwrap().stop());
    assert!(accept_offer(&mut peer).await.is_empty());
    stopping.await.unwrap();
}

#[tokio::test]
async fn offers_are_made_again_before_the_connection_is_told() {
    let server = Server::start().await;
    let client = server.client();
    let (mut peer, _) = server.welcome().await;
    let (serving, _) = tokio::join!(echo(&client, "m.x"), accept_offer(&mut peer));
    let mut serving = serving.unwrap();
    drop(peer);
    let mut status = client.status();
    let (mut peer, _) = server.welcome().await;
    let (id, offered) = offer(&mut peer).await;
    assert_eq!(offered, ["m.x"]);
    // A pong tells that everything before was read, and that requests are served meanwhile.
    quiet(&mut peer).await;
    assert_eq!(client.session_id(), None);
    peer.answer(&id, Out::Ok(Done {})).await;
    timeout(PATIENCE, status.wait_for(|status| matches!(status, Status::Connected { .. })))
        .await
        .unwrap()
        .unwrap();
    call(&mut peer, "1", "m.x", 5_000).await;
    assert_eq!(result(&mut peer).await, ("1".into(), Ok("m.x".into())));
    // Rights may have gone meanwhile: that is told, and holds up nothing.
    drop(peer);
    let (mut peer, _) = server.welcome().await;
    let (id, _) = offer(&mut peer).await;
    peer.refuse(&id, "ACL_ERROR").await;
    let ended = timeout(PATIENCE, serving.ended()).await.unwrap();
    assert!(matches!(ended, Error::Server { code, .. } if code == "ACL_ERROR"));
    client.connected().await.unwrap();
    call(&mut peer, "2", "m.x", 5_000).await;
    assert_eq!(refusal(&mut peer).await, ("2".into(), "NO_PROXY".into()));
}

#[tokio::test]
async fn an_offer_that_is_refused_is_an_error_and_harms_no_other() {
    let server = Server::start().await;
    let client = server.client();
    let (mut peer, _) = server.welcome().await;
    let (kept, _) = tokio::join!(echo(&client, "m.x"), accept_offer(&mut peer));
    let (refused, ()) = tokio::join!(echo(&client, "a..b"), async {
        let (id, offered) = offer(&mut peer).await;
        assert_eq!(offered, ["a..b", "m.x"]);
        peer.refuse(&id, "BAD_REQUEST").await;
    });
    assert!(matches!(refused, Err(Error::Server { code, .. }) if code == "BAD_REQUEST"));
    call(&mut peer, "1", "m.x", 5_000).await;
    assert_eq!(result(&mut peer).await, ("1".into(), Ok("m.x".into())));
    drop(kept);

    let old = server.builder().extended(false).build().unwrap();
    let (_peer, _) = server.welcome_with(Connected::default()).await;
    let refused = old.serve("m.x", async |call| Ok(call.event)).await;
    assert!(matches!(refused, Err(Error::Server { code, .. }) if code == "NOT_SUPPORTED"));
}

/// Tells when it is dropped.
struct Tells(#[expect(dead_code, reason = "its end is what it tells")] oneshot::Sender<()>);

/// A handler that never answers; tells of each start, with what tells of its end.
fn stuck(
    client: &Client,
) -> (impl Future<Output = Result<Serving, Error>>, mpsc::UnboundedReceiver<oneshot::Receiver<()>>) {
    let (started, starts) = mpsc::unbounded_channel();
    let client = client.clone();
    let serving = async move {
        let handler = move |_call| {
            let (end, ended) = oneshot::channel();
            started.send(ended).unwrap();
            async move {
                let _tells = Tells(end);
                std::future::pending().await
            }
        };
        client.serve("m.x", handler).await
    };
    (serving, starts)
}

#[tokio::test]
async fn a_handler_is_dropped_when_nobody_waits_for_it_any_more() {
    let server = Server::start().await;
    let client = server.client();
    let (mut peer, _) = server.welcome().await;
    let (serving, mut starts) = stuck(&client);
    let (serving, _) = tokio::join!(serving, accept_offer(&mut peer));
    let _serving = serving.unwrap();
    call(&mut peer, "1", "m.x", 50).await;
    let ended = timeout(PATIENCE, starts.recv()).await.unwrap().unwrap();
    assert!(timeout(PATIENCE, ended).await.unwrap().is_err());
    quiet(&mut peer).await;
    // Nor when the connection is gone by which it came.
    call(&mut peer, "2", "m.x", 3_600_000).await;
    let ended = timeout(PATIENCE, starts.recv()).await.unwrap().unwrap();
    drop(peer);
    assert!(timeout(PATIENCE, ended).await.unwrap().is_err());
}

#[tokio::test]
async fn so_many_calls_at_a_time_and_the_others_wait_their_turn() {
    let server = Server::start().await;
    let client = server.client();
    let (mut peer, _) = server.welcome().await;
    let (started, mut starts) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let serving = client.serve(ServeOptions::new("m.x").concurrency(2), {
        let gate = gate.clone();
        move |call| {
            started.send(call.request_id).unwrap();
            let gate = gate.clone();
            async move {
                gate.acquire().await.unwrap().forget();
                Ok(call.event)
            }
        }
    });
    let (serving, _) = tokio::join!(serving, accept_offer(&mut peer));
    let serving = serving.unwrap();
    for id in ["1", "2", "3"] {
        call(&mut peer, id, "m.x", 60_000).await;
    }
    let mut first = [starts.recv().await.unwrap(), starts.recv().await.unwrap()];
    first.sort();
    assert_eq!(first, ["1", "2"]);
    quiet(&mut peer).await;
    assert!(starts.try_recv().is_err());
    // Those that came are answered, also when nothing more shall come.
    drop(serving);
    assert!(accept_offer(&mut peer).await.is_empty());
    gate.add_permits(3);
    let mut answered = Vec::new();
    for _ in 0..3 {
        answered.push(result(&mut peer).await.0);
    }
    answered.sort();
    assert_eq!(answered, ["1", "2", "3"]);
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_an_error_and_no_broken_connection() {
    let server = Server::start().await;
    let client = server.builder().answer_bytes(2_000).build().unwrap();
    let (mut peer, _) = server.welcome().await;
    let serving = client.serve("m.*", async |call| {
        let size = if call.method == "m.big" { 1_900 } else { 1_000 };
        Ok(CloudEventBuilder::new("t").text("x".repeat(size)).build())
    });
    let (_serving, _) = tokio::join!(serving, accept_offer(&mut peer));
    call(&mut peer, "1", "m.big", 5_000).await;
    let (_, outcome) = result(&mut peer).await;
    let error = outcome.unwrap_err();
    assert_eq!((error.code.as_str(), error.r#type.as_str()), ("TOO_LARGE", "limit_error"));
    assert!(error.message.ends_with("at most 2000 can be sent"), "{}", error.message);
    call(&mut peer, "2", "m.fits", 5_000).await;
    assert_eq!(result(&mut peer).await.1.unwrap().len(), 1_000);
}

#[tokio::test]
async fn a_draining_node_is_left_once_its_calls_are_answered_and_gets_no_more() {
    let (one, two) = (Server::start().await, Server::start().await);
    let client = one.builder().node(two.url()).build().unwrap();
    let (mut peer, _) = one.welcome().await;
    let gate = Arc::new(Semaphore::new(0));
    let serving = client.serve("m.x", {
        let gate = gate.clone();
        move |call| {
            let gate = gate.clone();
            async move {
                gate.acquire().await.unwrap().forget();
                Ok(call.event)
            }
        }
    });
    let (serving, _) = tokio::join!(serving, accept_offer(&mut peer));
    let _serving = serving.unwrap();
    call(&mut peer, "1", "m.x", 60_000).await;
    peer.say(Out::Reconnect(Reconnect { after_ms: 0 })).await;
    assert!(accept_offer(&mut peer).await.is_empty(), "nothing is offered here any more");
    quiet(&mut peer).await;
    gate.add_permits(1);
    assert_eq!(result(&mut peer).await, ("1".into(), Ok("m.x".into())));
    peer.closed().await;
    let (mut peer, _) = two.welcome().await;
    assert_eq!(accept_offer(&mut peer).await, ["m.x"]);
}

async fn surveyed(peer: &mut Peer, id: &str) -> SurveyResponse {
    let request = SurveyRequest { request_id: id.into(), payload: Some(event("who?")) };
    peer.say(Out::SurveyRequest(request)).await;
    match peer.frame().await.envelope {
        Some(In::SurveyResponse(response)) => response,
        other => panic!("an answer is expected, not {other:?}"),
    }
}

#[tokio::test]
async fn a_survey_is_answered_by_the_handler_or_at_once() {
    let server = Server::start().await;
    let client = server.client();
    let (mut peer, _) = server.welcome_with(extended()).await;
    let answer = surveyed(&mut peer, "1").await;
    assert_eq!((answer.request_id.as_str(), answer.error.unwrap().code.as_str()), ("1", "NOT_SUPPORTED"));
    let handler =
        client.on_survey(async |question| Ok(event(&format!("{} me", text(Some(question)))))).unwrap();
    // What is said to the client after a request of this side was read is said to the handler.
    let (ping, ()) = tokio::join!(client.ping(), async {
        let frame = peer.frame().await;
        peer.answer(&frame.id, Out::Pong(Default::default())).await;
    });
    ping.unwrap();
    let answer = surveyed(&mut peer, "2").await;
    assert_eq!((answer.request_id.as_str(), text(answer.payload).as_str()), ("2", "who? me"));
    timeout(PATIENCE, handler.stop()).await.unwrap();
    assert_eq!(surveyed(&mut peer, "3").await.error.unwrap().code, "NOT_SUPPORTED");
}

#[tokio::test]
async fn a_survey_yields_answers_by_session_and_errors_as_they_are() {
    let server = Server::start().await;
    let client = server.client();
    let (mut peer, _) = server.welcome().await;
    let survey = client.survey("room", event("who?"), Duration::from_millis(700));
    let (result, ()) = tokio::join!(survey, async {
        let frame = peer.frame().await;
        assert_eq!((frame.channel.as_str(), frame.timeout_ms), ("room", 700));
        let Some(In::SurveyRequest(asked)) = frame.envelope else { panic!("no survey") };
        assert!(!asked.request_id.is_empty() && text(asked.payload) == "who?");
        let answers = vec![
            SurveyAnswer { session_id: "a".into(), payload: Some(event("1")), error: None },
            SurveyAnswer { session_id: "b".into(), payload: None, error: Some(fake::error("NO")) },
        ];
        let result = SurveyResult { request_id: asked.request_id, results: answers, truncated: true };
        peer.answer(&frame.id, Out::SurveyResult(result)).await;
    });
    let result = result.unwrap();
    assert!(result.truncated && result.answers.len() == 2);
    assert_eq!(result.answers[0].outcome, Ok(event("1")));
    let refused = result.answers[1].outcome.as_ref().unwrap_err();
    assert!(matches!(refused, Error::Server { code, .. } if code == "NO"));
}

#[tokio::test]
async fn a_handler_keeps_the_connection_open_until_its_guard_goes() {
    let server = Server::start().await;
    let client = server.client();
    let (mut peer, _) = server.welcome().await;
    let (serving, _) = tokio::join!(echo(&client, "m.x"), accept_offer(&mut peer));
    drop(client);
    call(&mut peer, "1", "m.x", 5_000).await;
    assert_eq!(result(&mut peer).await, ("1".into(), Ok("m.x".into())));
    drop(serving);
    peer.closed().await;
}
