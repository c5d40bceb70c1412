//! Redis comes back without some or all of what was acked: those affected are told, once, and nobody else.

use std::{fs, path::PathBuf, time::Duration};

use streamgate_client::{
    Client, Event, Gap, Message, Position, PublishAck, PublishOptions, SubscribeOptions,
};
use streamgate_e2e::{
    audience::{Acked, Audience, Listener, Publishing, publish},
    cluster,
    crowd::Crowd,
    events,
    gateway::Addrs,
    history::{Recorder, payload_of},
    listening::{Recovery, recovery},
    process::GatewayProcess,
    raw::Via,
    redis_server::{RedisServer, RedisServerOptions},
    watchers::Watchers,
    within,
};

/// A leave is made up for members that Redis has forgotten and nobody has told again for so long. As short as calls may take.
const LEASE: &str = "presence: {lease: 4s}";
const MEMBERS: usize = 20;

/// Members on these nodes, and watchers of whom they are known.
async fn members(addrs: &[Addrs]) -> (Crowd, Watchers) {
    let recorder = Recorder::default();
    let channels = ["lobby.0", "lobby.1"].map(str::to_owned);
    let watchers = Watchers::start(&recorder, addrs, &["lobby.*", "lobby.0"], &channels).await;
    let mut crowd = Crowd::none(&recorder);
    crowd.grow(MEMBERS, addrs, &channels).await;
    watchers.agree().await;
    (crowd, watchers)
}

/// Presence is right again, and stays so: nobody who is connected has left for good, and nobody stays who has left.
async fn assert_members_are_right(crowd: &Crowd, watchers: &Watchers) {
    watchers.assert_sound(true).await;
    // What Redis forgot and nobody told again would be taken for gone a lease later. For that there is no event.
    tokio::time::sleep(Duration::from_secs(8)).await;
    watchers.assert_sound(true).await;
    for view in watchers.views() {
        println!("  {}: {} joins, {} leaves", view.name, view.joins, view.left.len());
    }
    watchers.assert_stayed();
    crowd.assert_stayed();
}

/// What a listener was told of one channel: before the first gap, the gaps, and after the first gap.
struct Told {
    before: Vec<Message>,
    gaps: Vec<Gap>,
    after: Vec<Message>,
}

fn told(listener: &Listener, channel: &str) -> Told {
    let mut told = Told { before: Vec::new(), gaps: Vec::new(), after: Vec::new() };
    for event in listener.heard() {
        match event {
            Event::Gap(gap) if gap.channel == channel => told.gaps.push(gap),
            Event::Message(message) if message.channel == channel && told.gaps.is_empty() => {
                told.before.push(message);
            }
            Event::Message(message) if message.channel == channel => told.after.push(message),
            _ => {}
        }
    }
    told
}

fn offsets(messages: &[Message]) -> Vec<u64> {
    messages.iter().map(|message| message.offset).collect()
}

fn texts(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|message| payload_of(&message.event)).collect()
}

fn epoch(message: &Message) -> u64 {
    message.position.as_ref().expect("a position").epoch.parse().expect("a number")
}

/// Exactly one gap, for lost writes; a new epoch behind it.
fn assert_reset_once(listener: &Listener, channel: &str) -> Told {
    let told = told(listener, channel);
    let reasons: Vec<&str> = told.gaps.iter().map(|gap| gap.reason.as_str()).collect();
    assert_eq!(reasons, ["EPOCH_RESET"], "{} of {channel}", listener.name);
    if let (Some(last), Some(first)) = (told.before.last(), told.after.first()) {
        assert!(epoch(first) > epoch(last), "{}: a new epoch after the loss", listener.name);
    }
    told
}

async fn keyed(client: &Client, channel: &str, text: &str, key: &str) -> PublishAck {
    let publish = client.publish(channel, events::text(text, text), PublishOptions::with_key(key));
    within("a publish with a key", publish).await.unwrap()
}

async fn several(client: &Client, channel: &str, tag: &str, count: usize) -> Vec<Acked> {
    let mut acked = Vec::new();
    for number in 0..count {
        acked.push(publish(client, channel, &format!("{channel} {tag} {number}")).await);
    }
    acked
}

/// What someone finds who was away since `cursor`.
async fn returning(node: &GatewayProcess, channel: &str, cursor: &Position) -> Recovery {
    let client = cluster::connect(&[node.addrs()], Via::WsProto).await;
    let options = SubscribeOptions::new(channel).cursor(cursor.clone());
    recovery(&mut client.subscribe(options).await.unwrap()).await
}

/// The append-only file, and how long it is once everything up to now is in it.
async fn written(redis: &RedisServer) -> (PathBuf, u64) {
    let file = redis.dir().join("appendonlydir/appendonly.aof.1.incr.aof");
    let mut length = 0;
    loop {
        let buffered = redis.info("persistence")["aof_buffer_length"] != "0";
        let now = fs::metadata(&file).expect("the append-only file").len();
        if !buffered && now == length {
            return (file, length);
        }
        length = now;
        // The file has no event to wait for.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_writes_that_everysec_lost_are_announced_and_all_other_channels_go_on() {
    let args = ["--stream-node-max-bytes", "512", "--appendonly", "yes", "--appendfsync", "everysec"];
    let mut redis = RedisServer::start(RedisServerOptions::default().args(&args));
    let nodes = [cluster::process(&redis, LEASE).await, cluster::process(&redis, LEASE).await];
    let addrs = nodes.each_ref().map(GatewayProcess::addrs);
    let (mut crowd, watchers) = members(&addrs).await;
    let audience = Audience::assemble(&addrs, &["room.kept", "room.lossy", "room.*"]).await;
    let one = cluster::connect(&addrs[..1], Via::WsProto).await;
    let other = cluster::connect(&addrs[1..], Via::Grpc).await;

    let mut kept = several(&one, "room.kept", "before", 10).await;
    let before = several(&other, "room.lossy", "before", 10).await;
    let stored = keyed(&one, "room.kept", "once", "stays").await;
    kept.push(Acked {
        channel: "room.kept".into(),
        payload: "once".into(),
        ack: stored.clone(),
        took: Duration::ZERO,
    });
    audience.heard_all(&before).await;
    let (file, length) = written(&redis).await;
    let mut lost = several(&other, "room.lossy", "lost", 4).await;
    let twice = keyed(&one, "room.lossy", "twice", "goes").await;
    lost.push(Acked {
        channel: "room.lossy".into(),
        payload: "twice".into(),
        ack: twice.clone(),
        took: Duration::ZERO,
    });
    let unborn = several(&one, "room.born", "lost", 3).await;
    audience.heard_all(&lost).await;
    audience.heard_all(&unborn).await;
    // Redis will have forgotten that one left and others came.
    crowd.one_leaves().await;
    crowd.grow(4, &addrs, &["lobby.0", "lobby.1"].map(str::to_owned)).await;
    watchers.agree().await;

    redis.kill9();
    let cut = fs::OpenOptions::new().write(true).open(&file).expect("open the append-only file");
    cut.set_len(length).expect("lose the end of it");
    redis.restart();

    // A retry of what Redis still knows is stored once; of what it lost, again, and told behind the gap.
    let again = keyed(&other, "room.kept", "once", "stays").await;
    assert!(again.duplicate && again.position == stored.position, "{again:?}");
    kept.extend(several(&one, "room.kept", "after", 5).await);
    let mut after = several(&one, "room.lossy", "after", 2).await;
    let again = keyed(&other, "room.lossy", "twice", "goes").await;
    assert!(!again.duplicate && again.position != twice.position, "{again:?}");
    after.extend(several(&other, "room.lossy", "later", 2).await);
    let born = several(&other, "room.born", "after", 2).await;
    for acked in [&kept, &after, &born] {
        audience.heard_all(acked).await;
    }

    audience.assert_stayed();
    audience.assert_sound(&kept, &[]);
    for listener in &audience.0 {
        let channels: Vec<String> = listener.gaps().into_iter().map(|gap| gap.channel).collect();
        for (channel, lost) in [("room.lossy", 15), ("room.born", 3)] {
            if !listener.listens_to(channel) {
                assert!(!channels.contains(&channel.to_owned()));
                continue;
            }
            let told = assert_reset_once(listener, channel);
            assert_eq!(offsets(&told.before), (1..=lost).collect::<Vec<_>>(), "{}", listener.name);
        }
        if listener.listens_to("room.lossy") {
            let told = told(listener, "room.lossy");
            assert_eq!(offsets(&told.after), [11, 12, 13, 14, 15], "offsets go on after what is left");
            let expected = ["after 0", "after 1", "twice", "later 0", "later 1"];
            assert!(texts(&told.after).iter().zip(expected).all(|(text, end)| text.ends_with(end)));
        }
        if listener.targets == ["room.kept"] {
            assert_eq!(channels, Vec::<String>::new(), "{} lost nothing", listener.name);
        }
    }
    cursors_tell_who_lost_something(&nodes, &kept, &before, &lost, &unborn).await;
    assert_members_are_right(&crowd, &watchers).await;
}

/// Those who were away are told by the same rule.
async fn cursors_tell_who_lost_something(
    nodes: &[GatewayProcess; 2],
    kept: &[Acked],
    before: &[Acked],
    lost: &[Acked],
    unborn: &[Acked],
) {
    let cursor = |acked: &Acked| acked.ack.position.clone().unwrap();
    for node in nodes {
        let whole = returning(node, "room.kept", &cursor(&kept[3])).await;
        assert_eq!((whole.offsets(), whole.reason()), ((5..=16).collect(), ""));
        let whole = returning(node, "room.lossy", &cursor(&before[9])).await;
        assert_eq!((whole.offsets(), whole.reason()), ((11..=15).collect(), ""), "saw nothing that is lost");
        for seen in [&lost[0], &lost[4]] {
            let told = returning(node, "room.lossy", &cursor(seen)).await;
            assert_eq!((told.offsets(), told.reason()), ((11..=15).collect(), "EPOCH_RESET"));
        }
        let told = returning(node, "room.born", &cursor(&unborn[1])).await;
        assert_eq!((told.offsets(), told.reason()), (vec![1, 2], "EPOCH_RESET"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_persistence_everyone_who_had_something_is_told_once_and_all_go_on_in_new_epochs() {
    let mut redis = cluster::redis();
    let nodes = [cluster::process(&redis, LEASE).await, cluster::process(&redis, LEASE).await];
    let addrs = nodes.each_ref().map(GatewayProcess::addrs);
    let (mut crowd, watchers) = members(&addrs).await;
    let audience = Audience::assemble(&addrs, &["room.a", "room.quiet", "room.empty", "room.*"]).await;
    let client = cluster::connect(&addrs[..1], Via::WsProto).await;
    let quiet = several(&client, "room.quiet", "before", 3).await;
    let mut publishers = Vec::new();
    for (number, via) in Via::ALL.into_iter().enumerate() {
        let client = cluster::connect(&[addrs[number % 2]], via).await;
        publishers.push(Publishing::start(
            client,
            &format!("{via:?}"),
            &["room.a"],
            Duration::from_millis(5),
        ));
    }
    for publisher in &publishers {
        publisher.acked(50).await;
    }
    audience.heard_all(&quiet).await;

    redis.kill9();
    crowd.one_leaves().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    redis.restart();
    // Nothing is published there: that it is lost is told all the same.
    for listener in audience.0.iter().filter(|listener| listener.listens_to("room.quiet")) {
        let of_quiet = |event: &Event| matches!(event, Event::Gap(gap) if gap.channel == "room.quiet");
        listener.until("the gap", |heard| heard.iter().any(of_quiet)).await;
    }
    let mut acked = Vec::new();
    for publisher in publishers {
        publisher.acked(publisher.count() + 50).await;
        acked.extend(publisher.stop().await);
    }
    let empty = several(&client, "room.empty", "first", 2).await;
    audience.heard_all(&empty).await;
    let last = publish(&client, "room.a", "the last one").await;
    audience.heard_all(std::slice::from_ref(&last)).await;
    acked.push(last);

    audience.assert_stayed();
    audience.assert_sound(&empty, &[]);
    for listener in &audience.0 {
        if listener.listens_to("room.a") {
            assert_new_beginning(listener, &acked);
        }
        if listener.listens_to("room.quiet") {
            assert_eq!(offsets(&assert_reset_once(listener, "room.quiet").before), [1, 2, 3]);
        }
        assert!(listener.gaps().iter().all(|gap| gap.channel != "room.empty"), "it had nothing to lose");
    }
    let told = returning(&nodes[1], "room.quiet", quiet[2].ack.position.as_ref().unwrap()).await;
    assert_eq!((told.offsets(), told.reason()), (vec![], "EPOCH_RESET"));
    assert_members_are_right(&crowd, &watchers).await;
}

/// On each side of the gap everything is contiguous and nothing comes twice; behind it is all that was acked there.
fn assert_new_beginning(listener: &Listener, acked: &[Acked]) {
    let told = assert_reset_once(listener, "room.a");
    for side in [&told.before, &told.after] {
        let expected: Vec<u64> = (1..=side.len() as u64).collect();
        assert_eq!(offsets(side), expected, "{}", listener.name);
        let mut seen = texts(side);
        seen.sort();
        let in_all = seen.len();
        seen.dedup();
        assert_eq!(seen.len(), in_all, "{} saw something twice", listener.name);
    }
    let new = told.after.first().expect("something behind the gap").position.clone().unwrap().epoch;
    assert!(told.after.iter().all(|message| message.position.as_ref().unwrap().epoch == new));
    let stored: Vec<_> = acked
        .iter()
        .filter_map(|acked| acked.ack.position.clone().map(|position| (position, &acked.payload)))
        .filter(|(position, _)| position.epoch == new)
        .collect();
    for (position, payload) in &stored {
        let at = usize::try_from(position.offset - 1).expect("small");
        let seen = told.after.get(at).map(|message| payload_of(&message.event));
        assert_eq!(seen.as_ref(), Some(*payload), "{} at {position}", listener.name);
    }
    assert!(stored.len() > 100, "most were acked: {}", stored.len());
}
