//! Redis is there and answers badly: late, as a replica, or without memory. Publishes fail with an honest error that says
//! to try again, nobody is disconnected, nothing is stored by halves, and all goes on afterwards.

use std::time::{Duration, Instant};

use streamgate_e2e::{
    cluster, events,
    raw::{RawClient, Via},
    swallowing_proxy::{Flow, Flows, SwallowingProxy},
};
use streamgate_proto::v1::PublishOptions;

use super::outage_stage::{Probe, Stage, says_that_it_is_away, says_that_it_is_back};

/// How long each kind of bad answers lasts.
const LASTS: Duration = Duration::from_secs(4);

fn late(by: Duration) -> Flows {
    Flows::both(Flow::Delay(by / 2))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_come_late_cost_time_and_those_that_come_too_late_are_not_waited_for() {
    let redis = cluster::redis();
    let proxy = SwallowingProxy::start(redis.addr()).await;
    let stage = Stage::set_at(redis, proxy.addr()).await;
    let mut probe = Probe::new(&stage.nodes[0]).await;
    // Within `command_timeout`, which is 2 s.
    proxy.set_all(late(Duration::from_millis(1_500)));
    let ack = probe.publish("slow", "slow").await.expect("slow, but in time");
    assert!(probe.slowest >= Duration::from_millis(1_500), "{:?}", probe.slowest);
    assert!(!ack.duplicate);
    // Beyond it.
    proxy.set_all(late(Duration::from_secs(4)));
    probe.refused(Instant::now() + LASTS).await;
    says_that_it_is_away(&stage.nodes[1]).await;
    proxy.set_all(Flows::default());
    let again = probe.retried("slow", "slow").await;
    assert_eq!(again.ack.position, ack.position);
    stage.close(vec![again], &probe.unanswered).await;
}

/// A publish that is only for who listens now, which may have no half-heard ack either.
async fn transient(client: &mut RawClient) -> Result<(), String> {
    let options = PublishOptions { transient: true, ..PublishOptions::default() };
    let frame = events::publish_with("passing", events::text("passing", "passing"), options);
    match client.request(frame).await.envelope {
        Some(streamgate_proto::v1::outbound_message::Envelope::PublishAck(_)) => Ok(()),
        Some(streamgate_proto::v1::outbound_message::Envelope::Error(error)) => Err(error.code),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_is_a_replica_for_a_while_costs_time_and_no_message() {
    let stage = Stage::set(cluster::redis()).await;
    let mut probe = Probe::new(&stage.nodes[0]).await;
    // Of a server that is not there: it keeps its data and answers READONLY to every write.
    stage.redis.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    assert_eq!(probe.publish("retried", "retried").await.unwrap_err(), "NOT_AVAILABLE");
    probe.refused(Instant::now() + LASTS).await;
    for node in &stage.nodes {
        says_that_it_is_away(node).await;
    }
    stage.redis.cli(&["REPLICAOF", "NO", "ONE"]);
    let retried = probe.retried("retried", "retried").await;
    for node in &stage.nodes {
        says_that_it_is_back(node).await;
    }
    stage.close(vec![retried], &probe.unanswered).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_without_memory_refuses_publishes_whole_and_goes_on_when_it_has_some() {
    let stage = Stage::set(cluster::redis()).await;
    let mut probe = Probe::new(&stage.nodes[0]).await;
    let mut listener = RawClient::connect(stage.nodes[1].addrs(), Via::WsProto).await;
    listener.subscribe_to("passing").await;
    let mut passing = RawClient::connect(stage.nodes[0].addrs(), Via::WsJson).await;
    assert_eq!(transient(&mut passing).await, Ok(()));
    listener.message().await;

    stage.redis.cli(&["CONFIG", "SET", "maxmemory", "1mb"]);
    assert_eq!(probe.publish("retried", "retried").await.unwrap_err(), "NOT_AVAILABLE");
    assert_eq!(
        transient(&mut passing).await.unwrap_err(),
        "NOT_AVAILABLE",
        "acked means delivered, or stored"
    );
    probe.refused(Instant::now() + LASTS / 2).await;
    // Whoever loses its connections now comes back without memory, and goes on listening.
    stage.redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    probe.refused(Instant::now() + LASTS / 2).await;
    stage.redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);

    let retried = probe.retried("retried", "retried").await;
    for node in &stage.nodes {
        says_that_it_is_back(node).await;
    }
    while transient(&mut passing).await.is_err() {}
    listener.message().await;
    stage.close(vec![retried], &probe.unanswered).await;
}
