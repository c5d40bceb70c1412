//! Slots of a Redis Cluster move while clients publish and listen through two nodes.

use std::time::{Duration, Instant};

use streamgate_client::{HistoryOptions, PublishOptions};
use streamgate_e2e::{
    audience::{Acked, Audience, Listener, Publishing, slowest},
    clustered::{Clustered, channels, slot},
    events,
    raw::{RawClient, Via},
    redis_cluster::RedisCluster,
};

/// Publications per second.
const RATE: usize = 1_000;
/// Slots that move together.
const CHUNK: u16 = 100;
/// The last slot that moves.
const LAST: u16 = 1_599;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_move_during_a_thousand_publishes_a_second_and_nothing_is_lost_or_doubled() {
    let setup = Clustered::start(2).await;
    // The first master has slots 0 to 5460: the partitions at 512, 1536, 2560, 3584 and 4608.
    let moving = 0..=LAST;
    let mut targets = channels(6, |slot| moving.contains(&slot));
    targets.extend(channels(6, |slot| !moving.contains(&slot)));
    let names: Vec<&str> = targets.iter().map(String::as_str).collect();
    let mut audience = Audience::default();
    for node in 0..2 {
        for via in Via::ALL {
            let exact = setup.client(node, via).await;
            audience.0.push(Listener::start(format!("{via:?} on {node}"), exact, &names).await);
        }
        let pattern = setup.client(node, Via::WsProto).await;
        audience.0.push(Listener::start(format!("pattern on {node}"), pattern, &["room.*"]).await);
    }
    let publishers = [setup.client(0, Via::WsProto).await, setup.client(1, Via::Grpc).await];
    let publishing = Publishing::at_rate(publishers.to_vec(), targets.clone(), RATE);
    audience.0[0].hears(1_000).await;

    let move_all = |redis: &mut RedisCluster| {
        let began = Instant::now();
        for first in (0..=LAST).step_by(usize::from(CHUNK)) {
            redis.move_slots(first..=first + CHUNK - 1, 0, 1);
        }
        redis.agreed();
        assert_eq!(redis.owner(512), 1);
        began.elapsed()
    };
    let moved = setup.redis(move_all).await;
    audience.0[0].hears_more(1_000).await;
    let acked = publishing.stop().await;
    audience.assert_undisturbed(&acked).await;

    // History, fan-out and idempotency record of each were written together, and moved together.
    for (at, Acked { channel, payload, ack, .. }) in acked.iter().enumerate() {
        if at % 50 == 0 {
            let again = publishers[at / 50 % 2].publish(
                channel,
                events::text(payload, payload),
                PublishOptions::with_key(payload),
            );
            let again = again.await.unwrap();
            assert!(again.duplicate && again.position == ack.position, "{payload}: {again:?}, first {ack:?}");
        }
    }
    for channel in &targets {
        let newest = HistoryOptions { limit: Some(20), reverse: true, ..HistoryOptions::default() };
        let page = publishers[0].history(channel, newest).await.unwrap();
        let kept: Vec<u64> = page.messages.iter().rev().map(|message| message.offset).collect();
        let mut acks: Vec<u64> =
            acked.iter().filter(|a| a.channel == *channel).map(|a| a.ack.offset).collect();
        acks.sort_unstable();
        assert!(acks.ends_with(&kept), "{channel}: {kept:?}");
    }
    let (longest, slow) = slowest(&acked, Duration::from_millis(200));
    println!(
        "{} slots moved in {moved:?} under {} publishes: the longest took {longest:?}, {slow} more than 200 ms",
        LAST + 1,
        acked.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_stays_between_two_masters_refuses_publishes_unwritten_until_it_has_arrived() {
    let setup = Clustered::start(2).await;
    let channel = channels(1, |slot| slot < 5_461).remove(0);
    let slot = slot(&channel);
    let listener = setup.client(1, Via::WsProto).await;
    let listener = Listener::start("listener", listener, &[&channel]).await;
    let mut publisher = RawClient::connect(setup.nodes[0].addrs(), Via::WsJson).await;
    let first = publisher.publish(&channel, events::text("1", "1")).await;

    setup.redis(move |redis| redis.begin_move(slot..=slot, 0, 1)).await;
    // Some of the keys of this publish are not on the master that the slot leaves.
    let refused = publisher.refused(events::publish(&channel, events::text("2", "2"))).await;
    assert_eq!(refused.code, "NOT_AVAILABLE", "{refused:?}");
    let finish = move |redis: &mut RedisCluster| {
        redis.move_keys(slot..=slot, 0, 1);
        redis.end_move(slot..=slot, 0, 1);
        redis.agreed();
    };
    setup.redis(finish).await;

    let client = setup.client(0, Via::WsProto).await;
    let ack = client.publish(&channel, events::text("3", "3"), PublishOptions::default()).await.unwrap();
    assert_eq!(ack.offset, first.offset + 1, "the refused one has left nothing");
    listener.hears(2).await;
    let heard: Vec<u64> = listener.messages(&channel).iter().map(|message| message.offset).collect();
    assert_eq!(heard, [first.offset, ack.offset]);
    assert_eq!(listener.gaps(), []);
    listener.assert_stayed();
}
