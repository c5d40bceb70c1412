//! Brings the node up and tells how it is: boots on the first connection, starts the readers, follows links and readers.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use futures_util::future::select_all;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    deployment::{Attempt, BootError, boot},
    inspection::inspect,
    keys::Keys,
    link::LinkStatus,
    partition::FromReader,
    reader::{Reader, Times},
    topology::Topology,
};
use crate::broker::BrokerStatus;

/// What [`supervise`] needs.
pub struct Supervision {
    /// The links.
    pub topology: Arc<Topology>,
    /// Names of keys.
    pub keys: Arc<Keys>,
    /// The partitions' ends for inbox entries.
    pub inboxes: Vec<mpsc::Sender<FromReader>>,
    /// How long Redis keeps what this node holds.
    pub lease: Duration,
    /// Longest wait for a reply.
    pub deadline: Duration,
    /// How long an inbox outlives the last sign of its node.
    pub keep: Duration,
    /// Whether the node wants to know which channels are occupied.
    pub records_occupancy: Arc<AtomicBool>,
    /// Gets this node's incarnation, once its inboxes exist.
    pub node: watch::Sender<Option<u64>>,
    /// Gets how the broker is.
    pub status: watch::Sender<BrokerStatus>,
    /// Gets why this node must not run.
    pub refused: watch::Sender<Option<BootError>>,
    /// Ends everything.
    pub stop: CancellationToken,
    /// Ends the readers.
    pub reading: CancellationToken,
}

/// Runs until stopped.
pub async fn supervise(supervision: Supervision) {
    let (stop, status) = (supervision.stop.clone(), supervision.status.clone());
    tokio::select! {
        () = stop.cancelled() => {}
        () = run(supervision) => {}
    }
    status.send_replace(BrokerStatus::Stopped);
}

async fn run(supervision: Supervision) {
    let Some(node) = first_boot(&supervision).await else {
        // Nothing to do but to keep the reason.
        return std::future::pending().await;
    };
    tracing::info!(node, "this node's incarnation");
    // Dropped, and so ended, with this future.
    let mut tasks = JoinSet::new();
    let deployment = std::iter::once(supervision.topology.deployment());
    let links = deployment.chain(supervision.topology.links().cloned());
    tasks.spawn(inspect(links.collect(), supervision.deadline));
    let mut readers = Vec::new();
    for reads in supervision.topology.readers() {
        let (ready_tx, ready) = watch::channel(false);
        let to = reads.partitions.iter().filter_map(|p| supervision.inboxes.get(*p).cloned()).collect();
        let times =
            Times { lease: supervision.lease, deadline: supervision.deadline, keep: supervision.keep };
        let commands = reads.partitions.iter().map(|p| supervision.topology.commands(*p)).collect();
        let reader =
            Reader::new(reads.clone(), to, &supervision.keys, node, times, ready_tx).beside(commands);
        let reader = reader.recording(supervision.records_occupancy.clone());
        tasks.spawn(reader.run(supervision.reading.clone()));
        readers.push(ready);
    }
    follow(&supervision, node, readers).await;
}

/// Waits for a connection on which this node can be registered; `None` if it is refused.
async fn first_boot(supervision: &Supervision) -> Option<u64> {
    let link = supervision.topology.deployment();
    let mut link_status = link.status();
    loop {
        let connection = tokio::select! {
            connection = link.connected() => connection?,
            changed = link_status.changed() => {
                changed.ok()?;
                if let LinkStatus::Starting(reason) | LinkStatus::Away(reason) = &*link_status.borrow_and_update() {
                    supervision.status.send_replace(BrokerStatus::Starting(reason.clone()));
                }
                continue;
            }
        };
        match boot(&connection, &supervision.keys, supervision.deadline).await {
            Attempt::Node(node) => return Some(node),
            Attempt::Later(error) => {
                supervision.status.send_replace(BrokerStatus::Starting(error.to_string()));
                connection.end("the node could not be registered on it");
                // The link pauses before it opens another.
                let _ = link.connections().wait_for(Option::is_none).await;
            }
            Attempt::Refused(refusal) => {
                tracing::error!("{refusal}");
                supervision.status.send_replace(BrokerStatus::Refused(refusal.to_string()));
                supervision.refused.send_replace(Some(refusal));
                return None;
            }
        }
    }
}

/// Ready while every link is up and every reader reads.
async fn follow(supervision: &Supervision, node: u64, mut readers: Vec<watch::Receiver<bool>>) {
    let mut links: Vec<_> = supervision.topology.links().map(|link| link.status()).collect();
    loop {
        let reading = readers.iter_mut().all(|ready| *ready.borrow_and_update());
        // Seen before they are asked: what changes after that wakes this loop again.
        links.iter_mut().for_each(watch::Receiver::mark_unchanged);
        let absent = supervision.topology.absence();
        let reason = absent.or_else(|| (!reading).then(|| "the inboxes are being registered".to_owned()));
        metrics::gauge!(crate::telemetry::metrics::REDIS_AWAY).set(f64::from(u8::from(reason.is_some())));
        if reason.is_none() {
            supervision.node.send_if_modified(|known| known.replace(node) != Some(node));
        }
        supervision.status.send_if_modified(|status| {
            let next = match (&*status, reason) {
                (_, None) => BrokerStatus::Ready,
                (BrokerStatus::Starting(_), Some(reason)) => BrokerStatus::Starting(reason),
                (_, Some(reason)) => BrokerStatus::Away(reason),
            };
            let changed = *status != next;
            *status = next;
            changed
        });
        let changes =
            links.iter_mut().map(|status| Box::pin(async { status.changed().await.is_ok() }) as Change<'_>);
        let reads =
            readers.iter_mut().map(|ready| Box::pin(async { ready.changed().await.is_ok() }) as Change<'_>);
        let (alive, _, _) = select_all(changes.chain(reads)).await;
        if !alive {
            return;
        }
    }
}

type Change<'a> = std::pin::Pin<Box<dyn Future<Output = bool> + Send + 'a>>;
