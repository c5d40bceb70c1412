//! Sessions that hop between nodes while Redis is away or their former node believes in them: whoever is connected is a
//! member in the end, and who is gone does not come back.

use std::time::{Duration, Instant};

use streamgate::{
    broker::{
        Broker, BrokerStatus, Owner, PresenceAction,
        redis::{RedisBroker, RedisOptions},
    },
    policy::Policies,
};
use streamgate_e2e::{DEADLINE, redis_server::RedisServer};

use crate::presence_leases::{Watcher, becomes, channel, member, node, status};

/// Whether `node` holds `session` of `room` in Redis.
fn holds(server: &RedisServer, node: &RedisBroker, session: &str) -> bool {
    let keys = node.keys();
    let base = String::from_utf8(keys.base(keys.partition_of("room")).to_vec()).unwrap();
    let held = server.cli(&["HGET", &format!("{base}m:room"), session]);
    held.starts_with(&format!("{}/", node.incarnation().unwrap()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_hops_to_another_node_and_back_while_redis_is_stopped_is_a_member_in_the_end() {
    let server = RedisServer::start_default();
    let (first, second, third) = (node(&server).await, node(&server).await, node(&server).await);
    let mut watcher = Watcher::new(&third, "room").await;
    let at = || channel("room");
    first.join(at(), member("s"), Owner(1)).await.unwrap();
    watcher.expect(PresenceAction::Join, "s").await;
    server.pause();
    // The second node's join lies unread at the server; the first one's return is never sent.
    second.join(at(), member("s"), Owner(1)).await.unwrap_err();
    first.leave(at(), "s", Owner(1));
    second.leave(at(), "s", Owner(1));
    status(&first, |status| matches!(status, BrokerStatus::Away(_))).await;
    first.join(at(), member("s"), Owner(2)).await.unwrap_err();
    // Longer than two calls at about the same time may overtake each other.
    tokio::time::sleep(Duration::from_secs(5)).await;
    server.resume();
    let begun = Instant::now();
    while !holds(&server, &first, "s") {
        assert!(begun.elapsed() < DEADLINE, "its node has forgotten it");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    becomes(&third, "room", 1).await;
    first.leave(at(), "s", Owner(2));
    becomes(&third, "room", 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_hops_and_leaves_for_good_is_not_announced_again_by_a_node_that_has_not_noticed() {
    let server = RedisServer::start_default();
    let timeout = Duration::from_secs(1);
    let options = RedisOptions {
        command_timeout: timeout,
        ..server.addr().to_string().parse::<RedisOptions>().unwrap()
    };
    let unaware = RedisBroker::start(options, Policies::default()).unwrap();
    unaware.booted().await.unwrap();
    let (reached, third) = (node(&server).await, node(&server).await);
    let mut watcher = Watcher::new(&third, "room").await;
    unaware.join(channel("room"), member("s"), Owner(1)).await.unwrap();
    watcher.expect(PresenceAction::Join, "s").await;
    reached.join(channel("room"), member("s"), Owner(1)).await.unwrap();
    // The first node asks for a while, in case the other one's join was a late one.
    watcher.is_told_nothing_for(6 * timeout).await;
    reached.leave(channel("room"), "s", Owner(1));
    watcher.expect(PresenceAction::Leave, "s").await;
    watcher.is_told_nothing_for(5 * timeout).await;
}
