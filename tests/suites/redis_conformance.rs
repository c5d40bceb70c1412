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
use streamgate_e2e::redis_server::{RedisServer, RedisServerOptions};

struct TwoNodes(RedisServer);

impl Harness for TwoNodes {
    fn start(&self, policies: Policies) -> BoxFuture<'_, [Arc<dyn Broker>; 2]> {
        let options: RedisOptions = self.0.addr().to_string().parse().unwrap();
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
async fn the_redis_broker_conforms() {
    let server = RedisServer::start(RedisServerOptions::default().args(&["--stream-node-max-bytes", "512"]));
    run_all(&TwoNodes(server)).await.unwrap_or_else(|failures| panic!("{failures}"));
}
