//! Ending a node: first its clients, evenly, then everything else.

use std::{future::Future, time::Duration};

use metrics::{Gauge, gauge};
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};

use super::Node;
use crate::{
    shard::{DrainProgress, ShardHandle},
    telemetry::metrics::{DRAIN_LEFT, DRAINING},
};

/// Time for the last clients to read their close.
const LINGER: Duration = Duration::from_secs(3);
/// More than a shard takes to close the last connection after the drain's duration.
const LATE: Duration = Duration::from_secs(4);
/// Time for the broker to withdraw what Redis holds of this node; what is left there expires by itself.
const WITHDRAW: Duration = Duration::from_secs(5);

type Progress = watch::Receiver<Option<DrainProgress>>;

impl Node {
    /// Not ready from the first moment on; after the drain's delay accepts nobody more and closes its connections
    /// evenly over the drain's duration, extended clients with a `reconnect` before. Then ends, within some seconds
    /// more whatever the clients and the broker do.
    ///
    /// Cancel: ends the node at once, with whatever is still connected, as dropping it does.
    pub async fn shutdown(mut self) {
        self.draining.send_replace(true);
        let _draining = Draining::new();
        let drain = self.config.drain;
        if !drain.delay.is_zero() {
            tracing::info!(delay = ?drain.delay, "not ready; accepting until the balancers have noticed");
            tokio::time::sleep(drain.delay).await;
        }
        self.accepting.cancel();
        self.send_clients_away(drain.duration).await;
        if let Some(lifecycle) = &self.lifecycle
            && timeout(WITHDRAW, lifecycle.flush()).await.is_err()
        {
            tracing::warn!(after = ?WITHDRAW, "not all ends of sessions could be stored: backends will not be told of them");
        }
        self.delivering.cancel();
        if timeout(WITHDRAW, self.broker.shutdown()).await.is_err() {
            tracing::warn!(after = ?WITHDRAW, "the broker did not end in time, what it holds of this node expires");
        }
        for shard in self.shards.drain(..) {
            shard.stop();
        }
        self.running.cancel();
        for listener in self.listeners.drain(..) {
            listener.abort();
        }
    }

    async fn send_clients_away(&self, over: Duration) {
        let start = Instant::now();
        let latest = start + over + LATE;
        let shards: Vec<Progress> = self.shards.iter().map(|shard: &ShardHandle| shard.drain(over)).collect();
        let begun = each(&shards, latest, |_| true).await;
        tracing::info!(connections = sum(&shards).total, ?over, "draining");
        let closed = each(&shards, latest, |progress| progress.open == 0).await;
        if begun.is_err() || closed.is_err() {
            tracing::error!("a shard does not keep pace with the drain");
        }
        let ended = each(&shards, Instant::now() + LINGER, |progress| progress.left == 0).await;
        let DrainProgress { total, left, .. } = sum(&shards);
        let took = start.elapsed();
        match ended {
            Ok(()) => tracing::info!(connections = total, ?took, "drained"),
            Err(_) => tracing::warn!(connections = total, left, ?took, "some clients did not go in time"),
        }
    }
}

/// Waits until `wanted` holds for every shard that is there. Cancel: safe.
fn each(
    shards: &[Progress],
    deadline: Instant,
    wanted: impl Fn(&DrainProgress) -> bool,
) -> impl Future<Output = Result<(), tokio::time::error::Elapsed>> {
    timeout_at(deadline, async move {
        for shard in shards {
            // An error means that the shard has ended: then its connections have, too.
            let _ = shard.clone().wait_for(|progress| progress.as_ref().is_some_and(&wanted)).await;
        }
    })
}

fn sum(shards: &[Progress]) -> DrainProgress {
    let each = shards.iter().map(|shard| shard.borrow().unwrap_or_default());
    each.fold(DrainProgress::default(), |sum, shard| DrainProgress {
        total: sum.total + shard.total,
        open: sum.open + shard.open,
        left: sum.left + shard.left,
    })
}

/// Shows in the metrics that a node drains, for as long as it lives.
pub(super) struct Draining(Gauge);

impl Draining {
    fn new() -> Self {
        let gauge = gauge!(DRAINING);
        gauge.increment(1.0);
        Self(gauge)
    }

    /// Makes the metrics of a drain known before the first one.
    pub(super) fn announce() {
        for metric in [DRAINING, DRAIN_LEFT] {
            gauge!(metric).increment(0.0);
        }
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
