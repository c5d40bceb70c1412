//! What backends do to sessions by the server API, asked of one node while the sessions are on another.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use streamgate_e2e::{
    api::{grpc, post},
    cluster::{self, Cluster},
    events::{extended, frame, live, text, text_of, v1},
    gateway::on_redis,
    raw::{RawClient, Via},
    responder::Responder,
    rights::{OPEN, permissions, showing, signed, token},
};
use streamgate_proto::{
    server::{CallRequest, DisconnectRequest, SurveyRequest},
    v1::{
        Connect, Refresh, Subscription, inbound_message::Envelope as In, outbound_message::Envelope as Out,
    },
};

async fn client(cluster: &Cluster, node: usize, via: Via, user: &str) -> RawClient {
    RawClient::connect_as(cluster.addrs(node), via, showing(extended([]), &token(user))).await
}

async fn ask(cluster: &Cluster, operation: &str, body: &Value) -> Value {
    let answer = post(cluster.addrs(0).admin, operation, &[], &body.to_string()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn event(id: &str, data: &str) -> Value {
    json!({"id": id, "source": "/api", "spec_version": "1.0", "type": "t", "text_data": data})
}

const NOBODY: &str = "2b1bb2c8-9f7e-4f0d-8f4f-2b4b8f2f1a11";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_of_the_other_node_are_closed_and_unknown_ones_are_said_so() {
    let cluster = Cluster::start_with(2, OPEN).await;
    let mut by_id = client(&cluster, 1, Via::WsJson, "ann").await;
    let mut by_user =
        [client(&cluster, 0, Via::Grpc, "bob").await, client(&cluster, 1, Via::WsProto, "bob").await];
    let mut other = client(&cluster, 1, Via::WsJson, "cid").await;
    let id = by_id.connected.session_id.clone();
    let body = json!({"sessions": [id, NOBODY], "users": ["bob", "zoe"], "code": 4321, "reason": "moved"});
    let answer = ask(&cluster, "disconnect", &body).await;
    assert_eq!(answer["results"], json!({id.as_str(): true, NOBODY: false}));
    assert_eq!(answer["items"][0], json!({"session_id": id, "closed": 1}));
    assert_eq!(answer["items"][1]["error"]["code"], "NOT_FOUND");
    assert_eq!(answer["items"][2], json!({"user_id": "bob", "closed": 2}));
    assert_eq!(answer["items"][3]["error"]["code"], "NOT_FOUND");
    assert_eq!(by_id.closed().await, (4321, "moved".into()));
    for client in &mut by_user {
        assert_eq!(client.closed().await, (4321, "moved".into()));
    }
    other.quiet().await;
    // Who is gone is not there any more.
    let again = ask(&cluster, "disconnect", &json!({"sessions": [id]})).await;
    assert_eq!(again["results"], json!({id: false}));
    let body = json!({"sessions": [NOBODY], "code": 1000}).to_string();
    assert_eq!(post(cluster.addrs(0).admin, "disconnect", &[], &body).await.status, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_subscribed_and_unsubscribed_and_handed_events() {
    let cluster = Cluster::start_with(2, OPEN).await;
    let mut ann = client(&cluster, 1, Via::WsJson, "ann").await;
    let mut old =
        RawClient::connect_as(cluster.addrs(1), Via::WsJson, Connect { token: token("old"), ..v1([]) }).await;
    let id = ann.connected.session_id.clone();
    let body = json!({"session_id": id, "channels": ["room.blue", "news.*", "a..b"]});
    let answer = ask(&cluster, "subscribe", &body).await;
    assert_eq!(answer["results"], json!({"room.blue": true, "news.*": true, "a..b": false}));
    assert_eq!(answer["items"][2]["error"]["code"], "BAD_REQUEST");
    let mut acked = BTreeSet::new();
    for _ in 0..2 {
        let Some(Out::SubscribeAck(ack)) = ann.frame().await.envelope else { panic!("no ack") };
        acked.extend(ack.subscriptions.into_iter().map(|subscription| subscription.channel));
    }
    assert_eq!(acked, BTreeSet::from(["room.blue".to_owned(), "news.*".to_owned()]));
    let publish = json!({"channels": ["room.blue", "news.1"], "payload": event("e1", "hi")});
    ask(&cluster, "broadcast", &publish).await;
    let got: BTreeSet<_> = [ann.message().await.channel, ann.message().await.channel].into();
    assert_eq!(got, BTreeSet::from(["room.blue".to_owned(), "news.1".to_owned()]));

    let answer = ask(&cluster, "unsubscribe", &json!({"session_id": id, "channels": ["room.blue"]})).await;
    assert_eq!(answer["results"], json!({"room.blue": true}));
    let Some(Out::UnsubscribeAck(_)) = ann.frame().await.envelope else { panic!("no ack") };
    ask(&cluster, "broadcast", &json!({"channels": ["room.blue"], "payload": event("e2", "")})).await;
    ann.quiet().await;
    let nobody = ask(&cluster, "subscribe", &json!({"session_id": NOBODY, "channels": ["a"]})).await;
    assert_eq!(nobody["items"][0]["error"]["code"], "NOT_FOUND");

    let to = json!({"sessions": [id, NOBODY], "users": ["old", "zoe"]});
    let publication =
        json!({"id": "p", "destination": to, "channel": "private", "payload": event("e3", "for you")});
    let answer = ask(&cluster, "publish", &json!({"publications": [publication]})).await;
    let codes: Vec<_> = (0..4).map(|at| answer["results"][at]["error"]["code"].as_str()).collect();
    assert_eq!(codes, [None, Some("NOT_FOUND"), None, Some("NOT_FOUND")], "{answer}");
    for client in [&mut ann, &mut old] {
        let message = client.message().await;
        assert_eq!((message.channel.as_str(), text_of(&message.payload.unwrap())), ("private", "for you"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_and_nodes_are_listed_page_by_page() {
    let cluster = Cluster::start_with(2, OPEN).await;
    let mut clients = Vec::new();
    for number in 0..30 {
        let connect =
            Connect { client_type: if number % 3 == 0 { "web" } else { "phone" }.into(), ..extended([]) };
        let user = if number % 2 == 0 { "even" } else { "odd" };
        let connect = showing(connect, &token(user));
        clients.push(RawClient::connect_as(cluster.addrs(number % 2), Via::ALL[number % 3], connect).await);
    }
    let listed = async |query: Value| {
        let (mut ids, mut token) = (Vec::new(), String::new());
        loop {
            let mut query = query.clone();
            query["page_token"] = json!(token);
            let page = ask(&cluster, "sessions", &query).await;
            for session in page["sessions"].as_array().into_iter().flatten() {
                ids.push(session["session_id"].as_str().unwrap().to_owned());
            }
            match page["next_page_token"].as_str() {
                None | Some("") => return ids,
                Some(next) => token = next.to_owned(),
            }
        }
    };
    for limit in [0, 1, 7, 100] {
        let mut all = listed(json!({"limit": limit})).await;
        all.sort_unstable();
        let mut known: Vec<_> = clients.iter().map(|client| client.connected.session_id.clone()).collect();
        known.sort_unstable();
        assert_eq!(all, known, "limit {limit}: each once");
    }
    assert_eq!(listed(json!({"user_id": "even", "limit": 4})).await.len(), 15);
    assert_eq!(listed(json!({"client_type": "web", "limit": 4})).await.len(), 10);
    let nodes = ask(&cluster, "nodes", &json!({})).await;
    let nodes = nodes["nodes"].as_array().unwrap();
    assert_eq!((nodes.len(), nodes.iter().filter(|node| node["local"] == true).count()), (2, 1));
    let of_one = listed(json!({"node": nodes[0]["id"], "limit": 4})).await;
    assert_eq!(of_one.len(), 15);
    let wrong = json!({"page_token": "nonsense"}).to_string();
    assert_eq!(post(cluster.addrs(0).admin, "sessions", &[], &wrong).await.status, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_calls_and_surveys_clients_that_offered_nothing_to_others() {
    let cluster = Cluster::start_with(2, OPEN).await;
    let ann = client(&cluster, 1, Via::WsProto, "ann").await;
    let ann = Responder::of(ann, &[]).await;
    let mut api = grpc(cluster.addrs(0).admin).await;
    let call = |session_id: &str, user_id: &str, method: &str| CallRequest {
        session_id: session_id.into(),
        user_id: user_id.into(),
        method: method.into(),
        payload: Some(text("1", "hello")),
        timeout_ms: 500,
    };
    for request in [call(&ann.session_id, "", "m.echo"), call("", "ann", "m.echo")] {
        let answer = api.call(request).await.unwrap().into_inner();
        assert_eq!(text_of(&answer.payload.unwrap()), "hello");
    }
    for (request, code) in [
        (call(NOBODY, "", "m.echo"), tonic::Code::NotFound),
        (call("", "zoe", "m.echo"), tonic::Code::NotFound),
        (call(&ann.session_id, "", "m.silent"), tonic::Code::DeadlineExceeded),
    ] {
        assert_eq!(api.call(request).await.unwrap_err().code(), code);
    }
    let listener = RawClient::connect_as(
        cluster.addrs(1),
        Via::WsJson,
        showing(extended([live("room")]), &token("bob")),
    );
    let listener = Responder::of(listener.await, &[]).await;
    let survey = |channel: &str| SurveyRequest {
        channel: channel.into(),
        payload: Some(text("q", "who")),
        ..SurveyRequest::default()
    };
    let all = api.survey(survey("room")).await.unwrap().into_inner();
    assert_eq!((all.asked, all.results.len()), (1, 1));
    assert_eq!(all.results[0].session_id, listener.session_id);
    assert_eq!(api.survey(survey("empty")).await.unwrap_err().code(), tonic::Code::NotFound);
    // Also by gRPC: what is not there is said for each.
    let request = DisconnectRequest { sessions: vec![NOBODY.into()], ..DisconnectRequest::default() };
    let answer = api.disconnect(request).await.unwrap().into_inner();
    assert_eq!(answer.items[0].error.as_ref().unwrap().code, "NOT_FOUND");
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_tokens_end_their_sessions_on_every_node_within_a_second() {
    let cluster = Cluster::start_with(2, OPEN).await;
    let until = (seconds() + 3_600) * 1_000;
    let named = signed(&json!({"sub": "ann", "jti": "t-1", "iat": seconds() - 10}));
    let other = signed(&json!({"sub": "ann", "jti": "t-2", "iat": seconds() - 10}));
    let with = async |node: usize, token: &str| {
        RawClient::connect_as(cluster.addrs(node), Via::WsJson, showing(extended([]), token)).await
    };
    let mut clients = Vec::new();
    for node in [0, 1] {
        clients.push((with(node, &named).await, with(node, &other).await));
    }
    let started = Instant::now();
    ask(&cluster, "revoke", &json!({"token_id": "t-1", "until": until})).await;
    for (revoked, _) in &mut clients {
        assert_eq!(revoked.closed().await, (3500, "the token is revoked".into()));
    }
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    for (_, stays) in &mut clients {
        stays.quiet().await;
    }
    let mut late = RawClient::open(cluster.addrs(1), Via::WsJson).await;
    late.send(streamgate_e2e::events::frame(streamgate_proto::v1::inbound_message::Envelope::Connect(
        showing(extended([]), &named),
    )))
    .await;
    assert_eq!(late.close_code().await, 3500);

    let started = Instant::now();
    ask(&cluster, "revoke", &json!({"user_id": "ann", "until": until})).await;
    for (_, client) in &mut clients {
        assert_eq!(client.close_code().await, 3500);
    }
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    // A token that is issued afterwards is another one.
    let fresh = signed(&json!({"sub": "ann", "iat": seconds() + 2}));
    with(1, &fresh).await.quiet().await;
    client(&cluster, 0, Via::WsJson, "bob").await.quiet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_reaches_a_node_that_was_stopped_as_soon_as_it_goes_on() {
    let redis = cluster::redis();
    let near = cluster::process(&redis, OPEN).await;
    let far = cluster::process(&redis, OPEN).await;
    let mut ann = RawClient::connect_as(far.addrs(), Via::WsJson, showing(extended([]), &token("ann"))).await;
    far.pause();
    let body = json!({"user_id": "ann", "until": (seconds() + 60) * 1_000}).to_string();
    assert_eq!(post(near.addrs().admin, "revoke", &[], &body).await.status, 200);
    far.resume();
    let started = Instant::now();
    assert_eq!(ann.close_code().await, 3500);
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_server_subscribed_stays_until_a_rule_denies_it_and_what_the_client_has_is_left_alone() {
    let rules = "{channels: ['public.**'], actions: [subscribe], who: any}, {channels: ['public.**', 'room.**'], actions: \
                 [presence, publish], who: any}, {channels: ['room.no'], actions: [subscribe], who: any, effect: deny}";
    let mut cluster = Cluster::start_with(1, &permissions(rules)).await;
    let mut ann = client(&cluster, 0, Via::WsJson, "ann").await;
    let id = ann.connected.session_id.clone();
    let watched = Subscription { presence: true, ..live("public.hall") };
    ann.subscribe([watched]).await;
    let body = json!({"session_id": id, "channels": ["room.one", "room.no", "public.hall"]});
    let answer = ask(&cluster, "subscribe", &body).await;
    assert_eq!(answer["results"], json!({"room.one": true, "room.no": false, "public.hall": true}));
    assert_eq!(answer["items"][1]["error"]["code"], "ACL_ERROR");
    let Some(Out::SubscribeAck(_)) = ann.frame().await.envelope else { panic!("no ack") };
    let _bob = RawClient::connect_as(
        cluster.addrs(0),
        Via::WsJson,
        showing(extended([live("public.hall")]), &token("bob")),
    )
    .await;
    let Some(Out::PresenceEvent(_)) = ann.frame().await.envelope else { panic!("it watches no more") };
    let refreshed = ann.request(frame(In::Refresh(Refresh { token: token("ann") }))).await;
    assert!(matches!(refreshed.envelope, Some(Out::Ok(_))), "{refreshed:?}");
    ann.publish("room.one", text("e", "still here")).await;
    assert_eq!(text_of(&ann.message().await.payload.unwrap()), "still here");
    let denied = format!("{rules}, {{channels: ['room.*'], actions: [subscribe], who: any, effect: deny}}");
    let yaml = on_redis(&cluster.redis, &permissions(&denied));
    cluster.nodes[0].reload(&yaml);
    ann.request(frame(In::Refresh(Refresh { token: token("ann") }))).await;
    assert_eq!(ann.close_code().await, 3507);
}
