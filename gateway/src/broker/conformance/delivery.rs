//! Publishing, interest and deliveries.

use std::{collections::HashSet, time::Duration};

use futures_util::future::join_all;

use super::context::{Context, Listener, eventually, message, text};
use crate::{
    broker::{From, Publish, Start, Subscribe, SubscribeTo},
    channel::{Channel, Target},
    position::Position,
};

pub(super) async fn acks_tell_the_delivered_positions_and_offsets_are_contiguous(cx: Context) {
    let channel = cx.channel("keep", "a");
    let listeners = [cx.listener(0), cx.listener(1)];
    for listener in &listeners {
        listener.channel(&channel, Start::Live).await;
    }
    for n in 0..50_usize {
        let publish = message(&channel, &n.to_string());
        let acked = cx.node(n).publish(publish.clone()).await.unwrap().position.unwrap();
        assert_eq!(acked.offset, n as u64 + 1);
        for listener in &listeners {
            let delivered = listener.next().await;
            assert_eq!(delivered.position, Some(acked));
            assert_eq!((&delivered.channel, &delivered.stored), (&channel, &publish.stored));
        }
    }
}

pub(super) async fn twenty_publishers_on_two_nodes_are_seen_in_one_order(cx: Context) {
    let channel = cx.channel("keep", "a");
    let listeners = [cx.listener(0), cx.listener(1)];
    for listener in &listeners {
        listener.channel(&channel, Start::Live).await;
    }
    let publishers: Vec<_> = (0..20)
        .map(|publisher| {
            let (cx, channel) = (cx.clone(), channel.clone());
            tokio::spawn(async move {
                for n in 0..25 {
                    cx.publish(publisher, &channel, &format!("{publisher} {n}")).await;
                }
            })
        })
        .collect();
    let mut seen = Vec::new();
    for listener in &listeners {
        let mut order = Vec::new();
        for offset in 1..=500 {
            let publication = listener.next().await;
            assert_eq!(publication.position.unwrap().offset, offset);
            order.push(text(&publication));
        }
        seen.push(order);
    }
    for publisher in publishers {
        publisher.await.unwrap();
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0].iter().collect::<HashSet<_>>().len(), 500);
}

pub(super) async fn publishes_are_stored_in_the_order_of_the_calls(cx: Context) {
    let channel = cx.channel("keep", "a");
    let answers: Vec<_> = (0..100).map(|n| cx.node(0).publish(message(&channel, &n.to_string()))).collect();
    // Polled in the opposite order, which must not matter.
    let mut positions: Vec<Position> = Vec::new();
    for answer in join_all(answers.into_iter().rev()).await {
        positions.push(answer.unwrap().position.unwrap());
    }
    assert!(positions.is_sorted_by(|later, earlier| later > earlier), "{positions:?}");
}

pub(super) async fn a_publish_goes_on_when_its_future_is_dropped(cx: Context) {
    let channel = cx.channel("keep", "a");
    let listener = cx.listener(1);
    listener.channel(&channel, Start::Live).await;
    drop(cx.node(0).publish(message(&channel, "dropped")));
    assert_eq!(listener.next_text().await, "dropped");
}

pub(super) async fn interest_by_name_and_by_patterns_delivers_once(cx: Context) {
    let channel = cx.channel("keep", "a.b");
    let listener = cx.listener(1);
    listener.channel(&channel, Start::Live).await;
    listener.pattern(&cx.pattern("keep", "a.*"), Start::Live).await;
    listener.pattern(&cx.pattern("keep", "**"), Start::Live).await;
    for n in 1..=5 {
        cx.publish(0, &channel, "x").await;
        assert_eq!(listener.next_position().await.offset, n);
    }
    listener.unsubscribe(channel.as_str());
    for n in 6..=10 {
        cx.publish(0, &channel, "x").await;
        assert_eq!(listener.next_position().await.offset, n);
    }
}

pub(super) async fn subscribing_twice_is_subscribing_once(cx: Context) {
    let channel = cx.channel("keep", "a");
    let listener = cx.listener(1);
    listener.channel(&channel, Start::Live).await;
    listener.channel(&channel, Start::Live).await;
    for n in 1..=3 {
        cx.publish(0, &channel, "x").await;
        assert_eq!(listener.next_position().await.offset, n);
    }
    listener.unsubscribe(channel.as_str());
    silent(&cx, &listener, &channel).await;
}

pub(super) async fn unsubscribe_stops_deliveries(cx: Context) {
    let channel = cx.channel("keep", "a");
    let listener = cx.listener(1);
    listener.channel(&channel, Start::Live).await;
    cx.publish(0, &channel, "heard").await;
    assert_eq!(listener.next_text().await, "heard");
    listener.unsubscribe(channel.as_str());
    silent(&cx, &listener, &channel).await;
    listener.channel(&channel, Start::Live).await;
    listener.recorder.drain();
    cx.publish(0, &channel, "again").await;
    assert_eq!(listener.next_text().await, "again");
}

/// Waits until `listener` no longer gets what a witness at the same node gets. Deliveries under way may still come.
async fn silent(cx: &Context, listener: &Listener, channel: &Channel) {
    let witness = cx.listener(1);
    witness.channel(channel, Start::Live).await;
    eventually(|| async {
        listener.recorder.drain();
        for _ in 0..3 {
            let position = cx.publish(0, channel, "unheard").await;
            while witness.next_position().await != position {}
        }
        listener.recorder.drain().is_empty().then_some(())
    })
    .await;
}

pub(super) async fn calls_for_one_sink_take_effect_in_their_order(cx: Context) {
    let on = cx.channel("keep", "on");
    let off = cx.channel("keep", "off");
    let listener = cx.listener(1);
    let node = cx.node(1);
    let live = |channel: &Channel| Subscribe {
        to: SubscribeTo::Channel { channel: channel.clone(), start: Start::Live },
    };
    // None of the futures is ever polled.
    for _ in 0..10 {
        drop(node.subscribe(listener.id, live(&off)));
        node.unsubscribe(listener.id, Target::Channel(off.clone()));
        node.unsubscribe(listener.id, Target::Channel(on.clone()));
        drop(node.subscribe(listener.id, live(&on)));
    }
    silent(&cx, &listener, &off).await;
    eventually(|| async {
        cx.publish(0, &on, "x").await;
        listener.recorder.next(Duration::from_millis(100)).await
    })
    .await;
}

pub(super) async fn every_one_of_many_sinks_is_served(cx: Context) {
    let channel = cx.channel("keep", "a");
    let listeners: Vec<_> = (0..64).map(|n| cx.listener(n)).collect();
    join_all(listeners.iter().map(|listener| listener.channel(&channel, Start::Live))).await;
    let position = cx.publish(0, &channel, "x").await;
    for listener in &listeners {
        assert_eq!(listener.next_position().await, position);
    }
}

pub(super) async fn transient_publications_are_delivered_and_not_kept(cx: Context) {
    let (by_option, by_policy) = (cx.channel("keep", "a"), cx.channel("transient", "a"));
    let listener = cx.listener(1);
    listener.channel(&by_option, Start::Live).await;
    assert!(listener.channel(&by_policy, Start::Live).await.positions.is_empty());

    let first = cx.publish(0, &by_option, "kept").await;
    let transient = Publish { transient: true, ..message(&by_option, "transient") };
    assert_eq!(cx.node(0).publish(transient).await.unwrap().position, None);
    let second = cx.publish(0, &by_option, "kept too").await;
    assert_eq!(second, Position { offset: 2, ..first });
    assert_eq!(listener.next_position().await, first);
    // Without a position there is no order against the others.
    let two = [listener.next().await, listener.next().await];
    let transient = two.iter().find(|publication| publication.position.is_none()).unwrap();
    assert_eq!(text(transient), "transient");
    let kept: Vec<_> = cx.all(&by_option).await.publications.iter().map(|entry| text(entry)).collect();
    assert_eq!(kept, ["kept", "kept too"]);

    assert_eq!(cx.node(0).publish(message(&by_policy, "x")).await.unwrap().position, None);
    assert_eq!(listener.next().await.position, None);
    assert!(cx.all(&by_policy).await.publications.is_empty());
}

pub(super) async fn without_history_there_are_no_positions(cx: Context) {
    let channel = cx.channel("none", "a");
    let listener = cx.listener(1);
    let subscribed = listener.channel(&channel, Start::From(From::Start)).await;
    assert!(subscribed.positions.is_empty());
    assert!(subscribed.catchup.unwrap().channels.is_empty());
    let publish = message(&channel, "x");
    let published = cx.node(0).publish(publish.clone()).await.unwrap();
    assert_eq!((published.position, published.duplicate), (None, false));
    let delivered = listener.next().await;
    assert_eq!((delivered.position, &delivered.stored), (None, &publish.stored));
    assert!(delivered.time_ms > 0);
    assert!(cx.all(&channel).await.publications.is_empty());
}
