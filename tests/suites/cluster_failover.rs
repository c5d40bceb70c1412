//! Masters of a Redis Cluster are replaced while clients publish and listen through two nodes.

use std::time::Duration;

use streamgate::broker::BrokerStatus;
use streamgate_client::{Client, GapReason, PublishOptions};
use streamgate_e2e::{
    clustered::{self, Clustered},
    events,
    history::payload_of,
    raw::Via,
    redis_cluster::RedisCluster,
    scrape,
    traffic::{Publishing, assert_all_heard, slowest},
    within,
};

/// The first master has the slots up to this one.
const LAST_OF_FIRST: u16 = 5_460;

/// So many channels with a slot of the first master, or of the others.
fn channels(count: usize, of_first: bool) -> Vec<String> {
    clustered::channels(count, |slot| (slot <= LAST_OF_FIRST) == of_first)
}

async fn publish(client: &Client, channel: &str, payload: &str) -> u64 {
    let ack = client.publish(channel, events::text(payload, payload), PublishOptions::default());
    ack.await.unwrap_or_else(|error| panic!("{payload}: {error}")).offset
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_hands_over_and_lives_on_as_a_replica_is_left_and_nothing_is_lost() {
    let setup = Clustered::start(2).await;
    let mut targets = channels(4, true);
    targets.extend(channels(4, false));
    let listeners = setup.listeners(&targets).await;
    let publishers = vec![setup.client(0, Via::WsJson).await, setup.client(1, Via::Grpc).await];
    let publishing = Publishing::start(publishers, targets, 500);
    listeners[0].heard(500).await;
    for _ in 0..2 {
        // There and back again: connections to both were held.
        for replica in [3, 0] {
            setup.redis(move |redis| redis.fail_over(replica, "")).await;
            let seen = listeners[0].messages().len();
            listeners[0].heard(seen + 500).await;
        }
    }
    let acked = publishing.stop().await;
    assert_all_heard(&acked, &listeners).await;
    let (longest, _) = slowest(&acked, Duration::MAX);
    println!("four failovers on request under {} publishes: the longest took {longest:?}", acked.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_master_costs_its_partitions_latency_and_the_others_nothing() {
    let setup = Clustered::start(2).await;
    let (concerned, others) = (channels(4, true), channels(4, false));
    let listeners = setup.listeners(&concerned).await;
    let other_listeners = setup.listeners(&others).await;
    let publisher = setup.client(0, Via::WsJson).await;
    for (number, channel) in concerned.iter().enumerate() {
        assert_eq!(publish(&publisher, channel, &number.to_string()).await, 1);
    }
    let publishing = Publishing::start(vec![publisher.clone()], others.clone(), 200);
    other_listeners[0].heard(200).await;

    // It has passed everything on: all that was acked is older than this answer.
    setup.redis(|redis| redis.server(0).cli(&["WAIT", "1", "10000"])).await;
    setup.redis(|redis| redis.kill9(0)).await;
    let mut status = setup.nodes[0].node().broker_status();
    let away =
        |status: &BrokerStatus| matches!(status, BrokerStatus::Away(why) if why.contains("partition 0"));
    within("the node says what is away", status.wait_for(away)).await.unwrap();
    let ready = scrape::get(setup.nodes[0].addrs().admin, "/health/ready").await;
    assert_eq!(ready.status, 200, "no reason to move its clients");
    // By itself: the replica is elected.
    let first = within("a publish after the election", publish(&publisher, &concerned[0], "after")).await;
    assert_eq!(first, 2);
    for listener in &listeners {
        listener.heard(concerned.len() + 1).await;
    }
    let seen = other_listeners[0].messages().len();
    other_listeners[0].heard(seen + 200).await;

    // The one that was killed comes back, as a replica of its replica.
    setup
        .redis(|redis| {
            redis.restart(0);
            redis.agreed();
            assert_ne!(redis.owner(0), 0);
        })
        .await;
    assert_eq!(publish(&publisher, &concerned[1], "again").await, 2);
    for listener in &listeners {
        listener.heard(concerned.len() + 2).await;
        assert_eq!(listener.gaps(), [], "{}", listener.name);
        listener.assert_undisturbed();
    }
    let acked = publishing.stop().await;
    assert_all_heard(&acked, &other_listeners).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acked_writes_that_a_promoted_replica_misses_are_announced_to_those_concerned_only() {
    let setup = Clustered::start(2).await;
    // Of one partition's master: one channel that loses something and one that does not; and one of another master.
    let mut names = channels(2, true);
    names.extend(channels(1, false));
    let [losing, intact, elsewhere] = <[String; 3]>::try_from(names).unwrap();
    let mut listeners = Vec::new();
    for channel in [&losing, &intact, &elsewhere] {
        listeners.push(setup.listeners(std::slice::from_ref(channel)).await);
    }
    let clients = [setup.client(0, Via::WsJson).await, setup.client(1, Via::WsProto).await];
    for channel in [&losing, &intact, &elsewhere] {
        assert_eq!(publish(&clients[0], channel, "kept").await, 1);
    }
    setup.redis(|redis| redis.server(0).cli(&["WAIT", "1", "10000"])).await;

    setup.redis(|redis| redis.sever_replicas(0)).await;
    for offset in 2..=4 {
        assert_eq!(publish(&clients[1], &losing, "lost").await, offset);
    }
    for listener in &listeners[0] {
        listener.heard(4).await;
    }
    setup
        .redis(|redis| {
            redis.kill9(0);
            redis.fail_over(redis.replica_of(0), "TAKEOVER");
        })
        .await;

    // Both nodes come to one history, whoever is first.
    let mut offsets = Vec::new();
    for (turn, client) in clients.iter().cycle().take(4).enumerate() {
        offsets.push(within("a publish", publish(client, &losing, &format!("new {turn}"))).await);
    }
    assert_eq!(offsets, [2, 3, 4, 5], "they follow what was kept");
    for channel in [&intact, &elsewhere] {
        assert_eq!(within("a publish", publish(&clients[0], channel, "new")).await, 2);
    }
    for (at, channel) in [&losing, &intact, &elsewhere].into_iter().enumerate() {
        for listener in &listeners[at] {
            let lost = at == 0;
            listener.heard(if lost { 8 } else { 2 }).await;
            let gaps = listener.gaps();
            if lost {
                assert!(gaps.len() == 1 && gaps[0].reason == GapReason::EpochReset, "{channel}: {gaps:?}");
                let texts: Vec<String> =
                    listener.messages().iter().map(|message| payload_of(&message.event)).collect();
                assert_eq!(texts, ["kept", "lost", "lost", "lost", "new 0", "new 1", "new 2", "new 3"]);
                let positions: Vec<_> =
                    listener.messages().iter().map(|message| message.position.clone().unwrap()).collect();
                assert!(positions[4..].iter().all(|new| new.epoch != positions[1].epoch), "{positions:?}");
            } else {
                assert_eq!(gaps, [], "{channel}");
            }
            listener.assert_undisturbed();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_master_that_wakes_up_as_a_replica_is_not_held_on_to() {
    let setup = Clustered::start(2).await;
    let mut targets = channels(3, true);
    targets.extend(channels(3, false));
    let listeners = setup.listeners(&targets).await;
    let publishers = vec![setup.client(0, Via::WsProto).await, setup.client(1, Via::WsProto).await];
    let quiet = setup.client(1, Via::Grpc).await;
    let publishing = Publishing::start(publishers, targets.clone(), 100);
    listeners[0].heard(200).await;

    // Its connections stay open; its replica is elected meanwhile.
    setup.redis(|redis| redis.server(0).pause()).await;
    within("a publish to a partition of the stopped master", publish(&quiet, &channels(4, true)[3], "x"))
        .await;
    let seen = listeners[0].messages().len();
    listeners[0].heard(seen + 300).await;
    setup
        .redis(|redis| {
            redis.server(0).resume();
            redis.agreed();
            assert_ne!(redis.owner(0), 0);
        })
        .await;
    let seen = listeners[0].messages().len();
    listeners[0].heard(seen + 300).await;
    let acked = publishing.stop().await;
    assert_all_heard(&acked, &listeners).await;
    let (longest, _) = slowest(&acked, Duration::MAX);
    println!("a stopped master under {} publishes: the longest took {longest:?}", acked.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_is_back_before_its_replica_is_elected_has_lost_nothing() {
    let setup = Clustered::start_with(2, &["--appendonly", "yes", "--appendfsync", "always"]).await;
    let mut targets = channels(3, true);
    targets.extend(channels(3, false));
    let listeners = setup.listeners(&targets).await;
    let publishers = vec![setup.client(0, Via::WsProto).await, setup.client(1, Via::WsProto).await];
    let publishing = Publishing::start(publishers, targets, 200);
    listeners[0].heard(200).await;
    for master in [0, 1] {
        setup
            .redis(move |redis| {
                redis.kill9(master);
                redis.restart(master);
                redis.agreed();
            })
            .await;
        let seen = listeners[0].messages().len();
        listeners[0].heard(seen + 200).await;
    }
    let acked = publishing.stop().await;
    assert_all_heard(&acked, &listeners).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_killed_again_and_again_cost_no_message() {
    let setup = Clustered::start(2).await;
    let mut targets = channels(3, true);
    targets.extend(channels(3, false));
    let listeners = setup.listeners(&targets).await;
    let publishers = vec![setup.client(0, Via::WsProto).await, setup.client(1, Via::WsProto).await];
    let publishing = Publishing::start(publishers, targets, 200);
    for round in 1..=5 {
        listeners[0].heard(round * 200).await;
        let kill = |redis: &mut RedisCluster| {
            for server in redis.servers() {
                server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
            }
        };
        setup.redis(kill).await;
    }
    let acked = publishing.stop().await;
    assert_all_heard(&acked, &listeners).await;
}
