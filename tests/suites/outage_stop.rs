//! Redis stops, loses its clients, or is killed and comes back with all that was acked: nobody is disconnected, nothing
//! is lost, nothing is told.

use std::time::{Duration, Instant};

use streamgate_e2e::{
    cluster,
    redis_server::{RedisServer, RedisServerOptions},
};

use super::outage_stage::{Probe, Stage, says_that_it_is_away, says_that_it_is_back};

/// Takes Redis away for `away_for` and brings it back.
async fn outage(
    redis: RedisServer,
    away_for: Duration,
    away: impl Fn(&mut RedisServer),
    back: impl Fn(&mut RedisServer),
) {
    let mut stage = Stage::set(redis).await;
    let mut probe = Probe::new(&stage.nodes[0]).await;
    away(&mut stage.redis);
    let start = Instant::now();
    // Sent once into the outage, and then again under the same key when it is over.
    let lost = probe.publish("retried", "key of the retried").await;
    assert_eq!(lost, Err("NOT_AVAILABLE".to_owned()));
    // What happens meanwhile is told when Redis is back; nothing else is.
    let gone = stage.crowd.one_leaves().await;
    probe.refused(start + away_for).await;
    for node in &stage.nodes {
        says_that_it_is_away(node).await;
    }
    back(&mut stage.redis);
    let back_at = Instant::now();
    let retried = probe.retried("retried", "key of the retried").await;
    println!(
        "Redis away for {:?}: slowest refusal {:?}, publishing again after {:?}",
        back_at - start,
        probe.slowest,
        back_at.elapsed()
    );
    for node in &stage.nodes {
        says_that_it_is_back(node).await;
    }
    stage.nobody_left_but(&[gone]).await;
    stage.close(vec![retried], &probe.unanswered).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_that_is_stopped_for_ten_seconds_costs_time_and_no_message() {
    let ten = Duration::from_secs(10);
    outage(cluster::redis(), ten, |redis| redis.pause(), |redis| redis.resume()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_that_is_killed_and_has_synced_every_write_costs_time_and_no_message() {
    let args = ["--stream-node-max-bytes", "512", "--appendonly", "yes", "--appendfsync", "always"];
    let redis = RedisServer::start(RedisServerOptions::default().args(&args));
    outage(redis, Duration::from_secs(2), RedisServer::kill9, RedisServer::restart).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_that_cuts_all_its_clients_again_and_again_costs_time_and_no_message() {
    let stage = Stage::set(cluster::redis()).await;
    let mut probe = Probe::new(&stage.nodes[1]).await;
    let (mut kills, mut killed, mut acked) = (0, 0, Vec::new());
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5) {
        let count = stage.redis.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        killed += count.trim().parse::<usize>().expect("a number of connections");
        kills += 1;
        let payload = format!("between {kills}");
        acked.push(probe.retried(&payload, &payload).await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("all connections killed {kills} times, {killed} in all");
    assert!(killed >= kills, "the nodes had connections to lose: {killed}");
    stage.nobody_left_but(&[]).await;
    stage.close(acked, &probe.unanswered).await;
}
