//! Masters of a Redis Cluster are replaced while clients publish and listen through two nodes.

use std::time::Duration;

use streamgate::broker::BrokerStatus;
use streamgate_client::GapReason;
use streamgate_e2e::{
    audience::{Publishing, publish, slowest},
    clustered::{self, Clustered},
    raw::Via,
    scrape, within,
};

/// The first master has the slots up to this one.
const LAST_OF_FIRST: u16 = 5_460;

/// So many channels with a slot of the first master, or of the others.
fn channels(count: usize, of_first: bool) -> Vec<String> {
    clustered::channels(count, |slot| (slot <= LAST_OF_FIRST) == of_first)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_hands_over_and_lives_on_as_a_replica_is_left_and_nothing_is_lost() {
    let setup = Clustered::start(2).await;
    let mut targets = channels(4, true);
    targets.extend(channels(4, false));
    let audience = setup.audience(&targets).await;
    let publishers = vec![setup.client(0, Via::WsJson).await, setup.client(1, Via::Grpc).await];
    let publishing = Publishing::at_rate(publishers, targets, 500);
    audience.0[0].hears(500).await;
    for _ in 0..2 {
        // There and back again: connections to both were held.
        for replica in [3, 0] {
            setup.redis(move |redis| redis.fail_over(replica, "")).await;
            audience.0[0].hears_more(500).await;
        }
    }
    let acked = publishing.stop().await;
    audience.assert_undisturbed(&acked).await;
    let (longest, _) = slowest(&acked, Duration::MAX);
    println!("four failovers on request under {} publishes: the longest took {longest:?}", acked.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_master_costs_its_partitions_latency_and_the_others_nothing() {
    let setup = Clustered::start(2).await;
    let (concerned, others) = (channels(4, true), channels(4, false));
    let audience = setup.audience(&concerned).await;
    let others_audience = setup.audience(&others).await;
    let publisher = setup.client(0, Via::WsJson).await;
    let mut acked = Vec::new();
    for channel in &concerned {
        acked.push(publish(&publisher, channel, &format!("{channel} before")).await);
    }
    let publishing = Publishing::at_rate(vec![publisher.clone()], others.clone(), 200);
    others_audience.0[0].hears(200).await;

    // It has passed on all that was acked.
    setup.redis(|redis| redis.caught_up(0)).await;
    setup.redis(|redis| redis.kill9(0)).await;
    let mut status = setup.nodes[0].node().broker_status();
    let away =
        |status: &BrokerStatus| matches!(status, BrokerStatus::Away(why) if why.contains("partition 0"));
    within("the node says what is away", status.wait_for(away)).await.unwrap();
    let ready = scrape::get(setup.nodes[0].addrs().admin, "/health/ready").await;
    assert_eq!(ready.status, 200, "no reason to move its clients");
    // By itself: the replica is elected.
    let first = within("a publish after the election", publish(&publisher, &concerned[0], "after")).await;
    assert_eq!(first.ack.offset, 2);
    acked.push(first);
    audience.heard_all(&acked).await;
    others_audience.0[0].hears_more(200).await;

    // The one that was killed comes back, as a replica of its replica.
    setup
        .redis(|redis| {
            redis.restart(0);
            redis.agreed();
            assert_ne!(redis.owner(0), 0);
        })
        .await;
    acked.push(publish(&publisher, &concerned[1], "again").await);
    assert_eq!(acked.last().unwrap().ack.offset, 2);
    audience.assert_undisturbed(&acked).await;
    let acked = publishing.stop().await;
    others_audience.assert_undisturbed(&acked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acked_writes_that_a_promoted_replica_misses_are_announced_to_those_concerned_only() {
    let setup = Clustered::start(2).await;
    // Of one partition's master: one channel that loses something and one that does not; and one of another master.
    let mut names = channels(2, true);
    names.extend(channels(1, false));
    let [losing, intact, elsewhere] = <[String; 3]>::try_from(names).unwrap();
    let audience = setup.audience(&[losing.clone(), intact.clone(), elsewhere.clone()]).await;
    let clients = [setup.client(0, Via::WsJson).await, setup.client(1, Via::WsProto).await];
    let mut acked = Vec::new();
    for channel in [&losing, &intact, &elsewhere] {
        acked.push(publish(&clients[0], channel, &format!("{channel} kept")).await);
    }
    setup.redis(|redis| redis.caught_up(0)).await;

    setup.redis(|redis| redis.sever_replicas(0)).await;
    for number in 0..3 {
        acked.push(publish(&clients[1], &losing, &format!("lost {number}")).await);
    }
    audience.heard_all(&acked).await;
    setup
        .redis(|redis| {
            redis.kill9(0);
            redis.fail_over(redis.replica_of(0), "TAKEOVER");
        })
        .await;

    // Both nodes come to one history, whoever is first.
    for (turn, client) in clients.iter().cycle().take(4).enumerate() {
        acked.push(within("a publish", publish(client, &losing, &format!("new {turn}"))).await);
    }
    for channel in [&intact, &elsewhere] {
        let new = within("a publish", publish(&clients[0], channel, &format!("{channel} new"))).await;
        assert_eq!(new.ack.offset, 2);
        acked.push(new);
    }
    audience.heard_all(&acked).await;
    audience.assert_honest(&acked, &[]);
    audience.assert_stayed();
    for listener in &audience.0 {
        let gaps = listener.gaps();
        let gap = gaps.first().expect("who heard what was lost is told");
        assert!(gaps.len() == 1 && gap.reason == GapReason::EpochReset && gap.channel == losing, "{gaps:?}");
        let heard = listener.messages(&losing);
        let offsets: Vec<u64> = heard.iter().map(|message| message.offset).collect();
        assert_eq!(offsets, [1, 2, 3, 4, 2, 3, 4, 5], "the new ones follow what was kept");
        let epochs: Vec<_> = heard.iter().map(|message| &message.position.as_ref().unwrap().epoch).collect();
        assert!(epochs[4..].iter().all(|new| *new != epochs[1]), "{epochs:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_master_that_wakes_up_as_a_replica_is_not_held_on_to() {
    let setup = Clustered::start(2).await;
    let mut targets = channels(3, true);
    targets.extend(channels(3, false));
    let audience = setup.audience(&targets).await;
    let publishers = vec![setup.client(0, Via::WsProto).await, setup.client(1, Via::WsProto).await];
    let quiet = setup.client(1, Via::Grpc).await;
    let publishing = Publishing::at_rate(publishers, targets.clone(), 100);
    audience.0[0].hears(200).await;

    // Its connections stay open; its replica is elected meanwhile.
    setup.redis(|redis| redis.server(0).pause()).await;
    within("a publish to a partition of the stopped master", publish(&quiet, &channels(4, true)[3], "x"))
        .await;
    audience.0[0].hears_more(300).await;
    setup
        .redis(|redis| {
            redis.server(0).resume();
            redis.agreed();
            assert_ne!(redis.owner(0), 0);
        })
        .await;
    audience.0[0].hears_more(300).await;
    let acked = publishing.stop().await;
    audience.assert_undisturbed(&acked).await;
    let (longest, _) = slowest(&acked, Duration::MAX);
    println!("a stopped master under {} publishes: the longest took {longest:?}", acked.len());
}
