//! Server-sent events: what a browser's EventSource, or curl, gets, and how it comes back without missing anything.

use std::{process::Stdio, time::Duration};

use serde_json::{Value, json};
use streamgate_e2e::{
    cluster::{self, Cluster},
    events::text,
    gateway::TestNode,
    process::GatewayProcess,
    raw::{RawClient, Via},
    rights::{OPEN, permissions, token},
    scrape::metrics_until,
    swallowing_proxy::SwallowingProxy,
    web::{EventStream, event, post},
    within,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};

async fn open(node: &TestNode, path: &str) -> EventStream {
    EventStream::open(node.addrs().websocket, path, &[]).await.unwrap_or_else(|answer| panic!("{answer:?}"))
}

async fn refused(node: &TestNode, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    match EventStream::open(node.addrs().websocket, path, headers).await {
        Ok(_) => panic!("{path} is a stream"),
        Err(answer) => (answer.status, answer.json()["code"].as_str().unwrap_or_default().to_owned()),
    }
}

#[tokio::test]
async fn events_come_with_their_place_as_id() {
    let node = TestNode::start("").await;
    let mut stream = open(&node, "/sse?channel=room.blue").await;
    assert_eq!(stream.headers["content-type"], "text/event-stream");
    let mut publisher = RawClient::connect(node.addrs(), Via::WsProto).await;
    for n in 1..=3 {
        let ack = publisher.publish("room.blue", text(&n.to_string(), "two\nlines")).await;
        let got = stream.next().await.unwrap();
        let position = ack.position.unwrap();
        assert_eq!((got.name.as_str(), got.id), ("", format!("{}:{}", position.epoch, position.offset)));
        let event: Value = serde_json::from_str(&got.data).unwrap();
        assert_eq!((&event["data"], &event["sgchannel"]), (&json!("two\nlines"), &json!("room.blue")));
        assert_eq!(event["sgoffset"], n.to_string());
    }
    assert_eq!(stream.retry, Some(3_000));
}

#[tokio::test]
async fn who_loses_the_connection_before_the_first_event_misses_nothing() {
    let cluster = Cluster::start(2).await;
    for path in ["/sse?channel=a", "/sse?channel=a&channel=b.*", "/sse?channel=**"] {
        let stream = EventStream::open(cluster.addrs(0).websocket, path, &[]).await;
        let mut stream = stream.unwrap_or_else(|answer| panic!("{answer:?}"));
        // The head of the stream, an id without an event, comes before anything that is published now.
        let marker = format!("marker {path}");
        post(cluster.addrs(0), "unheard", &event("x", json!(0)), &[]).await;
        while stream.last_id().is_empty() {
            let waiting = tokio::time::timeout(Duration::from_millis(20), stream.next_within()).await;
            if let Ok(event) = waiting {
                event.expect("the stream goes on");
            }
        }
        let id = stream.last_id().to_owned();
        drop(stream);
        assert_eq!(post(cluster.addrs(1), "a", &event(&marker, json!(1)), &[]).await.status, 200);
        let last = [("Last-Event-ID", id.as_str())];
        let mut stream = EventStream::open(cluster.addrs(1).websocket, path, &last).await.unwrap();
        loop {
            let event = stream.next().await.unwrap();
            assert_ne!(event.name, "gap", "{event:?}");
            if event.json()["id"] == json!(marker) {
                break;
            }
        }
    }
}

#[tokio::test]
async fn of_several_channels_the_id_brings_back_what_was_missed_of_each() {
    let cluster = Cluster::start(2).await;
    let path = "/sse?channel=a&channel=b.*";
    let mut publisher = RawClient::connect(cluster.addrs(0), Via::WsProto).await;
    let mut stream = EventStream::open(cluster.addrs(0).websocket, path, &[]).await.unwrap();
    for (channel, id) in [("a", "a1"), ("b.x", "x1"), ("b.y", "y1")] {
        publisher.publish(channel, text(id, id)).await;
        assert_eq!(stream.message().await["id"], id);
    }
    let id = stream.last_id().to_owned();
    drop(stream);
    for (channel, id) in [("b.x", "x2"), ("a", "a2"), ("b.new", "n1"), ("c", "c1")] {
        publisher.publish(channel, text(id, id)).await;
    }
    let query: String = id.bytes().map(|byte| format!("%{byte:02X}")).collect();
    for (path, headers) in [
        (path.to_owned(), vec![("Last-Event-ID", id.as_str())]),
        (format!("{path}&last_event_id={query}"), vec![]),
        (format!("{path}&since={query}"), vec![]),
    ] {
        let mut stream = EventStream::open(cluster.addrs(1).websocket, &path, &headers).await.unwrap();
        let (mut ids, mut ends) = (Vec::new(), 0);
        while ids.len() < 3 || ends < 2 {
            let event = stream.next().await.unwrap();
            match event.name.as_str() {
                "recovered" => ends += 1,
                "" => ids.push(event.json()["id"].as_str().unwrap().to_owned()),
                other => panic!("{other}: {event:?}"),
            }
        }
        ids.sort_unstable();
        assert_eq!(ids, ["a2", "n1", "x2"]);
    }
}

#[tokio::test]
async fn a_loss_is_an_event_of_its_own() {
    let node = TestNode::start("channels: [{pattern: '**', history_size: 2}]").await;
    let mut publisher = RawClient::connect(node.addrs(), Via::WsJson).await;
    let mut last = String::new();
    for n in 0..50 {
        let position = publisher.publish("a", text(&n.to_string(), "x")).await.position.unwrap();
        last = format!("{}:{}", position.epoch, position.offset);
    }
    let epoch = last.split(':').next().unwrap();
    let mut stream = open(&node, &format!("/sse?channel=a&since={epoch}:1")).await;
    let gap = loop {
        let event = stream.next().await.unwrap();
        if event.name == "gap" {
            break event;
        }
    };
    assert_eq!(gap.json()["data"]["reason"], "HEAD_TRIMMED");
    assert_eq!(gap.id, last);
    // A cursor that had no room for everything says so when it comes back.
    let mut stream = open(&node, "/sse?channel=a.*&since=~").await;
    let gap = stream.named("gap").await;
    assert_eq!((&gap["data"]["channel"], &gap["data"]["reason"]), (&json!("a.*"), &json!("TRUNCATED")));
}

#[tokio::test]
async fn what_ends_a_stream_before_its_begin_is_the_status_of_the_answer() {
    let rules = "{channels: [open], actions: [subscribe], who: any}";
    let node = TestNode::start(&permissions(rules)).await;
    for (path, headers, expected) in [
        ("/sse", vec![], (400, "BAD_REQUEST")),
        ("/sse?channel=a..b", vec![], (400, "BAD_REQUEST")),
        ("/sse?channel=open&since=x", vec![], (400, "BAD_REQUEST")),
        ("/sse?channel=open", vec![("Last-Event-ID", "nonsense")], (400, "BAD_REQUEST")),
        ("/sse?channel=closed", vec![], (403, "ACL_ERROR")),
        ("/sse?channel=open", vec![("Authorization", "Bearer nonsense")], (401, "AUTH_ERROR")),
    ] {
        let (status, code) = refused(&node, path, &headers).await;
        assert_eq!((status, code.as_str()), expected, "{path} {headers:?}");
    }
    let many: String = (0..200).map(|n| format!("&channel=channel.number.{n}")).collect();
    assert_eq!(refused(&node, &format!("/sse?{}", &many[1..]), &[]).await.0, 400);
    let limited =
        TestNode::start(&format!("limits: {{connections_per_user: 1, subscriptions_per_client: 2}}\n{OPEN}"))
            .await;
    let shown = format!("/sse?channel=a&access_token={}", token("ann"));
    let _first = open(&limited, &shown).await;
    assert_eq!(refused(&limited, &shown, &[]).await.0, 429);
    assert_eq!(refused(&limited, "/sse?channel=a&channel=b&channel=c", &[]).await.0, 400);
}

#[tokio::test]
async fn a_right_that_is_lost_ends_the_stream_and_says_why() {
    let rule = |effect: &str| {
        let rule = format!("{{channels: [a], actions: [subscribe], who: any, effect: {effect}}}");
        // Rights are looked at again with the deadlines.
        format!("limits: {{ping_interval: 1s}}\n{}", permissions(&rule))
    };
    let mut node = TestNode::start(&rule("allow")).await;
    let mut stream = open(&node, "/sse?channel=a").await;
    node.reload(&rule("deny"));
    let closed = stream.named("closed").await;
    assert_eq!((&closed["data"]["code"], &closed["data"]["reconnect"]), (&json!(3507), &json!(false)));
    assert_eq!(stream.next().await, None);
    assert_eq!(refused(&node, "/sse?channel=a", &[]).await.0, 403);
}

#[tokio::test]
async fn comments_keep_a_silent_stream_alive() {
    let node = TestNode::start("limits: {ping_interval: 1s}\nserver: {heartbeat: {idle_timeout: 3s}}").await;
    let mut stream = open(&node, "/sse?channel=a").await;
    let silent = tokio::time::timeout(Duration::from_secs(5), stream.next_within()).await;
    assert!(silent.is_err(), "{silent:?}");
    assert!((3..=6).contains(&stream.comments), "{} comments", stream.comments);
    post(node.addrs(), "a", &event("1", json!(1)), &[]).await;
    assert_eq!(stream.message().await["id"], "1");
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_cut_off_alone_and_comes_back_without_loss() {
    let yaml = "limits: {write_queue_bytes: 64KiB}\nchannels: [{pattern: '**', history_size: 10000}]";
    let node = GatewayProcess::start(yaml).await;
    let (addr, path) = (node.addrs().websocket, "/sse?channel=a");
    let slow = EventStream::open_with(addr, path, &[], Some(4 * 1024)).await.unwrap();
    let mut quick = EventStream::open(addr, path, &[]).await.unwrap();
    let mut publisher = RawClient::connect(node.addrs(), Via::WsProto).await;
    let load = "x".repeat(8 * 1024);
    let mut sent = 0;
    loop {
        publisher.publish("a", text(&sent.to_string(), &load)).await;
        assert_eq!(quick.message().await["id"], sent.to_string());
        sent += 1;
        let scrape = streamgate_e2e::scrape::Scrape::of(node.addrs().admin).await;
        if scrape.value("streamgate_slow_consumers_total") >= 1.0 {
            break;
        }
        assert!(sent < 5_000, "nobody is cut off");
    }
    // Now it reads what there was, and then the end; what it has is whole, and the rest comes with its id.
    let mut slow = slow;
    let mut seen = 0;
    while let Some(event) = slow.next().await {
        match event.name.as_str() {
            "" => {
                assert_eq!(event.json()["id"], seen.to_string());
                seen += 1;
            }
            "closed" => assert_eq!(event.json()["data"]["code"], 3512),
            other => panic!("{other}"),
        }
    }
    assert!(seen < sent, "{seen} of {sent}");
    let id = slow.last_id().to_owned();
    let mut again = EventStream::open(addr, path, &[("Last-Event-ID", &id)]).await.unwrap();
    while seen < sent {
        assert_eq!(again.message().await["id"], seen.to_string());
        seen += 1;
    }
    metrics_until(node.addrs().admin, "two streams", |scrape| {
        scrape.labelled("streamgate_connections", "transport=\"sse\"") == 2.0
    })
    .await;
}

#[tokio::test]
async fn a_drain_says_when_to_come_back() {
    let node = GatewayProcess::start("drain: {duration: 1s}").await;
    let mut stream = EventStream::open(node.addrs().websocket, "/sse?channel=a", &[]).await.unwrap();
    node.sigterm();
    let reconnect = stream.named("reconnect").await;
    assert_eq!(stream.retry, reconnect["data"]["after_ms"].as_u64());
    assert_eq!(stream.named("closed").await["data"]["code"], 1012);
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn a_client_that_goes_is_noticed() {
    let node = GatewayProcess::start("").await;
    let stream = EventStream::open(node.addrs().websocket, "/sse?channel=a", &[]).await.unwrap();
    let streams = |count: f64| {
        move |scrape: &streamgate_e2e::scrape::Scrape| {
            scrape.labelled("streamgate_connections", "transport=\"sse\"") == count
        }
    };
    metrics_until(node.addrs().admin, "a stream", streams(1.0)).await;
    drop(stream);
    metrics_until(node.addrs().admin, "no stream", streams(0.0)).await;
}

/// Publishes events 0 to `most`, one after the other, as fast as each is stored.
async fn publish_all(addrs: streamgate_e2e::gateway::Addrs, most: usize) {
    let mut publisher = RawClient::connect(addrs, Via::WsProto).await;
    for n in 0..most {
        publisher.publish(["a", "b.x", "b.y"][n % 3], text(&n.to_string(), "x")).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_whose_node_is_killed_goes_on_at_another_and_every_event_comes_once() {
    const IN_ALL: usize = 900;
    let redis = cluster::redis();
    let yaml = "channels: [{pattern: '**', history_size: 10000}]";
    let mut dying = cluster::process(&redis, yaml).await;
    let staying = cluster::process(&redis, yaml).await;
    let proxies = [
        SwallowingProxy::start(dying.addrs().websocket).await,
        SwallowingProxy::start(staying.addrs().websocket).await,
    ];
    let path = "/sse?channel=a&channel=b.*";
    let mut stream = EventStream::open(proxies[0].addr(), path, &[]).await.unwrap();
    let publishing = tokio::spawn(publish_all(staying.addrs(), IN_ALL));
    let (mut seen, mut lives, mut id) = (vec![0_usize; IN_ALL], 1, String::new());
    let mut last = [None; 3];
    while seen.contains(&0) {
        let Some(event) = stream.next().await else {
            lives += 1;
            stream = EventStream::open(proxies[1].addr(), path, &[("Last-Event-ID", &id)]).await.unwrap();
            continue;
        };
        id.clone_from(&event.id);
        match event.name.as_str() {
            "" => {
                let number: usize = event.json()["id"].as_str().unwrap().parse().unwrap();
                seen[number] += 1;
                assert!(last[number % 3] < Some(number), "of one channel in order");
                last[number % 3] = Some(number);
                if number == IN_ALL / 3 && lives == 1 {
                    dying.kill9();
                    proxies[0].cut_all();
                }
            }
            "recovered" => {}
            other => panic!("{other}: {event:?}"),
        }
    }
    publishing.await.unwrap();
    assert_eq!(lives, 2);
    assert!(seen.iter().all(|times| *times == 1), "every event once: {seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_listens() {
    let node = TestNode::start("").await;
    let url = format!("http://{}/sse?channel=room.blue", node.addrs().websocket);
    let mut curl = Command::new("curl")
        .args(["-sSN", "--max-time", "20", &url])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("run curl");
    let mut lines = BufReader::new(curl.stdout.take().unwrap()).lines();
    let mut next = async || within("a line", lines.next_line()).await.unwrap().expect("a line");
    assert!(next().await.starts_with("id: "));
    post(node.addrs(), "room.blue", &event("1", json!("hello")), &[]).await;
    loop {
        let line = next().await;
        if let Some(data) = line.strip_prefix("data: ") {
            let event: Value = serde_json::from_str(data).unwrap();
            assert_eq!((&event["id"], &event["data"]), (&json!("1"), &json!("hello")));
            break;
        }
    }
}
