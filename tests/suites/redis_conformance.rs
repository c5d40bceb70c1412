//! The Redis broker passes the suite that every broker passes: two nodes on one server.

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt as _, join};
use streamgate::{
    broker::{
        Broker,
        conformance::{Harness, run_all},
        redis::{RedisBroker, RedisOptions},
    },
    policy::Policies,
};
use streamgate_e2e::cluster;

/// Two nodes that are told where Redis is.
pub(crate) struct TwoNodes(pub(crate) RedisOptions);

impl Harness for TwoNodes {
    fn start(&self, policies: Policies) -> BoxFuture<'_, [Arc<dyn Broker>; 2]> {
        let start = |policies| async {
            let node = RedisBroker::start(self.0.clone(), policies).unwrap();
            node.booted().await.unwrap();
            Arc::new(node) as Arc<dyn Broker>
        };
        let nodes = join(start(policies.clone()), start(policies));
        async move { nodes.await.into() }.boxed()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_redis_broker_conforms() {
    let server = cluster::redis();
    let options = server.addr().to_string().parse().unwrap();
    run_all(&TwoNodes(options)).await.unwrap_or_else(|failures| panic!("{failures}"));
}
