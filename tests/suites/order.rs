//! One channel has one order, wherever it is published and read.

use std::collections::HashMap;

use futures_util::future::join_all;
use streamgate_client::PublishOptions;
use streamgate_e2e::{
    cluster::Cluster,
    events,
    history::{Recorder, payload_of},
    listening::messages,
    raw::Via,
};

const PUBLISHERS: usize = 20;
const EACH: usize = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_publishers_on_two_nodes_make_one_order_for_all() {
    let cluster = Cluster::start(2).await;
    let mut listeners = Vec::new();
    for node in 0..2 {
        for via in Via::ALL {
            let client = cluster.client(node, via).await;
            let subscription = client.subscribe("room.order").await.unwrap();
            listeners.push((format!("{via:?} on node {node}"), subscription));
        }
    }
    let mut publishers = Vec::new();
    for number in 0..PUBLISHERS {
        publishers.push((number, cluster.client(number % 2, Via::ALL[number % 3]).await));
    }

    // All on their way at once; what one publisher sends, it sends without waiting for acks.
    let publishing = publishers.iter().map(|(number, client)| async move {
        let acks = (0..EACH).map(|turn| {
            let payload = format!("{number}/{turn}");
            let ack =
                client.publish("room.order", events::text(&payload, &payload), PublishOptions::default());
            async move { (payload, ack.await.unwrap()) }
        });
        join_all(acks).await
    });
    let acked = join_all(publishing).await;

    let recorder = Recorder::default();
    listeners.iter().for_each(|(name, _)| recorder.listens(name, "room.order"));
    for acks in &acked {
        let offsets: Vec<u64> = acks.iter().map(|(_, ack)| ack.offset).collect();
        assert!(offsets.is_sorted(), "one publisher's publishes keep their order: {offsets:?}");
        for (payload, ack) in acks {
            recorder.stored("room.order", ack, payload);
        }
    }
    for (name, subscription) in &mut listeners {
        for message in messages(subscription, PUBLISHERS * EACH).await {
            recorder.saw(name, &message);
        }
    }
    recorder.assert_sound();
    assert_eq!(recorder.history().acknowledged(), PUBLISHERS * EACH);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_channels_keep_their_order_under_one_pattern() {
    let cluster = Cluster::start(2).await;
    let mut all = cluster.client(1, Via::WsProto).await.subscribe("many.*").await.unwrap();
    let publisher = cluster.client(0, Via::WsJson).await;
    let acks = (0..600).map(|n| {
        let (channel, payload) = (format!("many.c{}", n % 40), n.to_string());
        let ack =
            publisher.publish(channel.clone(), events::text(&payload, &payload), PublishOptions::default());
        async move { (channel, payload, ack.await.unwrap()) }
    });
    let recorder = Recorder::default();
    recorder.listens("pattern", "many.*");
    for (channel, payload, ack) in join_all(acks).await {
        recorder.stored(&channel, &ack, &payload);
    }
    let mut last: HashMap<String, usize> = HashMap::new();
    for message in messages(&mut all, 600).await {
        let number: usize = payload_of(&message.event).parse().unwrap();
        let before = last.insert(message.channel.clone(), number);
        assert!(before.is_none_or(|before| before < number), "as sent");
        recorder.saw("pattern", &message);
    }
    recorder.assert_sound();
}
