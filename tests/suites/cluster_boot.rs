//! What a node needs to find its way in a Redis Cluster, and what it says if that is not what it was told.

use streamgate_client::PublishOptions;
use streamgate_e2e::{
    cluster, events,
    gateway::TestNode,
    listening::message,
    raw::Via,
    redis_cluster::{RedisCluster, blocking},
    redis_server::RedisServer,
    scrape, within,
};

/// Waits until the admin listener says why the node is not ready.
async fn says(node: &TestNode, what: &str) {
    let asking = async {
        loop {
            let answer = scrape::get(node.addrs().admin, "/health/ready?verbose").await;
            if answer.body.contains(what) {
                return assert_ne!(answer.status, 200, "{}", answer.body);
            }
            // Readiness has no event to wait for.
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    within(what, asking).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_that_answers_is_enough_to_find_all_others() {
    let mut redis = blocking(|| RedisCluster::start(3)).await;
    // A replica that answers, and one that does not.
    redis.kill9(5);
    let seeds = [redis.server(5).addr(), redis.server(4).addr()];
    let yaml = format!(
        "broker: {{type: redis, redis: {{mode: cluster, addrs: ['{}', '{}']}}}}\n",
        seeds[0], seeds[1]
    );
    let node = TestNode::start(&yaml).await;
    node.addrs().ready().await;
    let client = cluster::connect(&[node.addrs()], Via::WsProto).await;
    for n in 0..32 {
        let channel = format!("room.{n}");
        let mut subscription = client.subscribe(&channel).await.unwrap();
        let ack = client.publish(&channel, events::text("e", "hello"), PublishOptions::default());
        assert_eq!(message(&mut subscription).await.position, ack.await.unwrap().position);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_the_other_kind_is_refused_with_what_to_set() {
    let redis = blocking(|| RedisCluster::start(3)).await;
    let standalone = format!("broker: {{type: redis, redis: {{addr: '{}'}}}}\n", redis.server(0).addr());
    says(&TestNode::start(&standalone).await, "set broker.redis.mode to cluster").await;

    let lone = RedisServer::start_default();
    let clustered = format!("broker: {{type: redis, redis: {{mode: cluster, addr: '{}'}}}}\n", lone.addr());
    says(&TestNode::start(&clustered).await, "cluster support disabled").await;
}
