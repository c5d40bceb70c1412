//! A retry with the same key changes nothing, wherever it arrives.

use std::collections::HashSet;

use futures_util::future::join_all;
use streamgate_client::{HistoryOptions, PublishOptions};
use streamgate_e2e::{
    cluster::Cluster,
    events,
    listening::{assert_quiet, message},
    raw::Via,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_retries_through_two_nodes_are_one_publication() {
    let cluster = Cluster::start(2).await;
    let listener = cluster.client(1, Via::WsProto).await;
    let mut subscription = listener.subscribe("room.once").await.unwrap();
    let mut clients = Vec::new();
    for number in 0..20 {
        clients.push(cluster.client(number % 2, Via::ALL[number % 3]).await);
    }
    let event = events::text("the-one", "once");
    let retries = (0..200).map(|n| {
        clients[n % clients.len()].publish("room.once", event.clone(), PublishOptions::with_key("key-1"))
    });
    let acks: Vec<_> = join_all(retries).await.into_iter().map(Result::unwrap).collect();

    let positions: HashSet<_> = acks.iter().map(|ack| ack.position.clone().unwrap()).collect();
    assert_eq!(positions.len(), 1, "{positions:?}");
    assert_eq!(acks.iter().filter(|ack| !ack.duplicate).count(), 1, "one was the first");
    let got = message(&mut subscription).await;
    assert_eq!((got.position, got.event), (acks[0].position.clone(), event));
    let page = listener.history("room.once", HistoryOptions::default()).await.unwrap();
    assert_eq!(page.messages.len(), 1);

    // A later one, on either node, is no different; another key and another channel are.
    for client in &clients[..2] {
        let late = client.publish("room.once", events::text("late", "x"), PublishOptions::with_key("key-1"));
        let late = late.await.unwrap();
        assert!(late.duplicate && late.position == acks[0].position, "{late:?}");
    }
    let other = clients[0].publish("room.other", events::text("o", "x"), PublishOptions::with_key("key-1"));
    assert!(!other.await.unwrap().duplicate);
    let second = clients[1].publish("room.once", events::text("2", "two"), PublishOptions::with_key("key-2"));
    let second = second.await.unwrap();
    assert!(!second.duplicate && second.offset == acks[0].offset + 1, "{second:?}");
    assert_eq!(message(&mut subscription).await.position, second.position);
    assert_quiet(&listener, &mut subscription).await;
}
