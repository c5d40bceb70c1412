//! The Redis broker passes the suite that every broker passes also on a Cluster: two nodes, three masters with replicas.

use streamgate::broker::{
    conformance::run_all,
    redis::{Address, RedisOptions},
};
use streamgate_e2e::redis_cluster::{RedisCluster, blocking};

use super::redis_conformance::TwoNodes;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_redis_broker_conforms_on_a_cluster() {
    let servers = blocking(|| RedisCluster::start(3)).await;
    let nodes = servers.servers().iter().map(|server| Address::new("127.0.0.1", server.addr().port()));
    let options = RedisOptions { cluster: nodes.collect(), ..RedisOptions::default() };
    run_all(&TwoNodes(options)).await.unwrap_or_else(|failures| panic!("{failures}"));
}
