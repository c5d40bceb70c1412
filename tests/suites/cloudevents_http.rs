//! Publishing and reading events with nothing but HTTP: the three modes of the CloudEvents binding, pages of history, what
//! is refused and how, and the same rights and limits as for every client.

use std::{process::Command, sync::Mutex};

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use streamgate::{
    error::{ClientError, ErrorCode},
    policy::rights::{Arbiter, Asked},
};
use streamgate_e2e::{
    backend::{HttpBackend, Question, Reply},
    events::text_of,
    gateway::TestNode,
    process::GatewayProcess,
    raw::{RawClient, Via},
    rights::{OPEN, permissions, token},
    scrape::Scrape,
    web::{WebAnswer, ask, event, post, post_batch},
};
use streamgate_proto::cloudevents::CloudEvent;

const EVENTS: &str = "/channels/room.blue/events";

fn offset(result: &Value) -> u64 {
    result["position"]["offset"].as_str().and_then(|offset| offset.parse().ok()).expect("a position")
}

fn error(answer: &WebAnswer) -> (u16, String, String) {
    let body = answer.json();
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    (answer.status, text("code"), text("message"))
}

#[tokio::test]
async fn an_event_is_published_in_each_mode_and_arrives_as_it_was_sent() {
    let node = TestNode::start("").await;
    let mut listener = RawClient::connect(node.addrs(), Via::WsJson).await;
    listener.subscribe_to("room.blue").await;
    let addr = node.addrs().websocket;

    let binary = [
        ("ce-specversion", "1.0"),
        ("ce-id", "e-1"),
        ("ce-source", "/curl"),
        ("ce-type", "note.added"),
        ("ce-subject", "caf%C3%A9%20%22x%22"),
        ("ce-time", "2026-01-02T03:04:05Z"),
        ("Content-Type", "application/json"),
    ];
    let answer = ask(addr, "POST", EVENTS, &binary, b"{\"n\": 1}").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let result = answer.json();
    assert_eq!((&result["id"], &result["duplicate"], offset(&result)), (&json!("e-1"), &json!(false), 1));
    let message = listener.message().await;
    let sent = message.payload.unwrap();
    assert_eq!((&*sent.id, &*sent.source, &*sent.r#type), ("e-1", "/curl", "note.added"));
    assert_eq!(text_of(&sent), "{\"n\": 1}");
    assert_eq!((message.position.unwrap().offset, message.channel.as_str()), (1, "room.blue"));

    let answer = post(node.addrs(), "room.blue", &event("e-2", json!({"n": 2})), &[]).await;
    assert_eq!((answer.status, offset(&answer.json())), (200, 2));
    assert_eq!(text_of(&listener.message().await.payload.unwrap()), "{\"n\":2}");

    let batch = json!([event("e-3", json!(3)), event("e-4", json!("four"))]);
    let answer = post_batch(node.addrs(), "room.blue", &batch, &[]).await;
    let results = answer.json()["results"].clone();
    assert_eq!((answer.status, offset(&results[0]), offset(&results[1])), (200, 3, 4), "{results}");
    for id in ["e-3", "e-4"] {
        assert_eq!(listener.message().await.payload.unwrap().id, id);
    }
    let empty = post_batch(node.addrs(), "room.blue", &json!([]), &[]).await;
    assert_eq!((empty.status, empty.json()), (200, json!({"results": []})));

    let page = ask(addr, "GET", EVENTS, &[], b"").await;
    assert_eq!(page.header("content-type"), "application/cloudevents-batch+json");
    let events = page.json();
    let subject = &events[0]["subject"];
    assert_eq!((subject, &events[0]["time"]), (&json!("café \"x\""), &json!("2026-01-02T03:04:05Z")));
    assert_eq!((&events[0]["data"], &events[3]["data"]), (&json!({"n": 1}), &json!("four")));
    assert_eq!((&events[1]["sgchannel"], &events[1]["sgoffset"]), (&json!("room.blue"), &json!("2")));
    assert_eq!(page.header("sg-truncated"), "false");
}

#[tokio::test]
async fn a_page_goes_on_where_its_link_says_both_ways() {
    let node = TestNode::start("").await;
    let batch: Vec<_> = (1..=5).map(|n| event(&n.to_string(), json!(n))).collect();
    assert_eq!(post_batch(node.addrs(), "a", &json!(batch), &[]).await.status, 200);
    for (back, expected) in [("", ["1", "2", "3", "4", "5"]), ("&reverse=true", ["5", "4", "3", "2", "1"])] {
        let (mut seen, mut path) = (Vec::new(), format!("/channels/a/events?limit=2{back}"));
        loop {
            let page = ask(node.addrs().websocket, "GET", &path, &[], b"").await;
            assert_eq!(page.status, 200, "{page:?}");
            assert!(page.header("sg-position").ends_with(":5"), "{page:?}");
            seen.extend(
                page.json().as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()),
            );
            let Some(next) = page.header("link").strip_prefix('<').and_then(|link| link.split_once('>'))
            else {
                break;
            };
            path = next.0.to_owned();
        }
        assert_eq!(seen, expected, "{back}");
    }
    let answer = ask(node.addrs().websocket, "GET", "/channels/a/events?limit=0", &[], b"").await;
    assert_eq!((answer.json(), answer.header("sg-position").ends_with(":5")), (json!([]), true));
}

/// Method, path, headers and body; the status, and what the error says.
type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a [u8], u16, &'a str);

#[tokio::test]
async fn what_is_wrong_is_answered_with_its_status_and_nothing_of_it_is_published() {
    let node =
        TestNode::start("limits: {frame_bytes: 2KiB}\nchannels: [{pattern: '**', max_message_size: 1KiB}]")
            .await;
    let good = event("1", json!(1)).to_string();
    let structured = [("Content-Type", "application/cloudevents+json")];
    let large = event("1", json!("x".repeat(1_500))).to_string();
    let huge = vec![b'x'; 4 * 1024];
    let deep = event("1", json!(null)).to_string().replace("null", &("[".repeat(80) + &"]".repeat(80)));
    let cases: [Case<'_>; 17] = [
        ("POST", EVENTS, &[], good.as_bytes(), 415, "Content-Type"),
        ("POST", EVENTS, &[("Content-Type", "text/plain")], good.as_bytes(), 415, "Content-Type"),
        ("POST", EVENTS, &[("Content-Type", "application/cloudevents+avro")], b"", 415, "JSON alone"),
        (
            "POST",
            EVENTS,
            &[("Content-Type", "application/cloudevents+json; charset=latin1")],
            b"{}",
            415,
            "UTF-8",
        ),
        ("POST", EVENTS, &[structured[0], ("Content-Encoding", "gzip")], b"", 415, "Content-Encoding"),
        ("POST", EVENTS, &structured, b"\x00\xff junk", 400, "JSON object"),
        ("POST", EVENTS, &structured, br#"{"specversion":"1.0","source":"/s","type":"t"}"#, 400, "id"),
        (
            "POST",
            EVENTS,
            &structured,
            br#"{"specversion":"1.0","id":"","source":"/s","type":"t"}"#,
            400,
            "id",
        ),
        (
            "POST",
            EVENTS,
            &structured,
            br#"{"specversion":"1.0","id":"1","source":"/s","type":"t","Bad_Name":1}"#,
            400,
            "Bad_Name",
        ),
        ("POST", EVENTS, &structured, deep.as_bytes(), 400, "nested"),
        ("POST", EVENTS, &structured, large.as_bytes(), 413, "at most 1024"),
        ("POST", EVENTS, &structured, &huge, 413, "at most 2048"),
        ("POST", EVENTS, &[("ce-id", "1")], b"", 400, "specversion"),
        ("POST", "/channels/room.*/events", &structured, good.as_bytes(), 400, "pattern"),
        ("POST", "/channels/a..b/events", &structured, good.as_bytes(), 400, "empty segment"),
        ("GET", "/channels/a/events?limit=x", &[], b"", 400, "limit"),
        ("DELETE", EVENTS, &[], b"", 405, "GET, POST"),
    ];
    for (method, path, headers, body, status, why) in cases {
        let answer = ask(node.addrs().websocket, method, path, headers, body).await;
        let (got, code, message) = error(&answer);
        assert_eq!(got, status, "{method} {path} {headers:?}: {message}");
        assert!(message.contains(why) && !code.is_empty(), "{method} {path} {headers:?}: {message}");
        assert_eq!(answer.header("content-type"), "application/json");
    }
    let long = "k".repeat(256);
    let answer = post(node.addrs(), "room.blue", &event("1", json!(1)), &[("Idempotency-Key", &long)]).await;
    assert_eq!(answer.status, 400);
    let page = ask(node.addrs().websocket, "GET", EVENTS, &[], b"").await;
    assert_eq!(page.json(), json!([]), "nothing was published");
    let elsewhere = ask(node.addrs().websocket, "GET", "/channels/a/b/events", &[], b"").await;
    assert_eq!(elsewhere.status, 404);
    assert_eq!(post(node.addrs(), "r%C3%A4um", &event("1", json!(1)), &[]).await.status, 200);
}

#[tokio::test]
async fn one_bad_event_of_a_batch_is_named_and_none_is_published() {
    let node = TestNode::start("channels: [{pattern: '**', max_message_size: 1KiB}]").await;
    let large = event("1", json!("x".repeat(2_000)));
    let key = event("1", json!(1)).as_object().cloned().map(|mut event| {
        event.insert("sgidempotencykey".into(), json!("k".repeat(300)));
        Value::Object(event)
    });
    let nameless = json!({"specversion": "1.0", "id": "x", "source": "", "type": "t"});
    for (bad, status) in [(nameless, 400), (json!(5), 400), (large, 413), (key.unwrap(), 400)] {
        let batch = json!([event("1", json!(1)), event("2", json!(2)), bad, event("4", json!(4))]);
        let answer = post_batch(node.addrs(), "room.blue", &batch, &[]).await;
        let (got, _, message) = error(&answer);
        assert_eq!((got, &answer.json()["metadata"]["index"]), (status, &json!(2)), "{message}");
        assert!(message.starts_with("events[2]: "), "{message}");
    }
    for body in ["{}", "nope", "[1"] {
        let kind = [("Content-Type", "application/cloudevents-batch+json")];
        let answer = ask(node.addrs().websocket, "POST", EVENTS, &kind, body.as_bytes()).await;
        assert_eq!(answer.status, 400, "{body}");
    }
    assert_eq!(ask(node.addrs().websocket, "GET", EVENTS, &[], b"").await.json(), json!([]));
}

#[tokio::test]
async fn a_repeated_key_answers_the_first_position_and_publishes_nothing() {
    let node = TestNode::start("").await;
    let keyed = [("Idempotency-Key", "k-1")];
    for (again, id) in [(false, "1"), (true, "2")] {
        let answer = post(node.addrs(), "a", &event(id, json!(1)), &keyed).await.json();
        assert_eq!((offset(&answer), &answer["duplicate"]), (1, &json!(again)));
    }
    let batch = json!([event("1", json!(1)), event("2", json!(2))]);
    for again in [false, true] {
        let results = post_batch(node.addrs(), "b", &batch, &keyed).await.json()["results"].clone();
        let told: Vec<_> =
            results.as_array().unwrap().iter().map(|one| (offset(one), &one["duplicate"])).collect();
        assert_eq!(told, [(1, &json!(again)), (2, &json!(again))]);
    }
    assert_eq!(ask(node.addrs().websocket, "GET", "/channels/b/events", &[], b"").await.json()[1]["id"], "2");
}

#[tokio::test]
async fn who_asks_needs_a_token_and_the_right() {
    let rules = "{channels: [open], actions: [publish, history], who: any}, \
                 {channels: [anns], actions: [publish, history], who: {users: [ann]}}";
    let node = TestNode::start(&permissions(rules)).await;
    let (ann, bob) = (format!("Bearer {}", token("ann")), format!("Bearer {}", token("bob")));
    let one = event("1", json!(1));
    for (channel, headers, expected) in [
        ("open", vec![], 200),
        ("anns", vec![], 403),
        ("anns", vec![("Authorization", ann.as_str())], 200),
        ("anns", vec![("Authorization", bob.as_str())], 403),
        ("open", vec![("Authorization", "Bearer nonsense")], 401),
    ] {
        for _ in 0..2 {
            let answer = post(node.addrs(), channel, &one, &headers).await;
            assert_eq!(answer.status, expected, "{channel} {headers:?} {answer:?}");
            let path = format!("/channels/{channel}/events");
            let page = ask(node.addrs().websocket, "GET", &path, &headers, b"").await;
            assert_eq!(page.status, expected, "{channel} {headers:?} {page:?}");
            assert_eq!(expected == 401, !page.header("www-authenticate").is_empty());
        }
        let batch = post_batch(node.addrs(), channel, &json!([one, one]), &headers).await;
        assert_eq!(batch.status, expected);
    }
    let path = format!("/channels/anns/events?access_token={}", token("ann"));
    assert_eq!(ask(node.addrs().websocket, "GET", &path, &[], b"").await.status, 200);

    let closed = TestNode::start(&OPEN.replace("allow_anonymous: true", "allow_anonymous: false")).await;
    let answer = post(closed.addrs(), "a", &one, &[]).await;
    assert_eq!(error(&answer).0, 401, "{answer:?}");
    assert_eq!(error(&answer).1, "AUTH_ERROR");
}

#[tokio::test]
async fn requests_of_a_client_share_its_limits_and_are_no_connections() {
    let yaml = "limits: {publishes_per_second: 5, connections_per_user: 1}\n".to_owned() + OPEN;
    let node = TestNode::start(&yaml).await;
    let bearer = format!("Bearer {}", token("ann"));
    let mut connected = RawClient::open_with(node.addrs(), Via::WsJson, &token("ann")).await;
    connected.say_connect(streamgate_e2e::events::extended([])).await;
    let mut statuses = Vec::new();
    for n in 0..40 {
        let answer =
            post(node.addrs(), "a", &event(&n.to_string(), json!(n)), &[("Authorization", &bearer)]).await;
        statuses.push(answer.status);
        if answer.status == 429 {
            assert_eq!(answer.header("retry-after"), "1");
            assert_eq!(error(&answer).1, "RATE_LIMITED");
        }
    }
    assert!(statuses.contains(&429) && statuses.contains(&200), "{statuses:?}");
    let batch: Vec<_> = (0..6).map(|n| event(&n.to_string(), json!(n))).collect();
    let answer = post_batch(node.addrs(), "b", &json!(batch), &[("Authorization", &bearer)]).await;
    assert_eq!(answer.status, 429, "more than there can be in a second");
    let page =
        ask(node.addrs().websocket, "GET", "/channels/b/events", &[("Authorization", &bearer)], b"").await;
    assert_eq!(page.json(), json!([]), "none of it is published");
}

/// Refuses what is marked so, and rewrites the rest.
#[derive(Default)]
struct Backend(Mutex<Vec<String>>);

impl Arbiter for Backend {
    fn subscribe(&self, _: Asked) -> BoxFuture<'static, Result<(), ClientError>> {
        Box::pin(async { Ok(()) })
    }

    fn publish(
        &self,
        asked: Asked,
        mut event: CloudEvent,
    ) -> BoxFuture<'static, Result<CloudEvent, ClientError>> {
        self.0.lock().unwrap().push(format!("{} {}", asked.channel, event.id));
        event.r#type = "rewritten".to_owned();
        let refused = event.id == "no";
        Box::pin(async move {
            if refused { Err(ClientError::new(ErrorCode::AclError, "not this one")) } else { Ok(event) }
        })
    }
}

#[tokio::test]
async fn a_backend_is_asked_about_each_event_and_one_refusal_is_that_of_the_batch() {
    let rule = "permissions: [{channels: ['**'], actions: [publish], who: hook}]";
    let node =
        TestNode::start_with(rule, |builder| builder.arbiter(std::sync::Arc::new(Backend::default()))).await;
    let answer = post(node.addrs(), "a", &event("1", json!(1)), &[]).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(post(node.addrs(), "a", &event("no", json!(1)), &[]).await.status, 403);
    for (ids, status) in [(["2", "no", "3"], 403), (["4", "5", "6"], 200)] {
        let batch: Vec<_> = ids.iter().map(|id| event(id, json!(1))).collect();
        let answer = post_batch(node.addrs(), "a", &json!(batch), &[]).await;
        assert_eq!(answer.status, status, "{answer:?}");
        if status == 403 {
            assert_eq!(answer.json()["metadata"]["index"], json!(1), "{answer:?}");
        }
    }
    let page = ask(node.addrs().websocket, "GET", "/channels/a/events", &[], b"").await.json();
    let told: Vec<_> = page.as_array().unwrap().iter().map(|one| (&one["id"], &one["type"])).collect();
    let rewritten = json!("rewritten");
    let ids = ["1", "4", "5", "6"].map(|id| json!(id));
    assert_eq!(told, ids.iter().map(|id| (id, &rewritten)).collect::<Vec<_>>());
}

#[tokio::test]
async fn requests_write_no_session_and_are_told_to_nobody() {
    fn ok(_: &Question) -> Reply {
        Reply::Json(200, json!({}))
    }
    let backend = HttpBackend::start(ok).await;
    let yaml = format!("proxy: [{{endpoint: '{}/{{hook}}', lifecycle: true}}]", backend.url());
    let redis = streamgate_e2e::cluster::redis();
    let node = GatewayProcess::start(&streamgate_e2e::gateway::on_redis(&redis, &yaml)).await;
    node.addrs().ready().await;
    for n in 0..5 {
        let answer = post(node.addrs(), "a", &event(&n.to_string(), json!(n)), &[]).await;
        assert_eq!((answer.status, offset(&answer.json())), (200, n + 1));
    }
    let sessions = redis.cli(&["--scan", "--pattern", "*s:????????-*"]);
    assert_eq!(sessions, "", "no session is kept");
    // Told in order: when this one is told of, nobody was before.
    let client = RawClient::connect(node.addrs(), Via::WsJson).await;
    let session = client.connected.session_id.clone();
    let told = || backend.notes.asked().first().map(|question| question.body["session_id"].clone());
    streamgate_e2e::within("the backend is told", async {
        while told().is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(told(), Some(json!(session)));
    let scrape = Scrape::of(node.addrs().admin).await;
    assert_eq!(
        scrape.labelled("streamgate_messages_in_total", "transport=\"http\""),
        5.0 + scrape.labelled("streamgate_connections", "transport=\"http\"")
    );
}

#[tokio::test]
async fn pages_of_other_origins_ask_only_where_they_are_listed() {
    let yaml =
        "transport: {websocket: {cors: {allowed_origins: ['https://app.example'], credentials: true}}}";
    let node = TestNode::start(yaml).await;
    let addr = node.addrs().websocket;
    let listed = ("Origin", "https://app.example");
    let preflight = [
        listed,
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "content-type,ce-id,x-other"),
    ];
    let answer = ask(addr, "OPTIONS", EVENTS, &preflight, b"").await;
    assert_eq!((answer.status, answer.header("access-control-allow-headers")), (204, "content-type, ce-id"));
    assert_eq!(answer.header("access-control-allow-origin"), "https://app.example");
    let answer = post(node.addrs(), "a", &event("1", json!(1)), &[listed]).await;
    assert_eq!((answer.status, answer.header("access-control-allow-credentials")), (200, "true"));
    let refused = post(node.addrs(), "bad..name", &event("1", json!(1)), &[listed]).await;
    assert_eq!(
        refused.header("access-control-allow-origin"),
        "https://app.example",
        "errors can be read, too"
    );
    for foreign in [("Origin", "https://evil.example"), ("Origin", "null")] {
        assert_eq!(post(node.addrs(), "a", &event("1", json!(1)), &[foreign]).await.status, 403);
        let sse = ask(addr, "GET", "/sse?channel=a", &[foreign], b"").await;
        assert_eq!((sse.status, sse.header("access-control-allow-origin")), (403, ""));
        let preflight = [foreign, ("Access-Control-Request-Method", "POST")];
        assert_eq!(ask(addr, "OPTIONS", EVENTS, &preflight, b"").await.status, 403);
    }
    let own = [("Origin", "http://gateway")];
    assert_eq!(post(node.addrs(), "a", &event("1", json!(1)), &own).await.status, 200);
}

/// What curl prints, and its exit code.
fn curl(args: &[&str]) -> (String, bool) {
    let output =
        Command::new("curl").args(["-sS", "--max-time", "20"]).args(args).output().expect("run curl");
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.success())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_publishes_in_all_modes_and_reads_a_page() {
    let node = TestNode::start("").await;
    let url = format!("http://{}{EVENTS}", node.addrs().websocket);
    let headers: &[&str] = &[
        &url,
        "-H",
        "ce-specversion: 1.0",
        "-H",
        "ce-id: 1",
        "-H",
        "ce-source: /curl",
        "-H",
        "ce-type: t",
        "-H",
        "Content-Type: text/plain",
        "-d",
        "hello",
    ];
    let structured: &[&str] = &[
        &url,
        "-H",
        "Content-Type: application/cloudevents+json",
        "-d",
        r#"{"specversion":"1.0","id":"2","source":"/curl","type":"t","data":"hello"}"#,
    ];
    let batch: &[&str] = &[
        &url,
        "-H",
        "Content-Type: application/cloudevents-batch+json",
        "-d",
        r#"[{"specversion":"1.0","id":"3","source":"/curl","type":"t"}]"#,
    ];
    for args in [headers, structured, batch] {
        let (printed, fine) = curl(args);
        assert!(fine && printed.contains("\"duplicate\":false"), "{printed}");
    }
    let (page, fine) = curl(&[&url]);
    let page: Value = serde_json::from_str(&page).unwrap();
    let ids: Vec<_> = page.as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert!(fine);
    assert_eq!(
        (ids, &page[0]["data"], &page[1]["data"]),
        (vec!["1", "2", "3"], &json!("hello"), &json!("hello"))
    );
}

#[tokio::test]
async fn a_token_in_an_address_is_never_logged() {
    let yaml = "log: {level: trace}\n".to_owned() + OPEN;
    let node = GatewayProcess::start(&yaml).await;
    let shown = token("ann");
    for path in [
        format!("/channels/a/events?access_token={shown}"),
        format!("/channels/a..b/events?access_token={shown}"),
        format!("/sse?channel=a..b&access_token={shown}"),
        "/sse?channel=a&access_token=a-secret-that-is-no-token".to_owned(),
        format!("/nowhere?access_token={shown}"),
    ] {
        ask(node.addrs().websocket, "GET", &path, &[], b"").await;
    }
    node.logged("a request that is refused", |line| line.contains("a request is refused")).await;
    let log = node.log_text();
    assert!(!log.contains(&shown) && !log.contains("a-secret"), "the log shows a token");
}
