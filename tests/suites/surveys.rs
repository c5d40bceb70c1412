//! Surveys: every subscriber is asked once, and whoever does not answer holds nobody up.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use streamgate_e2e::{
    cluster::Cluster,
    events::{extended, frame, live, text, text_of, v1},
    gateway::TestNode,
    raw::{RawClient, Via},
    responder::{OPEN, Responder},
};
use streamgate_proto::v1::{
    InboundMessage, OutboundMessage, SurveyRequest, SurveyResult, inbound_message::Envelope as In,
    outbound_message::Envelope as Out,
};

fn ask(channel: &str, question: &str, timeout_ms: u32) -> InboundMessage {
    let request = SurveyRequest { request_id: "s1".into(), payload: Some(text("q", question)) };
    InboundMessage { channel: channel.into(), timeout_ms, ..frame(In::SurveyRequest(request)) }
}

fn result(answer: OutboundMessage) -> SurveyResult {
    match answer.envelope {
        Some(Out::SurveyResult(result)) => result,
        other => panic!("{other:?} instead of a result"),
    }
}

async fn subscriber(cluster: &Cluster, node: usize, channel: &str) -> Responder {
    let via = Via::ALL[node % Via::ALL.len()];
    let client = RawClient::connect_as(cluster.addrs(node), via, extended([live(channel)])).await;
    Responder::of(client, &[]).await
}

/// One that never answers.
async fn mute(cluster: &Cluster, node: usize, channel: &str) -> RawClient {
    RawClient::connect_as(cluster.addrs(node), Via::WsProto, extended([live(channel)])).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_subscribers_on_three_nodes_answer_and_ten_silent_ones_are_left_out() {
    let cluster = Cluster::start_with(3, OPEN).await;
    let mut subscribers = Vec::new();
    for number in 0..290 {
        subscribers.push(subscriber(&cluster, number % 3, "room.blue").await);
    }
    let known: BTreeSet<_> = subscribers.iter().map(|one| one.session_id.clone()).collect();
    let mut asker = RawClient::connect(cluster.addrs(0), Via::WsProto).await;
    let started = Instant::now();
    let all = result(asker.request(ask("room.blue", "who", 15_000)).await);
    assert!(started.elapsed() < Duration::from_secs(10), "ends when all have answered, not at the timeout");
    assert_eq!((all.request_id.as_str(), all.results.len(), all.truncated), ("s1", 290, false));
    let answered: BTreeSet<_> = all.results.iter().map(|answer| answer.session_id.clone()).collect();
    assert_eq!(answered, known);
    for answer in &all.results {
        assert_eq!(text_of(answer.payload.as_ref().unwrap()), answer.session_id);
    }

    let mut silent = Vec::new();
    for number in 0..10 {
        silent.push(mute(&cluster, number % 3, "room.blue").await);
    }
    let started = Instant::now();
    let most = result(asker.request(ask("room.blue", "who", 2_000)).await);
    let took = started.elapsed();
    assert!((Duration::from_millis(1_900)..Duration::from_secs(6)).contains(&took), "{took:?}");
    assert_eq!((most.results.len(), most.truncated), (290, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patterns_and_v1_clients_are_asked_and_the_asker_if_it_is_subscribed() {
    let cluster = Cluster::start_with(2, OPEN).await;
    let by_pattern = subscriber(&cluster, 1, "room.*").await;
    let both =
        RawClient::connect_as(cluster.addrs(0), Via::WsJson, extended([live("room.blue"), live("room.**")]));
    let both = Responder::of(both.await, &[]).await;
    let old = RawClient::connect_as(cluster.addrs(1), Via::WsJson, v1([live("room.blue")])).await;
    let old = Responder::of(old, &[]).await;
    let _elsewhere = subscriber(&cluster, 0, "room.red").await;
    let mut asker = RawClient::connect(cluster.addrs(0), Via::WsJson).await;
    let all = result(asker.request(ask("room.blue", "who", 0)).await);
    let answered: BTreeSet<_> = all.results.iter().map(|answer| answer.session_id.as_str()).collect();
    let known = BTreeSet::from([&*by_pattern.session_id, &*both.session_id, &*old.session_id]);
    assert_eq!((answered, all.results.len()), (known, 3), "each once");

    asker.subscribe_to("room.green").await;
    asker.send(InboundMessage { id: "g".into(), ..ask("room.green", "me?", 500) }).await;
    let Some(Out::SurveyRequest(request)) = asker.frame().await.envelope else { panic!("not asked") };
    assert_eq!(text_of(&request.payload.unwrap()), "me?");
    let none = result(asker.answer_to("g").await);
    assert!(none.results.iter().all(|answer| answer.session_id != asker.connected.session_id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_is_not_waited_for_and_nobody_is_an_error() {
    let cluster = Cluster::start_with(2, OPEN).await;
    let mut asker = RawClient::connect(cluster.addrs(0), Via::WsJson).await;
    let error = asker.refused(ask("room.empty", "who", 5_000)).await;
    assert_eq!(error.code, "NOT_FOUND");
    assert_eq!(asker.refused(ask("room.*", "who", 0)).await.code, "BAD_REQUEST");

    let one = subscriber(&cluster, 1, "room.blue").await;
    let mut leaving = mute(&cluster, 1, "room.blue").await;
    asker.send(InboundMessage { id: "s".into(), ..ask("room.blue", "who", 30_000) }).await;
    leaving.frame().await;
    let started = Instant::now();
    drop(leaving);
    let all = result(asker.answer_to("s").await);
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(all.results.len(), 1);
    assert_eq!(all.results[0].session_id, one.session_id);
}

#[tokio::test]
async fn a_v1_client_may_answer_and_not_ask() {
    let node = TestNode::start(OPEN).await;
    let mut old = RawClient::connect_v1(node.addrs(), Via::WsJson).await;
    assert_eq!(old.refused(ask("room.blue", "who", 0)).await.code, "NOT_SUPPORTED");
}
