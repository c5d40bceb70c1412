//! The replication id of a running master changes without an outage: nodes notice, and never write two histories.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use streamgate::broker::redis::{Fixed, Link, LinkStatus, RedisOptions};
use streamgate_e2e::{
    audience::{Acked, Audience, publish},
    cluster,
    process::GatewayProcess,
    raw::Via,
    redis_server::{RedisServer, RedisServerOptions},
    within,
};

use super::outage_stage::Stage;

/// Demotes and promotes it: the data stays, the replication id does not.
fn flip(redis: &RedisServer) {
    let before = replid(redis);
    redis.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    redis.cli(&["REPLICAOF", "NO", "ONE"]);
    assert_ne!(replid(redis), before);
}

fn replid(redis: &RedisServer) -> String {
    redis.info("replication")["master_replid"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_link_leaves_a_server_whose_replication_id_changed() {
    let redis = cluster::redis();
    let options: RedisOptions = redis.addr().to_string().parse().unwrap();
    let link = Link::start("test", Arc::new(Fixed(options.server())), Arc::new(options), vec![]);
    let before = link.connected().await.unwrap();
    flip(&redis);
    let mut status = link.status();
    within("another connection", status.wait_for(|status| *status == LinkStatus::Up(2))).await.unwrap();
    assert!(before.closed().await.contains("replication id"), "{}", before.closed().await);
    assert_eq!(link.connected().await.unwrap().hello().replid, replid(&redis));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_was_demoted_and_promoted_with_all_its_data_goes_on_unnoticed() {
    let stage = Stage::set(cluster::redis()).await;
    for _ in 0..3 {
        flip(&stage.redis);
        for publisher in &stage.publishers {
            publisher.acked(publisher.count() + 10).await;
        }
    }
    // Nodes that believed in different ids would raise the epoch in turn.
    let mut acked = Vec::new();
    let clients = [
        cluster::connect(&[stage.nodes[0].addrs()], Via::WsProto).await,
        cluster::connect(&[stage.nodes[1].addrs()], Via::WsProto).await,
    ];
    for number in 0..20 {
        acked.push(publish(&clients[number % 2], "room.a", &format!("in turn {number}")).await);
    }
    let epochs: Vec<&str> = acked.iter().map(epoch).collect();
    let changes = epochs.windows(2).filter(|two| two[0] != two[1]).count();
    assert!(changes <= 1, "{epochs:?}");
    stage.close(acked, &[]).await;
}

fn epoch(acked: &Acked) -> &str {
    &acked.ack.position.as_ref().expect("a position").epoch
}

/// The server gets the data of `donor`, which has less, and is a master again: as after a failover and back, within the
/// life of the nodes' connections.
async fn roll_back(redis: &RedisServer, donor: &RedisServer) {
    redis.cli(&["REPLICAOF", "127.0.0.1", &donor.addr().port().to_string()]);
    in_sync(redis).await;
    redis.cli(&["REPLICAOF", "NO", "ONE"]);
}

async fn in_sync(replica: &RedisServer) {
    within("the replica is in sync", async {
        while replica.info("replication").get("master_link_status").map(String::as_str) != Some("up") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_comes_back_with_less_is_announced_although_no_connection_was_lost() {
    let args = ["--stream-node-max-bytes", "512", "--repl-diskless-sync-delay", "0"];
    let redis = RedisServer::start(RedisServerOptions::default().args(&args));
    let nodes = [cluster::process(&redis, "").await, cluster::process(&redis, "").await];
    let addrs = nodes.each_ref().map(GatewayProcess::addrs);
    let audience = Audience::assemble(&addrs, &["room.kept", "room.lossy", "room.*"]).await;
    let clients = [
        cluster::connect(&addrs[..1], Via::WsProto).await,
        cluster::connect(&addrs[1..], Via::WsProto).await,
    ];
    let mut all = Vec::new();
    for number in 0..6 {
        for channel in ["room.kept", "room.lossy"] {
            all.push(publish(&clients[number % 2], channel, &format!("{channel} {number}")).await);
        }
    }
    let donor = RedisServer::start(RedisServerOptions::default().args(&args));
    donor.cli(&["REPLICAOF", "127.0.0.1", &redis.addr().port().to_string()]);
    in_sync(&donor).await;
    donor.cli(&["REPLICAOF", "NO", "ONE"]);
    for number in 0..4 {
        all.push(publish(&clients[number % 2], "room.lossy", &format!("lost {number}")).await);
    }
    audience.heard_all(&all).await;

    roll_back(&redis, &donor).await;
    // At once, before anybody had time to look: one node after the other, and both at the same time.
    for number in 0..6 {
        let texts = [0, 1].map(|node| format!("after {number} on {node}"));
        let both = tokio::join!(
            publish(&clients[0], "room.lossy", &texts[0]),
            publish(&clients[1], "room.lossy", &texts[1])
        );
        all.extend([both.0, both.1]);
        all.push(publish(&clients[number % 2], "room.kept", &format!("kept after {number}")).await);
    }
    let after: Vec<Acked> = all.iter().filter(|acked| acked.payload.contains("after")).cloned().collect();
    audience.heard_all(&after).await;
    audience.assert_stayed();

    let mut places = BTreeMap::new();
    for acked in &all {
        let position = acked.ack.position.as_ref().unwrap();
        let place = (acked.channel.clone(), position.epoch.clone(), position.offset);
        let before = places.insert(place, acked.payload.clone());
        assert_eq!(before, None, "two histories: {} stands there, too", acked.payload);
    }
    let kept: Vec<Acked> = all.iter().filter(|acked| acked.channel == "room.kept").cloned().collect();
    audience.assert_sound(&kept, &[]);
    for listener in &audience.0 {
        let told: Vec<(String, String)> =
            listener.gaps().into_iter().map(|gap| (gap.channel, gap.reason.as_str().to_owned())).collect();
        let lossy = ("room.lossy".to_owned(), "EPOCH_RESET".to_owned());
        let expected = if listener.listens_to("room.lossy") { vec![lossy] } else { Vec::new() };
        assert_eq!(told, expected, "{}", listener.name);
    }
}
