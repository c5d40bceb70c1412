//! Letters through a broker that comes and goes: what can be said of a letter whose fate is not known, and what is sent
//! again.

use std::{collections::HashSet, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout_at};

use crate::broker::{Addressee, Broker, BrokerError, NodeId};

/// First and longest pause before a letter is sent again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Sends a letter, and answers who has it, or may have it: an ask whose way broke while it was written is as good as sent,
/// for it may be carried out. `None` if the deadline comes first.
///
/// # Errors
/// Nobody has it.
pub(super) async fn send(
    broker: &dyn Broker,
    to: Addressee,
    letter: Bytes,
    deadline: Instant,
) -> Result<Option<HashSet<NodeId>>, BrokerError> {
    let error = match timeout_at(deadline, broker.post(to, letter)).await {
        Err(_) => return Ok(None),
        Ok(Ok(taken)) => return Ok(Some(taken.into_iter().collect())),
        Ok(Err(error)) => error,
    };
    if !matches!(error, BrokerError::NotAvailable { sent: true, .. }) {
        return Err(error);
    }
    tracing::debug!(%error, "a letter may have been sent: an answer is awaited");
    Ok(match to {
        Addressee::Node(node) => Some(HashSet::from([node])),
        Addressee::Every => timeout_at(deadline, living(broker)).await.ok(),
    })
}

/// The nodes that live, as soon as the broker tells.
async fn living(broker: &dyn Broker) -> HashSet<NodeId> {
    let mut pause = PAUSES.0;
    loop {
        match broker.nodes().await {
            Ok(nodes) => return nodes.into_iter().map(|(node, _)| node).collect(),
            Err(_) => sleep(pause).await,
        }
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Sends a letter to a node until it has it, or at least once before the deadline. It may arrive several times.
pub(super) async fn send_surely(broker: &dyn Broker, node: NodeId, letter: Bytes, deadline: Instant) {
    let mut pause = PAUSES.0;
    loop {
        let Err(error) = broker.post(Addressee::Node(node), letter.clone()).await else { return };
        let retried = matches!(error, BrokerError::NotAvailable { .. }) && Instant::now() + pause < deadline;
        if !retried {
            return tracing::debug!(%error, %node, "a letter could not be sent");
        }
        sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}
