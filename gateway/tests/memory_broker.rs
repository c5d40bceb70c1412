//! The memory broker passes the suite that every broker passes.

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt as _, ready};
use streamgate::{
    broker::{
        Broker,
        conformance::{Harness, run_all},
        memory::{MemoryBroker, MemoryOptions},
    },
    policy::Policies,
};

struct Memory;

impl Harness for Memory {
    fn start(&self, policies: Policies) -> BoxFuture<'_, [Arc<dyn Broker>; 2]> {
        let node: Arc<dyn Broker> = Arc::new(MemoryBroker::new(policies, MemoryOptions::default()));
        ready([node.clone(), node]).boxed()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_memory_broker_conforms() {
    run_all(&Memory).await.unwrap_or_else(|failures| panic!("{failures}"));
}
