//! Redis that is not there, not fit or not the same: the node says so, waits where waiting helps, and goes on.

use std::time::{Duration, Instant};

use streamgate_client::{Client, Event, PublishOptions, Status};
use streamgate_e2e::{
    cluster, events,
    gateway::on_redis,
    history::Recorder,
    listening::{event, message},
    process::GatewayProcess,
    raw::{RawClient, Via},
    redis_server::{RedisServer, RedisServerOptions},
    scrape, within,
};

async fn publish(client: &Client, text: &str) -> streamgate_client::PublishAck {
    let event = events::text(text, text);
    within("a publish", client.publish("room", event, PublishOptions::default())).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_redis_waits_says_why_and_becomes_ready() {
    let mut redis = cluster::redis();
    redis.kill9();
    let node = GatewayProcess::start(&on_redis(&redis, "")).await;
    let log = node.logged("why it waits", |line| line.contains("WARN") && line.contains("refused")).await;
    assert!(log.contains(&redis.addr().to_string()), "{log}");
    node.logged("that it waits", |line| line.contains("waiting for the broker") && line.contains("refused"))
        .await;
    let ready = scrape::get(node.addrs().admin, "/health/ready").await;
    assert_eq!(ready.status, 503);
    assert!(
        ready.body.contains("refused") && ready.body.contains(&redis.addr().to_string()),
        "{}",
        ready.body
    );
    assert_eq!(scrape::get(node.addrs().admin, "/health/live").await.status, 200);
    // Clients are told, too, and may stay.
    let mut early = RawClient::connect(node.addrs(), Via::WsJson).await;
    let refusal = early.refused(events::publish("room", events::text("early", "early"))).await;
    assert_eq!(refusal.code, "NOT_AVAILABLE", "{refusal:?}");

    redis.restart();
    node.addrs().ready().await;
    early.subscribe_to("room").await;
    let ack = early.publish("room", events::text("late", "late")).await;
    assert_eq!((ack.offset, early.message().await.offset), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_other_partitions_refuses_to_start() {
    let redis = cluster::redis();
    let first = cluster::process(&redis, "").await;
    let yaml = format!("broker: {{type: redis, redis: {{addr: \"{}\", partitions: 8}}}}", redis.addr());
    let mut other = GatewayProcess::start(&yaml).await;
    let said = other.logged("why it refuses", |line| line.contains("16 partitions")).await;
    assert!(said.contains("configured with 8"), "{said}");
    assert!(!other.ended().await.success(), "it ends, and says that something is wrong");
    assert_eq!(scrape::get(first.addrs().admin, "/health/ready").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_of_redis_that_endanger_messages_are_said_at_boot() {
    let args = ["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"];
    let redis = RedisServer::start(RedisServerOptions::default().args(&args));
    let node = cluster::process(&redis, "").await;
    for expected in ["maxmemory-policy is allkeys-lru", "stream-node-max-bytes is 4096"] {
        let line = node.logged(expected, |line| line.contains(expected)).await;
        assert!(line.contains("WARN"), "{line}");
    }
    let good = cluster::redis();
    let quiet = cluster::process(&good, "").await;
    assert!(!quiet.log_text().contains("WARN"), "{}", quiet.log_text());
}

/// Publishes through a client that does not retry until `wanted` holds of the answer; how often that took.
async fn publish_until(client: &mut RawClient, wanted: impl Fn(&Result<u64, String>) -> bool) -> usize {
    use streamgate_proto::v1::outbound_message::Envelope as Out;
    for attempt in 1.. {
        let frame = events::publish("room.probe", events::text("probe", "probe"));
        let answer = match client.request(frame).await.envelope {
            Some(Out::PublishAck(ack)) => Ok(ack.offset),
            Some(Out::Error(error)) => Err(error.code),
            other => panic!("{other:?}"),
        };
        if wanted(&answer) {
            return attempt;
        }
    }
    unreachable!("attempts do not end")
}

/// Takes Redis away for 3 s and brings it back: clients stay connected, publishes fail clearly, then everything goes on
/// and nothing that was acked is lost.
async fn outage(mut redis: RedisServer, away: impl Fn(&mut RedisServer), back: impl Fn(&mut RedisServer)) {
    let nodes = [cluster::process(&redis, "").await, cluster::process(&redis, "").await];
    let (one, other) = (nodes[0].addrs(), nodes[1].addrs());
    let mut subscriptions = Vec::new();
    for via in Via::ALL {
        let client = cluster::connect(&[other], via).await;
        let status = client.status();
        let Status::Connected { session_id, .. } = status.borrow().clone() else { panic!("connected") };
        subscriptions.push((via, status, session_id, client.subscribe("room").await.unwrap()));
    }
    let publisher = cluster::connect(&[one], Via::WsProto).await;
    let mut probe = RawClient::connect(one, Via::WsJson).await;
    let recorder = Recorder::default();
    subscriptions.iter().for_each(|(via, ..)| recorder.listens(&format!("{via:?}"), "room"));
    for number in 0..20 {
        let text = format!("before {number}");
        recorder.stored("room", &publish(&publisher, &text).await, &text);
    }

    away(&mut redis);
    let start = Instant::now();
    let not_available =
        |answer: &Result<u64, String>| answer.as_ref().is_err_and(|code| code == "NOT_AVAILABLE");
    publish_until(&mut probe, not_available).await;
    let refused = start.elapsed();
    // This one is retried by the library until it is stored, once.
    let retried = publisher.publish("room", events::text("during", "during"), PublishOptions::default());
    let away_for = Duration::from_secs(3);
    publish_until(&mut probe, |answer| not_available(answer) && start.elapsed() >= away_for).await;
    assert_eq!(scrape::get(one.admin, "/health/ready").await.status, 200, "no reason to move its clients");
    back(&mut redis);
    let start = Instant::now();
    publish_until(&mut probe, Result::is_ok).await;
    let resumed = start.elapsed();

    recorder.stored("room", &within("the retried publish", retried).await.unwrap(), "during");
    for number in 0..20 {
        let text = format!("after {number}");
        recorder.stored("room", &publish(&publisher, &text).await, &text);
    }
    println!(
        "Redis away for 3 s: first refusal after {refused:?}, publishing again {resumed:?} after it is back"
    );
    for (via, status, session, subscription) in &mut subscriptions {
        let acknowledged = recorder.history().acknowledged();
        for _ in 0..acknowledged {
            recorder.saw(&format!("{via:?}"), &message(subscription).await);
        }
        let now = status.borrow().clone();
        assert!(matches!(&now, Status::Connected { session_id, .. } if session_id == session), "{now:?}");
    }
    recorder.assert_sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_hangs_for_three_seconds_costs_time_and_no_message() {
    outage(cluster::redis(), |redis| redis.pause(), |redis| redis.resume()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_was_killed_and_kept_its_data_costs_time_and_no_message() {
    let args = ["--stream-node-max-bytes", "512", "--appendonly", "yes", "--appendfsync", "always"];
    let redis = RedisServer::start(RedisServerOptions::default().args(&args));
    outage(redis, RedisServer::kill9, RedisServer::restart).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_lost_everything_is_announced() {
    let mut redis = cluster::redis();
    let node = cluster::process(&redis, "").await;
    let client = cluster::connect(&[node.addrs()], Via::WsJson).await;
    let mut room = client.subscribe("room").await.unwrap();
    publish(&client, "before").await;
    message(&mut room).await;
    redis.kill9();
    redis.restart();
    let ack = publish(&client, "after").await;
    let mut told = Vec::new();
    loop {
        match event(&mut room).await {
            Event::Gap(gap) => told.push(gap.reason.as_str().to_owned()),
            Event::Message(message) => break assert_eq!(message.position, ack.position),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told, ["EPOCH_RESET"]);
}
