//! A node that is told to stop sends its clients away evenly, and nothing is lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use streamgate::error::ClientError;
use streamgate_client::{Client, Event, Message, PublishAck, PublishOptions, Status};
use streamgate_e2e::{
    cluster,
    events::{frame, publish as request, text},
    gateway::{Addrs, TestNode},
    history::{Recorder, payload_of},
    process::GatewayProcess,
    raw::{self, RawClient, Via},
    redis_server::RedisServer,
    scrape::{self, Scrape, metrics_until},
    watchers::Watchers,
    within,
};
use streamgate_proto::v1::{inbound_message::Envelope as In, outbound_message::Envelope as Out};
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::timeout,
};

const CLIENTS: usize = 2_000;
/// Of them, those that know nothing of the extension.
const V1_EVERY: usize = 10;
const CHANNELS: usize = 20;
const DRAIN: Duration = Duration::from_secs(15);
const WINDOW: Duration = Duration::from_secs(5);
/// How far the closes of a window may be from the even rate.
const TOLERANCE: f64 = 0.3;
/// Between two publishes of one publisher.
const PUBLISH_EVERY: Duration = Duration::from_millis(100);
/// Connections that are being opened at a time.
const OPENING: usize = 50;
/// For all of it; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(120);
/// The last message of every channel.
const END: &str = "end";

/// A client and what it listens to.
struct Subscriber {
    name: String,
    channel: usize,
    via: Via,
    extended: bool,
    /// At the node that goes.
    session: String,
    client: Client,
    presence: Recorder,
    seen: tokio::task::JoinHandle<Vec<Message>>,
}

impl Subscriber {
    async fn start(number: usize, nodes: [Addrs; 2], presence: Recorder) -> Self {
        let (channel, via) = (number % CHANNELS, Via::ALL[number % Via::ALL.len()]);
        let extended = !number.is_multiple_of(V1_EVERY);
        let name = format!("{via:?} {number}{}", if extended { "" } else { " v1" });
        let client = cluster::builder(&nodes, via).client_id(&name).extended(extended).build().unwrap();
        timeout(PATIENCE, client.connected()).await.unwrap().unwrap();
        joined(&presence, channel, &client);
        // Asked for now: the first ones are away before anybody looks.
        let session = session_of(&client).expect("connected");
        let mut subscription =
            timeout(PATIENCE, client.subscribe(channel_name(channel))).await.unwrap().unwrap();
        let who = name.clone();
        let seen = tokio::spawn(async move {
            let mut messages = Vec::new();
            loop {
                match subscription.next().await {
                    Some(Event::Message(message)) if payload_of(&message.event) == END => return messages,
                    Some(Event::Message(message)) => messages.push(message),
                    Some(Event::Recovered(recovered)) => assert_eq!(recovered.gap, None, "{who}"),
                    // Without the extension nobody promises anything about the time in between.
                    Some(Event::Gap(_)) if !extended => {}
                    other => panic!("{who}: {other:?}"),
                }
            }
        });
        Self { name, channel, via, extended, session, client, presence, seen }
    }

    /// When it had left `node`; then it is back at another one.
    async fn left(&self, node: Addrs) -> Instant {
        let there = address(node, self.via);
        let mut status = self.client.status();
        let away = status
            .wait_for(|status| !matches!(status, Status::Connected { address, .. } if *address == there));
        away.await.unwrap();
        let left = Instant::now();
        let at = self.presence.now();
        self.presence.history().presence.left(&channel_name(self.channel), &self.session, at);
        let back = status
            .wait_for(|status| matches!(status, Status::Connected { address, .. } if *address != there));
        match &*back.await.unwrap() {
            Status::Connected { resumed, .. } => assert_eq!(*resumed, self.extended, "{}", self.name),
            other => panic!("{}: {other:?}", self.name),
        }
        joined(&self.presence, self.channel, &self.client);
        left
    }
}

fn session_of(client: &Client) -> Option<String> {
    match &*client.status().borrow() {
        Status::Connected { session_id, .. } => Some(session_id.clone()),
        _ => None,
    }
}

/// Writes down that it is a member from now on.
fn joined(presence: &Recorder, channel: usize, client: &Client) {
    let (at, session) = (presence.now(), session_of(client).expect("connected"));
    presence.history().presence.joined(&channel_name(channel), &session, at);
}

/// Asserts that each channel names exactly its subscribers, by the names that they gave themselves.
async fn assert_all_present(client: &Client, subscribers: &[Subscriber]) {
    for channel in 0..CHANNELS {
        let answer = within("who is there", client.presence(&channel_name(channel))).await.unwrap();
        let named: BTreeSet<&str> = answer.members.iter().map(|member| &*member.client_id).collect();
        let expected: BTreeSet<&str> =
            subscribers.iter().filter(|one| one.channel == channel).map(|one| &*one.name).collect();
        assert_eq!(named, expected, "channel {channel}");
        assert_eq!((answer.count, answer.truncated), (expected.len() as u64, false), "channel {channel}");
    }
}

/// Publishes to all channels in turn until told to stop; answers what was acknowledged, by channel.
async fn publish(
    name: &'static str,
    client: Client,
    mut stop: watch::Receiver<bool>,
) -> Vec<(usize, String, PublishAck)> {
    let mut acks = Vec::new();
    for number in 0.. {
        let (channel, payload) = (number % CHANNELS, format!("{name} {number}"));
        let event = text(&payload, &payload);
        let options = PublishOptions { timeout: Some(PATIENCE), ..PublishOptions::default() };
        let ack = client.publish(channel_name(channel), event, options).await.unwrap();
        acks.push((channel, payload, ack));
        if timeout(PUBLISH_EVERY, stop.wait_for(|stop| *stop)).await.is_ok() {
            break;
        }
    }
    acks
}

fn channel_name(number: usize) -> String {
    format!("drain.{number}")
}

fn address(addrs: Addrs, via: Via) -> String {
    if via == Via::Grpc { addrs.grpc.to_string() } else { addrs.websocket.to_string() }
}

async fn subscribers(nodes: [Addrs; 2], presence: &Recorder) -> Vec<Subscriber> {
    let opening = Arc::new(Semaphore::new(OPENING));
    let all = (0..CLIENTS).map(|number| {
        let (opening, presence) = (opening.clone(), presence.clone());
        async move {
            let _turn = opening.acquire().await.unwrap();
            Subscriber::start(number, nodes, presence).await
        }
    });
    timeout(PATIENCE, join_all(all)).await.expect("all clients are subscribed")
}

/// In each window about as many leave as the even rate says, and some of every transport.
fn assert_even(start: Instant, left: &[(Via, Instant)]) {
    let windows = (DRAIN.as_secs() / WINDOW.as_secs()) as usize;
    let mut counts = vec![BTreeMap::new(); windows];
    for (via, at) in left {
        // The last ones were told within the drain and went a moment later.
        let window = (at.duration_since(start).as_secs() / WINDOW.as_secs()) as usize;
        *counts[window.min(windows - 1)].entry(format!("{via:?}")).or_insert(0_usize) += 1;
    }
    println!("left in each {WINDOW:?}: {counts:?}");
    let target = left.len() as f64 / windows as f64;
    for by_transport in &counts {
        let count = by_transport.values().sum::<usize>() as f64;
        assert!((count / target - 1.0).abs() <= TOLERANCE, "{count} instead of about {target}: {counts:?}");
        assert_eq!(by_transport.len(), Via::ALL.len(), "{counts:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_clients_leave_evenly_come_back_elsewhere_and_lose_nothing() {
    let redis = cluster::redis();
    let yaml = format!("drain: {{duration: {}s}}", DRAIN.as_secs());
    let mut draining = cluster::process(&redis, &yaml).await;
    let other = cluster::process(&redis, "").await;
    let nodes = [draining.addrs(), other.addrs()];
    let (presence, channels) = (Recorder::default(), (0..CHANNELS).map(channel_name).collect::<Vec<_>>());
    let watchers = Watchers::start(&presence, &nodes[1..], &["drain.*", "drain.7"], &channels).await;
    let subscribers = subscribers(nodes, &presence).await;
    watchers.agree().await;
    let (stop, stopped) = watch::channel(false);
    let moving = cluster::connect(&nodes, Via::WsProto).await;
    let staying = cluster::connect(&[other.addrs()], Via::WsProto).await;
    let publishers = [
        tokio::spawn(publish("moving", moving, stopped.clone())),
        tokio::spawn(publish("staying", staying.clone(), stopped)),
    ];

    let start = Instant::now();
    draining.sigterm();
    draining.logged("the begin", |line| line.contains("draining") && line.contains("connections=2001")).await;
    assert_eq!(scrape::get(nodes[0].admin, "/health/ready").await.status, 503);
    let left = join_all(subscribers.iter().map(|one| async { (one.via, one.left(nodes[0]).await) }));
    let left = timeout(PATIENCE, left).await.expect("all are back at the other node");
    let status = draining.ended().await;
    let took = start.elapsed();
    assert_eq!(status.code(), Some(0), "{}", draining.log_text());
    assert!(took < DRAIN + Duration::from_secs(8), "{took:?}");
    draining.logged("the end", |line| line.contains("drained") && line.contains("connections=2001")).await;
    let back = |scrape: &Scrape| scrape.value("streamgate_connections") as usize == CLIENTS + 4;
    metrics_until(nodes[1].admin, "all connections", back).await;
    // Clients of the first version subscribe after they are back: everybody is waited for.
    watchers.assert_sound(false).await;
    watchers.assert_stayed();
    assert_all_present(&staying, &subscribers).await;

    stop.send_replace(true);
    let recorder = Recorder::default();
    for subscriber in subscribers.iter().filter(|subscriber| subscriber.extended) {
        recorder.listens(&subscriber.name, &channel_name(subscriber.channel));
    }
    for acks in join_all(publishers).await {
        for (channel, payload, ack) in acks.unwrap() {
            recorder.stored(&channel_name(channel), &ack, &payload);
        }
    }
    for channel in 0..CHANNELS {
        let end = staying.publish(channel_name(channel), text(END, END), PublishOptions::default());
        within("the last publish", end).await.unwrap();
    }
    for subscriber in subscribers {
        let seen = timeout(PATIENCE, subscriber.seen).await.unwrap_or_else(|_| panic!("{}", subscriber.name));
        if subscriber.extended {
            seen.unwrap().iter().for_each(|message| recorder.saw(&subscriber.name, message));
        }
    }
    println!("{} acknowledged publications, gone in {took:?}", recorder.history().acknowledged());
    recorder.assert_sound();
    assert_even(start, &left);
}

#[tokio::test]
async fn an_idle_node_ends_at_once_however_long_the_drain() {
    let mut gateway = GatewayProcess::start("drain: {duration: 10m}").await;
    gateway.sigterm();
    assert_eq!(gateway.ended().await.code(), Some(0), "{}", gateway.log_text());
}

#[tokio::test]
async fn who_has_not_connected_is_closed_at_once() {
    let gateway = GatewayProcess::start("drain: {duration: 10m}").await;
    let mut silent = Vec::new();
    for via in [Via::WsJson, Via::WsJson, Via::WsProto, Via::WsProto] {
        silent.push(RawClient::open(gateway.addrs(), via).await);
    }
    gateway.sigterm();
    for client in &mut silent {
        assert_eq!(client.close_code().await, 1012);
    }
}

#[tokio::test]
async fn those_whose_slot_is_to_come_are_served_as_before() {
    let gateway = GatewayProcess::start("{shards: 1, drain: {duration: 10m}}").await;
    let mut clients = Vec::new();
    for via in [Via::ALL, Via::ALL].concat() {
        clients.push(RawClient::connect(gateway.addrs(), via).await);
    }
    gateway.sigterm();
    // The first leaves at once, the next after minutes.
    let gone = |scrape: &Scrape| scrape.value("streamgate_closes_total") == 1.0;
    let scrape = metrics_until(gateway.addrs().admin, "one is closed", gone).await;
    assert_eq!(scrape.value("streamgate_draining"), 1.0);
    assert!(scrape.value("streamgate_drain_connections_left") >= 5.0);
    let mut served = 0;
    for client in &mut clients {
        client.send(frame(In::Ping(Default::default()))).await;
        match client.next().await {
            raw::Event::Frame(frame) if matches!(frame.envelope, Some(Out::Pong(_))) => served += 1,
            other => assert!(
                matches!(&other, raw::Event::Frame(frame) if matches!(frame.envelope, Some(Out::Reconnect(_)))),
                "{other:?}"
            ),
        }
    }
    assert_eq!(served, 5);
}

#[tokio::test]
async fn a_request_under_way_is_answered_before_the_close() {
    let (begun, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (begun.clone(), release.clone());
    let node = TestNode::start_with("drain: {duration: 0s}", |builder| {
        builder.handler("slow", "*", move |request: streamgate::session::RpcRequest| {
            let (tell, wait) = (tell.clone(), wait.clone());
            async move {
                tell.notify_one();
                wait.notified().await;
                Ok::<_, ClientError>(request.event)
            }
        })
    })
    .await;
    let mut client = RawClient::connect(node.addrs(), Via::WsJson).await;
    let mut request = frame(In::RpcRequest(text("1", "x")));
    (request.channel, request.method) = ("slow".into(), "m".into());
    client.send(request).await;
    begun.notified().await;
    let shutdown = tokio::spawn(node.shutdown());
    assert!(matches!(client.frame().await.envelope, Some(Out::Reconnect(_))));
    release.notify_one();
    assert!(matches!(client.frame().await.envelope, Some(Out::RpcReply(_))));
    assert_eq!(client.close_code().await, 1012);
    client.close().await;
    within("the end", shutdown).await.unwrap();
}

#[tokio::test]
async fn in_its_delay_a_node_is_unready_and_serves_and_a_second_signal_ends_it_at_once() {
    let mut gateway = GatewayProcess::start("drain: {delay: 10m, duration: 10m}").await;
    let addrs = gateway.addrs();
    let mut before = RawClient::connect(addrs, Via::WsJson).await;
    gateway.sigterm();
    gateway.logged("the delay", |line| line.contains("not ready")).await;
    assert_eq!(scrape::get(addrs.admin, "/health/ready").await.status, 503);
    let mut late = RawClient::connect(addrs, Via::Grpc).await;
    before.subscribe_to("a").await;
    late.publish("a", text("1", "still")).await;
    assert_eq!(before.texts(1).await, ["still"]);
    gateway.sigterm();
    assert_eq!(gateway.ended().await.code(), Some(1), "{}", gateway.log_text());
}

#[tokio::test]
async fn a_drain_ends_in_time_while_redis_is_away() {
    for stopped in [true, false] {
        let mut redis = RedisServer::start_default();
        let mut gateway = cluster::process(&redis, "drain: {duration: 1s}").await;
        let mut clients = Vec::new();
        for via in Via::ALL {
            clients.push(RawClient::connect(gateway.addrs(), via).await);
        }
        clients[0].subscribe_to("a").await;
        if stopped {
            redis.pause();
        } else {
            redis.kill9();
        }
        for client in &mut clients {
            client.send(request("a", text("1", "unanswered"))).await;
        }
        gateway.sigterm();
        for client in &mut clients {
            let end = async { while !matches!(client.next().await, raw::Event::Closed(1012, _)) {} };
            within("the close", end).await;
        }
        drop(clients);
        assert_eq!(gateway.ended().await.code(), Some(0), "{}", gateway.log_text());
    }
}
