//! A node dies under load, and its subscribers miss nothing and see nothing twice.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream::FuturesOrdered};
use streamgate_client::{Client, Event, PublishAck, PublishOptions, Subscription};
use streamgate_e2e::{
    cluster, events,
    history::{Recorder, payload_of},
    raw::Via,
    within,
};
use tokio::{sync::watch, task::JoinHandle, time::MissedTickBehavior};

/// Publications per second, sent in small groups.
const RATE: usize = 1_000;
const GROUP: usize = 5;
/// So many are seen before the node dies, and so many are published in all.
const BEFORE: usize = 1_000;
const IN_ALL: usize = 3_000;

/// More than what is published while a client is away.
const HISTORY: &str = "channels: [{pattern: \"**\", history_size: 10000}]";

/// Publishes at [`RATE`] and answers every ack.
async fn publish_steadily(client: Client) -> Vec<(String, PublishAck)> {
    let mut beat = tokio::time::interval(Duration::from_secs(1) * GROUP as u32 / RATE as u32);
    beat.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut acks = FuturesOrdered::new();
    for number in 0..IN_ALL {
        if number % GROUP == 0 {
            beat.tick().await;
        }
        let payload = number.to_string();
        let ack = client.publish("room.storm", events::text(&payload, &payload), PublishOptions::default());
        acks.push_back(async move { (payload, ack.await.unwrap()) });
    }
    within("all acks", acks.collect()).await
}

/// What a subscriber saw, and the longest time without a message.
struct Sightings {
    name: String,
    target: &'static str,
    messages: Vec<streamgate_client::Message>,
    replayed: usize,
    silence: Duration,
}

/// Takes messages until the last one; `progress` gets their number.
fn watch_all(
    name: String,
    target: &'static str,
    mut subscription: Subscription,
    progress: Arc<watch::Sender<usize>>,
) -> JoinHandle<Sightings> {
    tokio::spawn(async move {
        let mut seen = Sightings { name, target, messages: Vec::new(), replayed: 0, silence: Duration::ZERO };
        let mut last: Option<Instant> = None;
        loop {
            match within("the next event", subscription.next()).await.expect("the subscription goes on") {
                Event::Message(message) => {
                    seen.silence = last.map_or(seen.silence, |last| seen.silence.max(last.elapsed()));
                    last = Some(Instant::now());
                    seen.replayed += usize::from(message.replay);
                    let number: usize = payload_of(&message.event).parse().unwrap();
                    seen.messages.push(message);
                    progress.send_replace(seen.messages.len());
                    if number == IN_ALL - 1 {
                        return seen;
                    }
                }
                Event::Recovered(end) => assert!(end.gap.is_none() && end.error.is_none(), "{end:?}"),
                other => panic!("{other:?}"),
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_of_a_killed_node_see_every_acked_publication_once_and_in_order() {
    let redis = cluster::redis();
    let mut dying = cluster::process(&redis, HISTORY).await;
    let staying = cluster::process(&redis, HISTORY).await;
    let both = [dying.addrs(), staying.addrs()];
    let progress = Arc::new(watch::Sender::new(0));
    let mut watchers = Vec::new();
    for via in Via::ALL {
        for target in ["room.storm", "room.*"] {
            let client = cluster::connect(&both, via).await;
            let subscription = client.subscribe(target).await.unwrap();
            watchers.push(watch_all(format!("{via:?} {target}"), target, subscription, progress.clone()));
        }
    }
    let neighbour = cluster::connect(&both[1..], Via::WsProto).await;
    let subscription = neighbour.subscribe("room.storm").await.unwrap();
    watchers.push(watch_all("on the other node".to_owned(), "room.storm", subscription, progress.clone()));

    let start = Instant::now();
    let publisher = cluster::connect(&both[1..], Via::Grpc).await;
    let publishing = tokio::spawn(publish_steadily(publisher));
    let mut progress = progress.subscribe();
    within("enough messages", progress.wait_for(|seen| *seen >= BEFORE)).await.unwrap();
    dying.kill9();

    let acked = publishing.await.unwrap();
    let rate = IN_ALL as f64 / start.elapsed().as_secs_f64();
    println!("kill -9 of a node under {rate:.0} publishes/s:");
    let recorder = Recorder::default();
    let mut sightings = Vec::new();
    for watcher in watchers {
        let seen = watcher.await.unwrap();
        recorder.listens(&seen.name, seen.target);
        sightings.push(seen);
    }
    acked.iter().for_each(|(payload, ack)| recorder.stored("room.storm", ack, payload));
    for seen in sightings {
        println!("  {}: silent for {:?}, {} replayed", seen.name, seen.silence, seen.replayed);
        seen.messages.iter().for_each(|message| recorder.saw(&seen.name, message));
        let stayed = seen.name.starts_with("on");
        assert_eq!(seen.replayed > 0, !stayed, "{} came back and recovered", seen.name);
    }
    recorder.assert_sound();
}
