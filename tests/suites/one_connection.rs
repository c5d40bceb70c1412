//! A session has one connection: who resumes it has the former one closed, wherever that is.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use streamgate_e2e::{
    api::post,
    backend::{HttpBackend, Question, Reply},
    cluster::{self, Cluster},
    events::{extended, live, text, text_of},
    gateway::Addrs,
    raw::{RawClient, Via},
    redis_server::RedisServer,
    responder::{OPEN, Responder},
    within,
};
use streamgate_proto::v1::Connect;

/// What the former connection is told: final, so that two programs with one token do not fight for ever.
const MOVED: (u16, &str) = (3503, "the session goes on over another connection");

/// Connects with the token of a client that is still connected.
async fn resume(former: &RawClient, addrs: Addrs, via: Via) -> RawClient {
    let connect = Connect { resume_token: former.connected.resume_token.clone(), ..extended([]) };
    let client = RawClient::connect_as(addrs, via, connect).await;
    assert!(client.connected.resumed);
    assert_eq!(client.connected.session_id, former.connected.session_id);
    client
}

async fn is_closed(former: &mut RawClient, since: Instant, patience: Duration) {
    let (code, reason) = former.closed().await;
    assert_eq!((code, reason.as_str()), MOVED);
    assert!(since.elapsed() < patience, "{:?}", since.elapsed());
}

async fn ask(addrs: Addrs, operation: &str, body: &Value) -> Value {
    let answer = post(addrs.admin, operation, &[], &body.to_string()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// The nodes on which the session is listed.
async fn nodes_of(addrs: Addrs, session: &str) -> Vec<String> {
    let page = ask(addrs, "sessions", &json!({})).await;
    let listed = page["sessions"].as_array().cloned().unwrap_or_default();
    let ours = listed.into_iter().filter(|one| one["session_id"] == session);
    ours.map(|one| one["node"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resume_closes_the_former_connection_on_any_node_and_only_that() {
    let cluster = Cluster::start_with(2, OPEN).await;
    for (number, via) in Via::ALL.into_iter().enumerate() {
        for (from, to) in [(0, 0), (0, 1), (1, 0)] {
            let channel = format!("room.{number}.{from}{to}");
            let connect = extended([live(&channel)]);
            let mut former = RawClient::connect_as(cluster.addrs(from), via, connect).await;
            let mut bystander = RawClient::connect(cluster.addrs(from), via).await;
            kept(&cluster.redis, &former.connected.session_id).await;
            let since = Instant::now();
            let mut client = resume(&former, cluster.addrs(to), Via::WsJson).await;
            is_closed(&mut former, since, Duration::from_secs(1)).await;
            drop(former);
            bystander.quiet().await;
            let session = client.connected.session_id.clone();
            for node in [0, 1] {
                assert_eq!(nodes_of(cluster.addrs(node), &session).await.len(), 1, "{via:?} {from} {to}");
            }
            client.publish(&channel, text("1", "here")).await;
            assert_eq!(client.texts(1).await, ["here"], "{via:?} {from} {to}");
            client.quiet().await;
            let client = Responder::of(client, &[]).await;
            for node in [0, 1] {
                let call = json!({"session_id": session, "method": "m.who", "payload":
                    {"id": "1", "source": "/api", "spec_version": "1.0", "type": "t", "text_data": ""}});
                let answer = ask(cluster.addrs(node), "call", &call).await;
                assert_eq!(answer["payload"]["text_data"], session.as_str(), "{via:?} {from} {to} {answer}");
            }
            drop(client);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_resumed_again_and_again_ends_with_its_last_connection() {
    let cluster = Cluster::start_with(3, OPEN).await;
    let first = RawClient::connect_as(cluster.addrs(0), Via::WsProto, extended([live("hop")])).await;
    let session = first.connected.session_id.clone();
    kept(&cluster.redis, &session).await;
    let mut connections = vec![first];
    for hop in 1..=12 {
        let last = connections.last().unwrap();
        connections.push(resume(last, cluster.addrs(hop % 3), Via::ALL[hop % 3]).await);
    }
    let since = Instant::now();
    let mut last = connections.pop().unwrap();
    for former in &mut connections {
        is_closed(former, since, Duration::from_secs(1)).await;
    }
    last.publish("hop", text("1", "still here")).await;
    assert_eq!(text_of(&last.message().await.payload.unwrap()), "still here");
    last.quiet().await;
    assert_eq!(nodes_of(cluster.addrs(1), &session).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_resume_at_once_one_stays() {
    let cluster = Cluster::start_with(2, OPEN).await;
    let former = RawClient::connect(cluster.addrs(0), Via::WsJson).await;
    let session = former.connected.session_id.clone();
    kept(&cluster.redis, &session).await;
    let resuming = (0..8).map(|number| resume(&former, cluster.addrs(number % 2), Via::ALL[number % 3]));
    let mut clients = futures_util::future::join_all(resuming).await;
    clients.push(former);
    let ends = clients.into_iter().map(|mut client| async move {
        // Whoever stays does not end.
        tokio::time::timeout(Duration::from_secs(3), async {
            loop {
                if let streamgate_e2e::raw::Event::Closed(code, _) = client.next_event().await {
                    return code;
                }
            }
        })
        .await
        .map_err(|_| client)
    });
    let ends = futures_util::future::join_all(ends).await;
    let stays: Vec<_> = ends.iter().filter(|end| end.is_err()).collect();
    assert_eq!(stays.len(), 1);
    assert!(ends.iter().filter_map(|end| end.as_ref().ok()).all(|code| *code == MOVED.0));
    assert_eq!(nodes_of(cluster.addrs(0), &session).await.len(), 1);
}

/// Waits until Redis has the record of a session: `connected` does not wait for that.
async fn kept(redis: &RedisServer, session: &str) {
    let pattern = format!("*s:{session}");
    let asking = async {
        while redis.cli(&["--scan", "--pattern", &pattern]).is_empty() {
            // It has no event to wait for.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within("the record is kept", asking).await;
}

/// A node is stopped, its client goes on elsewhere, and the node goes on after that time.
async fn wakes_after(lease: &str, sleep: Duration, patience: Duration) {
    let redis = cluster::redis();
    let config = format!("{OPEN}\npresence: {{lease: {lease}}}");
    let near = cluster::process(&redis, &config).await;
    let far = cluster::process(&redis, &config).await;
    let connect = extended([live("room")]);
    let mut former = RawClient::connect_as(far.addrs(), Via::WsJson, connect).await;
    kept(&redis, &former.connected.session_id).await;
    far.pause();
    let mut client = resume(&former, near.addrs(), Via::WsProto).await;
    // Time itself is the event.
    tokio::time::sleep(sleep).await;
    far.resume();
    is_closed(&mut former, Instant::now(), patience).await;
    client.publish("room", text("1", "here")).await;
    assert_eq!(client.texts(1).await, ["here"]);
    client.quiet().await;
    let session = client.connected.session_id.clone();
    assert_eq!(nodes_of(near.addrs(), &session).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_stopped_hears_of_it_when_it_goes_on() {
    wakes_after("10s", Duration::from_millis(1_500), Duration::from_secs(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_taken_for_dead_notices_by_itself() {
    wakes_after("1s", Duration::from_secs(6), Duration::from_secs(4)).await;
}

fn ok(_: &Question) -> Reply {
    Reply::Json(200, json!({}))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backends_are_told_that_the_session_goes_on_and_not_that_it_ended() {
    let backend = HttpBackend::start(ok).await;
    let proxy = format!("proxy: [{{endpoint: '{}', lifecycle: true}}]", backend.url());
    let cluster = Cluster::start_with(2, &proxy).await;
    let mut former = RawClient::connect(cluster.addrs(0), Via::WsJson).await;
    backend.notes.until("OnConnected", 1).await;
    kept(&cluster.redis, &former.connected.session_id).await;
    for to in [0, 1] {
        let client = resume(&former, cluster.addrs(to), Via::WsJson).await;
        is_closed(&mut former, Instant::now(), Duration::from_secs(1)).await;
        former = client;
    }
    former.close().await;
    let ended = backend.notes.until("OnDisconnected", 1).await;
    assert_eq!(ended[0].body["code"].as_u64(), Some(3000));
    let hooks: Vec<_> = backend.notes.asked().into_iter().map(|question| question.hook).collect();
    assert_eq!(hooks, ["OnConnected", "OnConnected", "OnConnected", "OnDisconnected"]);
}
