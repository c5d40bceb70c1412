//! What is published on one node reaches the subscribers of another, once and intact, whatever they speak.

use bytes::Bytes;
use streamgate_client::{Client, CloudEvent, PublishOptions};
use streamgate_e2e::{
    cluster::{Cluster, builder},
    events,
    listening::{assert_quiet, message, messages},
    raw::Via,
};
use streamgate_proto::{
    cloudevents::{Attr, Data},
    wkt::Timestamp,
};

/// Every kind of data and of attribute that all transports carry as it is.
fn every_kind() -> Vec<CloudEvent> {
    let attributes = [
        ("aboolean", Attr::CeBoolean(true)),
        ("aninteger", Attr::CeInteger(-7)),
        ("astring", Attr::CeString("é\u{0}\"\\ \u{1F980}".into())),
        ("bytes", Attr::CeBytes(Bytes::from_static(&[0, 255, 128]))),
        ("dataschema", Attr::CeUri("https://example.com/schema".into())),
        ("reference", Attr::CeUriRef("../up".into())),
        ("time", Attr::CeTimestamp(Timestamp { seconds: 1_767_225_600, nanos: 123_456_789 })),
    ];
    let loaded = attributes
        .into_iter()
        .filter(|(name, _)| *name != "astring")
        .fold(events::text("loaded", "x"), |event, (name, value)| events::with_attribute(event, name, value));
    let text = events::with_attribute(
        events::text("json", "{\"n\": 1.00, \"z\":\"\u{1F980}\\u0000\"}"),
        "datacontenttype",
        Attr::CeString("application/json".into()),
    );
    let bytes: Vec<u8> = (0..=255).collect();
    let binary = CloudEvent { data: Some(Data::BinaryData(bytes.into())), ..events::text("binary", "") };
    let bare = CloudEvent { data: None, ..events::text("bare", "") };
    let long = events::text("long", &"ö".repeat(20_000));
    vec![loaded, text, binary, bare, events::text("empty", ""), long]
}

async fn clients(cluster: &Cluster, node: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for via in Via::ALL {
        clients.push(cluster.client(node, via).await);
    }
    clients
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_transport_on_another_node_gets_each_event_once_and_intact() {
    let cluster = Cluster::start(2).await;
    let (publishers, subscribers) = (clients(&cluster, 0).await, clients(&cluster, 1).await);
    let mut subscriptions = Vec::new();
    for subscriber in &subscribers {
        subscriptions.push(subscriber.subscribe("room.blue").await.unwrap());
    }
    let mut published = Vec::new();
    for event in every_kind() {
        for publisher in &publishers {
            let ack = publisher.publish("room.blue", event.clone(), PublishOptions::default()).await.unwrap();
            published.push((ack.position.unwrap(), event.clone()));
        }
    }

    let offsets: Vec<u64> = published.iter().map(|(position, _)| position.offset).collect();
    assert_eq!(offsets, (1..=published.len() as u64).collect::<Vec<_>>(), "contiguous from the first");
    for (subscriber, subscription) in subscribers.iter().zip(&mut subscriptions) {
        for (got, (position, event)) in messages(subscription, published.len()).await.iter().zip(&published) {
            assert_eq!(got.position.as_ref(), Some(position), "the ack tells the delivered position");
            assert_eq!((got.offset, got.channel.as_str()), (position.offset, "room.blue"));
            assert_eq!(&got.event, event);
            assert!(!got.replay);
        }
        assert_quiet(subscriber, subscription).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_the_first_version_get_the_same_offsets() {
    let cluster = Cluster::start(2).await;
    for via in Via::ALL {
        let client = |node: usize| builder(&[cluster.addrs(node)], via).extended(false).connect();
        let (publisher, subscriber) = (client(0).await.unwrap(), client(1).await.unwrap());
        let mut subscription = subscriber.subscribe("room.old").await.unwrap();
        let event = events::text("e", "hello");
        let ack = publisher.publish("room.old", event.clone(), PublishOptions::default()).await.unwrap();
        let got = message(&mut subscription).await;
        assert_eq!((ack.position, got.position), (None, None));
        assert_eq!((got.offset, got.event), (ack.offset, event));
        assert!(got.offset > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_gets_its_own_message_once() {
    let cluster = Cluster::start(2).await;
    for via in Via::ALL {
        let client = cluster.client(0, via).await;
        let mut own = client.subscribe("room.own").await.unwrap();
        let ack =
            client.publish("room.own", events::text("e", "own"), PublishOptions::default()).await.unwrap();
        assert_eq!(message(&mut own).await.position, ack.position);
        assert_quiet(&client, &mut own).await;
    }
}
