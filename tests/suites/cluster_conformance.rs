//! The Redis broker passes the suite that every broker passes also on a Cluster: two nodes, three masters with replicas.

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt as _, join};
use streamgate::{
    broker::{
        Broker,
        conformance::{Harness, run_all},
        redis::{Address, RedisBroker, RedisOptions},
    },
    policy::Policies,
};
use streamgate_e2e::redis_cluster::{RedisCluster, blocking};

struct TwoNodes(RedisCluster);

impl Harness for TwoNodes {
    fn start(&self, policies: Policies) -> BoxFuture<'_, [Arc<dyn Broker>; 2]> {
        let nodes = self.0.servers().iter().map(|server| Address::new("127.0.0.1", server.addr().port()));
        let options = RedisOptions { cluster: nodes.collect(), ..RedisOptions::default() };
        let start = move |options, policies| async move {
            let node = RedisBroker::start(options, policies).unwrap();
            node.booted().await.unwrap();
            Arc::new(node) as Arc<dyn Broker>
        };
        let nodes = join(start(options.clone(), policies.clone()), start(options, policies));
        async move { nodes.await.into() }.boxed()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_redis_broker_conforms_on_a_cluster() {
    let cluster = blocking(|| RedisCluster::start(3)).await;
    run_all(&TwoNodes(cluster)).await.unwrap_or_else(|failures| panic!("{failures}"));
}
