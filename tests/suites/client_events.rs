//! Client events: sessions and channels that begin and end, on the system channel and by hooks, once and from all nodes.

use std::collections::HashSet;

use serde_json::{Value, json};
use streamgate::policy::rights::Action;
use streamgate_e2e::{
    api,
    backend::{GrpcBackend, HttpBackend, Notes, Question, Reply},
    cluster::{self, Cluster},
    events::{extended, from, live, text, text_of},
    gateway::{Addrs, TestNode, on_redis},
    process::GatewayProcess,
    raw::{RawClient, Via},
    redis_server::RedisServer,
    rights::{attempt, client, permissions, showing, signed, token},
    scrape::metrics_until,
    within,
};
use streamgate_proto::{
    cloudevents::{Attr, CloudEvent},
    v1::{Connect, start_from::Point},
};
use tokio::time::{Duration, sleep};

/// The channel, open to one user by name. Everything else is open to everybody.
fn configuration() -> String {
    let rules = "{channels: [$events], actions: [subscribe, history, presence], who: {users: [auditor]}}, \
                 {channels: ['**'], actions: [subscribe, history, presence, publish], who: any}";
    format!("presence: {{lease: 1s}}\nclient_events: {{channel: $events}}\n{}", permissions(rules))
}

/// A client who may read the system channel, and what it has seen there.
struct Auditor {
    client: RawClient,
    seen: Vec<CloudEvent>,
}

impl Auditor {
    async fn start(addrs: Addrs) -> Self {
        let connect = showing(extended([]), &token("auditor"));
        let mut client = RawClient::connect_as(addrs, Via::WsJson, connect).await;
        client.subscribe([from("$events", Point::Start(true))]).await;
        let (before, end) = client.recovered().await;
        assert!(!end.gap && end.error.is_none(), "{end:?}");
        let seen = before.into_iter().map(|message| message.payload.expect("an event")).collect();
        Self { client, seen }
    }

    /// Reads on until there are so many events of a subject; answers those, in order.
    async fn until(&mut self, subject: &str, count: usize) -> Vec<CloudEvent> {
        loop {
            let of_subject = self.seen.iter().filter(|event| subject_of(event) == subject);
            if of_subject.clone().count() >= count {
                return of_subject.cloned().collect();
            }
            self.seen.push(self.client.message().await.payload.expect("an event"));
        }
    }
}

fn subject_of(event: &CloudEvent) -> &str {
    match &event.attributes["subject"].attr {
        Some(Attr::CeString(subject)) => subject,
        other => panic!("{other:?}"),
    }
}

/// The last word of each event's type.
fn words(events: &[CloudEvent]) -> Vec<&str> {
    events.iter().map(|event| event.r#type.rsplit('.').next().unwrap()).collect()
}

fn data(event: &CloudEvent) -> Value {
    serde_json::from_str(text_of(event)).unwrap()
}

fn ok(_: &Question) -> Reply {
    Reply::Json(200, json!({}))
}

/// What a backend was told of a channel: hook and id.
fn told_of(notes: &Notes, channel: &str) -> Vec<(String, String)> {
    let hooks = ["OnChannelOccupied", "OnChannelVacated"];
    let asked = notes.asked().into_iter();
    let of_channel = asked.filter(|asked| hooks.contains(&&*asked.hook) && asked.body["channel"] == channel);
    of_channel.map(|asked| (asked.hook, asked.body["event_id"].as_str().unwrap().to_owned())).collect()
}

#[tokio::test]
async fn a_channel_is_occupied_once_by_subscribers_on_two_nodes_and_vacated_once() {
    let backend = HttpBackend::start(ok).await;
    let proxy = format!("proxy: [{{endpoint: '{}', lifecycle: true, occupancy: true}}]", backend.url());
    let cluster = Cluster::start_with(2, &format!("{}{proxy}", configuration())).await;
    let mut auditor = Auditor::start(cluster.addrs(1)).await;
    let mut one = RawClient::connect(cluster.addrs(0), Via::WsProto).await;
    let mut other = RawClient::connect(cluster.addrs(1), Via::WsJson).await;
    one.subscribe([live("room.*")]).await;
    one.subscribe_to("room.a").await;
    other.subscribe_to("room.a").await;
    one.unsubscribe("room.a").await;
    assert_eq!(words(&auditor.until("room.a", 1).await), ["occupied"]);
    other.unsubscribe("room.a").await;
    assert_eq!(words(&auditor.until("room.a", 2).await), ["occupied", "vacated"]);
    one.subscribe_to("room.a").await;
    one.close().await;
    let events = auditor.until("room.a", 4).await;
    assert_eq!(words(&events), ["occupied", "vacated", "occupied", "vacated"]);
    for event in &events {
        assert_eq!((data(event), &*event.source), (json!({"channel": "room.a"}), "/streamgate"));
        assert!(event.r#type.starts_with("io.streamgate.channel."), "{event:?}");
    }
    backend.notes.until("OnChannelVacated", 2).await;
    let hook = |event: &CloudEvent| match event.r#type.ends_with("occupied") {
        true => "OnChannelOccupied".to_owned(),
        false => "OnChannelVacated".to_owned(),
    };
    let expected: Vec<_> = events.iter().map(|event| (hook(event), event.id.clone())).collect();
    assert_eq!(told_of(&backend.notes, "room.a"), expected, "the same under the same ids");
    // Its own subscriber is told of like any other, once: telling of it makes no further events.
    assert_eq!(words(&auditor.until("$events", 1).await), ["occupied"]);
    assert!(auditor.seen.iter().all(|event| !subject_of(event).contains('*')), "patterns occupy nothing");
}

#[tokio::test]
async fn a_channel_is_vacated_when_the_node_of_its_only_subscriber_is_killed() {
    let redis = cluster::redis();
    let mut dying = cluster::process(&redis, &configuration()).await;
    let staying = cluster::process(&redis, &configuration()).await;
    let mut auditor = Auditor::start(staying.addrs()).await;
    let mut alone = RawClient::connect(dying.addrs(), Via::Grpc).await;
    let mut stays = RawClient::connect(staying.addrs(), Via::WsProto).await;
    alone.subscribe([live("room.alone"), live("room.shared")]).await;
    stays.subscribe_to("room.shared").await;
    auditor.until("room.alone", 1).await;
    dying.kill9();
    let events = auditor.until("room.alone", 2).await;
    assert_eq!(words(&events), ["occupied", "vacated"]);
    stays.unsubscribe("room.shared").await;
    assert_eq!(words(&auditor.until("room.shared", 2).await), ["occupied", "vacated"]);
    // That of a session nobody saw is not told.
    let session = alone.connected.session_id.clone();
    assert_eq!(words(&auditor.until(&session, 1).await), ["registered"]);
}

#[tokio::test]
async fn a_session_is_registered_and_deregistered_in_order_with_all_that_is_known_of_it() {
    let node = TestNode::start(&configuration()).await;
    let mut auditor = Auditor::start(node.addrs()).await;
    for via in Via::ALL {
        let connect = Connect { client_type: "web".into(), ..showing(extended([]), &token("ann")) };
        let mut session = RawClient::connect_as(node.addrs(), via, connect).await;
        let id = session.connected.session_id.clone();
        // Known subscribers and those of patterns are nothing to the channel.
        session.subscribe([live("x"), live("x.*")]).await;
        session.close().await;
        let events = auditor.until(&id, 2).await;
        assert_eq!(words(&events), ["registered", "deregistered"], "{via:?}");
        let mut expected =
            json!({"session_id": id, "user_id": "ann", "client_id": "raw", "client_type": "web"});
        assert_eq!(data(&events[0]), expected);
        expected["code"] = 3000.into();
        let reason = data(&events[1])["reason"].clone();
        assert!(reason.is_string(), "{reason}");
        expected["reason"] = reason;
        assert_eq!(data(&events[1]), expected);
        for event in &events {
            assert_eq!((&*event.source, &*event.spec_version), ("/streamgate", "1.0"));
            let attr = |name: &str| event.attributes[name].attr.clone().unwrap();
            assert_eq!(attr("datacontenttype"), Attr::CeString("application/json".into()));
            assert!(matches!(attr("time"), Attr::CeTimestamp(time) if time.seconds > 1_700_000_000));
        }
    }
    assert!(auditor.seen.iter().all(|event| !event.r#type.contains("subscribed")));
}

/// The one key in Redis that ends so.
async fn key(redis: &RedisServer, end: &str) -> String {
    let finding = async {
        loop {
            let found = redis.cli(&["--scan", "--pattern", &format!("*{end}")]);
            if !found.is_empty() {
                assert!(!found.contains('\n'), "one key is expected: {found}");
                return found;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    within(&format!("a key {end}"), finding).await
}

async fn length(redis: &RedisServer, key: &str, wanted: &str) {
    let reaching = async {
        while redis.cli(&["XLEN", key]) != wanted {
            sleep(Duration::from_millis(20)).await;
        }
    };
    within(&format!("{wanted} items in {key}"), reaching).await;
}

#[tokio::test]
async fn what_a_killed_node_has_not_told_is_told_by_another_and_what_is_told_twice_is_stored_once() {
    let redis = cluster::redis();
    let mut dying = cluster::process(&redis, &configuration()).await;
    // Where the history is to be, so that nothing can be published there.
    let probe = RawClient::connect(dying.addrs(), Via::WsProto).await;
    let first = probe.connected.session_id.clone();
    let history = key(&redis, ":h:$events").await;
    redis.cli(&["DEL", &history]);
    redis.cli(&["SET", &history, "in the way"]);
    probe.close().await;
    let queue = key(&redis, ":q:client-events").await;
    length(&redis, &queue, "1").await;
    dying.kill9();
    redis.cli(&["COPY", &queue, "kept"]);
    // What the dead node had taken is taken anew.
    redis.cli(&["XGROUP", "DESTROY", "kept", "w"]);
    redis.cli(&["DEL", &history]);

    let next = cluster::process(&redis, &configuration()).await;
    length(&redis, &queue, "0").await;
    // As if it had been told and then the node had died.
    redis.cli(&["RENAME", "kept", &queue]);
    length(&redis, &queue, "0").await;
    let repeated = |scrape: &streamgate_e2e::scrape::Scrape| {
        scrape.labelled("streamgate_client_events_total", "outcome=\"repeated\"") == 1.0
    };
    metrics_until(next.addrs().admin, "a repeated event", repeated).await;
    let mut auditor = Auditor::start(next.addrs()).await;
    let session = auditor.client.connected.session_id.clone();
    auditor.until(&session, 1).await;
    assert_eq!(words(&auditor.until(&first, 1).await), ["deregistered"]);
    let ids: HashSet<_> = auditor.seen.iter().map(|event| &event.id).collect();
    assert_eq!(ids.len(), auditor.seen.len(), "no two of one id");
}

#[tokio::test]
async fn only_a_rule_that_names_the_channel_opens_it_and_nothing_opens_it_for_publishing() {
    let read = [Action::Subscribe, Action::Presence, Action::History];
    let node = TestNode::start(&configuration()).await;
    let granted =
        signed(&json!({"sub": "eve", "subscribe": ["**", "$events"], "publish": ["**", "$events"]}));
    for via in Via::ALL {
        for shown in [String::new(), token("ann"), granted.clone()] {
            let mut client = client(&node, via, &shown).await;
            for action in read.into_iter().chain([Action::Publish]) {
                assert_eq!(attempt(&mut client, action, "$events").await, "ACL_ERROR", "{via:?} {action:?}");
                assert_eq!(attempt(&mut client, action, "elsewhere").await, "", "{via:?} {action:?}");
            }
            for pattern in ["**", "*", "$events.**"] {
                assert_eq!(attempt(&mut client, Action::Subscribe, pattern).await, "ACL_ERROR", "{pattern}");
            }
            assert_eq!(attempt(&mut client, Action::Subscribe, "a.**").await, "");
        }
        let mut auditor = client(&node, via, &token("auditor")).await;
        for action in read {
            assert_eq!(attempt(&mut auditor, action, "$events").await, "", "{via:?} {action:?}");
        }
        assert_eq!(attempt(&mut auditor, Action::Publish, "$events").await, "ACL_ERROR");
        assert_eq!(attempt(&mut auditor, Action::Subscribe, "**").await, "ACL_ERROR");
    }
}

#[tokio::test]
async fn without_rules_the_channel_is_closed_for_clients_and_there_for_the_server_api() {
    let node = TestNode::start("client_events: {channel: sys.events}").await;
    let mut client = RawClient::connect(node.addrs(), Via::WsJson).await;
    for action in [Action::Subscribe, Action::Presence, Action::History, Action::Publish] {
        assert_eq!(attempt(&mut client, action, "sys.events").await, "ACL_ERROR", "{action:?}");
        assert_eq!(attempt(&mut client, action, "sys.other").await, "", "{action:?}");
    }
    assert_eq!(attempt(&mut client, Action::Subscribe, "**").await, "ACL_ERROR");
    assert_eq!(attempt(&mut client, Action::Subscribe, "*").await, "");
    let session = client.connected.session_id.clone();
    let reading = async {
        let request = r#"{"channel": "sys.events"}"#;
        loop {
            let answer = api::post(node.addrs().admin, "history", &[], request).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            if answer.body.contains("client.registered") && answer.body.contains(&session) {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    within("the session in the history", reading).await;
    client.publish("sys.other", text("1", "x")).await;
}

#[tokio::test]
async fn backends_that_ask_for_it_are_told_of_channels_over_http_and_grpc_and_no_others() {
    let (http, plain) = (HttpBackend::start(ok).await, HttpBackend::start(ok).await);
    let grpc = GrpcBackend::start(ok).await;
    // One of MessageLoop v0.1.1 knows nothing of these.
    let old = |asked: &Question| match asked.hook.starts_with("OnChannel") {
        true => Reply::Json(404, json!({})),
        false => Reply::Json(200, json!({})),
    };
    let old = GrpcBackend::start(old).await;
    let node = GatewayProcess::start(&format!(
        "proxy:
  - {{name: a, endpoint: '{}/{{hook}}', lifecycle: true, occupancy: true}}
  - {{name: b, endpoint: '{}', lifecycle: true, occupancy: true}}
  - {{name: c, endpoint: '{}', lifecycle: true, occupancy: true}}
  - {{name: d, endpoint: '{}', lifecycle: true}}
",
        http.url(),
        grpc.endpoint(),
        old.endpoint(),
        plain.url()
    ))
    .await;
    let mut client = RawClient::connect(node.addrs(), Via::WsProto).await;
    client.subscribe([live("room"), live("hall.*")]).await;
    client.subscribe_to("room").await;
    client.unsubscribe("room").await;
    client.close().await;
    for notes in [&http.notes, &grpc.notes, &old.notes] {
        notes.until("OnChannelVacated", 1).await;
        notes.until("OnDisconnected", 1).await;
        let told = told_of(notes, "room");
        let hooks: Vec<_> = told.iter().map(|(hook, _)| hook.as_str()).collect();
        assert_eq!(hooks, ["OnChannelOccupied", "OnChannelVacated"]);
        assert_ne!(told[0].1, told[1].1);
        assert_eq!(told, told_of(&http.notes, "room"), "everybody hears the same");
    }
    plain.notes.until("OnDisconnected", 1).await;
    assert!(plain.notes.asked().iter().all(|asked| !asked.hook.starts_with("OnChannel")));
    assert!(http.notes.asked().iter().all(|asked| asked.path == format!("/{}", asked.hook)));
    let refused = |scrape: &streamgate_e2e::scrape::Scrape| {
        scrape.labelled("streamgate_hook_events_dropped_total", "reason=\"refused\"") == 2.0
    };
    metrics_until(node.addrs().admin, "two refused events", refused).await;
}

#[tokio::test]
async fn nothing_is_recorded_where_nobody_wants_to_know() {
    let redis = cluster::redis();
    let backend = HttpBackend::start(ok).await;
    let proxy = format!("proxy: [{{endpoint: '{}', lifecycle: true}}]", backend.url());
    let node = TestNode::start(&on_redis(&redis, &proxy)).await;
    node.addrs().ready().await;
    let mut client = RawClient::connect(node.addrs(), Via::WsProto).await;
    client.subscribe_to("room").await;
    client.unsubscribe("room").await;
    client.close().await;
    backend.notes.until("OnDisconnected", 1).await;
    assert_eq!(redis.cli(&["--scan", "--pattern", "*:q:occupancy"]), "");
}
